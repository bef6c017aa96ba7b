"""In which numbers the encoder's product is made: half-length ones where the device multiplies them faster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


class _Lowered:
    """The product's dtype, and the encoder in it, made once for all blocks of rows of a step."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._of: Tensor | None = None
        self._encoder = torch.empty(0)

    def encoder(self, given: Tensor) -> Tensor:
        if self._of is not given:
            self._of, self._encoder = given, given.detach().to(self.dtype)
        return self._encoder


_CURRENT: ContextVar[_Lowered | None] = ContextVar("precision", default=None)


@contextmanager
def using(dtype: torch.dtype | None) -> Iterator[None]:
    """Makes the products of float32 encoders in `dtype`; weights and what is kept stay float32. None changes nothing.

    int8 is for choosing alone: architectures that look for large pre-activations have `kernels.Screen` exclude the
    others with a bound that is not sure; dense products stay float32. The weights must not change inside: they are
    converted once.
    """
    token = _CURRENT.set(None if dtype is None else _Lowered(dtype))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def lowered() -> bool:
    """Whether products are made in fewer bits than they are used in, so that what is chosen is worth computing anew."""
    current = _CURRENT.get()
    return current is not None and current.dtype is not torch.int8


class Screening(Enum):
    """How latents may be excluded before their values are computed."""

    NO = "not at all: products are in few bits already"
    PROVEN = "only those that cannot be among the chosen"
    LIKELY = "those that are very likely not among the chosen"


def screening() -> Screening:
    """What `using` allows: proof where nothing was asked for, likelihood with int8."""
    current = _CURRENT.get()
    if current is None:
        return Screening.PROVEN
    return Screening.LIKELY if current.dtype is torch.int8 else Screening.NO


def product(
    bias: Float[Tensor, "n"] | None,
    x: Float[Tensor, "b d"],
    encoder: Float[Tensor, "n d"],
    *,
    out: Float[Tensor, "b n"] | None = None,
) -> Float[Tensor, "b n"]:
    """x E^T + e, dense, in the dtype of x; multiplied in that of `using`, with sums in float32.

    Without e, a pass over the product is saved: torch writes e into every row before it multiplies.

    Args:
        out: memory that the product may be written to, where no gradients are wanted.
    """
    current = _CURRENT.get()
    if current is None or current.dtype is torch.int8 or encoder.dtype != torch.float32:
        return torch.mm(x, encoder.T, out=out) if bias is None else torch.addmm(bias, x, encoder.T, out=out)
    if torch.is_grad_enabled() and (encoder.requires_grad or x.requires_grad):
        found = F.linear(x.to(current.dtype), encoder.to(current.dtype))
    else:
        found = F.linear(x.to(current.dtype), current.encoder(encoder))
    return found.to(x.dtype) if bias is None else found + bias
