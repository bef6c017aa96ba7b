"""How are the matrices of many models multiplied, each with the same bits wherever its model stands among the others?

Libraries choose their loops by where a matrix begins in memory: with MKL on AMD processors the product of a matrix that
begins at a multiple of 16 bytes is rounded otherwise than that of one that begins 4 bytes later. In a stack of 5 x 3
matrices each begins at another place. Here every matrix, operand or result, begins at a multiple of 64 bytes, the most
that any loop asks about. What a library sees of a model is then the same whoever its neighbours are.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

# Bytes of a line of the cache, and of the longest vector of any processor of this kind.
_BOUNDARY = 64
# Multiplications below which torch itself multiplies in plain loops, which never look at where anything begins.
_PLAIN = 400


def product(
    a: Float[Tensor, "e m k"], b: Float[Tensor, "e k n"], plus: Float[Tensor, "e n"] | None = None
) -> Float[Tensor, "e m n"]:
    """A B + 1 c' of each model, differentiable.

    Args:
        a: A.
        b: B.
        plus: c, or None for zeros.
    """
    if torch.is_grad_enabled() and (a.requires_grad or b.requires_grad):
        out = _Product.apply(a, b)
        return out if plus is None else out + plus[:, None]  # type: ignore[operator]
    return _multiplied(a, b, plus)


def total(x: Float[Tensor, "*shape"], axis: int) -> Float[Tensor, "*rest"]:
    """The sum over an axis that is not the last, by halves; torch adds in an order that depends on how many numbers
    stand beside each other on the axes behind."""
    while (length := x.shape[axis]) > 1:
        half = length // 2
        halves = x.narrow(axis, 0, half) + x.narrow(axis, half, half)
        if length % 2:
            halves.select(axis, 0).add_(x.select(axis, length - 1))
        x = halves
    return x.squeeze(axis)


def aligned(x: Float[Tensor, "e m n"]) -> Float[Tensor, "e m n"]:
    """x, or a copy of it, of which each matrix begins at a boundary and is dense, by rows or by columns."""
    e, m, n = x.shape
    stride, *inner = x.stride()
    by_columns = inner == [1, m]
    if (by_columns or inner == [n, 1]) and stride * x.element_size() % _BOUNDARY == 0 == x.data_ptr() % _BOUNDARY:
        return x
    return room(x, e, n, m).copy_(x.mT).mT if by_columns else room(x, e, m, n).copy_(x)


def room(like: Tensor, e: int, m: int, n: int) -> Float[Tensor, "e m n"]:
    """Memory for numbers like some, for e matrices of which each begins at a boundary."""
    step = _BOUNDARY // like.element_size()
    return torch.empty_strided((e, m, n), (-(-m * n // step) * step, n, 1), dtype=like.dtype, device=like.device)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return _multiplied(a, b)

    @staticmethod
    def backward(ctx, slope):
        a, b = ctx.saved_tensors
        return (
            _multiplied(slope, b.mT) if ctx.needs_input_grad[0] else None,
            _multiplied(a.mT, slope) if ctx.needs_input_grad[1] else None,
        )


def _multiplied(a: Tensor, b: Tensor, plus: Tensor | None = None) -> Tensor:
    (e, m, k), n = a.shape, b.shape[2]
    if k > m > n and plus is None:
        # A long sum is made faster for few rows of many columns: 34 against 83 microseconds for 12 of 5 x 1024 x 20.
        return _multiplied(b.mT, a.mT).mT
    if m * k * n >= _PLAIN:
        a, b = aligned(a), aligned(b)
        if m * n * a.element_size() % _BOUNDARY:
            # Results that do not lie end to end are made one at a time, in a loop of torch's.
            out = torch.bmm(a, b, out=room(a, e, m, n))
            return out if plus is None else out.add_(plus[:, None])
    return torch.bmm(a, b) if plus is None else torch.baddbmm(plus[:, None], a, b)
