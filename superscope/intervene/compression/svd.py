"""Truncated SVD: the matrix of lower rank that is nearest, whatever the inputs."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from .method import Method


@final
class SVD(Method):
    r"""$W' = U_r \Sigma_r V_r^\top$, which minimises $\|W - W'\|_F$; it knows nothing of the inputs.

    Source:
        Eckart and Young, "The approximation of one matrix by another of lower rank", 1936.
    """

    name: ClassVar[str] = "svd"
    kind: ClassVar = "low-rank"

    def change(
        self, W: Float[Tensor, "outputs inputs"], H: Float[Tensor, "inputs inputs"], amount: float | int
    ) -> Float[Tensor, "outputs inputs"]:
        return truncated(W, int(amount))


def truncated(W: Float[Tensor, "outputs inputs"], rank: int) -> Float[Tensor, "outputs inputs"]:
    """The nearest matrix of that rank."""
    U, values, V = torch.linalg.svd(W, full_matrices=False)
    return (U[:, :rank] * values[:rank]) @ V[:rank]
