"""Small dictionaries made, saved and evaluated by the packages themselves: what our readers have to agree with.

Run as a script in the peers' environment it writes the fixtures beside it:
    scripts/peers --only dictionaries && PYTHONPATH=. .venv-peers/bin/python tests/dictionaries/formats/peers_cases.py
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

D, N, K = 12, 40, 5
FIXTURES = Path(__file__).parent / "fixtures"


def inputs() -> torch.Tensor:
    return 1.5 * torch.randn(16, D, generator=torch.Generator().manual_seed(5)) + 0.3


@torch.no_grad()
def shake(module: torch.nn.Module, *, unit: str | None = None, axis: int = 1, seed: int = 0) -> None:
    """Random weights everywhere, so that no bias or norm is left at a value that hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(module.named_parameters()):
        parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
        if "threshold" in name:
            parameter.copy_(parameter.abs() * 0.5 + 0.1)
        if name == unit:
            parameter.div_(parameter.norm(dim=axis, keepdim=True))


def _saelens(architecture: str, **settings: Any) -> Callable[[Path], tuple[torch.Tensor, torch.Tensor]]:
    def make(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
        from sae_lens import SAE

        whole = {
            "architecture": architecture,
            "d_in": D,
            "d_sae": N,
            "dtype": "float32",
            "device": "cpu",
            "metadata": {
                "model_name": "gpt2",
                "hook_name": "blocks.2.hook_resid_post",
                "hf_hook_name": "transformer.h.2",
            },
            **settings,
        }
        sae = SAE.from_dict(whole)
        shake(sae)
        sae.save_model(path)
        x = inputs()
        return sae.encode(x), sae(x)

    return make


def _saelens_training(architecture: str, *, inference: bool, **settings: Any):
    def make(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
        from sae_lens import SAE
        from sae_lens.registry import get_sae_training_class

        sae_class, config_class = get_sae_training_class(architecture)
        sae = sae_class(config_class(d_in=D, d_sae=N, k=K, **settings))
        shake(sae)
        sae.topk_threshold = torch.tensor(0.35, dtype=torch.double)
        x = inputs()
        sae.save_inference_model(path)
        loaded = SAE.load_from_disk(path)
        codes, x_hat = loaded.encode(x), loaded(x)
        if not inference:
            for file in path.iterdir():
                file.unlink()
            sae.save_model(path)
        return codes, x_hat

    return make


def _saelens_scaled(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """A checkpoint of a run on x scaled to an average norm: the factor lies beside the weights."""
    from sae_lens import SAE
    from sae_lens.training.activation_scaler import ActivationScaler

    _saelens("jumprelu", normalize_activations="expected_average_only_in")(path)
    scaler = ActivationScaler(scaling_factor=0.7)
    scaler.save(str(path / "activation_scaler.json"))
    sae, x = SAE.load_from_disk(path), inputs()
    return sae.encode(scaler.scale(x)), scaler.unscale(sae(scaler.scale(x)))


def _saelens_whitened(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    from sae_lens import SAE
    from sae_lens.training.activation_scaler import ActivationScaler

    _saelens("standard", normalize_activations="covariance_whitening")(path)
    scaler = ActivationScaler()
    sample = inputs().repeat(4, 1) + torch.randn(64, D, generator=torch.Generator().manual_seed(1))
    scaler.estimate_whitening(D, iter([sample]), n_batches_for_norm_estimate=1)
    scaler.save(str(path / "activation_scaler.json"))
    sae, x = SAE.load_from_disk(path), inputs()
    return sae.encode(scaler.scale(x)), scaler.unscale(sae(scaler.scale(x)))


def _saelens_old(activation: str, **settings: Any) -> Callable[[Path], tuple[torch.Tensor, torch.Tensor]]:
    """The configuration of version 5 beside weights that have not changed since; SAELens itself evaluates it."""

    def make(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
        from sae_lens import SAE

        _saelens("standard")(path)
        old = {
            "architecture": "standard",
            "d_in": D,
            "d_sae": N,
            "activation_fn_str": activation,
            "activation_fn_kwargs": {"k": K} if activation == "topk" else {},
            "apply_b_dec_to_input": True,
            "finetuning_scaling_factor": False,
            "context_size": 128,
            "model_name": "gpt2-small",
            "hook_name": "blocks.1.hook_resid_pre",
            "hook_layer": 1,
            "hook_head_index": None,
            "prepend_bos": True,
            "dataset_path": "Skylion007/openwebtext",
            "dataset_trust_remote_code": True,
            "normalize_activations": "none",
            "dtype": "torch.float32",
            "device": "cpu",
            "sae_lens_training_version": None,
            **settings,
        }
        (path / "cfg.json").write_text(json.dumps(old))
        sae, x = SAE.load_from_disk(path), inputs()
        return sae.encode(x), sae(x)

    return make


def _sparsify(normalised: bool, factor: int) -> Callable[[Path], tuple[torch.Tensor, torch.Tensor]]:
    def make(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
        from sparsify import SparseCoder, SparseCoderConfig

        sizes = {"expansion_factor": factor} if factor else {"num_latents": N}
        coder = SparseCoder(D, SparseCoderConfig(k=K, normalize_decoder=normalised, **sizes))
        shake(coder, unit="W_dec" if normalised else None)
        coder.save_to_disk(path)
        x = inputs()
        top = coder.encode(x)
        codes = torch.zeros(len(x), coder.num_latents).scatter(1, top.top_indices, top.top_acts)
        return codes, coder.decode(top.top_acts, top.top_indices)

    return make


def _sparsify_transcoder(transcode: bool, skip: bool) -> Callable[[Path], tuple[torch.Tensor, torch.Tensor]]:
    def make(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
        from sparsify import SparseCoder, SparseCoderConfig

        coder = SparseCoder(D, SparseCoderConfig(k=K, num_latents=N, transcode=transcode, skip_connection=skip))
        shake(coder, unit="W_dec")
        coder.save_to_disk(path)
        x = inputs()
        found = coder(x, torch.zeros_like(x))
        codes = torch.zeros(len(x), N).scatter(1, found.latent_indices, found.latent_acts)
        return codes, found.sae_out

    return make


def _dictionary_learning(
    name: str, unit: str | None = None, axis: int = 0, **settings: Any
) -> Callable[[Path], tuple[torch.Tensor, torch.Tensor]]:
    def make(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
        from dictionary_learning import dictionary
        from dictionary_learning.trainers import batch_top_k, matryoshka_batch_top_k, top_k

        homes = (dictionary, top_k, batch_top_k, matryoshka_batch_top_k)
        made = next(getattr(home, name) for home in homes if hasattr(home, name))(D, N, **settings)
        shake(made, unit=unit, axis=axis)
        if "threshold" in dict(made.named_buffers()):
            made.threshold.fill_(0.6)
        path.mkdir(parents=True, exist_ok=True)
        torch.save(made.state_dict(), path / "ae.pt")
        trainer = {"dict_class": name, "activation_dim": D, "dict_size": N, "lm_name": "EleutherAI/pythia-70m"}
        trainer |= {"layer": 3, "submodule_name": "gpt_neox.layers.3", **settings}
        (path / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"ctx_len": 64}}))
        x = inputs()
        codes = made.encode(x)
        return codes, made.decode(codes)

    return make


CASES: dict[str, Callable[[Path], tuple[torch.Tensor, torch.Tensor]]] = {
    "saelens/standard": _saelens("standard"),
    "saelens/standard_bias_kept": _saelens("standard", apply_b_dec_to_input=False),
    "saelens/standard_constant_norm": _saelens("standard", normalize_activations="constant_norm_rescale"),
    "saelens/topk": _saelens("topk", k=K),
    "saelens/topk_by_norm": _saelens("topk", k=K, rescale_acts_by_decoder_norm=True),
    "saelens/topk_layer_norm": _saelens("topk", k=K, normalize_activations="layer_norm"),
    "saelens/abstopk": _saelens("abstopk", k=K),
    "saelens/jumprelu": _saelens("jumprelu", apply_b_dec_to_input=False),
    "saelens/gated": _saelens("gated"),
    "saelens/gated_bias_kept": _saelens("gated", apply_b_dec_to_input=False),
    "saelens/matching_pursuit": _saelens(
        "matching_pursuit", max_iterations=K, residual_threshold=0.0, stop_on_duplicate_support=False
    ),
    "saelens/batchtopk": _saelens_training("batchtopk", inference=False),
    "saelens/batchtopk_for_use": _saelens_training("batchtopk", inference=True),
    "saelens/matryoshka": _saelens_training("matryoshka_batchtopk", inference=False, matryoshka_widths=[10, 20, 40]),
    "saelens/scaled": _saelens_scaled,
    "saelens/whitened": _saelens_whitened,
    "saelens/before_6_relu": _saelens_old("relu"),
    "saelens/before_6_topk": _saelens_old("topk", apply_b_dec_to_input=False),
    "sparsify/layers.2": _sparsify(True, 0),
    "sparsify/layers.3": _sparsify(False, 3),
    "sparsify/layers.4.mlp": _sparsify_transcoder(True, False),
    "sparsify/layers.5.mlp": _sparsify_transcoder(True, True),
    "sparsify/layers.6": _sparsify_transcoder(False, True),
    "dictionary_learning/standard": _dictionary_learning("AutoEncoder"),
    "dictionary_learning/april": _dictionary_learning("AutoEncoderNew"),
    "dictionary_learning/gated": _dictionary_learning("GatedAutoEncoder"),
    "dictionary_learning/jumprelu": _dictionary_learning("JumpReluAutoEncoder"),
    "dictionary_learning/topk": _dictionary_learning("AutoEncoderTopK", k=K),
    "dictionary_learning/batchtopk": _dictionary_learning("BatchTopKSAE", "decoder.weight", k=K),
    "dictionary_learning/batchtopk_norms": _dictionary_learning("BatchTopKSAE", k=K),
    "dictionary_learning/matryoshka": _dictionary_learning(
        "MatryoshkaBatchTopKSAE", "W_dec", 1, k=K, group_sizes=[10, 10, 20]
    ),
}


def versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("sae-lens", "eai-sparsify", "dictionary-learning", "torch")}


def made(folder: Path) -> Iterator[tuple[str, Path, torch.Tensor, torch.Tensor]]:
    """Every case, freshly made: name, where it lies, the codes and reconstructions its package gives of `inputs()`."""
    for name, make in CASES.items():
        path = folder / name
        path.mkdir(parents=True)
        with torch.no_grad():
            codes, x_hat = make(path)
        yield name, path, codes, x_hat


if __name__ == "__main__":
    for _, where, codes, x_hat in made(FIXTURES):
        expected = {"x": inputs(), "codes": codes.contiguous(), "x_hat": x_hat.contiguous()}
        save_file(expected, where.with_name(f"{where.name}.expected.safetensors"))
    (FIXTURES / "versions.json").write_text(json.dumps(versions(), indent=1) + "\n")
