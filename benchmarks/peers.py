"""The trainers of other packages, taking their own steps with their own defaults; ours is trained beside them.

A package is imported where one of its trainers is made, so that a benchmark runs with those that are installed.
`scripts/peers` makes an environment that holds them all.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from superscope.dictionaries import ReLU

PACKAGES = {
    "sparsify": ("sparsify", "eai-sparsify"),
    "SAELens": ("sae_lens", "sae-lens"),
    "dictionary_learning": ("dictionary_learning", "dictionary-learning"),
}
"""What a contestant's name begins with: the module it imports, and the distribution that has its version."""


@dataclass(frozen=True)
class Learner:
    """A training that goes on by one batch at a time.

    Args:
        step: makes one step on rows [b, d].
        reconstruct: rows, as the autoencoder is now.
        active: which latents are on, rows [b, d] to [b, n].
        atoms: what a unit of each latent adds to x, [n, d].
    """

    step: Callable[[Tensor], object]
    reconstruct: Callable[[Tensor], Tensor]
    active: Callable[[Tensor], Tensor]
    atoms: Callable[[], Tensor]


def package_of(name: str) -> tuple[str, str] | None:
    """Module and distribution of the package whose contestant this is; None of ours."""
    return next((package for begin, package in PACKAGES.items() if name.startswith(begin)), None)


def lacking(name: str) -> str:
    """The package that a contestant needs and this environment has not, in words; empty where it can run."""
    package = package_of(name)
    if package is None or importlib.util.find_spec(package[0]) is not None:
        return ""
    return f"the package {package[1]}, which scripts/peers installs"


def versions() -> dict[str, str]:
    """Of the packages that are installed."""
    return {
        name: importlib.metadata.version(distribution)
        for name, (_, distribution) in PACKAGES.items()
        if not lacking(name)
    }


def saelens(
    kind: str, d: int, n: int, k: int, batch: int, *, lr: float, weights: ReLU | None = None, seed: int | None = None
) -> Learner:
    """`SAETrainer`'s step: Adam at a constant rate, gradients clipped.

    Args:
        kind: "TopK", "BatchTopK", "MatryoshkaBatchTopK", "JumpReLU" or "Standard" (ReLU).
        d, n, k, batch: as everywhere.
        lr: Adam's rate.
        weights: of a trained ReLU autoencoder, to begin with.
        seed: of the start; None leaves torch's generator as it is.
    """
    import sae_lens
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    seeded(seed)
    options: dict = {"d_in": d, "d_sae": n}
    if kind in ("TopK", "BatchTopK", "MatryoshkaBatchTopK"):
        options["k"] = k
    if kind == "MatryoshkaBatchTopK":
        options["matryoshka_widths"] = [n // 16, n // 8, n // 4, n // 2, n]
    config = getattr(sae_lens, f"{kind}TrainingSAEConfig")(**options)
    sae = getattr(sae_lens, f"{kind}TrainingSAE")(config)
    settings = SAETrainerConfig(
        total_training_samples=10**9, train_batch_size_samples=batch, lr=lr, lr_end=lr, autocast=False
    )
    if weights is not None:
        with torch.no_grad():
            sae.W_enc.copy_(weights.encoder.T)
            sae.W_dec.copy_(weights.atoms)
            sae.b_dec.copy_(weights.bias)
            # Theirs does not take the bias from x before encoding by default.
            before = weights.bias if config.apply_b_dec_to_input is False else torch.zeros(d)
            sae.b_enc.copy_(weights.encoder_bias - weights.encoder @ before)
    trainer = SAETrainer(settings, sae, data_provider=iter(()))

    def step(x: Tensor) -> None:
        trainer.step(x)
        trainer.n_training_steps += 1

    return Learner(step, lambda x: sae(x), lambda x: sae.encode(x) > 0, lambda: sae.W_dec.detach())


def dictionary_learning(
    kind: str, d: int, n: int, k: int, batch: int, *, lr: float, seed: int | None = None
) -> Learner:
    """Its trainers' `update`: Adam at a constant rate.

    Their warm-up, 1 000 steps by default, is left out: it is longer than the runs here, and would hold them back.

    Args:
        kind: "TopK" or "BatchTopK".
        d, n, k, batch: as everywhere.
        lr: Adam's rate.
        seed: of the start; None leaves torch's generator as it is.
    """
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

    seeded(seed)
    trainer = {"TopK": TopKTrainer, "BatchTopK": BatchTopKTrainer}[kind](
        steps=10**6, activation_dim=d, dict_size=n, k=k, layer=0, lm_name="none", lr=lr, warmup_steps=0, device="cpu"
    )
    count = iter(range(10**9))

    def codes(x: Tensor) -> Tensor:
        return trainer.ae.encode(x, use_threshold=False)

    return Learner(
        lambda x: trainer.update(next(count), x),
        lambda x: trainer.ae.decode(codes(x)),
        lambda x: codes(x) > 0,
        lambda: trainer.ae.decoder.weight.detach().T,
    )


def signum_rate(n: int) -> float:
    """The rate that sparsify gives its signum by default."""
    return 5e-3 / math.sqrt(n / 2**14)


def sparsify(optimizer: str, d: int, n: int, k: int, batch: int, *, lr: float, seed: int | None = None) -> Learner:
    """The calls of its `Trainer.fit`, in their order.

    Args:
        optimizer: "signum", its default, free of a schedule; or "adam", at a constant rate (its warm-up of 1 000 steps
            is longer than the runs here, and left out).
        d, n, k, batch: as everywhere.
        lr: the optimiser's rate.
        seed: of the start; None leaves torch's generator as it is.
    """
    from schedulefree import ScheduleFreeWrapper
    from sparsify import SparseCoder, SparseCoderConfig
    from sparsify.sign_sgd import SignSGD

    seeded(seed)
    sae = SparseCoder(d, SparseCoderConfig(num_latents=n, k=k))
    if optimizer == "adam":
        descent = torch.optim.Adam(sae.parameters(), lr=lr)
    else:
        descent = ScheduleFreeWrapper(SignSGD(sae.parameters(), lr=lr), momentum=0.95)
        descent.train()
    begun = False

    def step(x: Tensor) -> None:
        nonlocal begun
        if not begun:
            sae.b_dec.data = x.mean(0)
            begun = True
        sae.set_decoder_norm_to_unit_norm()
        sae(x).fvu.backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        descent.step()
        descent.zero_grad()

    def settled(read: Callable[[], Tensor]) -> Tensor:
        """What is read of the weights that are to be used: a schedule-free optimiser trains others."""
        if optimizer == "adam":
            return read()
        descent.eval()
        found = read()
        descent.train()
        return found

    def active(x: Tensor) -> Tensor:
        code = sae.encode(x)
        on = torch.zeros(len(x), n, dtype=torch.bool)
        return on.scatter_(1, code.top_indices, code.top_acts > 0)

    return Learner(
        step,
        lambda x: settled(lambda: torch.cat([sae(part).sae_out for part in x.split(batch)])),
        lambda x: settled(lambda: active(x)),
        lambda: settled(lambda: sae.W_dec.detach().clone()),
    )


def seeded(seed: int | None) -> None:
    """The packages draw their starts from torch's own generator."""
    if seed is not None:
        torch.manual_seed(seed)
