"""How much of x is a handful of rows, or of coordinates? What outliers hold, and what is left without them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..stream import Moments

_TIMES = 5.0
"""The median coordinate's deviation; such a coordinate has the variance of 25 median ones."""


@dataclass(frozen=True, eq=False)
class OutlierShare:
    """What some rows hold of all, and the participation ratio with and without them.

    Args:
        rows: outliers.
        of: all rows, outliers among them.
        squared_norm: their share of the sum of |x|^2.
        variance: their share of the sum of |x - mean|^2, about the mean of all rows.
        participation_with: participation ratio of all rows; NaN where x is constant.
        participation_without: of the others.
        deviations: standard deviation of each coordinate over all rows.
    """

    rows: int
    of: int
    squared_norm: float
    variance: float
    participation_with: float
    participation_without: float
    deviations: Float[Tensor, "d"]


def outlier_share(ordinary: Moments, outliers: Float[Tensor, "rows d"]) -> OutlierShare:
    r"""The share of squared norm and variance that outliers hold, and $(\mathrm{tr}\, C)^2 / \mathrm{tr}\, C^2$
    with and without them.

    Nothing is read twice: the covariance of all rows is put together from the moments of the ordinary ones.

    Args:
        ordinary: moments of the other rows.
        outliers: the rows; none is allowed.

    Example:
        >>> share = outlier_share(Moments(99, torch.zeros(2), torch.eye(2)), torch.tensor([[100.0, 0.0]]))
        >>> round(share.squared_norm, 2), round(share.participation_without, 1), round(share.participation_with, 2)
        (0.98, 2.0, 1.02)
    """
    x = outliers.double().to(ordinary.mean.device)
    mean, covariance, n = ordinary.mean.double(), ordinary.covariance.double(), ordinary.rows
    of = n + len(x)
    overall = (n * mean + x.sum(0)) / of
    far, shift = x - overall, mean - overall
    whole = (n * (covariance + torch.outer(shift, shift)) + far.T @ far) / of
    squares = n * float(covariance.trace() + mean.square().sum()) + float(x.square().sum())
    variance = of * float(whole.trace())
    return OutlierShare(
        rows=len(x),
        of=of,
        squared_norm=float(x.square().sum()) / squares if squares > 0 else 0.0,
        variance=float(far.square().sum()) / variance if variance > 0 else 0.0,
        participation_with=_participation(whole),
        participation_without=_participation(covariance),
        deviations=whole.diagonal().clamp(min=0).sqrt(),
    )


def outlier_coordinates(deviations: Float[Tensor, "d"], times: float = _TIMES) -> tuple[Int[Tensor, "m"], Tensor]:
    """Coordinates whose standard deviation is over `times` the median one's, the largest first, and by how much.

    None where the median is 0, for then there is no scale.

    Args:
        deviations: of each coordinate.
        times: multiple of the median.

    Example:
        >>> coordinates, multiples = outlier_coordinates(torch.tensor([1.0, 8.0, 1.0, 1.0, 12.0]))
        >>> coordinates.tolist(), multiples.tolist()
        ([4, 1], [12.0, 8.0])
    """
    middle = deviations.median()
    if not float(middle) > 0:
        return torch.empty(0, dtype=torch.int64), torch.empty(0)
    multiples, order = (deviations / middle).sort(descending=True, stable=True)
    count = int((multiples > times).sum())
    return order[:count].cpu(), multiples[:count].cpu()


def _participation(covariance: Tensor) -> float:
    squares = float(covariance.square().sum())
    return float(covariance.trace()) ** 2 / squares if squares > 0 else math.nan
