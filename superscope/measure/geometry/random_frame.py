"""What do n independent uniform directions in d dimensions give? The chance level of every overlap."""

from __future__ import annotations

import numpy as np
import scipy.stats


def cosine_cdf(cosine: np.ndarray, d: int) -> np.ndarray:
    """P(<u, v> <= cosine) for independent uniform directions."""
    if d == 1:
        return np.where(cosine >= 1, 1.0, np.where(cosine >= -1, 0.5, 0.0))
    # (1 + cos) / 2 follows Beta((d-1)/2, (d-1)/2).
    return scipy.stats.beta.cdf((1 + cosine) / 2, (d - 1) / 2, (d - 1) / 2)


def random_largest(count: int, d: int, levels: np.ndarray) -> np.ndarray:
    """Quantiles of the largest of `count` independent |<u, v>|: `theory.random_coherence` for many levels at once."""
    if d == 1:
        return np.ones_like(levels)
    return np.sqrt(scipy.stats.beta.isf(-np.expm1(np.log(levels) / count), 0.5, (d - 1) / 2))


def random_nearest_mean(n: int, d: int) -> float:
    """Expectation of an atom's nearest |cosine| in a random frame."""
    # The mean over the midpoints of 4096 equal quantiles is good to 1e-6: the law has no heavy tail.
    return float(random_largest(n - 1, d, (np.arange(4096) + 0.5) / 4096).mean())


def random_max_cdf(cosine: np.ndarray, count: int, d: int) -> np.ndarray:
    """P(the largest of `count` independent |<u, v>| <= cosine)."""
    if d == 1:
        return np.where(cosine >= 1, 1.0, 0.0)
    tail = scipy.stats.beta.sf(cosine**2, 0.5, (d - 1) / 2)
    return np.exp(count * np.log1p(-np.minimum(tail, 1 - 2.0**-53)))
