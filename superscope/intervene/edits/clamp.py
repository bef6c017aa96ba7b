"""What if a coordinate of x had one value everywhere?"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from .along import Along


@dataclass(frozen=True, eq=False)
class Clamp(Along):
    r"""$x \leftarrow x + s\,(c - g \cdot x - b)\, w / (g \cdot w)$: at s = 1 the read-out is c in every row.

    Args:
        to: c, in units of the read-out; without one, of lengths of the direction.

    Raises:
        ValueError: if c is NaN or infinite, and as for `Along`.

    Source:
        Templeton et al., "Scaling monosemanticity", 2024, clamp latents so.
    """

    to: float | int = dataclasses.field(default=0.0, kw_only=True)

    def check(self) -> None:
        super().check()
        if not math.isfinite(self.to):
            raise ValueError(f"Clamp: the value is {self.to}; give a finite number.")

    def change(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        return self.write(x, self.to - self.value(x))
