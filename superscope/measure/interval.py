"""How sure a number is: resampling the documents it was measured on, or repeating it over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

_BLOCK = 2**22


@dataclass(frozen=True)
class Interval:
    """An interval and how it was made, to be passed on to a Measurement as `**interval.fields`.

    Args:
        low, high: both None where there is no interval.
        how: the method in words, or why there is none.
    """

    low: float | None
    high: float | None
    how: str

    @property
    def fields(self) -> dict[str, Any]:
        """low, high and how, as a Measurement takes them."""
        return {"low": self.low, "high": self.high, "how": self.how}


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray],
    sums: np.ndarray,
    *,
    of: str = "documents",
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    r"""Percentile interval of a function of sums, the summands being resampled by whole groups.

    A draw takes as many groups as there are, with replacement, and evaluates the statistic on their summed rows. Rows
    of one document resemble each other, so resampling rows would give an interval that is too narrow; resampling
    documents does not. Wants some tens of groups: with fewer the interval is itself uncertain, mostly too narrow.

    Args:
        statistic: from (draws, m) sums to (draws,) values; vectorised.
        sums: (groups, m): what each group adds to each sum.
        of: what the groups are, for the description.
        draws: resamples.
        level: coverage aimed at.
        seed: of the resampling.

    Returns:
        No interval where there are fewer than two groups, or the statistic is not finite on a draw.

    Raises:
        ValueError: if level is not in (0, 1) or draws is below 2.

    Source:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 8 and 13.

    Example:
        >>> sums = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        >>> bootstrap(lambda s: s[:, 0] / s[:, 1], sums).high <= 5 / 6
        True
    """
    if not 0 < level < 1:
        raise ValueError(f"bootstrap: level must be in (0, 1); got {level}.")
    if draws < 2:
        raise ValueError(f"bootstrap: draws must be at least 2; got {draws}.")
    groups = len(sums)
    if groups < 2:
        return Interval(None, None, f"no interval: {groups} of the {of} that would be resampled")
    random = np.random.default_rng(seed)
    values = []
    size = max(_BLOCK // max(groups, sums.shape[1]), 1)
    for start in range(0, draws, size):
        counts = random.multinomial(groups, np.full(groups, 1 / groups), size=min(size, draws - start))
        values.append(statistic(counts.astype(np.float64) @ sums))
    drawn = np.concatenate(values)
    if not np.isfinite(drawn).all():
        return Interval(None, None, f"no interval: undefined on a resample of {groups} {of}")
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), f"{level:.0%} percentile bootstrap over {groups} {of}, {draws} draws")


def jackknife(
    statistic: Callable[[np.ndarray], float],
    sums: np.ndarray,
    *,
    of: str = "groups of documents",
    logarithmic: bool = False,
) -> Interval:
    r"""value ± 1.96 s with s^2 = (G-1)/G sum_g (theta_{-g} - mean)^2, each group left out once.

    For smooth functions of long vectors (entropies over n latents): a resample there repeats some groups and loses
    others, which lowers any diversity, so that a percentile interval sits beside its value; leaving out one group in
    G hardly does. Costs G evaluations.

    Args:
        statistic: from the summed vector to a number.
        sums: (G, ...) what each group adds.
        of: what the groups are.
        logarithmic: work on log theta, for positive quantities: the interval then stays positive.

    Source:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 11 (equation 11.5).

    Example:
        >>> jackknife(lambda s: float(s[0] / s[1]), np.array([[1.0, 1.0], [3.0, 1.0]])).high.__round__(2)
        3.96
    """
    groups = len(sums)
    if groups < 2:
        return Interval(None, None, f"no interval: {groups} of the {of} that would be left out in turn")
    total = sums.sum(0)
    centre = statistic(total)
    left = np.array([statistic(total - part) for part in sums])
    if logarithmic:
        if centre <= 0 or (left <= 0).any():
            return Interval(None, None, "no interval: not positive on every group")
        centre, left = math.log(centre), np.log(left)
    if not np.isfinite(left).all():
        return Interval(None, None, f"no interval: undefined without one of {groups} {of}")
    half = 1.959964 * math.sqrt((groups - 1) / groups * float(((left - left.mean()) ** 2).sum()))
    low, high = centre - half, centre + half
    if logarithmic:
        low, high = math.exp(low), math.exp(high)
    return Interval(low, high, f"95% jackknife over {groups} {of}")


def over_seeds(values: Sequence[float], *, of: str = "seeds") -> Interval:
    """Smallest and largest of the values over seeds: no coverage is claimed, few seeds allow none.

    Example:
        >>> over_seeds([3.0, 1.0, 2.0]).how
        'min and max over 3 seeds'
    """
    if len(values) < 2:
        return Interval(None, None, f"no interval: {len(values)} of {of}")
    return Interval(float(min(values)), float(max(values)), f"min and max over {len(values)} {of}")


def wilson(hits: int, n: int, *, of: str, level: float = 0.95) -> Interval:
    r"""Wilson's interval of a share hits / n, as if the n were drawn independently; inside [0, 1] and never empty.

    Source:
        Wilson, "Probable inference, the law of succession, and statistical inference", 1927.

    Example:
        >>> round(wilson(0, 10, of="features").high, 3)
        0.278
    """
    if n < 1:
        return Interval(None, None, f"no interval: no {of}")
    low, high = binomtest(hits, n).proportion_ci(level, method="wilson")
    return Interval(float(low), float(high), f"{level:.0%} Wilson interval over {n} {of}")
