"""How sparse are the atoms of W over the coordinates of x, beside random directions?"""

from __future__ import annotations

import torch

from ...core import Dictionary, Measurement
from ..codes.sparsity import effective_number, excess_kurtosis, gini, hoyer, treves_rolls
from .blocks import Directions

_DRAWN = 2048


@torch.no_grad()
def weight_sparsity(W: Dictionary, *, seed: int = 0) -> tuple[Measurement, ...]:
    r"""Gini, Hoyer, Treves-Rolls, N1, N2 and excess kurtosis of each atom's entries over the d coordinates: medians.

    `weight_gini`, `weight_hoyer`, `weight_treves_rolls` and the effective numbers of coordinates
    `weight_entropy_dimension` (N1) and `weight_participating_dimension` (N2) are of |w_i|; `weight_kurtosis` is of the
    signed entries. All depend on the basis: a layer whose axes mean something has sparse atoms, a residual stream
    should be at chance. Exact for these atoms; low and high are the 5 and 95 % quantiles over atoms, not an interval of
    the median. Zero atoms are left out. O(n d log d).

    Args:
        W: dictionary of n >= 2 atoms. Norms do not matter.
        seed: of the random directions, 2 048 of them, whose median is chance.

    Raises:
        ValueError: if fewer than two atoms are nonzero, or d < 2.

    Source:
        That of `gini`, `hoyer`, `treves_rolls` and `effective_number`.

    Example:
        >>> [round(m.value, 3) for m in weight_sparsity(Dictionary(torch.eye(8)))][:5]
        [0.875, 1.0, 1.0, 1.0, 1.0]
    """
    directions = Directions.of(W, "weight_sparsity")
    n, d = directions.unit.shape
    if d < 2:
        raise ValueError("weight_sparsity: W must have at least d = 2 coordinates; one is at once dense and sparse.")
    drawn = torch.randn(_DRAWN, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    measured = []
    for name, unit, index in (
        ("weight_gini", "Gini index", gini),
        ("weight_hoyer", "Hoyer sparseness", hoyer),
        ("weight_treves_rolls", "Treves-Rolls sparseness", treves_rolls),
        ("weight_entropy_dimension", "coordinates", effective_number),
        ("weight_participating_dimension", "coordinates", lambda c: effective_number(c, 2)),
        ("weight_kurtosis", "excess kurtosis", excess_kurtosis),
    ):
        each = torch.cat([index(part) for part in directions.unit.split(4096)]).cpu()
        measured.append(
            Measurement(
                name=name,
                value=float(each.median()),
                unit=unit,
                n=n,
                of="atoms",
                low=float(each.quantile(0.05)),
                high=float(each.quantile(0.95)),
                how="median over atoms, exact; from the 5 to the 95 % quantile of atoms",
                chance=float(index(drawn).median()),
                chance_is=f"{_DRAWN} random directions",
                caution=directions.caution,
            )
        )
    return tuple(measured)
