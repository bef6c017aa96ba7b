"""SVD-LLM: the matrix of lower rank whose outputs are nearest, for the inputs there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from .method import Method
from .svd import truncated


@final
@dataclass(frozen=True)
class SVDLLM(Method):
    r"""$W' = [W S]_r S^{-1}$, S the Cholesky factor of $H = \mathbb E[x x^\top]$ and $[\cdot]_r$ the truncated SVD.

    $\mathbb E\|(W - W') x\|^2 = \|(W - W') S\|_F^2$, and $W' S$ is any matrix of rank r: by Eckart and Young no other
    of that rank has less error, which is the sum of the squared singular values that were cut.

    Args:
        damping: added to H's diagonal, in mean diagonal entries, so that S has an inverse where inputs fill fewer
            dimensions than they have.

    Raises:
        ValueError: if damping is negative or not finite, and when used, if H has no Cholesky factor.

    Source:
        Wang et al., "SVD-LLM: truncation-aware singular value decomposition for large language model compression", 2024
        (arXiv 2403.07378).
    """

    damping: float | int = 1e-6

    name: ClassVar[str] = "svd-llm"
    kind: ClassVar = "low-rank"

    def __post_init__(self) -> None:
        if not 0 <= self.damping < float("inf"):
            raise ValueError(f"SVDLLM: damping must be finite and at least 0; got {self.damping}.")

    def change(
        self, W: Float[Tensor, "outputs inputs"], H: Float[Tensor, "inputs inputs"], amount: float | int
    ) -> Float[Tensor, "outputs inputs"]:
        H = H + self.damping * float(H.diagonal().mean()) * torch.eye(len(H)).to(H)
        S, failed = torch.linalg.cholesky_ex(H)
        if bool(failed):
            raise ValueError(
                "SVDLLM: the inputs do not fill all of their dimensions, so their second moment has no inverse. Give "
                "more rows, or a damping above 0."
            )
        return torch.linalg.solve_triangular(S, truncated(W @ S, int(amount)), upper=False, left=False)
