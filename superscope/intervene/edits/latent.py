"""What if latents of a dictionary had other values? The difference is added, so that what it cannot explain stays."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import SparseCoder
from ..gates import check_latent, fitting, latent_values
from .edit import Edit


@dataclass(frozen=True, eq=False)
class Latent(Edit):
    r"""$x \leftarrow x + s\,(f' - f) W$, f the dictionary's code of x, f' with chosen latents set or multiplied.

    Args:
        coder: reads f of x and holds W.
        latents: which, each with the value that it is set to; in units of x, since atoms are of norm 1.
        factor: instead of setting them, multiply each by this; the values of `latents` are then not used.

    Raises:
        ValueError: if a latent is not in the dictionary, none is named, or a number is NaN or infinite.

    Source:
        Templeton et al., "Scaling monosemanticity", 2024: the error term is kept.
    """

    reads: ClassVar[str] = "the dictionary's encoder"

    coder: SparseCoder
    latents: Mapping[int, float | int]
    factor: float | int | None = dataclasses.field(default=None, kw_only=True)

    def check(self) -> None:
        check_latents("Latent", self.coder, self.latents)
        if not self.latents:
            raise ValueError("Latent: name at least one latent.")
        if self.factor is not None and not math.isfinite(self.factor):
            raise ValueError(f"Latent: the factor is {self.factor}; give a finite number.")

    @property
    def d(self) -> int:
        return self.coder.dictionary.d

    def change(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        change = torch.zeros_like(x)
        for latent, value in self.latents.items():
            f = latent_values(self.coder, latent, x)
            moved = value - f if self.factor is None else (self.factor - 1) * f
            change += torch.outer(moved, fitting(self.coder.dictionary.atoms[latent].detach(), x))
        return change


def check_latents(owner: str, coder: SparseCoder, latents: Mapping[int, float | int]) -> None:
    """Raise a sentence unless each latent is in the dictionary and each value finite."""
    for latent, value in latents.items():
        check_latent(owner, coder, latent)
        if not math.isfinite(value):
            raise ValueError(f"{owner}: latent {latent} is to be {value}; give a finite number.")
