"""The three sums on a GPU: one program per row (or atom), so nothing is added at once and sums repeat exactly.

Sums are made in float32 (float64 for float64), whatever the inputs are stored in.
"""

from __future__ import annotations

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

# Numbers of a row per program: wide enough for full memory transactions, small enough to keep in registers.
_WIDEST = 1024


# Triton reads these functions' source; shape checks would wrap what it reads.
@triton.jit
@no_type_check
def _sum(weights, picks, order, starts, table, out, d, WIDE: tl.constexpr, BLOCK: tl.constexpr, ORDERED: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), WIDE)
    for use in range(tl.load(starts + row), tl.load(starts + row + 1)):
        # Sorted uses find their weights where they were before the sort.
        weight = tl.load(weights + tl.load(order + use) if ORDERED else weights + use)
        pick = tl.load(picks + use).to(tl.int64)
        total += weight.to(WIDE) * tl.load(table + pick * d + at, mask=at < d, other=0.0).to(WIDE)
    tl.store(out + row * d + at, total.to(out.dtype.element_ty), mask=at < d)


@triton.jit
@no_type_check
def _dot(rows, columns, offsets, atoms, out, d, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    for use in range(tl.load(offsets + row), tl.load(offsets + row + 1)):
        column = tl.load(columns + use).to(tl.int64)
        total = tl.zeros((BLOCK,), WIDE)
        for start in range(0, d, BLOCK):
            at = start + tl.arange(0, BLOCK)
            x = tl.load(rows + row * d + at, mask=at < d, other=0.0).to(WIDE)
            total += x * tl.load(atoms + column * d + at, mask=at < d, other=0.0).to(WIDE)
        tl.store(out + use, tl.sum(total, 0).to(out.dtype.element_ty))


def wide(dtype: torch.dtype) -> Any:
    """The type that sums of numbers of a dtype are made in."""
    return tl.float64 if dtype == torch.float64 else tl.float32


def block(d: int) -> int:
    """Numbers of a row that one program holds."""
    return min(1 << (max(d, 16) - 1).bit_length(), _WIDEST)


def bag_sum(
    values: Float[Tensor, "m"], columns: Int[Tensor, "m"], offsets: Int[Tensor, "b1"], atoms: Float[Tensor, "n d"]
) -> Float[Tensor, "b d"]:
    """As the reference."""
    b, d = len(offsets) - 1, atoms.shape[1]
    out = atoms.new_empty(b, d)
    if out.numel():
        size = block(d)
        grid = (b, triton.cdiv(d, size))
        columns = columns.contiguous()
        _sum[grid](
            values.contiguous(),
            columns,
            columns,
            offsets.contiguous(),
            atoms.contiguous(),
            out,
            d,
            WIDE=wide(atoms.dtype),
            BLOCK=size,
            ORDERED=False,
        )
    return out


def bag_dot(
    rows: Float[Tensor, "b d"], columns: Int[Tensor, "m"], offsets: Int[Tensor, "b1"], atoms: Float[Tensor, "n d"]
) -> Float[Tensor, "m"]:
    """As the reference."""
    out = atoms.new_empty(len(columns))
    if out.numel():
        d = atoms.shape[1]
        _dot[(len(rows),)](
            rows.contiguous(),
            columns.contiguous(),
            offsets.contiguous(),
            atoms.contiguous(),
            out,
            d,
            WIDE=wide(atoms.dtype),
            BLOCK=block(d),
        )
    return out


def atom_sum(values: Float[Tensor, "m"], rows: Float[Tensor, "b d"], plan: Any) -> Float[Tensor, "n d"]:
    """As the reference, over a plan."""
    n, d = len(plan.starts) - 1, rows.shape[1]
    out = rows.new_empty(n, d)
    if out.numel():
        size = block(d)
        _sum[(n, triton.cdiv(d, size))](
            values.contiguous(),
            plan.rows,
            plan.order,
            plan.starts,
            rows.contiguous(),
            out,
            d,
            WIDE=wide(rows.dtype),
            BLOCK=size,
            ORDERED=True,
        )
    return out
