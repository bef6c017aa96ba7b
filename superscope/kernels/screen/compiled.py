"""Rounding, bounds and the float32 products of what passes them, a row at a time while it is in the first caches."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from ..loops import compiled, in_threads

# A row of bounds is cut into segments of _LANES x _DEEP entries; entry i of a segment is in its run i mod _LANES, so
# that the maxima of _LANES runs are taken side by side, and what passes is looked for in few short runs.
_LANES, _DEEP = 64, 16
SEGMENT = _LANES * _DEEP


def rounded(
    rows: Float[Tensor, "m d"], share: float
) -> tuple[Int8[Tensor, "m d"], Float[Tensor, "m"], Float[Tensor, "m"], Float[Tensor, "m"]]:
    """Whole numbers, and for each row their unit, the row's norm in that unit and that of what rounding left.

    Of a row whose remainders are noise, `share` of their norm is told.
    """
    m, d = rows.shape
    whole, rows = torch.empty(m, d, dtype=torch.int8), rows.contiguous()
    scale, norm, rest = (rows.new_empty(m) for _ in range(3))

    def work(part: slice) -> None:
        given = (rows[part].numpy(), whole[part].numpy(), scale[part].numpy(), norm[part].numpy(), rest[part].numpy())
        _round(*given, np.float32(share))

    in_threads(work, m)
    return whole, scale, norm, rest


def multiplied(one: Int8[Tensor, "b d"], other: Int8[Tensor, "n d"], out: Int[Tensor, "b n"]) -> Int[Tensor, "b n"]:
    """Fills out with the products of rows with rows, exact for rows of up to 2^16 numbers."""
    in_threads(lambda part: _multiply(one[part].numpy(), other.numpy(), out[part].numpy()), len(one))
    return out


def topk(
    products: Int[Tensor, "b n"],
    bounds: tuple[np.ndarray, ...],
    x: Float[Tensor, "b d"],
    of_x: tuple[Tensor, ...],
    k: int,
    *,
    signed: bool,
    most: int,
    values: Float[Tensor, "b k"],
    indices: Int[Tensor, "b k"],
) -> Tensor:
    """Fills values and indices; False for rows of which more than `most` latents would have to be computed."""
    done = torch.empty(len(x), dtype=torch.bool)

    def work(part: slice) -> None:
        given = [tensor[part].numpy() for tensor in (products, x, *of_x, values, indices, done)]
        _topk(*given[:5], *bounds, k, signed, most, *given[5:])

    in_threads(work, len(x))
    return done


def above(
    products: Int[Tensor, "b n"],
    bounds: tuple[np.ndarray, ...],
    x: Float[Tensor, "b d"],
    of_x: tuple[Tensor, ...],
    floors: Float[Tensor, "n"],
    *,
    most: int,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Row, column and value of what is above; None where more than `most` latents a row would have to be computed."""

    def work(part: slice) -> tuple[Tensor, Tensor, Tensor] | None:
        room = most * (part.stop - part.start) + products.shape[1]
        rows, columns = torch.empty(2, room, dtype=torch.int64)
        values = x.new_empty(room)
        given = [tensor[part].numpy() for tensor in (products, x, *of_x)]
        found = _above(*given, *bounds, floors.numpy(), part.start, most, rows.numpy(), columns.numpy(), values.numpy())
        # Copies, so that the room that was left over is given back.
        return None if found < 0 else (rows[:found].clone(), columns[:found].clone(), values[:found].clone())

    parts = in_threads(work, len(x))
    whole = [part for part in parts if part is not None]
    if len(whole) < len(parts):
        return None
    rows, columns, values = (torch.cat(given) for given in zip(*whole, strict=True))
    return rows, columns, values


@compiled
def _multiply(one: np.ndarray, other: np.ndarray, out: np.ndarray) -> None:
    for b in range(one.shape[0]):
        for i in range(other.shape[0]):
            # Sums that numba is not told to keep in 32 bits are made in 64, at a quarter of the rate.
            total = np.int32(0)
            for j in range(one.shape[1]):
                total = np.int32(total + np.int32(np.int32(one[b, j]) * np.int32(other[i, j])))
            out[b, i] = total


