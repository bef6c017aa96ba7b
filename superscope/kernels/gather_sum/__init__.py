"""x_b = sum_s values_bs atoms[indices_bs]: decoding a sparse code without its dense form."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..bags import bag_sum
from ..choice import on_gpu


def gather_sum(
    values: Float[Tensor, "*batch k"], indices: Int[Tensor, "*batch k"], atoms: Float[Tensor, "n d"]
) -> Float[Tensor, "*batch d"]:
    """x_b = sum_s values_bs atoms[indices_bs], (batch, k, d) never held. Differentiable in values and atoms."""
    batch, k = values.shape[:-1], values.shape[-1]
    if on_gpu(values, indices, atoms):
        offsets = torch.arange(batch.numel() + 1, device=atoms.device) * k
        x = bag_sum(values.reshape(-1), indices.reshape(-1), offsets, atoms)
    else:
        x = F.embedding_bag(
            indices.reshape(-1, k), atoms, per_sample_weights=values.reshape(-1, k).to(atoms.dtype), mode="sum"
        )
    return x.reshape(*batch, atoms.shape[1])


__all__ = ["gather_sum"]
