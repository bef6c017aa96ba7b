"""Over how many latents does the code of a tied ReLU autoencoder spread? The published measure of superposition."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ....core import Measurement
from ...codes.sparsity import effective_number
from ...evidence import Evidence, Wanted
from ..base import Counter
from ..rows import FEWEST, rows_of


def tied_entropy(
    x: Float[Tensor, "*models rows d"],
    latents: int | None = None,
    *,
    coefficient: float = 0.1,
    mean_loss: bool = False,
    steps: int = 2000,
    batch: int = 512,
    lr: float = 3e-3,
    seed: int = 0,
) -> Float[Tensor, "*models"]:
    r"""$F = \exp(-\sum_i p_i \ln p_i)$, $p_i = E z_i / \sum_j E z_j$, of $z = \mathrm{ReLU}(D x + b)$ trained on
    $E |x - D^\top z|^2 + \lambda\, E |z|_1$.

    The paper's autoencoder: tied, a bias of the encoder alone, atoms not normalised. What the paper compares with is
    F of a network's own columns; it is no count of features: where lambda is weak against the scale of x the
    autoencoder learns an orthogonal basis and its negatives, and F is about 2 d whatever n is, also on Gaussian rows.

    Args:
        x: rows; several sets of rows are learned side by side, one autoencoder each.
        latents: of the autoencoder; None is 8 d, the paper's.
        coefficient: lambda.
        mean_loss: the released code's loss, means over dimensions and latents in place of sums: lambda is then
            weaker by latents / d.
        steps, batch, lr: of Adam.
        seed: of start and batches.

    Raises:
        ValueError: if there are no rows or a setting is out of range.

    Source:
        Bereska et al., "Superposition as lossy compression", 2025 (arXiv 2512.13568), sections 4 and 5.1.
    """
    rows, d = x.shape[-2:]
    n = 8 * d if latents is None else latents
    if not rows or n < 1 or steps < 1 or batch < 1:
        raise ValueError("tied_entropy: rows, latents, steps and batch must be at least 1.")
    data = x.detach().reshape(-1, rows, d).float()
    models = len(data)
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(models, n, d, generator=generator) / math.sqrt(d)
    D, b = start.to(data).requires_grad_(), data.new_zeros(models, 1, n).requires_grad_()
    optimizer = torch.optim.Adam([D, b], lr=lr)
    weak = n if mean_loss else 1
    for _ in range(steps):
        part = data[:, torch.randint(rows, (batch,), generator=generator).to(data.device)]
        z = torch.relu(torch.baddbmm(b, part, D.mT))
        error = (part - torch.bmm(z, D)).square().sum((1, 2)) / batch
        loss = error / (d if mean_loss else 1) + coefficient * z.sum((1, 2)) / batch / weak
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    with torch.no_grad():
        mass = torch.relu(torch.baddbmm(b, data, D.mT)).double().mean(1)
    return effective_number(mass).reshape(x.shape[:-2])


class TiedEntropy(Counter):
    """`tied_entropy` as published, on at most `rows` of the rows learned from.

    It breaks the rule that a counter never trains, since its autoencoder is of no kind that others could want. Null: F
    on Gaussian rows of the same covariance, learned in the same way, which is its chance level. No interval. Abstains
    below 1 000 rows.

    Args:
        rows: read at most so many.
        steps: of training.
    """

    name: ClassVar[str] = "tied_entropy"

    def __init__(self, rows: int = 20_000, steps: int = 2000) -> None:
        self.rows = rows
        self.steps = steps

    def wants(self, n: int, k: int, seeds: tuple[int, ...]) -> tuple[Wanted, ...]:
        return ()

    def count(self, seen: Evidence, wanted: tuple[Wanted, ...]) -> Iterable[Measurement]:
        x = rows_of(seen.rows, self.rows).float()
        common = {"name": self.name, "unit": "latents", "n": len(x), "of": "rows"}
        if len(x) < FEWEST:
            reason = f"{len(x):,} rows are too few: {FEWEST:,} are needed at the least."
            return [Measurement(value=None, caution=reason, **common)]
        centred = x - x.mean(0)
        if not bool((centred != 0).any()):
            return [Measurement(value=None, caution="x is constant.", **common)]
        values, vectors = torch.linalg.eigh((centred.T @ centred / len(x)).double())
        root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
        generator = torch.Generator().manual_seed(seen.seed + 1)
        null = torch.randn(x.shape, generator=generator).to(x) @ root.to(x) + x.mean(0)
        value, chance = tied_entropy(torch.stack([x, null]), steps=self.steps, seed=seen.seed).tolist()
        return [
            Measurement(
                value=value,
                how="no interval: one training",
                chance=chance,
                chance_is="Gaussian rows of the same mean and covariance",
                **common,
            )
        ]
