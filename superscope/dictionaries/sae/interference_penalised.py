"""The top-k autoencoder whose atoms pay for overlapping with those they fire together with."""

from __future__ import annotations

from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...core import SparseCode
from ..step import sparse
from .base import SAE
from .relu import check_penalty
from .rule import Largest
from .topk import choose_largest

_BLOCK = 2**21


@final
class InterferencePenalised(SAE):
    r"""f = ReLU(TopK(E (x - b) + e)) + a loss $\lambda\, E[\sum_{i \ne j \in S} \langle w_i, w_j \rangle^2] / k$.

    S are the latents that are on in a row: atoms may overlap freely as long as they are never needed together, which is
    what superposition allows. The gradient is the atoms' alone; the penalty never asks a latent to be silent. Chance:
    (k - 1) / d for random atoms. Held in blocks of rows with k x k Gram matrices, never n x n.

    Args:
        d: dimension of x.
        n: number of latents.
        k: latents kept per row.
        coefficient: $\lambda$, in units of the variance of x per dimension.
        seed: of the random start.

    Raises:
        ValueError: if k is not in 1..n, or coefficient is negative or not finite.

    Source:
        This project's own form of an old idea: Ramirez, Lecumberry and Sapiro, "Sparse modeling with universal priors
        and learned incoherent dictionaries", 2009 ($|D^\top D - 1|_F^2$ over all pairs, where here the pairs that
        fire together count).

    Example:
        >>> InterferencePenalised(d=4, n=8, k=2).encode(torch.ones(3, 4)).values.shape
        torch.Size([3, 2])
    """

    def __init__(self, d: int, n: int, k: int, coefficient: float | int = 0.1, seed: int = 0) -> None:
        if not 1 <= k <= n:
            raise ValueError(f"InterferencePenalised: k must be in 1..n = {n}, the latents of a row; got k = {k}.")
        check_penalty("InterferencePenalised", coefficient)
        super().__init__(d, n, k=k, coefficient=coefficient, seed=seed)
        self.k, self.coefficient = k, coefficient

    def rule(self) -> Largest:
        return Largest(self.k)

    def sparsify(self, pre: Float[Tensor, "b n"]) -> SparseCode:
        return choose_largest(pre, self.k)

    def reconstruction(self, x: Float[Tensor, "b d"]) -> tuple[SparseCode, Float[Tensor, "b d"]]:
        return sparse.reconstruction(self, x)

    def penalty(self, code: SparseCode, *, scale: float = 1.0) -> Float[Tensor, ""]:
        if not self.coefficient:
            return code.values.new_zeros(())
        return self.coefficient * overlaps(self.atoms, code) / (len(code) * self.k)


def overlaps(atoms: Float[Tensor, "n d"], code: SparseCode) -> Float[Tensor, ""]:
    r"""$\sum_b \sum_{i \ne j \in S_b} \langle w_i, w_j \rangle^2$, S_b the latents of row b that are not 0.

    Differentiable in the atoms, with memory O(block) forward and backward.

    Example:
        >>> atoms = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
        >>> code = SparseCode(torch.ones(1, 2), torch.tensor([[0, 1]]), 3)
        >>> round(overlaps(atoms, code).item(), 2)                  # twice 0.6 squared: (0, 1) and (1, 0)
        0.72
    """
    return _Overlaps.apply(atoms, code.indices, code.values.detach() != 0)  # type: ignore[no-any-return]


class _Overlaps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, atoms: Tensor, indices: Tensor, active: Tensor) -> Tensor:
        # The gradient is made with the sum, for the Gram matrices are at hand: 4 sum_j <w_i, w_j> w_j for each i in S.
        total = atoms.new_zeros(())
        gradient = torch.zeros_like(atoms)
        k, d = indices.shape[1], atoms.shape[1]
        for at, on in zip(*(t.split(max(_BLOCK // (k * max(k, d)), 1)) for t in (indices, active)), strict=True):
            chosen = atoms[at] * on[..., None]
            gram = chosen @ chosen.mT
            gram.diagonal(dim1=1, dim2=2).zero_()
            total += gram.square().sum()
            gradient.index_add_(0, at.reshape(-1), (gram @ chosen).reshape(-1, d), alpha=4.0)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0], None, None
