"""What do edits of one coordinate share? A direction that is written, a read-out that says how much there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import ShapeError
from ..gates import check_direction, fitting
from .edit import Edit

_TINY = 1e-6
"""Cosine of read-out and direction below which one says nothing of the other."""


@dataclass(frozen=True, eq=False)
class Along(Edit):
    r"""Abstract: $\delta(x) = c(x)\, w / (g \cdot w)$, so that the read-out $g \cdot x + b$ moves by c.

    Args:
        direction: w, what is written.
        read: g, what is read; w itself without it.
        offset: b.

    Raises:
        ShapeError: if a vector is none, or the two differ in length.
        ValueError: if one is zero, NaN or infinite, or they are orthogonal.
    """

    reads: ClassVar[str] = "one read-out, the direction itself unless another is given"

    direction: Float[Tensor, "d"]
    read: Float[Tensor, "d"] | None = None
    offset: float | int = 0.0

    def check(self) -> None:
        name = type(self).__name__
        check_direction(name, self.direction)
        if self.read is None:
            return
        check_direction(name, self.read)
        if len(self.read) != len(self.direction):
            raise ShapeError(
                f"{name}: the read-out has {len(self.read)} numbers and the direction {len(self.direction)}; both are "
                "of x."
            )
        w, g = self.direction.double(), self.read.double().to(self.direction.device)
        if float((w @ g).abs()) < _TINY * float(w.norm() * g.norm()):
            raise ValueError(
                f"{name}: the read-out is orthogonal to the direction, so that writing it changes nothing that is read."
            )

    @property
    def d(self) -> int:
        return len(self.direction)

    def value(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows"]:
        r"""$g \cdot x + b$; of the direction itself, the coefficient of its orthogonal projection."""
        w = fitting(self.direction, x)
        return x @ w / (w @ w) if self.read is None else x @ fitting(self.read, x) + self.offset

    def unit(self, x: Tensor) -> Float[Tensor, "d"]:
        """w, as long as moves the read-out by 1."""
        w = fitting(self.direction, x)
        return w if self.read is None else w / (w @ fitting(self.read, x))

    def write(self, x: Float[Tensor, "rows d"], amount: Float[Tensor, "rows"]) -> Float[Tensor, "rows d"]:
        """What moves each row's read-out by its amount."""
        return torch.outer(amount, self.unit(x))
