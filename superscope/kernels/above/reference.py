"""The slow, obvious form that judges the others."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor


def above(
    pre: Float[Tensor, "b n"], floor: Float[Tensor, "..."]
) -> tuple[Int[Tensor, "m"], Int[Tensor, "m"], Float[Tensor, "m"]]:
    """Row, column and value of every entry greater than the floor, in order of row, then column."""
    rows, columns = (pre > floor).nonzero(as_tuple=True)
    return rows, columns, pre[rows, columns]
