"""What moves a read-out and as little else as can be?"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from jaxtyping import Float, Float64
from torch import Tensor

from ..collateral import minimal
from ..gates import fitting
from .edit import Edit


@dataclass(frozen=True, eq=False)
class Least(Edit):
    r"""$x \leftarrow x + s\,t\, K^{-1} g / (g^\top K^{-1} g)$: g moves by s t at the least $\delta^\top K \delta$.

    K says which method it is: the second moment of x ("collateral-minimal"), read-outs of other features
    ("interference-aware"), the pullback Fisher matrix (FishBack). See `collateral` and `fisher`.

    Args:
        read: g.
        metric: K.
        effect: t.

    Raises:
        ShapeError: if g and K do not fit.
        ValueError: if K is no cost, or a number is NaN or infinite.

    Source:
        2605.01167 (K the second moment); 2605.17231 (K the pullback Fisher matrix).
    """

    reads: ClassVar[str] = "nothing of x; that the network reads by g, and minds what the metric says"

    read: Float[Tensor, "d"]
    metric: Float[Tensor, "d d"]
    effect: float | int = dataclasses.field(default=1.0, kw_only=True)

    def check(self) -> None:
        if not math.isfinite(self.effect):
            raise ValueError(f"Least: the effect is {self.effect}; give a finite number.")
        minimal(self.read, self.metric)

    @property
    def d(self) -> int:
        return len(self.read)

    @cached_property
    def direction(self) -> Float64[Tensor, "d"]:
        """What is added at strength 1."""
        return minimal(self.read, self.metric, effect=self.effect)

    def change(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "d"]:
        return fitting(self.direction, x)
