"""Codes of every positive pre-activation of a row, however many there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import SparseCode
from ..step import exchange, sparse
from .base import SAE

# Denser than one latent in 32, dense products cost less than gathers of k rows each.
_SPARSE = 32


def positives(pre: Float[Tensor, "b n"]) -> SparseCode:
    """The positive entries of each row, in order of index; as many slots as the fullest row has (at least 1).

    Differentiable in `pre`. One scan of it, where `SparseCode.from_dense` selects by size.

    Example:
        >>> positives(torch.tensor([[-1.0, 2.0, 3.0], [0.0, 0.0, 1.0]])).values
        tensor([[2., 3.],
                [1., 0.]])
    """
    rows, columns = (pre > 0).nonzero(as_tuple=True)
    return sparse.packed(rows, columns, pre[rows, columns], len(pre), pre.shape[-1])


@dataclass(frozen=True, eq=False)
class Positive:
    """The positive pre-activations of a batch, flat, in order of row.

    Args:
        values: with gradients to encoder, encoder bias and bias.
        columns: the latent of each.
        compose: (values, atoms) -> sum over a row's latents of values times atoms.
        code: (values) -> their sparse code.
    """

    values: Float[Tensor, "m"]
    columns: Tensor
    compose: Callable[[Tensor, Tensor], Tensor]
    code: Callable[[Tensor], SparseCode]


@torch.no_grad()
def is_crowded(sae: SAE, x: Float[Tensor, "b d"]) -> bool:
    """Whether so many latents are on in the first rows of x that dense products are the faster ones."""
    pre = sae.pre_activations(sae.some_rows(x))
    return int((pre > 0).sum()) * _SPARSE > pre.numel()


def rectified(sae: SAE, x: Float[Tensor, "b d"]) -> Positive:
    """Every positive pre-activation of x.

    While more than one latent in 32 is on in the first rows, by the dense products, with all (b, n)
    pre-activations held; sparser than that, by the sparse ones. Both are the same function.
    """
    if not is_crowded(sae, x):
        row, column, values, _ = sparse.entries(sae, x, 0.0)
        chosen = sparse.Chosen.ragged(row, column, len(x), sae.n)
        pre = sparse.pre_activations(x, sae.encoder, sae.encoder_bias, sae.bias, values, chosen)
        return Positive(pre, column, lambda given, atoms: sparse.decode(given, atoms, chosen), chosen.code)
    dense = sae.pre_activations(x)
    row, column = (dense > 0).nonzero(as_tuple=True)

    def compose(given: Tensor, atoms: Tensor) -> Tensor:
        return exchange.current().total(given.new_zeros(dense.shape).index_put((row, column), given) @ atoms)

    return Positive(dense[row, column], column, compose, lambda given: sparse.packed(row, column, given, len(x), sae.n))
