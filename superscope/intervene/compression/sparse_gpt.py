"""SparseGPT: as weights go, those that stay make up for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from .method import Method


@final
@dataclass(frozen=True)
class SparseGPT(Method):
    r"""Column by column: score $w^2 / [H^{-1}]_{jj}$, and later columns make up for what is removed.

    With $H = \mathbb E[x x^\top] + \lambda I$ and U the upper Cholesky factor of $H^{-1}$, $H^{-1} = U^\top U$,
    removing $w_{ij}$ changes the columns to the right by $-(w_{ij} / U_{jj}) \, U_{j,j+1:}$, the least-squares answer
    with the columns to the left fixed. Which weights go is decided for a block of columns at a time, over all rows, by
    $(w_{ij} / U_{jj})^2$ with the weights as they are then.

    On diagonal H nothing can be made up for, and the mask is that of $w_{ij}^2 H_{jj}$ within each block.

    Args:
        columns: of a block; the share of zeros is the same in each.
        damping: lambda, in mean diagonal entries of H.

    Raises:
        ValueError: if columns is below 1, or damping is not above 0 (inputs that never vary have no inverse).

    Source:
        Frantar and Alistarh, "SparseGPT: massive language models can be accurately pruned in one-shot", 2023
        (arXiv 2301.00774, algorithm 1).
    """

    columns: int = 128
    damping: float | int = 0.01

    name: ClassVar[str] = "sparsegpt"
    kind: ClassVar = "sparse"

    def __post_init__(self) -> None:
        if self.columns < 1 or not 0 < self.damping < float("inf"):
            raise ValueError(
                f"SparseGPT: columns must be at least 1 and damping above 0; got {self.columns} and {self.damping}."
            )

    def change(
        self, W: Float[Tensor, "outputs inputs"], H: Float[Tensor, "inputs inputs"], amount: float | int
    ) -> Float[Tensor, "outputs inputs"]:
        mean = float(H.diagonal().mean())
        # Without any input every matrix is as good, and any positive H ranks by magnitude.
        H = H + (self.damping * mean or 1.0) * torch.eye(len(H)).to(H)
        U = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(H)), upper=True)
        W = W.clone()
        for first in range(0, W.shape[1], self.columns):
            past = min(first + self.columns, W.shape[1])
            block = W[:, first:past]
            score = (block / U.diagonal()[first:past]).square()
            count = int(amount * block.numel())
            removed = torch.zeros(block.numel(), dtype=torch.bool, device=W.device)
            removed[score.flatten().topk(count, largest=False).indices] = True
            removed = removed.reshape(block.shape)
            for j in range(first, past):
                error = torch.where(removed[:, j - first], W[:, j], 0.0) / U[j, j]
                W[:, j + 1 :] -= error[:, None] * U[j, j + 1 :]
                W[:, j] = torch.where(removed[:, j - first], 0.0, W[:, j])
        return W
