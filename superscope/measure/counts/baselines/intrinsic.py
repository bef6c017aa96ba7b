"""How many dimensions do the rows have near each other? Two estimates from distances to neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
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
    return float(_slope((distances[:, 1] / distances[:, 0]).log().cpu().numpy(), np.ones((1, len(x))), discard)[0])


def _slope(logarithms: np.ndarray, weights: np.ndarray, discard: float) -> np.ndarray:
    """`two_nn` of the ratios' logarithms, rows counted as often as each of (draws, rows) weights says."""
    order = np.argsort(logarithms, kind="stable")
    logarithms, weights = logarithms[order], weights[:, order]
    empirical = weights.cumsum(1) / weights.sum(1, keepdims=True)
    used = weights * (empirical <= 1 - discard + 1e-12)
    tail = np.log1p(-np.minimum(empirical, 1 - 0.5 * discard))
    with np.errstate(divide="ignore", invalid="ignore"):
        return -(used * logarithms * tail).sum(1) / (used * logarithms**2).sum(1)


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


def intrinsic_dimensions(
    x: Float[Tensor, "rows d"],
    *,
    documents: Int[Tensor, "rows"] | None = None,
    k: int = 20,
    draws: int = 200,
    seed: int = 0,
) -> tuple[Measurement, Measurement]:
    """`two_nn` and `neighbour_likelihood` of rows, with intervals that resample documents.

    A row's distances are kept in every draw, so that no row becomes its own neighbour. Copies of rows are left out.

    Args:
        x: rows.
        documents: of each row; rows by themselves without it.
        k: neighbours of the likelihood.
        draws: resamples.
        seed: of the resampling.
    """
    _, kind = x.unique(dim=0, return_inverse=True)
    first = torch.full((int(kind.max()) + 1,), len(x), device=x.device).scatter_reduce(
        0, kind, torch.arange(len(x), device=x.device), "amin"
    )
    chosen = first.sort().values
    number = np.arange(len(chosen)) if documents is None else documents.cpu().numpy()[chosen.cpu().numpy()]
    about = {"unit": "dimensions", "n": len(chosen), "of": "rows"}
    names = NearestNeighbours.name, NeighbourLikelihood.name
    if len(chosen) < _FEWEST:
        reason = f"{len(chosen)} different rows are too few: {_FEWEST} are needed at the least."
        first_one, second_one = (Measurement(name=name, value=None, caution=reason, **about) for name in names)
        return first_one, second_one
    distances = neighbour_distances(x[chosen], k).cpu().numpy()
    groups, index = np.unique(number, return_inverse=True)
    counts = np.random.default_rng(seed).multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=draws)
    weights = np.concatenate([np.ones((1, len(chosen))), counts[:, index]])
    inverse = np.log(distances[:, -1:] / distances[:, :-1]).sum(1) / (k - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        likelihoods = weights.sum(1) / (weights @ inverse)
    slopes = _slope(np.log(distances[:, 1] / distances[:, 0]), weights, 0.1)
    copies = len(x) - len(chosen)
    found = []
    for name, values in zip(names, (slopes, likelihoods), strict=True):
        if not np.isfinite(values[0]):
            found.append(Measurement(name=name, value=None, caution="neighbours are all at one distance.", **about))
            continue
        sure = len(groups) > 1 and bool(np.isfinite(values).all())
        low, high = np.quantile(values[1:], (0.025, 0.975)).tolist() if sure else (None, None)
        of = "rows" if documents is None else "documents"
        found.append(
            Measurement(
                name=name,
                value=float(values[0]),
                low=low,
                high=high,
                how=f"95% percentile bootstrap over {len(groups)} {of}, {draws} draws, neighbours kept"
                if sure
                else f"no interval: {len(groups)} {of}",
                reference=float(x.shape[1]),
                reference_is="dimensions",
                caution=f"{copies} copies of other rows left out" if copies else "",
                **about,
            )
        )
    return found[0], found[1]


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
