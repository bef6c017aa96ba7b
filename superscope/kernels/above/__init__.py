"""The entries of a dense block that lie above a floor: what a threshold leaves of the encoder's product."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..choice import compiles
from . import reference

# Of eight neighbours' words, the share with an entry above from which looking at words first gains nothing.
_CROWDED = 4


@torch.no_grad()
def above(
    pre: Float[Tensor, "b n"], floor: float | Float[Tensor, "n"], *, engine: ModuleType | None = None
) -> tuple[Int[Tensor, "m"], Int[Tensor, "m"], Float[Tensor, "m"]]:
    """Row, column and value of every entry greater than the floor, in order of row, then column.

    NaN is above nothing. No gradients: the sparse products attach them to what is kept.

    Args:
        pre: rows of n numbers.
        floor: one for all, or one for each column.
        engine: the module whose version runs; None chooses by size and by what is installed.
    """
    pre = pre.detach()
    floors = pre.new_tensor(floor) if isinstance(floor, float | int) else floor.detach()
    chosen: Any = engine
    if chosen is None and compiles(pre, floors) and pre.is_contiguous():
        from . import compiled as chosen
    if chosen is not None:
        found = chosen.above(pre, floors)
        if found is not None:
            return found
    return _composed(pre, floors)


def _composed(pre: Tensor, floors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eight comparisons are one word; a search among words is six times as fast as one among bytes, if most are 0."""
    n = pre.shape[1]
    if pre.is_cuda or n % 8 or not pre.numel():
        return reference.above(pre, floors)
    on = pre > floors
    words = on.view(torch.int64).view(-1).nonzero().squeeze(1)
    if len(words) * _CROWDED * 8 > on.numel():
        rows, columns = on.nonzero(as_tuple=True)
        return rows, columns, pre[rows, columns]
    word, byte = on.view(-1, 8)[words].nonzero(as_tuple=True)
    at = words[word] * 8 + byte
    rows = at // n
    return rows, at - rows * n, pre.reshape(-1)[at]


__all__ = ["above"]
