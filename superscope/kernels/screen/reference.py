"""The slow, obvious form that judges the others: every pre-activation in float32, then the search."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def topk(
    x: Float[Tensor, "b d"], encoder: Float[Tensor, "n d"], encoder_bias: Float[Tensor, "n"], k: int, *, signed: bool
) -> tuple[Float[Tensor, "b k"], Int[Tensor, "b k"]]:
    """The k largest of E x + e for each row, or those furthest from zero. Holds (b, n)."""
    pre = torch.addmm(encoder_bias, x, encoder.T)
    indices = (pre.abs() if signed else pre).topk(k, dim=1).indices
    return pre.gather(1, indices), indices


def above(
    x: Float[Tensor, "b d"],
    encoder: Float[Tensor, "n d"],
    encoder_bias: Float[Tensor, "n"],
    floor: Float[Tensor, "..."],
) -> tuple[Int[Tensor, "m"], Int[Tensor, "m"], Float[Tensor, "m"]]:
    """Row, column and value of every entry of E x + e greater than the floor. Holds (b, n)."""
    pre = torch.addmm(encoder_bias, x, encoder.T)
    rows, columns = (pre > floor).nonzero(as_tuple=True)
    return rows, columns, pre[rows, columns]