@compiled
def _round(
    rows: np.ndarray, whole: np.ndarray, scales: np.ndarray, norms: np.ndarray, rests: np.ndarray, share: np.float32
) -> None:
    m, d = rows.shape
    lanes = np.empty(_LANES, np.float32)
    c = np.empty(d, np.float32)
    half, small = np.float32(0.5), np.float32(2)
    for i in range(m):
        row, to = rows[i], whole[i]
        lanes[:] = 0
        full = d // _LANES * _LANES
        for start in range(0, full, _LANES):
            part = row[start : start + _LANES]
            for j in range(_LANES):
                size = np.fabs(part[j])
                lanes[j] = size if size > lanes[j] else lanes[j]
        for j in range(full, d):
            lanes[0] = max(lanes[0], np.fabs(row[j]))
        top = lanes.max()
        scale = top / np.float32(127) if top > 0 else np.float32(1)
        inverse = np.float32(1) / scale
        length, found, left, few = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for j in range(d):
            v = row[j] * inverse
            near = np.float32(np.int32(v + (half if v >= 0 else -half)))
            c[j] = near
            off = (v - near) * (v - near)
            length += v * v
            found += near * near
            left += off
            few += off if np.fabs(v) < small else np.float32(0)
        for j in range(d):
            to[j] = np.int8(np.int32(c[j]))
        scales[i] = scale
        norms[i] = np.sqrt(max(length, found))
        rests[i] = np.sqrt(left) * (share if few * np.float32(8) <= left else np.float32(1))


