"""The autoencoder whose latents may be negative: the k pre-activations furthest from zero."""

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
class AbsTopK(SAE):
    r"""f = the k entries of E (x - b) + e that are largest in absolute value, with their signs; l0 = k.

    One latent serves two opposite features (more and less of one thing), which rectified architectures need two for.

    Args:
        d: dimension of x.
        n: number of latents.
        k: latents kept per row.
        seed: of the random start.

    Raises:
        ValueError: if k is not in 1..n.

    Source:
        Zhu et al., "AbsTopK: rethinking sparse autoencoders for bidirectional features", 2025 (arXiv 2510.00404).

    Example:
        >>> bool((AbsTopK(d=4, n=8, k=2).encode(torch.ones(3, 4)).values != 0).all())
        True
    """

    shards = True
    signed = True

    def __init__(self, d: int, n: int, k: int, seed: int = 0) -> None:
        if not 1 <= k <= n:
            raise ValueError(
                f"AbsTopK: k must be in 1..n = {n}, since a row has n latents to choose from; got k = {k}."
            )
        super().__init__(d, n, k=k, seed=seed)
        self.k = k

    def rule(self) -> Largest:
        return Largest(self.k, signed=True)

    @classmethod
    def keeping(cls, rule: Rule, d: int, n: int) -> SAE | None:
        return cls(d, n, rule.k) if isinstance(rule, Largest) and rule.signed else None

    def sparsify(self, pre: Float[Tensor, "b n"]) -> SparseCode:
        indices = topk(pre.abs(), min(self.k, pre.shape[-1]))[1]
        return self._code(pre.gather(-1, indices), indices)

    def codes(self, x: Float[Tensor, "b d"]) -> list[SparseCode]:
        found = sparse.largest(self, x, self.k, signed=True)
        return super().codes(x) if found is None else [self._code(*found)]

    def _code(self, values: Float[Tensor, "b m"], indices: Int[Tensor, "b m"]) -> SparseCode:
        kept = exchange.current().largest(values.abs(), self.k)
        return SparseCode(torch.where(kept, values, 0.0), indices, self.n)

    def reconstruction(self, x: Float[Tensor, "b d"]) -> tuple[SparseCode, Float[Tensor, "b d"]]:
        with torch.no_grad():
            code = self.encode(x)
        chosen = sparse.Chosen(code.indices, self.n)
        pre = sparse.pre_activations(x, self.encoder, self.encoder_bias, self.bias, code.values, chosen)
        # A value of 0 is a latent that another shard's pushed out: nothing may flow back through it.
        values = torch.where(code.values != 0, pre, 0.0)
        return chosen.code(values), sparse.decode(values, self.atoms, chosen).add_(self.bias)

    def rectify(self, pre: Float[Tensor, "b m"]) -> Float[Tensor, "b m"]:
        return pre
