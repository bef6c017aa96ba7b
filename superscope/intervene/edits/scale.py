"""What if a coordinate of x were stronger, weaker, or gone?"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from .along import Along


@dataclass(frozen=True, eq=False)
class Scale(Along):
    r"""$x \leftarrow x + s\,(m - 1)(g \cdot x + b)\, w / (g \cdot w)$: at s = 1 the read-out is m times what it was.

    Args:
        factor: m; 0 ablates, -1 reverses.

    Raises:
        ValueError: if m is NaN or infinite, and as for `Along`.
    """

    factor: float | int = dataclasses.field(default=0.0, kw_only=True)

    def check(self) -> None:
        super().check()
        if not math.isfinite(self.factor):
            raise ValueError(f"Scale: the factor is {self.factor}; give a finite number.")

    def change(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        return self.write(x, (self.factor - 1) * self.value(x))
