"""The slow, obvious form that judges the others, ties and all."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def topk(pre: Float[Tensor, "b n"], k: int) -> tuple[Float[Tensor, "b k"], Int[Tensor, "b k"]]:
    """The k largest of each row, in order of index; of equals the first; NaN is larger than any number."""
    # Where a sort puts a NaN depends on its sign and on the device, so that comes second.
    known = pre.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    order = known.argsort(dim=1, descending=True, stable=True)
    first = pre.isnan().gather(1, order).byte().argsort(dim=1, descending=True, stable=True)
    order = order.gather(1, first)
    indices = order[:, :k].sort(1).values
    return pre.gather(1, indices), indices


def encode_topk(
    x: Float[Tensor, "b d"], encoder: Float[Tensor, "n d"], encoder_bias: Float[Tensor, "n"], k: int
) -> tuple[Float[Tensor, "b k"], Int[Tensor, "b k"]]:
    """The k largest of E x + e for each row. Holds (b, n)."""
    return topk(x @ encoder.T + encoder_bias, k)