@compiled
def _bound(
    products: np.ndarray,
    scale: np.float32,
    norm: np.float32,
    rest: np.float32,
    scales: np.ndarray,
    norms: np.ndarray,
    rests: np.ndarray,
    shift: np.ndarray,
    signed: bool,
    upper: np.ndarray,
    largest: np.ndarray,
) -> None:
    """No pre-activation is greater than its `upper`; `largest` of each run of those. What is past the last is left."""
    count = products.shape[0]
    for segment in range(upper.shape[0] // SEGMENT):
        lane = largest[segment * _LANES : (segment + 1) * _LANES]
        for j in range(_LANES):
            lane[j] = -np.inf
        for depth in range(_DEEP):
            at = segment * SEGMENT + depth * _LANES
            p, s, n = products[at : at + _LANES], scales[at : at + _LANES], norms[at : at + _LANES]
            r, e, to = rests[at : at + _LANES], shift[at : at + _LANES], upper[at : at + _LANES]
            if at + _LANES > count or signed:
                for j in range(p.shape[0]):
                    unit = scale * s[j]
                    size = unit * np.float32(p[j]) + e[j]
                    to[j] = (np.fabs(size) if signed else size) + unit * (rest * n[j] + norm * r[j])
                    lane[j] = to[j] if to[j] > lane[j] else lane[j]
            else:
                # A constant length is what lets the sums be made side by side.
                for j in range(_LANES):
                    size = scale * s[j] * (np.float32(p[j]) + rest * n[j] + norm * r[j]) + e[j]
                    to[j] = size
                    lane[j] = size if size > lane[j] else lane[j]


@compiled
def _floor(largest: np.ndarray, k: int) -> np.float32:
    """A number that at least k reach, and few more where that is cheap to find."""
    low, high = np.float32(np.inf), np.float32(-np.inf)
    for j in range(largest.shape[0]):
        # A run past the last latent holds nothing.
        low = largest[j] if -np.inf < largest[j] < low else low
        high = largest[j] if largest[j] > high else high
    for _ in range(20):
        middle = np.float32(0.5) * low + np.float32(0.5) * high
        count = np.int32(0)
        for j in range(largest.shape[0]):
            count += np.int32(largest[j] >= middle)
        if count >= k:
            low = middle
            if count <= k + k // 8:
                break
        else:
            high = middle
    return low


@compiled
def _collect(
    upper: np.ndarray, largest: np.ndarray, floor: np.float32, past: np.float32, runs: np.ndarray, found: np.ndarray
) -> int:
    """How many bounds are in [floor, past), and where, written without a branch that nobody could foresee."""
    count, runs_found = 0, 0
    for run in range(largest.shape[0]):
        runs[runs_found] = run
        runs_found += np.int64(largest[run] >= floor)
    for index in range(runs_found):
        run = runs[index]
        first = run // _LANES * SEGMENT + run % _LANES
        for i in range(first, first + SEGMENT, _LANES):
            found[count] = i
            count += np.int64((upper[i] >= floor) & (upper[i] < past))
    return count  # type: ignore[return-value]


@compiled
def _product(one: np.ndarray, other: np.ndarray) -> np.float32:
    total = np.float32(0)
    for j in range(one.shape[0]):
        total += one[j] * other[j]
    return total


@compiled
def _sink(heap: np.ndarray, places: np.ndarray, at: int, size: int) -> None:
    """Moves an entry of a heap, smallest first, down to where it belongs; places go with the entries."""
    value, place = heap[at], places[at]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[at], places[at] = heap[child], places[child]
        at = child
    heap[at], places[at] = value, place


@compiled
def _offer(pre: np.ndarray, first: int, past: int, signed: bool, heap: np.ndarray, places: np.ndarray, k: int) -> None:
    """Puts what is larger than the smallest of a heap in its place."""
    for c in range(first, past):
        size = np.fabs(pre[c]) if signed else pre[c]
        if size > heap[0]:
            heap[0], places[0] = size, c
            _sink(heap, places, 0, k)


@compiled
def _topk(
    products: np.ndarray,
    x: np.ndarray,
    scale: np.ndarray,
    norm: np.ndarray,
    rest: np.ndarray,
    encoder: np.ndarray,
    shift: np.ndarray,
    scales: np.ndarray,
    norms: np.ndarray,
    rests: np.ndarray,
    k: int,
    signed: bool,
    most: int,
    values: np.ndarray,
    indices: np.ndarray,
    done: np.ndarray,
) -> None:
    n = (products.shape[1] + SEGMENT - 1) // SEGMENT * SEGMENT
    upper, largest = np.full(n, -np.inf, np.float32), np.empty(n // _DEEP, np.float32)
    runs, found = np.empty(n // _DEEP + 1, np.int64), np.empty(n + 1, np.int64)
    pre, heap, places = np.empty(n, np.float32), np.empty(k, np.float32), np.empty(k, np.int64)
    for b in range(x.shape[0]):
        row = x[b]
        _bound(products[b], scale[b], norm[b], rest[b], scales, norms, rests, shift, signed, upper, largest)
        # Whatever k latents are computed, the k-th largest of all is no smaller than the smallest of these.
        floor = _floor(largest, k)
        count = _collect(upper, largest, floor, np.inf, runs, found)
        done[b] = count <= most
        if not done[b]:
            continue
        for c in range(count):
            pre[c] = _product(row, encoder[found[c]]) + shift[found[c]]
        for c in range(k):
            heap[c], places[c] = np.fabs(pre[c]) if signed else pre[c], c
        for c in range(k // 2 - 1, -1, -1):
            _sink(heap, places, c, k)
        _offer(pre, k, count, signed, heap, places, k)
        # So what cannot exceed that is not among them, and the rest is computed too.
        past = count + _collect(upper, largest, heap[0], floor, runs, found[count:])
        done[b] = past <= most
        if not done[b]:
            continue
        for c in range(count, past):
            pre[c] = _product(row, encoder[found[c]]) + shift[found[c]]
        _offer(pre, count, past, signed, heap, places, k)
        for c in range(k):
            values[b, c], indices[b, c] = pre[places[c]], found[places[c]]


@compiled
def _above(
    products: np.ndarray,
    x: np.ndarray,
    scale: np.ndarray,
    norm: np.ndarray,
    rest: np.ndarray,
    encoder: np.ndarray,
    shift: np.ndarray,
    scales: np.ndarray,
    norms: np.ndarray,
    rests: np.ndarray,
    floors: np.ndarray,
    first: int,
    most: int,
    rows: np.ndarray,
    columns: np.ndarray,
    values: np.ndarray,
) -> int:
    """How many are above; -1 where too many would have to be computed."""
    total, computed = 0, 0
    n = (products.shape[1] + SEGMENT - 1) // SEGMENT * SEGMENT
    upper, largest = np.full(n, -np.inf, np.float32), np.empty(n // _DEEP, np.float32)
    runs, found = np.empty(n // _DEEP + 1, np.int64), np.empty(n + 1, np.int64)
    below = shift - floors
    for b in range(x.shape[0]):
        row = x[b]
        _bound(products[b], scale[b], norm[b], rest[b], scales, norms, rests, below, False, upper, largest)
        count = _collect(upper, largest, np.float32(0), np.inf, runs, found)
        computed += count
        if computed > most * (b + 1) + products.shape[1]:
            return -1
        for c in range(count):
            values[total + c] = _product(row, encoder[found[c]]) + shift[found[c]]
        kept = 0
        for c in range(count):
            # Each is moved to a place at or before its own.
            value = values[total + c]
            values[total + kept], rows[total + kept], columns[total + kept] = value, first + b, found[c]
            kept += np.int64(value > floors[found[c]])
        total += kept
    return total  # type: ignore[return-value]
