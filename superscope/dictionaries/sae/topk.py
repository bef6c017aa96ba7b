"""The autoencoder that keeps the k largest pre-activations of each row."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core import SparseCode
from ...kernels import topk
from ..step import exchange, sparse
from .base import SAE
from .rule import Largest, Rule


@final
class TopK(SAE):
    r"""f = ReLU(TopK(E (x - b) + e)): the k largest pre-activations of a row, those below zero set to 0.

    So l0 <= k, with fewer than k nonzeros in a row that has fewer than k positive pre-activations. There is no
    penalty to tune; training fits the squared error alone.

    Args:
        d: dimension of x.
        n: number of latents.
        k: latents kept per row.
        seed: of the random start.

    Raises:
        ValueError: if k is not in 1..n.

    Source:
        Gao et al., "Scaling and evaluating sparse autoencoders", 2024 (section 2.3), without their layer norm.
        Makhzani and Frey, "k-sparse autoencoders", 2013.

    Example:
        >>> TopK(d=4, n=8, k=2).encode(torch.ones(3, 4)).values.shape
        torch.Size([3, 2])
    """

    shards = True

    def __init__(self, d: int, n: int, k: int, seed: int = 0) -> None:
        if not 1 <= k <= n:
            raise ValueError(f"TopK: k must be in 1..n = {n}, since a row has n latents to choose from; got k = {k}.")
        super().__init__(d, n, k=k, seed=seed)
        self.k = k

    def rule(self) -> Largest:
        return Largest(self.k)

    @classmethod
    def keeping(cls, rule: Rule, d: int, n: int) -> SAE | None:
        return cls(d, n, rule.k) if isinstance(rule, Largest) and not rule.signed else None

    def sparsify(self, pre: Float[Tensor, "b n"]) -> SparseCode:
        return choose_largest(pre, self.k)

    def codes(self, x: Float[Tensor, "b d"]) -> list[SparseCode]:
        found = sparse.largest(self, x, self.k)
        return super().codes(x) if found is None else [_code(*found, self.k, self.n)]

    def reconstruction(self, x: Float[Tensor, "b d"]) -> tuple[SparseCode, Float[Tensor, "b d"]]:
        return sparse.reconstruction(self, x)


def choose_largest(pre: Float[Tensor, "b n"], k: int) -> SparseCode:
    """The k largest of each row, those below zero set to 0."""
    return _code(*topk(pre, min(k, pre.shape[-1])), k, pre.shape[-1])


def _code(values: Float[Tensor, "b m"], indices: Int[Tensor, "b m"], k: int, n: int) -> SparseCode:
    kept = exchange.current().largest(values, k)
    return SparseCode(torch.where(kept, values.relu(), 0.0), indices, n)
