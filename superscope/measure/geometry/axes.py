"""Do features lie along the coordinate axes more than after a random rotation? The privileged basis, tested."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.stats
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core import Dictionary, Measurement
from .blocks import Directions


@dataclass(frozen=True, eq=False)
class AxisAlignment:
    """How atoms stand to the axes.

    Args:
        alignment: the headline, `axis_alignment`.
        aligned: `axis_aligned_atoms`, the share of atoms that are significantly along an axis.
        p: share of rotations (the observed one counted) with at least the observed alignment.
        null: the alignment under each rotation.
        coordinate: largest |coordinate| of each unit atom; NaN for a zero atom.
        axis: where it is; -1 for a zero atom.
    """

    alignment: Measurement
    aligned: Measurement
    p: float
    null: Float[Tensor, "rotations"]
    coordinate: Float[Tensor, "n"]
    axis: Int[Tensor, "n"]


@torch.no_grad()
def axis_alignment(W: Dictionary, *, rotations: int = 199, most: int = 2048, seed: int = 0) -> AxisAlignment:
    r"""$\frac1n \sum_i \sum_c \hat w_{ic}^4$, against random rotations.

    The mean inverse participation of atoms over axes: 1 where every atom is an axis, 1/d where all spread evenly, 3 /
    (d + 2) for random directions. A random rotation of all atoms together keeps every overlap between them, so that
    only the axes are put to the test: the residual stream should look like its rotations, a layer behind a ReLU should
    not. The p-value is exact for any dictionary. It is a test of *these* axes: rotate x first to test others.

    Args:
        W: dictionary of n >= 2 atoms in R^d, d >= 2. Norms do not matter.
        rotations: drawn uniformly (Haar); the smallest possible p is 1 / (rotations + 1).
        most: atoms used for the rotations; a random sample of them where there are more.
        seed: of sample and rotations.

    Returns:
        The alignment with the rotations' mean as chance, and the share of atoms whose largest coordinate is beyond what
        one uniform direction in d dimensions reaches with probability 5 % after correction for all atoms (Bonferroni).

    Raises:
        ValueError: if fewer than two atoms are nonzero, d < 2, rotations < 19 or most < 2.

    Source:
        Elhage et al., "Privileged bases in the transformer residual stream", 2023 (kurtosis of coordinates).
        Phipson and Smyth, "Permutation p-values should never be zero", 2010 (the + 1).

    Example:
        >>> found = axis_alignment(Dictionary(torch.eye(8)))
        >>> found.alignment.value, found.p, found.aligned.value
        (1.0, 0.005, 1.0)
    """
    directions = Directions.of(W, "axis_alignment")
    n, d = directions.unit.shape
    if d < 2:
        raise ValueError("axis_alignment: W must have at least d = 2 dimensions; in one there is nothing to turn.")
    if rotations < 19:
        raise ValueError(f"axis_alignment: rotations must be at least 19, or no p reaches 0.05; got {rotations}.")
    if most < 2:
        raise ValueError(f"axis_alignment: most must be at least 2; got {most}.")
    generator = torch.Generator().manual_seed(seed)
    sample = directions.unit
    if n > most:
        sample = sample[torch.randperm(n, generator=generator)[:most].to(sample.device)]
    observed = float(_inverse_participation(sample))
    null = torch.empty(rotations, dtype=torch.float64)
    for r in range(rotations):
        gaussian = torch.randn(d, d, generator=generator, dtype=torch.float64).to(sample.device, sample.dtype)
        # QR of a Gaussian matrix is Haar up to signs of the columns, which fourth powers do not see.
        null[r] = _inverse_participation(sample @ torch.linalg.qr(gaussian).Q)
    p = (1 + int((null >= observed).sum())) / (rotations + 1)
    low, high = (float(null.quantile(q)) for q in (0.025, 0.975))
    caution = "; ".join(
        text for text in (directions.caution, f"{most} of {n} atoms used" if n > most else "", _verdict(p)) if text
    )
    coordinate, axis = directions.unit.abs().max(1)
    bar = _largest_coordinate_bar(d, 0.05 / n)
    return AxisAlignment(
        alignment=Measurement(
            name="axis_alignment",
            value=min(observed, 1.0),
            unit="inverse participation over axes",
            n=len(sample),
            of="atoms",
            how="exact for these atoms; chance varies with the rotation",
            reference=1.0,
            reference_is="every atom is an axis",
            chance=float(null.mean()),
            chance_is=f"random rotation (95 %: {low:.4g} to {high:.4g}; p = {p:.3g} from {rotations})",
            caution=caution,
        ),
        aligned=Measurement(
            name="axis_aligned_atoms",
            value=float((coordinate > bar).double().mean()),
            unit="share of atoms",
            n=n,
            of="atoms",
            how=f"largest coordinate above {bar:.4g}",
            chance=0.05 / n,
            chance_is="uniform directions, expected at most",
            caution=directions.caution,
        ),
        p=p,
        null=null,
        coordinate=_spread(coordinate.double(), directions.index, W.n, float("nan")),
        axis=_spread(axis, directions.index, W.n, -1),
    )


def _inverse_participation(unit: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    return unit.square().square().sum(1).double().mean()


def _verdict(p: float) -> str:
    return "" if p < 0.05 else "not distinguishable from a random rotation"


def _largest_coordinate_bar(d: int, probability: float) -> float:
    """A c with P(some |coordinate| of a uniform direction > c) <= probability, by a union bound over d axes."""
    return float(np.sqrt(scipy.stats.beta.isf(min(probability / d, 1.0), 0.5, (d - 1) / 2)))


def _spread(values: Tensor, index: Tensor, n: int, missing: float | int) -> Tensor:
    out = torch.full((n,), missing, dtype=values.dtype, device=values.device)
    out[index] = values
    return out
