"""Can this feature of two dimensions be reduced to features of one? Two indices, neither with a scale in it.

Source:
    Engels, Michaud, Liao, Gurnee and Tegmark, "Not all language model features are one-dimensionally linear", 2024
    (arXiv 2405.14860), section 3.
"""

from __future__ import annotations

import math

import numpy as np

_ANGLES = 48
_OFFSETS = 65
_SHUFFLES = 16
_LEAST = 0.03


def mixture_index(z: np.ndarray, *, epsilon: float = 0.1) -> float:
    r"""$M_\epsilon = \max_{a, b} P(|v| < \epsilon)$ with $v = (a \cdot z + b) / \mathrm{rms}(a \cdot z + b)$.

    The largest share of rows that one linear function finds at 0: near 1 for a mixture whose parts are active in turn,
    small for what is irreducible. By a grid of directions and offsets, which neither a step size nor a temperature
    disturbs; dividing by the root mean square leaves no scale in it.

    Args:
        z: (rows, 2).
        epsilon: how near 0 counts as silent.

    Example:
        >>> angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
        >>> ring = np.column_stack([np.cos(angle), np.sin(angle)])
        >>> mixture_index(ring) == mixture_index(1000 * ring) < 0.3
        True
    """
    angles = np.arange(_ANGLES) * math.pi / _ANGLES
    centred = z - z.mean(0)
    best = 0.0
    for angle in angles:
        v = centred @ np.array([math.cos(angle), math.sin(angle)])
        offsets = np.quantile(v, np.linspace(0, 1, _OFFSETS))
        size = np.sqrt((v**2).mean() + offsets**2)
        inside = np.abs(v[:, None] - offsets) < epsilon * np.maximum(size, 1e-300)
        best = max(best, float(inside.mean(0).max()))
    return best


def separability_index(z: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    r"""$S = \min_\theta I(u; v)$ in bits, (u, v) the plane turned by theta; and what shuffled rows give.

    0 where some pair of axes makes it two independent features. Cells are quantiles of u and of v, of which a scale is
    no part: the published code divides by a mean square, and its index changes with the units of z.

    Args:
        z: (rows, 2); it is whitened first.
        seed: of the shuffle.

    Returns:
        The index less the mean over shuffles, which is what so few rows give to nothing; and the least that is above
        all doubt, 0.03 bits or three standard deviations of the shuffles.
    """
    centred = z - z.mean(0)
    values, axes = np.linalg.eigh(np.cov(centred.T))
    white = centred @ axes / np.sqrt(np.maximum(values, 1e-12 * values.max()))
    random = np.random.default_rng(seed)
    least = math.inf
    for angle in np.arange(_ANGLES // 2) * math.pi / _ANGLES:
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        least = min(least, _information(*(white @ turn).T))
    u, v = white.T
    shuffled = [_information(u, random.permutation(v)) for _ in range(_SHUFFLES)]
    return least - float(np.mean(shuffled)), max(_LEAST, 3 * float(np.std(shuffled, ddof=1)))


def _information(u: np.ndarray, v: np.ndarray) -> float:
    bins = int(np.clip(math.sqrt(len(u) / 10), 3, 8))
    first, second = (np.argsort(np.argsort(w, kind="stable"), kind="stable") * bins // len(w) for w in (u, v))
    joint = np.bincount(first * bins + second, minlength=bins**2).reshape(bins, bins) / len(u)
    product = joint.sum(1, keepdims=True) * joint.sum(0)
    there = joint > 0
    return float((joint[there] * np.log2(joint[there] / product[there])).sum())
