"""Which rows can a counter that needs no dictionary work on, and in what coordinates are they white?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ...capture.inputs.policy import outlier_limit
from ...core import Activations, ShapeError

FEWEST = 1000
"""Rows below which nothing is counted."""

# Variance along a direction below this share of the largest is rounding of 32-bit rows.
_FLAT = 1e-10


def rows_of(batches: Iterable[Activations], most: int | None = None) -> Float[Tensor, "rows d"]:
    """The first `most` rows of some batches, in one matrix and in their order.

    Raises:
        ValueError: if there are none.
    """
    parts, count = [], 0
    for batch in batches:
        part = batch.x.detach()[: None if most is None else most - count]
        parts.append(part)
        count += len(part)
        if most is not None and count >= most:
            break
    if not count:
        raise ValueError("there are no rows to count features in. Give at least one batch of activations.")
    return torch.cat(parts)


@dataclass(frozen=True, eq=False)
class WhiteRows:
    r"""Rows about their mean, $y = (x - m) K$, of covariance I in the r <= d directions in which x varies.

    Args:
        y: the rows that count.
        mean: of x.
        to_white: K, d x r.
        from_white: $C^{1/2}$ restricted to those directions, r x d: a direction $b$ of y is $b C^{1/2}$ in x.
        cautions: what was left out, as sentences.
    """

    y: Float[Tensor, "rows r"]
    mean: Float[Tensor, "d"]
    to_white: Float[Tensor, "d r"]
    from_white: Float[Tensor, "r d"]
    cautions: tuple[str, ...]

    @property
    def r(self) -> int:
        """Directions in which x varies."""
        return self.y.shape[1]


def white_rows(x: Float[Tensor, "rows d"]) -> WhiteRows | str:
    """White coordinates of the rows, or the reason why nothing can be counted in them.

    Rows far outside the norms of the others (attention sinks) are left out, since a handful of them makes all fourth
    moments. Where most rows are copies of others, one of each is kept: copies are not independent. The most common
    row, silence in a sparse world, may be there any number of times.

    Raises:
        ShapeError: if x is no matrix.
        ValueError: if it holds NaN or infinite numbers.
    """
    if x.ndim != 2:
        raise ShapeError(f"white_rows: x must be a matrix, one activation per row; got shape {tuple(x.shape)}.")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("white_rows: x holds NaN or infinite numbers. Remove those rows first.")
    count, d = x.shape
    if d < 2:
        return f"x has {d} dimension{'s' * (d != 1)}: directions are told apart in 2 at the least"
    if count < FEWEST:
        return f"{count:,} rows are too few: {FEWEST:,} are needed at the least"
    cautions = []
    x = x.detach().double()
    first, distinct, silent = _first_of_each(x)
    if distinct < FEWEST:
        return f"only {distinct:,} of {count:,} rows differ from each other: {FEWEST:,} are needed at the least"
    if distinct < (count - silent) / 2:
        x = x[first]
        cautions.append(f"{count - len(x):,} rows are copies of others and were left out")
    norms = (x - x.mean(0)).norm(dim=1)
    # Of the longest tenth, since in a sparse world most rows may be silent and every other one far outside.
    ordinary = norms <= outlier_limit(norms.sort().values[-max(len(norms) // 10, 1) :])
    if not bool(ordinary.all()):
        cautions.append(f"{int((~ordinary).sum()):,} rows of huge norm were left out")
        x = x[ordinary]
    if len(x) < FEWEST:
        return f"without rows of huge norm {len(x):,} are left: {FEWEST:,} are needed at the least"
    mean = x.mean(0)
    x = x - mean
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    varies = values > _FLAT * values[-1]
    if int(varies.sum()) < 2:
        along = "nowhere" if not float(values[-1]) > 0 else "along one direction only"
        return f"x varies {along}: directions are told apart in 2 at the least"
    if not bool(varies.all()):
        cautions.append(f"x varies in {int(varies.sum())} of {d} directions")
    values, vectors = values[varies], vectors[:, varies]
    to_white = vectors / values.sqrt()
    return WhiteRows(
        y=(x @ to_white).float(),
        mean=mean,
        to_white=to_white,
        from_white=(vectors * values.sqrt()).T.contiguous(),
        cautions=tuple(cautions),
    )


def _first_of_each(x: Float[Tensor, "rows d"]) -> tuple[Bool[Tensor, "rows"], int, int]:
    """Which rows are the first of their kind, how many kinds there are, and copies of the most common one."""
    generator = torch.Generator().manual_seed(0)
    # Two different rows agree in a random projection with probability about 1e-16.
    key = x @ torch.randn(x.shape[1], generator=generator, dtype=torch.float64).to(x.device)
    _, kind, copies = key.unique(return_inverse=True, return_counts=True)
    first = torch.full((len(copies),), len(x), device=x.device).scatter_reduce(
        0, kind, torch.arange(len(x), device=x.device), "amin"
    )
    mask = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    mask[first] = True
    return mask, len(copies), int(copies.max())
