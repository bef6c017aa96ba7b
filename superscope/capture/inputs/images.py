"""What does a vision model read? Pictures as it wants them, each a row of patches, as a text is a row of tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...core import ShapeError


@dataclass(frozen=True, eq=False)
class Images:
    """S pictures, of each of which a model makes `context` positions: `skip` of its own, then one for each patch.

    `harvest`, `HookSource` and everything after them take it where they take a corpus of text; a row's place is then
    (picture, position).

    Args:
        pixels: as the model wants them, scaled and of its size; a processor of `transformers` makes them.
        context: positions the model makes of one picture.
        skip: positions at the beginning that are no patches: the class token, and registers. They are never rows.
        names: of the pictures; their numbers without.

    Raises:
        ShapeError: if there are names for another number of pictures.
        ValueError: if no position is left.
    """

    pixels: Float[Tensor, "S c h w"]
    context: int
    skip: int = 1
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.names:
            object.__setattr__(self, "names", tuple(f"picture {i}" for i in range(len(self.pixels))))
        if len(self.names) != len(self.pixels):
            raise ShapeError(f"Images: there are {len(self.names)} names for {len(self.pixels)} pictures.")
        if not 0 <= self.skip < self.context:
            raise ValueError(
                f"Images: skip is {self.skip} of {self.context} positions, which leaves no patch; skip less."
            )

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def n_patches(self) -> int:
        """Patches of a picture."""
        return self.context - self.skip

    @property
    def n_tokens(self) -> int:
        """Patches of all pictures."""
        return len(self) * self.n_patches

    @property
    def lead(self) -> int:
        """Positions before the first patch, as a corpus has them before its text."""
        return self.skip

    @cached_property
    def start(self) -> Int[Tensor, "S"]:
        """Where each picture's first patch stands among its patches, as a window's first token does in its document."""
        return torch.zeros(len(self), dtype=torch.int64)

    @cached_property
    def keep(self) -> Bool[Tensor, "S t"]:
        """Which positions are patches."""
        return (torch.arange(self.context) >= self.skip).expand(len(self), self.context)

    @cached_property
    def document(self) -> Int[Tensor, "S"]:
        """The number of each picture, an index into `names`."""
        return torch.arange(len(self))

    def take(self, index: Int[Tensor, "s"]) -> Images:
        """The pictures at `index`, in that order."""
        return replace(self, pixels=self.pixels[index], names=tuple(self.names[i] for i in index.tolist()))
