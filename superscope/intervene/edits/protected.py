"""What moves a read-out and leaves protected ones exactly where they are?"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from jaxtyping import Float, Float64
from torch import Tensor

from ...core import ShapeError
from ..gates import check_direction, fitting
from .edit import Edit
from .span import basis


@dataclass(frozen=True, eq=False)
class Protected(Edit):
    r"""$x \leftarrow x + s\,t\, P g / (g^\top P g)$, $P = I - G^\top (G G^\top)^{-1} G$, G the protected read-outs.

    The limit of `Least` as the protected ones come to cost everything.

    Args:
        read: g, the read-out that moves by s t.
        protected: G, one or one a row: those that do not move.
        effect: t.
        least_angle: degrees between g and the span of G below which they are not told apart.

    Raises:
        ShapeError: if g and G differ in d.
        ValueError: if g lies within that angle of G, which the message names; then no edit moves one and not the others
            but at a length that wrecks x.
    """

    reads: ClassVar[str] = "nothing of x; that the network reads by g and by the protected read-outs"

    read: Float[Tensor, "d"]
    protected: Float[Tensor, "m d"] | Float[Tensor, "d"]
    effect: float | int = dataclasses.field(default=1.0, kw_only=True)
    least_angle: float | int = dataclasses.field(default=5.0, kw_only=True)

    def check(self) -> None:
        check_direction("Protected", self.read)
        if self.protected.shape[-1] != len(self.read):
            raise ShapeError(
                f"Protected: the read-out has {len(self.read)} numbers and the protected ones "
                f"{self.protected.shape[-1]}; both are of x."
            )
        if not math.isfinite(self.effect):
            raise ValueError(f"Protected: the effect is {self.effect}; give a finite number.")
        if self.angle < self.least_angle:
            raise ValueError(
                f"Protected: the read-out lies {self.angle:.2f} degrees from the span of what is protected, within the "
                f"{self.least_angle} that tell them apart: moving one moves the other. Protect less."
            )

    @property
    def d(self) -> int:
        return len(self.read)

    @cached_property
    def outside(self) -> Float64[Tensor, "d"]:
        """P g."""
        g, q = self.read.double().cpu(), basis("Protected", self.protected.cpu())
        return g - (q @ g) @ q

    @property
    def angle(self) -> float:
        """Degrees between the read-out and the span of the protected ones."""
        sine = float(self.outside.norm() / self.read.double().cpu().norm())
        return math.degrees(math.asin(min(sine, 1.0)))

    @cached_property
    def direction(self) -> Float64[Tensor, "d"]:
        """What is added at strength 1."""
        return self.effect * self.outside / (self.outside @ self.outside)

    def change(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "d"]:
        return fitting(self.direction, x)
