"""The slow, obvious form that judges the others, ties and all."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor


def topk(pre: Float[Tensor, "b n"], k: int) -> tuple[Float[Tensor, "b k"], Int[Tensor, "b k"]]:
    """The k largest of each row, in order of index; of equals the first; NaN is larger than any number."""
    order = pre.argsort(dim=1, descending=True, stable=True)  # NaN first
    indices = order[:, :k].sort(1).values
    return pre.gather(1, indices), indices


def encode_topk(
    x: Float[Tensor, "b d"], encoder: Float[Tensor, "n d"], encoder_bias: Float[Tensor, "n"], k: int
) -> tuple[Float[Tensor, "b k"], Int[Tensor, "b k"]]:
    """The k largest of E x + e for each row. Holds (b, n)."""
    return topk(x @ encoder.T + encoder_bias, k)
