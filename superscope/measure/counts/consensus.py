"""How many directions do dictionaries of disjoint rows agree on, and how many more would others have agreed on?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...core import ShapeError
from ..agreement.stability import cluster_directions

_THRESHOLD = 0.8
"""Cosine above which two atoms are one direction. Over .8, .9 and .95 counts on worlds moved by less than a tenth."""

_LEAST = 1e-12
_STRATUM, _STRATA = 40, 4
"""Directions in a stratum at least, and strata at most."""

_SURE = 0.5
"""The chance of finding a direction, below which nothing is said of the directions that were not found."""

_COMPOSITE = 0.97
"""Cosine with a positive sum of two others, above which a direction is taken for their sum."""


@dataclass(frozen=True, eq=False)
class Consensus:
    """Which directions R dictionaries agree on.

    Args:
        directions: unit mean of the members of each direction that most dictionaries have, the densest first.
        captures: in how many dictionaries each was found.
        densities: of each, the mean over its members.
        sums: which are sums of two others, and not counted.
        histogram: for c = 1..R how many directions occur in exactly c dictionaries, sums left out.
        share: share of all activations that are those of latents on these directions, mean over dictionaries.
        runs: R.
    """

    directions: Float[Tensor, "found d"]
    captures: Int[Tensor, "found"]
    densities: Float[Tensor, "found"]
    sums: Bool[Tensor, "found"]
    histogram: tuple[int, ...]
    share: float
    runs: int

    @property
    def counted(self) -> int:
        """Directions that most dictionaries have, sums of two others left out."""
        return int((~self.sums).sum())


@dataclass(frozen=True)
class Richness:
    """How many directions there are, those included that most dictionaries missed.

    Args:
        value: estimate.
        deviation: standard deviation of its logarithm; inf where nothing was counted.
        counted: directions that most dictionaries have.
        found: chance that one dictionary finds a direction, mean over directions; NaN where none was counted.
        extrapolated: whether `found` allowed to say anything of the missed ones.
    """

    value: float
    deviation: float
    counted: int
    found: float
    extrapolated: bool


@torch.no_grad()
def consensus(
    atoms: Sequence[Float[Tensor, "_ d"]],
    densities: Sequence[Float[Tensor, "_"]],
    *,
    threshold: float = _THRESHOLD,
) -> Consensus:
    """Directions that most of R dictionaries have, R >= 2: all of 2, and at least 3R/4 of more, rounded down to 2 of 3.

    Within a dictionary atoms above the threshold of a denser one are duplicates and left out first. A direction that
    points along a positive sum of two denser or equally sure others is a sum: found often where k is small, for then
    one latent serves two features that come together by chance.

    Costs O(R n^2 d) time.

    Args:
        atoms: of each dictionary those that are ever active.
        densities: how often each is active, on rows that it was not learned from.
        threshold: signed cosine in (0, 1).

    Raises:
        ValueError: if there are fewer than two dictionaries.
        ShapeError: if densities do not fit.
    """
    if len(atoms) < 2:
        raise ValueError(f"consensus: {len(atoms)} dictionary agrees with no other. Give at least 2.")
    for own, often in zip(atoms, densities, strict=True):
        if len(own) != len(often):
            raise ShapeError(f"consensus: {len(often)} densities for {len(own)} atoms. Give one for each.")
    runs, d = len(atoms), atoms[0].shape[1]
    distinct, often = [], []
    for own, density in zip(atoms, densities, strict=True):
        unit = torch.nn.functional.normalize(own.detach().float(), dim=1)
        kept = _distinct(unit, density, threshold)
        distinct.append(unit[kept])
        often.append(density[kept].double())
    most = max(2, math.floor(0.75 * runs))
    members = cluster_directions(distinct, threshold)
    there = members >= 0
    captures = there.sum(1)
    sums = torch.zeros(len(members), d)
    density = torch.zeros(len(members), dtype=torch.float64)
    for run in range(runs):
        at = members[there[:, run], run]
        sums[there[:, run]] += distinct[run][at]
        density[there[:, run]] += often[run][at]
    density /= captures.clamp(min=1)
    common = captures >= most
    order = density[common].argsort(descending=True)
    directions = torch.nn.functional.normalize(sums[common][order], dim=1)
    composite = _sums_of_two(directions)
    shares = [
        float(often[run][members[common & there[:, run], run]].sum() / densities[run].double().sum().clamp(min=_LEAST))
        for run in range(runs)
    ]
    histogram = torch.bincount(captures, minlength=runs + 1)[1:]
    lost = torch.bincount(captures[common][order][composite], minlength=runs + 1)[1:]
    return Consensus(
        directions,
        captures[common][order],
        density[common][order],
        composite,
        tuple((histogram - lost).tolist()),
        sum(shares) / runs,
        runs,
    )


def _distinct(unit: Float[Tensor, "n d"], density: Float[Tensor, "n"], threshold: float) -> Int[Tensor, "_"]:
    """Atoms that are no duplicates of a denser one, the densest first."""
    order = density.argsort(descending=True, stable=True)
    near = unit[order] @ unit[order].T > threshold
    kept = torch.ones(len(order), dtype=torch.bool)
    for i in range(len(order)):
        if kept[i]:
            near[i, : i + 1] = False
            kept &= ~near[i]
    return order[kept]


def _sums_of_two(unit: Float[Tensor, "n d"]) -> Bool[Tensor, "n"]:
    """Which directions are positive sums of two others that are no sums themselves, the least dense tried first."""
    n = len(unit)
    gram = unit @ unit.T
    composite = torch.zeros(n, dtype=torch.bool)
    if unit.shape[1] < 3:
        return composite
    for i in range(n - 1, -1, -1):
        along = gram[i].masked_fill(composite, -1.0)
        along[i] = -1.0
        near = along.topk(min(8, n)).indices
        near = near[along[near] > 0.2]
        if len(near) < 2:
            continue
        a, b = torch.combinations(near, 2).T
        c, ca, cb = gram[a, b], gram[i, a], gram[i, b]
        # |projection on the plane|^2, and both weights positive.
        squared = (ca**2 + cb**2 - 2 * c * ca * cb) / (1 - c**2).clamp(min=_LEAST)
        inside = (ca - c * cb > 0) & (cb - c * ca > 0)
        composite[i] = bool((squared[inside] > _COMPOSITE**2).any())
    return composite


def richness(seen: Consensus, kept: Bool[Tensor, "found"] | None = None) -> Richness:
    r"""$\hat n = \sum_s m_s / P(c \ge c_0)$, with c binomial(R, q_s) within a stratum s of density.

    m_s directions of a stratum were found by most, c_0, of the R dictionaries. q_s maximises the likelihood of their
    captures, truncated at c_0: what was found once is left out, for most of that is junk, and so nothing is learned of
    q from it. The deviation is that of m_s given n_s, and of q_s by its curvature, added over strata. Features that a
    dictionary never finds are in nobody's count: the estimate is a low one where densities vary within a stratum.

    Args:
        seen: what was agreed on.
        kept: which of the directions count; all but sums of two without it.

    Source:
        Chiu and Chao, "Estimating and comparing microbial diversity in the presence of sequencing errors", 2016: to
        leave singletons out; truncated binomial likelihood in place of their moments.
    """
    kept = ~seen.sums if kept is None else kept & ~seen.sums
    captures = seen.captures[kept].numpy()
    if not len(captures):
        return Richness(0.0, math.inf, 0, math.nan, False)
    strata = np.array_split(np.arange(len(captures)), max(1, min(_STRATA, len(captures) // _STRATUM)))
    most = int(seen.captures.min())
    total, variance, found, extrapolated = 0.0, 0.0, 0.0, True
    for stratum in strata:
        c = captures[stratum]
        q = _chance_of_finding(c, seen.runs, most)
        found += q * len(c)
        if q < _SURE:
            extrapolated = False
            total += len(c)
            variance += len(c)
            continue
        p = _at_least(q, seen.runs, most)
        total += len(c) / p
        step = 1e-4
        slope = (_at_least(min(q + step, 1.0), seen.runs, most) - _at_least(q - step, seen.runs, most)) / (2 * step)
        information = len(c) * seen.runs / max(q * (1 - q), 1 / (4 * len(c) * seen.runs))
        variance += len(c) * (1 - p) / p**2 + (len(c) / p**2 * slope) ** 2 / information
    return Richness(total, math.sqrt(variance) / total, len(captures), found / len(captures), extrapolated)


def _at_least(q: float, runs: int, most: int) -> float:
    """P(c >= most) of a binomial."""
    return sum(math.comb(runs, c) * q**c * (1 - q) ** (runs - c) for c in range(most, runs + 1))


def _chance_of_finding(captures: np.ndarray, runs: int, most: int) -> float:
    """The q of greatest likelihood, captures below `most` being unseen. With two runs nothing is known of it: 1."""
    if runs == most:
        return 1.0
    q = np.linspace(0.01, 0.9999, 2000)
    p = np.array([_at_least(each, runs, most) for each in q])
    likelihood = captures.sum() * np.log(q) + (runs * len(captures) - captures.sum()) * np.log1p(-q)
    best = float(q[np.argmax(likelihood - len(captures) * np.log(p))])
    # Nothing missed in m R chances is no proof that nothing ever is.
    return min(best, 1 - 1 / (2 * len(captures) * runs))


__all__ = ["Consensus", "Richness", "consensus", "richness"]
