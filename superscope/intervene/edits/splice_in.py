"""What does a model do with a dictionary's reconstruction in the place of x? Its error kept, or dropped."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import SparseCoder
from ..gates import fitting
from .edit import Edit
from .latent import check_latents


@dataclass(frozen=True, eq=False)
class SpliceIn(Edit):
    r"""$x \leftarrow (1 - s)\, x + s\,(\hat x(f') + \epsilon)$: $\epsilon = x - \hat x(f)$ where it is kept, else 0.

    With the error kept and no latent set, x stays what it is.

    Args:
        coder: reads f of x and writes $\hat x$.
        latents: those that are set, with their values.
        keep_error: whether what the dictionary does not explain stays.

    Raises:
        ValueError: if a latent is not in the dictionary, or a value is NaN or infinite.

    Source:
        Marks et al., "Sparse feature circuits", 2024, keep the error as a node of its own.
    """

    reads: ClassVar[str] = "the dictionary's encoder"

    coder: SparseCoder
    latents: Mapping[int, float | int] = dataclasses.field(default_factory=dict)
    keep_error: bool = dataclasses.field(default=False, kw_only=True)

    def check(self) -> None:
        check_latents("SpliceIn", self.coder, self.latents)

    @property
    def d(self) -> int:
        return self.coder.dictionary.d

    @torch.no_grad()
    def change(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        rows = fitting(x, self.coder.dictionary.atoms)
        code = self.coder.encode(rows)
        change = x.new_zeros(x.shape) if self.keep_error else fitting(self.coder.decode(code), x) - x
        for latent, value in self.latents.items():
            f = fitting(torch.where(code.indices == latent, code.values, 0.0).sum(-1), x)
            change = change + torch.outer(value - f, fitting(self.coder.dictionary.atoms[latent], x))
        return change
