"""Features that know nothing of each other: by density, by magnitude, by the angles between directions."""

from __future__ import annotations

import math

import torch

from ...core import Dictionary
from ...features import WELL_ABOVE_ZERO, Exponential, Independent, Magnitude, Zipf
from ...frames import random_unit
from ..presets import on_random_directions, spread_apart
from ..world import World

_EXPONENTIAL = Exponential()


def uniform(
    n: int = 256, d: int = 64, l0: float | int = 4.0, *, magnitude: Magnitude = WELL_ABOVE_ZERO, seed: int = 0
) -> World:
    """Every feature as dense as any other: p = l0 / n.

    Args:
        n: features.
        d: dimensions.
        l0: active features in a row on average.
        magnitude: the law of an active feature.
        seed: of the directions.

    Raises:
        ValueError: if a number is out of its range.
    """
    return on_random_directions(Independent(n, share_active("uniform", n, l0), magnitude), d, seed=seed)


def zipf(
    n: int = 256,
    d: int = 64,
    l0: float | int = 4.0,
    *,
    alpha: float | int = 0.8,
    magnitude: Magnitude = WELL_ABOVE_ZERO,
    seed: int = 0,
) -> World:
    """Densities fall as a power of their rank, as those of words do.

    Args:
        n: features.
        d: dimensions.
        l0: active features in a row on average.
        alpha: exponent, at least 0; 0 is one density for all.
        magnitude: the law of an active feature.
        seed: of the directions.

    Raises:
        ValueError: if a number is out of its range, or the first feature would need a density above 1.
    """
    share_active("zipf", n, l0)
    return on_random_directions(Zipf(n, alpha, l0, magnitude), d, seed=seed)


def log_uniform(
    n: int = 256,
    d: int = 64,
    l0: float | int = 4.0,
    *,
    ratio: float | int = 100.0,
    magnitude: Magnitude = WELL_ABOVE_ZERO,
    seed: int = 0,
) -> World:
    """Densities spread evenly over orders of magnitude.

    Args:
        n: features.
        d: dimensions.
        l0: active features in a row on average.
        ratio: of the largest density to the smallest.
        magnitude: the law of an active feature.
        seed: of the directions.

    Raises:
        ValueError: if a number is out of its range, or the first feature would need a density above 1.
    """
    if not (math.isfinite(ratio) and ratio >= 1):
        raise ValueError(f"log_uniform: ratio is that of the largest density to the smallest, at least 1; got {ratio}.")
    share_active("log_uniform", n, l0)
    weights = torch.logspace(0, -math.log10(ratio), n, dtype=torch.float64)
    densities = l0 * weights / weights.sum()
    if (most := float(densities[0])) > 1:
        raise ValueError(
            f"log_uniform: {l0} active features of {n} with a ratio of {ratio} need a density of {most:.3g} for the "
            f"first. Lower l0 to {l0 / most:.3g} or less."
        )
    return on_random_directions(Independent(n, tuple(densities.tolist()), magnitude), d, seed=seed)


def magnitudes(
    n: int = 256, d: int = 64, l0: float | int = 4.0, *, magnitude: Magnitude = _EXPONENTIAL, seed: int = 0
) -> World:
    """Active features of any law of magnitudes: constant, exponential, log-normal, folded normal.

    Args:
        n: features.
        d: dimensions.
        l0: active features in a row on average.
        magnitude: the law of an active feature.
        seed: of the directions.

    Raises:
        ValueError: if a number is out of its range.
    """
    return on_random_directions(Independent(n, share_active("magnitudes", n, l0), magnitude), d, seed=seed)


def coherent(
    n: int = 256,
    d: int = 64,
    l0: float | int = 4.0,
    *,
    cosine: float | int = 0.5,
    magnitude: Magnitude = WELL_ABOVE_ZERO,
    seed: int = 0,
) -> World:
    r"""Directions in pairs with a planted cosine: $w' = c\,w + \sqrt{1 - c^2}\, u$, u orthogonal to w.

    The w and u come from random directions moved apart. At 0 the frame is less coherent than a random one; at .7 each
    feature has a neighbour that a threshold of .9 still tells apart, and one of .7 does not. Where n is odd the last
    direction has no partner; in one dimension there is no u, and partners are opposite or equal.

    Args:
        n: features.
        d: dimensions.
        l0: active features in a row on average.
        cosine: c, in [0, 1).
        magnitude: the law of an active feature.
        seed: of the directions.

    Raises:
        ValueError: if a number is out of its range.
    """
    if not 0 <= cosine < 1:
        raise ValueError(f"coherent: cosine is that of the two directions of a pair, in [0, 1); got {cosine}.")
    p = share_active("coherent", n, l0)
    atoms = spread_apart(random_unit(n=n, d=d, seed=seed), lr=3e-3).atoms.double()
    first, second = atoms[0 : n - 1 : 2], atoms[1::2]
    if d > 1:
        aside = second - (second * first).sum(1, keepdim=True) * first
        aside = torch.nn.functional.normalize(aside, dim=1)
        atoms[1::2] = cosine * first + (1 - cosine**2) ** 0.5 * aside
    return World(Independent(n, p, magnitude), Dictionary(atoms.float()))


def share_active(family: str, n: int, l0: float | int) -> float:
    """l0 / n, or a sentence that names the family."""
    if n < 1 or not 0 < l0 <= n:
        raise ValueError(
            f"{family}: l0 of the n = {n} features are active in a row on average, so n is at least 1 and l0 in "
            f"(0, n]; got l0 = {l0}."
        )
    return l0 / n
