"""Codes of every positive pre-activation of a row, however many there are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import SparseCode
from . import sparse
from .base import SAE

Composer = Callable[[Tensor, Tensor], Tensor]
"""(values, atoms) -> sum_s values_bs atoms[indices_bs]."""

# Denser than one latent in 32, dense products cost less than gathers of k rows each.
_SPARSE = 32
_BLOCK = 2**21


def positives(pre: Float[Tensor, "b n"]) -> SparseCode:
    """The positive entries of each row, in order of index; as many slots as the fullest row has (at least 1).

    Differentiable in `pre`. One scan of it, where `SparseCode.from_dense` selects by size.

    Example:
        >>> positives(torch.tensor([[-1.0, 2.0, 3.0], [0.0, 0.0, 1.0]])).values
        tensor([[2., 3.],
                [1., 0.]])
    """
    rows, columns = (pre > 0).nonzero(as_tuple=True)
    return _packed(rows, columns, pre[rows, columns], len(pre), pre.shape[-1])


def _packed(rows: Tensor, columns: Tensor, values: Tensor, count: int, n: int) -> SparseCode:
    """Entries in order of row, as a code of `count` rows."""
    counts = torch.bincount(rows, minlength=count)
    k = max(int(counts.max()), 1) if count else 1
    slots = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    indices = columns.new_zeros(count, k)
    indices[rows, slots] = columns
    return SparseCode(values.new_zeros(count, k).index_put((rows, slots), values), indices, n)


def rectified(sae: SAE, x: Float[Tensor, "b d"]) -> tuple[SparseCode, Composer]:
    """Every positive pre-activation of x, with gradients to encoder, encoder bias and bias.

    While more than one latent in 32 is on in the first block of rows, by the dense products, with all (b, n)
    pre-activations held; sparser than that, by the sparse ones. Both are the same function.

    Returns:
        The code, and how values of those latents (the code's own, or others) are composed with atoms.
    """
    size = max(_BLOCK // sae.n, 1)
    rows, columns, values = [], [], []
    with torch.no_grad():
        for start in range(0, len(x), size):
            pre = sae.pre_activations(x[start : start + size])
            row, column = (pre > 0).nonzero(as_tuple=True)
            if start == 0 and len(row) * _SPARSE > pre.numel():
                break
            rows.append(row + start)
            columns.append(column)
            values.append(pre[row, column])
    if not rows:
        code = positives(sae.pre_activations(x))
        return code, lambda given, atoms: SparseCode(given, code.indices, sae.n).dense() @ atoms
    code = _packed(torch.cat(rows), torch.cat(columns), torch.cat(values), len(x), sae.n)
    chosen = sparse.Chosen(code.indices, sae.n)
    pre = sparse.pre_activations(x, sae.encoder, sae.encoder_bias, sae.bias, code.values, chosen)
    # An unused slot stands for no latent, so nothing may flow back through it.
    held = torch.where(code.values > 0, pre, 0.0)
    return SparseCode(held, code.indices, sae.n), lambda given, atoms: sparse.decode(given, atoms, chosen)
