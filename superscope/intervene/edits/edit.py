"""What is an edit? A frozen description of what becomes of rows of x, with a strength and a gate."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, TypeVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import ShapeError
from ..gates import ALWAYS, Gate

E = TypeVar("E", bound="Edit")


@dataclass(frozen=True, eq=False)
class Edit(ABC):
    r"""$x \leftarrow x + s\,\gamma(x)\,\delta(x)$: strength s, gate $\gamma \in \{0, 1\}$, an edit's own $\delta$.

    Abstract: an edit says `change`, which is delta. Strength 0 changes no bit; shape, dtype and device stay. Rows of 16
    bits are edited in 32.

    Args:
        strength: s. What 1 means is each edit's own: one direction added, a feature wholly removed.
        gate: which rows are edited.

    Raises:
        ValueError: if the strength is NaN or infinite.

    Example:
        >>> from superscope.intervene.edits import Add
        >>> edit = Add(torch.tensor([0.0, 2.0]))
        >>> edit(torch.ones(1, 2)).tolist(), edit.at(-0.5)(torch.ones(1, 2)).tolist()
        ([[1.0, 3.0]], [[1.0, 0.0]])
    """

    strength: float | int = dataclasses.field(default=1.0, kw_only=True)
    gate: Gate = dataclasses.field(default=ALWAYS, kw_only=True)

    reads: ClassVar[str] = "nothing: it adds the same to every row"
    """What it reads of x, in words: what its effect assumes that the network reads."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.strength):
            raise ValueError(f"{type(self).__name__}: strength is {self.strength}; give a finite number.")
        self.check()

    def check(self) -> None:  # noqa: B027
        """Raise a sentence where the edit's own arguments cannot be."""

    @property
    @abstractmethod
    def d(self) -> int:
        """Dimension of the rows that it edits."""

    @abstractmethod
    def change(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"] | Float[Tensor, "d"]:
        """What is added to each row at strength 1 where the gate is open; one vector where it is the same for all."""

    def moved(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        """The rows after the edit."""
        delta = self.strength * self.change(x)
        is_open = self.gate.open(x)
        return x + (delta if is_open is None else torch.where(is_open[:, None], delta, 0.0))

    def at(self: E, strength: float | int) -> E:
        """The same edit at another strength."""
        return dataclasses.replace(self, strength=strength)

    @final
    def __call__(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """The rows after the edit.

        Raises:
            ShapeError: if rows have another length than the edit's.
        """
        if x.shape[-1] != self.d:
            raise ShapeError(
                f"{type(self).__name__}: rows of {x.shape[-1]} numbers were given to an edit of d = {self.d}. "
                "Use it at the site that it was made for."
            )
        if self.strength == 0:
            return x
        rows = x.reshape(-1, self.d)
        wide = rows if rows.dtype in (torch.float32, torch.float64) else rows.float()
        return self.moved(wide).to(x.dtype).reshape(x.shape)
