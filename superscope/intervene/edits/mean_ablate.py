"""What if x were its mean, wholly or along some directions?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ...core import ShapeError
from ..gates import fitting
from .edit import Edit
from .span import basis


@dataclass(frozen=True, eq=False)
class MeanAblate(Edit):
    r"""$x \leftarrow x - s\, Q^\top Q\,(x - \mu)$; without directions Q is the identity.

    Args:
        mean: mu, of rows like those that are edited.
        directions: one, or one a row; all of x without them.

    Raises:
        ShapeError: if mean and directions differ in d.
        ValueError: if something is NaN or infinite, or every direction is zero.
    """

    reads: ClassVar[str] = "the directions themselves, as matched filters"

    mean: Float[Tensor, "d"]
    directions: Float[Tensor, "m d"] | Float[Tensor, "d"] | None = None

    def check(self) -> None:
        if self.mean.ndim != 1 or not bool(torch.isfinite(self.mean).all()):
            raise ValueError("MeanAblate: the mean is one vector of finite numbers; take it over sound rows.")
        if self.directions is None:
            return
        basis("MeanAblate", self.directions)
        if self.directions.shape[-1] != self.d:
            raise ShapeError(
                f"MeanAblate: the mean has {self.d} numbers and the directions {self.directions.shape[-1]}; both are "
                "of x."
            )

    @property
    def d(self) -> int:
        return len(self.mean)

    @cached_property
    def basis(self) -> Float64[Tensor, "m d"] | None:
        """Q; None for the identity."""
        return None if self.directions is None else basis("MeanAblate", self.directions)

    def change(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        away = fitting(self.mean, x) - x
        if self.basis is None:
            return away
        q = fitting(self.basis, x)
        return (away @ q.T) @ q
