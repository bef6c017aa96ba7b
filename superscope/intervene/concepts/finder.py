"""What is a concept's direction? A vector and a threshold found on contrasting rows; one way of finding, one file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import ShapeError
from .reading import ContrastRows


@dataclass(frozen=True, eq=False)
class Direction:
    r"""A concept as one direction: $v \cdot x + b$ is above 0 where it is there.

    Args:
        vector: v, float64.
        offset: b.
        finder: which way it was found.
    """

    vector: Float[Tensor, "d"]
    offset: float
    finder: str

    @property
    def unit(self) -> Float[Tensor, "d"]:
        """v at length 1."""
        return self.vector / self.vector.norm()

    def read(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows"]:
        """$v \\cdot x + b$ of each row.

        Raises:
            ShapeError: if rows have another length than the direction.
        """
        if x.shape[-1] != len(self.vector):
            raise ShapeError(
                f"{self.finder}: the direction has {len(self.vector)} numbers and rows have {x.shape[-1]}; read at the "
                "site that it was found at."
            )
        return x.double() @ self.vector.to(x.device) + self.offset


class Finder(ABC):
    """From contrasting rows to a direction. Abstract: a finder says `vector`, and an offset where it has one."""

    name: ClassVar[str]
    """What commands and tables call it."""
    needs_pairs: ClassVar[bool] = False
    """Whether it reads pair differences."""

    @abstractmethod
    def vector(self, rows: ContrastRows) -> Float[Tensor, "d"]:
        """The direction, from without the concept to with it."""

    def offset(self, rows: ContrastRows, vector: Float[Tensor, "d"]) -> float:
        """Half way between the sides."""
        return -float((rows.positive @ vector).mean() + (rows.negative @ vector).mean()) / 2

    @final
    def find(self, rows: ContrastRows) -> Direction:
        """The direction of these rows.

        Raises:
            ValueError: if it needs pairs and there are none, or both sides are the same.
        """
        if self.needs_pairs and not rows.paired:
            raise ValueError(f"{rows.name}: {self.name} is found on pairs and these are two sets; give pairs.")
        vector = self.vector(rows)
        if not bool((vector != 0).any()):
            raise ValueError(
                f"{rows.name}: with and without it the rows are the same on average, so {self.name} has no direction. "
                "Read at a later site, or at other tokens."
            )
        return Direction(vector, self.offset(rows, vector), self.name)


def class_covariance(rows: ContrastRows) -> Float[Tensor, "d d"]:
    """Covariance within a side, both pooled, divided by n."""
    centred = torch.cat([rows.positive - rows.positive.mean(0), rows.negative - rows.negative.mean(0)])
    return centred.T @ centred / len(centred)
