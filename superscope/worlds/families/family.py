"""What a family of worlds is, and which of them nobody may tune on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..alter import Altered
from ..drawn import DrawnSource

HELD_OUT: tuple[str, ...] = ("log_uniform", "copula", "coherent", "toy_networks")
"""Families whose worlds no estimator may be tuned on: no constant, default or rule may be chosen by looking at them.

They were named before any estimator was tuned, and before `copula`, `coherent` and `toy_networks` were written, so that
what an estimator scores on them is what it would score on a world that nobody thought of. docs/calibration.md has
the table.
"""

Known: TypeAlias = DrawnSource | Altered
"""A source with a `truth`."""


@dataclass(frozen=True)
class Family:
    """Worlds of one kind.

    Args:
        make: a source that knows its truth, of n, d, l0, seed and the family's own settings; all have defaults.
        question: what it asks of an estimator.
        null: whether there is nothing to be found; then n and l0 are those of the world it was made from, if any.

    Example:
        >>> from superscope.worlds import FAMILIES
        >>> FAMILIES["zipf"](n=128, d=32, l0=2, seed=1).truth.count(p0=0.01)
        49
    """

    make: Callable[..., Known]
    question: str
    null: bool = False

    @property
    def name(self) -> str:
        """What commands call it, after `world:`."""
        return self.make.__name__

    @property
    def held_out(self) -> bool:
        """Whether it is kept from all tuning."""
        return self.name in HELD_OUT

    def __call__(self, *numbers: Any, **settings: Any) -> Known:
        return self.make(*numbers, **settings)
