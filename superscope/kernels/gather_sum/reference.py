"""The slow, obvious form that judges the others."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor


def gather_sum(
    values: Float[Tensor, "*batch k"], indices: Int[Tensor, "*batch k"], atoms: Float[Tensor, "n d"]
) -> Float[Tensor, "*batch d"]:
    """x_b = sum_s values_bs atoms[indices_bs]. Materialises (*batch, k, d)."""
    return (values.unsqueeze(-1) * atoms[indices]).sum(-2)
