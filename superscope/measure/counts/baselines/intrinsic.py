"""How many dimensions do the rows have near each other? Two estimates from distances to neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ....core import Measurement
from ...evidence import Evidence, Wanted
from ...interval import over_seeds
from ..base import Counter
from ..rows import rows_of

_BLOCK = 2**24
_FEWEST = 100
_PARTS = 4


def neighbour_distances(x: Float[Tensor, "rows d"], k: int) -> Float[Tensor, "rows k"]:
    """Distances of each row to its k nearest others, nearest first; O(rows^2 d) time.

    Raises:
        ValueError: if there are no more than k rows.
    """
    if len(x) <= k:
        raise ValueError(f"neighbour_distances: {len(x)} rows have no {k} neighbours each; give at least {k + 1}.")
    x = x.detach().double()
    found = []
    rows = max(_BLOCK // len(x), 1)
    for start in range(0, len(x), rows):
        part = x[start : start + rows]
        # By differences: squares of norms would lose the digits of near rows.
        distances = torch.cdist(part, x, compute_mode="donot_use_mm_for_euclid_dist")
        own = torch.arange(len(part), device=x.device)
        distances[own, own + start] = math.inf
        found.append(distances.topk(k, largest=False, sorted=True).values)
    return torch.cat(found)


def two_nn(x: Float[Tensor, "rows d"], discard: float = 0.1) -> float:
    r"""$-\sum_i \ln\mu_i \ln(1 - F_i) / \sum_i (\ln\mu_i)^2$: the slope through 0 over sorted $\mu = r_2 / r_1$.

    $F_i = i/N$ of the i-th smallest ratio of the distances to second and first neighbour; the largest ratios
    are left out. Dimensions of the surface that the rows lie on: about the number of features active at once, where
    they are sparse, and at most d. NaN where all ratios are 1 or undefined, as with duplicates.

    Args:
        x: rows, all different.
        discard: share of the ratios left out.

    Source:
        Facco, d'Errico, Rodriguez and Laio, "Estimating the intrinsic dimension of datasets by a minimal neighborhood
        information", 2017. Equal to `skdim.id.TwoNN` of scikit-dimension 0.5.0.

    Example:
        >>> line = torch.randn(500, 1, generator=torch.Generator().manual_seed(0)) @ torch.ones(1, 4)
        >>> 0.9 < two_nn(line) < 1.1
        True
    """
    distances = neighbour_distances(x, 2)
    ratios = (distances[:, 1] / distances[:, 0]).sort().values
    kept = int(len(x) * (1 - discard))
    logarithms = ratios[:kept].log()
    empirical = torch.arange(1, kept + 1, dtype=torch.float64, device=x.device) / len(x)
    return float(-(logarithms * torch.log1p(-empirical)).sum() / logarithms.square().sum())


def neighbour_likelihood(x: Float[Tensor, "rows d"], k: int = 20) -> float:
    r"""$(\frac1N \sum_i \frac1{k - 1} \sum_{j<k} \ln (r_{ik} / r_{ij}))^{-1}$, r the distances to k neighbours.

    The likelihood of a uniform density around each row, inverses averaged as MacKay and Ghahramani do. What `two_nn`
    says of its meaning holds here. Infinite or NaN where neighbours coincide.

    Args:
        x: rows, all different.
        k: neighbours.

    Source:
        Levina and Bickel, "Maximum likelihood estimation of intrinsic dimension", 2004 (equation 8); MacKay and
        Ghahramani's comment on it, 2005. Equal to `skdim.id.MLE` of scikit-dimension 0.5.0.

    Example:
        >>> line = torch.randn(500, 1, generator=torch.Generator().manual_seed(0)) @ torch.ones(1, 4)
        >>> 0.9 < neighbour_likelihood(line) < 1.1
        True
    """
    distances = neighbour_distances(x, k)
    inverse = (distances[:, -1:] / distances[:, :-1]).log().sum(1) / (k - 1)
    return 1 / float(inverse.mean())


def _measured(name: str, estimate: Callable[[Tensor], float], x: Float[Tensor, "rows d"]) -> Iterable[Measurement]:
    common = {"name": name, "unit": "dimensions", "n": len(x), "of": "rows"}
    # Rows of which there are several have neighbours at distance 0.
    different = x.unique(dim=0)
    different = different[torch.randperm(len(different), generator=torch.Generator().manual_seed(0)).to(x.device)]
    if len(different) < _FEWEST:
        reason = f"{len(different)} different rows are too few: {_FEWEST} are needed at the least."
        return [Measurement(value=None, caution=reason, **common)]
    value = estimate(different)
    spread = over_seeds([estimate(part) for part in different.tensor_split(_PARTS)], of=f"{_PARTS}ths of the rows")
    copies = len(x) - len(different)
    if not math.isfinite(value):
        return [Measurement(value=None, caution="neighbours are all at one distance.", **common)]
    return [
        Measurement(
            value=value,
            **(spread.fields if spread.low is not None and math.isfinite(spread.low + (spread.high or 0)) else {}),
            reference=float(x.shape[1]),
            reference_is="dimensions",
            caution=f"{copies} copies of other rows left out" if copies else "",
            **common,
        )
    ]


class NearestNeighbours(Counter):
    """`two_nn` of at most `rows` held-out rows: the intrinsic dimension, no count of features.

    Args:
        rows: read at most so many; the time grows with their square.
    """

    name: ClassVar[str] = "two_nn_dimension"

    def __init__(self, rows: int = 4000) -> None:
        self.rows = rows

    def wants(self, n: int, k: int, seeds: tuple[int, ...]) -> tuple[Wanted, ...]:
        return ()

    def count(self, seen: Evidence, wanted: tuple[Wanted, ...]) -> Iterable[Measurement]:
        return _measured(self.name, two_nn, rows_of(seen.held, self.rows))


class NeighbourLikelihood(Counter):
    """`neighbour_likelihood` of at most `rows` held-out rows: the intrinsic dimension, no count of features.

    Args:
        rows: read at most so many; the time grows with their square.
    """

    name: ClassVar[str] = "likelihood_dimension"

    def __init__(self, rows: int = 4000) -> None:
        self.rows = rows

    def wants(self, n: int, k: int, seeds: tuple[int, ...]) -> tuple[Wanted, ...]:
        return ()

    def count(self, seen: Evidence, wanted: tuple[Wanted, ...]) -> Iterable[Measurement]:
        return _measured(self.name, neighbour_likelihood, rows_of(seen.held, self.rows))
