"""Families of worlds that a count is calibrated on: each asks one question, and four are kept from all tuning."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from ..features import Independent, Magnitude, Uniform, Zipf
from ..frames import random_unit
from .forest import Forest
from .world import FeatureLaw, World

HELD_OUT: tuple[str, ...] = ("log_uniform", "copula", "coherent", "toy_networks")
"""Families whose worlds no estimator may be tuned on: no constant, default or rule may be chosen by looking at them.

They were named before any estimator was tuned, and before `copula`, `coherent` and `toy_networks` were written, so that
what an estimator scores on them is what it would score on a world that nobody thought of. docs/calibration.md has
the table.
"""

_WELL_ABOVE_ZERO = Uniform(0.5, 1.5)


@dataclass(frozen=True)
class Family:
    """Worlds of one kind.

    Args:
        name: what commands call it, after `world:`.
        question: what it asks of an estimator.
        make: a world for n, d, l0, seed and the family's own settings.
    """

    name: str
    question: str
    make: Callable[..., World]

    @property
    def held_out(self) -> bool:
        """Whether it is kept from all tuning."""
        return self.name in HELD_OUT

    def __call__(self, *numbers: int, **settings: object) -> World:
        return self.make(*numbers, **settings)


def uniform(
    n: int = 256, d: int = 64, l0: float = 4.0, *, magnitude: Magnitude = _WELL_ABOVE_ZERO, seed: int = 0
) -> World:
    """Independent features, every one as dense as any other: p = l0 / n.

    Args:
        n, d, l0: features, dimensions, active features in a row on average.
        magnitude: the law of an active feature.
        seed: of the directions.
    """
    return _random(Independent(n, _density("uniform", n, l0), magnitude), d, seed)


def zipf(
    n: int = 256,
    d: int = 64,
    l0: float = 4.0,
    *,
    alpha: float = 0.8,
    magnitude: Magnitude = _WELL_ABOVE_ZERO,
    seed: int = 0,
) -> World:
    """Independent features whose densities fall as a power of their rank, as those of words do.

    Args:
        n, d, l0: features, dimensions, active features in a row on average.
        alpha: exponent; 0 is one density for all.
        magnitude: the law of an active feature.
        seed: of the directions.
    """
    return _random(Zipf(n, alpha, l0, magnitude), d, seed)


def log_uniform(
    n: int = 256,
    d: int = 64,
    l0: float = 4.0,
    *,
    ratio: float = 100.0,
    magnitude: Magnitude = _WELL_ABOVE_ZERO,
    seed: int = 0,
) -> World:
    """Independent features whose densities are spread evenly over orders of magnitude.

    Args:
        n, d, l0: features, dimensions, active features in a row on average.
        ratio: of the largest density to the smallest.
        magnitude: the law of an active feature.
        seed: of the directions.
    """
    if not (math.isfinite(ratio) and ratio >= 1):
        raise ValueError(f"log_uniform: ratio is that of the largest density to the smallest, at least 1; got {ratio}.")
    weights = torch.logspace(0, -math.log10(ratio), n, dtype=torch.float64)
    densities = _density("log_uniform", n, l0) * n * weights / weights.sum()
    return _random(Independent(n, tuple(densities.tolist()), magnitude), d, seed)


def hierarchy(n: int = 256, d: int = 64, *, roots: int = 8, scaled: bool = True, seed: int = 0) -> World:
    """Trees of features: a child only where its parent is, one of its siblings at most, and in proportion to the parent.

    Args:
        n, d: features, dimensions.
        roots: trees, of three children a parent and two generations.
        scaled: whether a child is scaled by its parent.
        seed: of the directions and magnitudes.
    """
    return _random(
        Forest(n, roots, branching=3, depth=2, p_max=0.2, scaled=scaled, correlation=0.0, seed=seed), d, seed
    )


def _random(law: FeatureLaw, d: int, seed: int) -> World:
    return World(law, random_unit(n=law.n, d=d, seed=seed))


def _density(family: str, n: int, l0: float) -> float:
    if not 0 < l0 <= n:
        raise ValueError(f"{family}: l0 features of n = {n} are active on average, so l0 lies in (0, {n}]; got {l0}.")
    return l0 / n


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.name: family
        for family in (
            Family("uniform", "Is the plainest world counted right?", uniform),
            Family("zipf", "Are rare features counted, and frequent ones not twice?", zipf),
            Family("log_uniform", "Likewise, where densities span orders of magnitude evenly?", log_uniform),
            Family("hierarchy", "Are children counted that never come without their parent?", hierarchy),
        )
    }
)
"""Every family by its name."""
