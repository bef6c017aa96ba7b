"""dictionary_learning: `ae.pt`, a pickle of tensors, and `config.json`."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core import FormatError, files
from ..sae.rule import BatchLargest, Gate, Jump, Largest, Pursuit, Rectify, Rule
from .form import Form, Format, Given, cannot_hold
from .stored import Settings, Weights, read_pickle

_CLASSES = (
    "AutoEncoder",
    "AutoEncoderNew",
    "AutoEncoderTopK",
    "BatchTopKSAE",
    "MatryoshkaBatchTopKSAE",
    "GatedAutoEncoder",
    "JumpReluAutoEncoder",
)
_GIVEN = {"topk": "AutoEncoderTopK", "batchtopk": "BatchTopKSAE"}


def _recognise(path: Path) -> bool:
    if path.is_dir():
        return (path / "ae.pt").is_file()
    return path.suffix == ".pt" and path.name.startswith("ae")


def _read(path: Path, given: Given) -> Form:
    """f as the class named in config.json computes it; without one, as the names of the tensors allow.

    Codes are those of the file; `AutoEncoder.from_pretrained` of theirs divides norms out first, and then gives ours. A
    batch top-k dictionary is read with its threshold, which is what its `encode` uses unless told otherwise.
    """
    file = path / "ae.pt" if path.is_dir() else path
    config = file.with_name("config.json")
    trainer: dict[str, Any] = {}
    if config.is_file():
        trainer = Settings(files.read_json(config), config, strict=False).take("trainer", dict, {})
    weights = Weights(read_pickle(file), file, strict=given.strict)
    named = trainer.get("dict_class")
    name = _GIVEN.get(given.architecture or "") or named or _infer(weights, file)
    if name not in _CLASSES:
        raise FormatError(f"{config}: dict_class is {name!r}. Known here: {', '.join(_CLASSES)}.")
    rule: Rule
    cautions: tuple[str, ...] = ()
    if name in ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE"):
        encoder = weights.take("W_enc", None, None).T
        n, d = encoder.shape
        encoder_bias, atoms = weights.take("b_enc", n), weights.take("W_dec", n, d)
        bias = weights.take("b_dec", d)
    else:
        encoder = weights.take("encoder.weight", None, None)
        n, d = encoder.shape
        encoder_bias = weights.take("gate_bias" if name == "GatedAutoEncoder" else "encoder.bias", n)
        atoms = weights.take("decoder.weight", d, n).T
        where = {"AutoEncoder": "bias", "AutoEncoderNew": "decoder.bias", "GatedAutoEncoder": "decoder_bias"}
        bias = weights.take(where.get(name, "b_dec"), d)
    centre = torch.zeros_like(bias) if name in ("JumpReluAutoEncoder", "AutoEncoderNew") else bias
    if name == "AutoEncoderTopK":
        rule = Largest(int(weights.number("k")))
        weights.ignore("threshold")
    elif name in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
        threshold = weights.number("threshold")
        if threshold < 0:
            cautions = (
                "its threshold was never set, so every positive pre-activation is kept, as its own encode does",
            )
        groups: tuple[int, ...] = ()
        if name == "MatryoshkaBatchTopKSAE":
            groups = _ends(weights.left.pop("group_sizes", None), n, file)
        rule = BatchLargest(int(weights.number("k")), max(threshold, 0.0), groups)
    elif name == "GatedAutoEncoder":
        rule = Gate(weights.take("r_mag", n), weights.take("mag_bias", n))
    elif name == "JumpReluAutoEncoder":
        rule = Jump(weights.take("threshold", n))
    else:
        rule = Rectify()
    weights.done()
    notes = {
        ours: trainer[theirs] for ours, theirs in (("model", "lm_name"), ("layer", "layer")) if trainer.get(theirs)
    }
    if trainer.get("submodule_name"):
        notes["site"] = trainer["submodule_name"]
    return Form(
        rule=rule,
        encoder=encoder,
        encoder_bias=encoder_bias,
        centre=centre,
        atoms=atoms,
        bias=bias,
        notes=notes,
        cautions=cautions,
    )


def _infer(weights: Weights, file: Path) -> str:
    for key, name in (
        ("group_sizes", "MatryoshkaBatchTopKSAE"),
        ("W_enc", "JumpReluAutoEncoder"),
        ("gate_bias", "GatedAutoEncoder"),
        ("decoder.bias", "AutoEncoderNew"),
        ("bias", "AutoEncoder"),
    ):
        if key in weights:
            return name
    if "k" in weights:
        raise FormatError(
            f"{file} may be a top-k or a batch top-k dictionary: their tensors have the same names, and there is no "
            "config.json beside it to say which. Say architecture='topk' or architecture='batchtopk'."
        )
    raise FormatError(
        f"{file} holds {', '.join(sorted(weights.left)[:8]) or 'nothing'}, which is no dictionary of this format."
    )


def _ends(sizes: Any, n: int, file: Path) -> tuple[int, ...]:
    if not isinstance(sizes, Tensor) or sizes.ndim != 1 or sizes.is_floating_point() or int(sizes.sum()) != n:
        raise FormatError(f"{file}: group_sizes must be whole numbers that sum to n = {n}.")
    return tuple(itertools.accumulate(int(size) for size in sizes))


def _write(form: Form, path: Path) -> None:
    rule = form.rule
    if form.rows != "as they are" or isinstance(rule, Pursuit) or (isinstance(rule, Largest) and rule.signed):
        raise cannot_hold(
            "dictionary_learning", form, "dictionaries with an encoder and nonnegative codes, of rows as they are"
        )
    form = form.uncentred() if isinstance(rule, Jump) else form.centred()
    rule = form.rule
    n, d = form.encoder.shape
    settings: dict[str, Any] = {}
    if isinstance(rule, Jump) or (isinstance(rule, BatchLargest) and rule.groups):
        weights: dict[str, Tensor] = {
            "W_enc": form.encoder.T,
            "b_enc": form.encoder_bias,
            "W_dec": form.atoms,
            "b_dec": form.bias,
        }
    else:
        weights = {"encoder.weight": form.encoder, "decoder.weight": form.atoms.T}
        if isinstance(rule, Gate):
            weights |= {"gate_bias": form.encoder_bias, "decoder_bias": form.bias}
        else:
            weights["encoder.bias"] = form.encoder_bias
            weights["bias" if isinstance(rule, Rectify) else "b_dec"] = form.bias
    if isinstance(rule, Gate):
        weights |= {"r_mag": rule.log_gain, "mag_bias": rule.magnitude_bias}
    elif isinstance(rule, Jump):
        weights["threshold"] = rule.threshold
    stored = {name: weight.detach().contiguous().cpu() for name, weight in weights.items()}
    if isinstance(rule, Largest | BatchLargest):
        settings["k"] = rule.k
        stored["k"] = torch.tensor(rule.k, dtype=torch.int)
        stored["threshold"] = torch.tensor(-1.0 if isinstance(rule, Largest) else max(rule.threshold, 0.0))
    name = {
        Rectify: "AutoEncoder",
        Jump: "JumpReluAutoEncoder",
        Largest: "AutoEncoderTopK",
        BatchLargest: "BatchTopKSAE",
        Gate: "GatedAutoEncoder",
    }[type(rule)]
    if isinstance(rule, BatchLargest) and rule.groups:
        name = "MatryoshkaBatchTopKSAE"
        stored["group_sizes"] = torch.tensor([b - a for a, b in itertools.pairwise((0, *rule.groups))])
    # The format is a pickle; only tensors go in, so that it can be read with weights_only.
    with files.atomic(path / "ae.pt") as temporary:
        torch.save(stored, temporary)
    trainer = {
        "dict_class": name,
        "trainer_class": "",
        "activation_dim": d,
        "dict_size": n,
        **settings,
        "lm_name": str(form.notes.get("model", "")),
        "layer": form.notes.get("layer", 0),
        "submodule_name": form.notes.get("site"),
    }
    files.write_json(path / "config.json", {"trainer": trainer, "buffer": {"ctx_len": 128}})


DICTIONARY_LEARNING = Format(
    "dictionary_learning", "saprmarks/dictionary_learning (a pickle)", _recognise, _read, _write
)
