"""What if x had nothing along some directions?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from jaxtyping import Float, Float64
from torch import Tensor

from ..gates import fitting
from .edit import Edit
from .span import basis


@dataclass(frozen=True, eq=False)
class ProjectOut(Edit):
    r"""$x \leftarrow x - s\, Q^\top Q\, x$, Q an orthonormal basis of the directions.

    What every other feature has along them goes too; `Leace` takes less.

    Args:
        directions: one, or one a row; their lengths and angles do not matter.

    Raises:
        ShapeError: if they are neither a vector nor a matrix.
        ValueError: if they are all zero, or NaN or infinite somewhere.

    Source:
        Arditi et al., "Refusal in language models is mediated by a single direction", 2024.
    """

    reads: ClassVar[str] = "the directions themselves, as matched filters"

    directions: Float[Tensor, "m d"] | Float[Tensor, "d"]

    def check(self) -> None:
        basis("ProjectOut", self.directions)

    @property
    def d(self) -> int:
        return self.directions.shape[-1]

    @cached_property
    def basis(self) -> Float64[Tensor, "m d"]:
        """Q."""
        return basis("ProjectOut", self.directions)

    def change(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        q = fitting(self.basis, x)
        return -(x @ q.T) @ q
