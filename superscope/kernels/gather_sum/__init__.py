"""x_b = sum_s values_bs atoms[indices_bs]: decoding a sparse code without its dense form."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def gather_sum(
    values: Float[Tensor, "*batch k"], indices: Int[Tensor, "*batch k"], atoms: Float[Tensor, "n d"]
) -> Float[Tensor, "*batch d"]:
    """x_b = sum_s values_bs atoms[indices_bs], (batch, k, d) never held. Differentiable in values and atoms."""
    batch, k = values.shape[:-1], values.shape[-1]
    x = F.embedding_bag(
        indices.reshape(-1, k), atoms, per_sample_weights=values.reshape(-1, k).to(atoms.dtype), mode="sum"
    )
    return x.reshape(*batch, atoms.shape[1])


__all__ = ["gather_sum"]
