"""Exact selection on a GPU: a program per row finds the k-th largest digit by digit, then writes what is not below it.

Numbers become unsigned integers in the same order. A histogram of their first eight bits says which digit the k-th
largest has and how many are above; the next eight bits are counted among those with that digit alone, and so on: four
reads of the row for float32, two for bfloat16, whose other bits are zero, and one to write. No sorting, no k in the
cost, no candidates that could overflow. The row is read from cache when its block of rows fits there.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from . import reference

# Numbers read at once.
_BLOCK = 1024
# Eight-bit digits in which numbers of a dtype can differ once they are float32.
_DIGITS = {torch.bfloat16: 2, torch.float16: 3, torch.float32: 4}


@triton.jit
@no_type_check
def _key(v):
    """Unsigned integers in the order of the floats; NaN above all, both zeros one."""
    # -0 + 0 is +0.
    bits = (v + 0.0).to(tl.uint32, bitcast=True)
    ordered = tl.where((bits >> 31) != 0, bits ^ 0xFFFFFFFF, bits | 0x80000000)
    return tl.where(v != v, ordered | 0xFFFFFFFF, ordered)


@triton.jit
@no_type_check
def _select(pre, values, indices, n, k, DIGITS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    base = pre + row * n
    bins = tl.arange(0, 256)
    wanted = k
    # The digits found so far; a row's keys shifted by 32 would be undefined, hence 64 bits.
    found = tl.zeros((), tl.int64)
    for digit in tl.static_range(DIGITS):
        counts = tl.zeros((256,), tl.int32)
        for start in range(0, n, BLOCK):
            at = start + tl.arange(0, BLOCK)
            key = _key(tl.load(base + at, mask=at < n, other=0.0).to(tl.float32)).to(tl.int64)
            same = (at < n) & ((key >> (32 - 8 * digit)) == found)
            counts += tl.histogram(((key >> (24 - 8 * digit)) & 255).to(tl.int32), 256, mask=same)
        above = tl.cumsum(counts, 0, reverse=True) - counts
        here = (above < wanted) & (above + counts >= wanted)
        wanted -= tl.sum(tl.where(here, above, 0), 0)
        found = found * 256 + tl.sum(tl.where(here, bins, 0), 0)
    written = 0
    equals = 0
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        v = tl.load(base + at, mask=at < n, other=0.0)
        key = _key(v.to(tl.float32)).to(tl.int64) >> (32 - 8 * DIGITS)
        equal = ((at < n) & (key == found)).to(tl.int32)
        # Of those that equal the k-th largest, the first ones fill what is left.
        rank = equals + tl.cumsum(equal, 0) - equal
        take = ((at < n) & (key > found)) | ((equal != 0) & (rank < wanted))
        taken = take.to(tl.int32)
        slot = row * k + written + tl.cumsum(taken, 0) - taken
        tl.store(values + slot, v, mask=take)
        tl.store(indices + slot, at.to(tl.int64), mask=take)
        written += tl.sum(taken, 0)
        equals += tl.sum(equal, 0)


def topk(pre: Float[Tensor, "b n"], k: int) -> tuple[Float[Tensor, "b k"], Int[Tensor, "b k"]]:
    """As the reference, bit for bit; float64, rare on a GPU, by the reference's own sort."""
    if pre.dtype not in _DIGITS:
        return reference.topk(pre, k)
    b, n = pre.shape
    values, indices = pre.new_empty(b, k), torch.empty(b, k, dtype=torch.long, device=pre.device)
    if b and k:
        size = min(triton.next_power_of_2(max(n, 16)), _BLOCK)
        _select[(b,)](pre.contiguous(), values, indices, n, k, DIGITS=_DIGITS[pre.dtype], BLOCK=size)
    return values, indices
