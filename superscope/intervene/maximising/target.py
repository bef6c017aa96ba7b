"""What is to be made large? A number read of x: a latent of a dictionary, a coordinate, the part along a direction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import ShapeError, SparseCoder
from ...dictionaries import SAE

_SILENT = 0.1
"""Of its slope, what a latent that is off still counts: enough to climb by, too little to be worth more than one on."""


class Target(ABC):
    """A number read of each row of x."""

    @abstractmethod
    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """What is reported."""

    def slope(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """What is climbed where the value has no slope: it rises with it, and has gradients everywhere."""
        return self.value(x)

    @final
    def score(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """The value, and where that is 0 a tenth of what is climbed, so that what is silent can be woken."""
        value = self.value(x)
        return torch.where(value != 0, value, _SILENT * self.slope(x))

    @abstractmethod
    def require(self, d: int, where: str) -> None:
        """Raises:
        ValueError: if rows of d numbers at a place have no such number, in a sentence with the fix.
        """


@dataclass(frozen=True)
class CoordinateTarget(Target):
    """One coordinate of x: at the hidden layer of an MLP, a neuron.

    Args:
        coordinate: which, counted from 0.
    """

    coordinate: int

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        return x[..., self.coordinate]

    def require(self, d: int, where: str) -> None:
        if not 0 <= self.coordinate < d:
            raise ValueError(f"{where} has coordinates 0 to {d - 1}; got {self.coordinate}. Give one of those.")


@dataclass(frozen=True, eq=False)
class AlongTarget(Target):
    r"""$x \cdot v / \|v\|$, and 0 for a zero direction.

    Args:
        direction: v.
    """

    direction: Float[Tensor, "d"]

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        v = self.direction.to(x)
        return x @ (v / v.norm().clamp(min=torch.finfo(v.dtype).tiny))

    def require(self, d: int, where: str) -> None:
        if len(self.direction) != d:
            raise ValueError(
                f"the direction has {len(self.direction)} numbers and {where} has rows of {d}. Give one of that site."
            )


@dataclass(frozen=True, eq=False)
class LatentTarget(Target):
    r"""$f_i$ of a dictionary; climbed by what its encoder reads, $e_i \cdot (x - b) + e_i^0$, where it is off.

    Of a coder without an encoder the slope is $a_i \cdot (x - b)$.

    Args:
        coder: the dictionary.
        latent: i.
    """

    coder: SparseCoder
    latent: int

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        with torch.no_grad():
            code = self.coder.encode(x.to(self.coder.dictionary.atoms.dtype))
        return torch.where(code.indices == self.latent, code.values, 0).sum(-1).to(x.dtype)

    def slope(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        dictionary = self.coder.dictionary
        if isinstance(self.coder, SAE):
            read, offset = self.coder.encoder[self.latent].detach(), self.coder.encoder_bias[self.latent].detach()
        else:
            read, offset = dictionary.atoms[self.latent], torch.zeros(())
        centred = x if dictionary.bias is None else x - dictionary.bias.to(x)
        return centred @ read.to(x) + offset.to(x)

    def require(self, d: int, where: str) -> None:
        n = self.coder.dictionary.n
        if self.coder.dictionary.d != d:
            raise ValueError(
                f"the dictionary reads rows of d = {self.coder.dictionary.d}, and {where} has rows of d = {d}. Give "
                "the model and site that it was learned on."
            )
        if not 0 <= self.latent < n:
            raise ValueError(f"the dictionary has latents 0 to {n - 1}; got {self.latent}. Give one of those.")


def require_rows(x: Tensor, site: object, sequences: int) -> Float[Tensor, "b t d"]:
    """x as [sequence, position, d], whichever way the module has it.

    Raises:
        ShapeError: if it is not one vector a position.
    """
    if x.ndim == 2 and len(x) % sequences == 0:
        x = x.view(sequences, -1, x.shape[-1])
    if x.ndim != 3 or len(x) != sequences:
        raise ShapeError(
            f"{site} holds {tuple(x.shape)} for {sequences} sequences where one vector a position is wanted; choose "
            "another site."
        )
    return x
