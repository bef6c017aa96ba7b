"""Exact selection on a GPU: a program per row finds the k-th largest digit by digit, then writes what is not below it.

Numbers become unsigned integers in the same order. A histogram of their first eight bits says which digit the k-th
largest has and how many are above; the next eight bits are counted among those with that digit alone, and so on: four
reads of the row for float32, two for bfloat16, whose other bits are zero, and one to write. No sorting, no candidates
that could overflow.

Histograms take far longer than reading does. So where a row is long for its k, it is read once, for the largest of
every 32 neighbours; those with the k largest maxima hold all of the k largest, and they alone are gone through. Of
equal maxima the first are taken: each of these holds one of the entries that equal the k-th largest, and all stand
before those left out, so ties fall as they do in the whole row.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from ..bags.triton import block
from . import reference

# Neighbours of one run, runs that one program looks at, and runs for each entry wanted from which they repay a pass.
_RUN, _RUNS, _WORTH = 32, 64, 4
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
def _maxima(pre, largest, n, runs, RUNS: tl.constexpr, RUN: tl.constexpr):
    """The largest key of each run of neighbours."""
    row = tl.program_id(0).to(tl.int64)
    run = tl.program_id(1) * RUNS + tl.arange(0, RUNS)
    at = run[:, None] * RUN + tl.arange(0, RUN)[None, :]
    # What is beyond the row is below everything in it.
    key = tl.where(at < n, _key(tl.load(pre + row * n + at, mask=at < n, other=0.0).to(tl.float32)), 0)
    tl.store(largest + row * runs + run, tl.max(key, 1).to(tl.int32, bitcast=True), mask=run < runs)


@triton.jit
@no_type_check
def _keys(base, chosen, at, n, width, RUN: tl.constexpr, MADE: tl.constexpr):
    """The keys at some places of what is searched: of the row, of the chosen runs, or as they were made."""
    here = at < width
    if MADE:
        key = tl.load(base + at, mask=here, other=0).to(tl.uint32, bitcast=True)
    else:
        place = at
        if RUN:
            place = tl.load(chosen + at // RUN, mask=here, other=0) * RUN + at % RUN
            here = here & (place < n)
        key = _key(tl.load(base + place, mask=here, other=0.0).to(tl.float32))
    return key.to(tl.int64), here


@triton.jit
@no_type_check
def _select(
    pre,
    chosen,
    values,
    indices,
    n,
    width,
    k,
    DIGITS: tl.constexpr,
    BLOCK: tl.constexpr,
    RUN: tl.constexpr,
    MADE: tl.constexpr,
):
    """The k largest of a row of `width`: of pre, of its chosen runs (RUN), or of keys, for places alone (MADE)."""
    row = tl.program_id(0).to(tl.int64)
    base = pre + row * n
    runs = chosen + row * k
    bins = tl.arange(0, 256)
    wanted = k
    # The digits found so far; a row's keys shifted by 32 would be undefined, hence 64 bits.
    found = tl.zeros((), tl.int64)
    for digit in tl.static_range(DIGITS):
        counts = tl.zeros((256,), tl.int32)
        for start in range(0, width, BLOCK):
            key, here = _keys(base, runs, start + tl.arange(0, BLOCK), n, width, RUN, MADE)
            same = here & ((key >> (32 - 8 * digit)) == found)
            counts += tl.histogram(((key >> (24 - 8 * digit)) & 255).to(tl.int32), 256, mask=same)
        above = tl.cumsum(counts, 0, reverse=True) - counts
        digits = (above < wanted) & (above + counts >= wanted)
        wanted -= tl.sum(tl.where(digits, above, 0), 0)
        found = found * 256 + tl.sum(tl.where(digits, bins, 0), 0)
    written = 0
    equals = 0
    for start in range(0, width, BLOCK):
        at = start + tl.arange(0, BLOCK)
        key, here = _keys(base, runs, at, n, width, RUN, MADE)
        key = key >> (32 - 8 * DIGITS)
        equal = (here & (key == found)).to(tl.int32)
        # Of those that equal the k-th largest, the first ones fill what is left.
        rank = equals + tl.cumsum(equal, 0) - equal
        take = (here & (key > found)) | ((equal != 0) & (rank < wanted))
        taken = take.to(tl.int32)
        slot = row * k + written + tl.cumsum(taken, 0) - taken
        place = at.to(tl.int64)
        if RUN:
            place = tl.load(runs + at // RUN, mask=here, other=0) * RUN + at % RUN
        if not MADE:
            tl.store(values + slot, tl.load(base + place, mask=take, other=0.0), mask=take)
        tl.store(indices + slot, place, mask=take)
        written += tl.sum(taken, 0)
        equals += tl.sum(equal, 0)


def topk(pre: Float[Tensor, "b n"], k: int) -> tuple[Float[Tensor, "b k"], Int[Tensor, "b k"]]:
    """As the reference, bit for bit; float64, rare on a GPU, by the reference's own sort."""
    if pre.dtype not in _DIGITS:
        return reference.topk(pre, k)
    b, n = pre.shape
    pre = pre.contiguous()
    values, indices = pre.new_empty(b, k), torch.empty(b, k, dtype=torch.long, device=pre.device)
    if not b or not k:
        return values, indices
    digits = _DIGITS[pre.dtype]
    if n < _WORTH * _RUN * k:
        _select[(b,)](pre, indices, values, indices, n, n, k, DIGITS=digits, BLOCK=block(n), RUN=0, MADE=False)
        return values, indices
    runs = -(-n // _RUN)
    largest = torch.empty(b, runs, dtype=torch.int32, device=pre.device)
    chosen = torch.empty_like(indices)
    _maxima[(b, triton.cdiv(runs, _RUNS))](pre, largest, n, runs, RUNS=_RUNS, RUN=_RUN)
    _select[(b,)](largest, chosen, values, chosen, runs, runs, k, DIGITS=digits, BLOCK=block(runs), RUN=0, MADE=True)
    _select[(b,)](
        pre, chosen, values, indices, n, k * _RUN, k, DIGITS=digits, BLOCK=block(k * _RUN), RUN=_RUN, MADE=False
    )
    return values, indices
