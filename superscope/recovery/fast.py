"""The inner loops of `OMP` and `CoordinateDescent` compiled for the CPU; needs the extra `superscope[fast]` (numba).

The torch versions judge these: same choices, same stopping rules, one row at a time in the caches instead of many rows
through memory. Threads are Python's, as many as torch uses; the compiled loops run without the interpreter lock.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_BUDGET = 400
"""Single moves of coordinate descent per row; rows that need more are ill-conditioned and left to joint steps."""


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The loop in machine code, without whatever checks the function has been wrapped in."""
    # fastmath lets the sums over n be vectorised; inputs are finite, so what it assumes holds.
    compile_ = numba.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
    return compile_(inspect.unwrap(function))


def omp(
    x: Float[Tensor, "rows d"],
    unit: Float[Tensor, "n d"],
    gram: Float[Tensor, "n n"],
    k: int,
    tolerance: float,
    floor: float,
    least_pivot: float,
) -> tuple[Float[Tensor, "rows k"], Int[Tensor, "rows k"], Bool[Tensor, "rows"], int]:
    """Values in unit atoms, indices, whether no row ran into dependent atoms, and the largest number of steps."""
    values, indices = x.new_zeros(len(x), k), torch.zeros(len(x), k, dtype=torch.int64)
    stuck, steps = torch.zeros(len(x), dtype=torch.bool), torch.zeros(len(x), dtype=torch.int64)

    def work(part: slice) -> None:
        correlation = (x[part] @ unit.T).numpy()
        energy = x[part].square().sum(1).numpy()
        out = (values[part].numpy(), indices[part].numpy(), stuck[part].numpy(), steps[part].numpy())
        _omp(correlation, *_bits(correlation), gram.numpy(), energy, k, tolerance, floor, least_pivot, *out)

    _in_threads(work, len(x), len(unit))
    return values, indices, ~stuck, int(steps.max()) if len(x) else 0


def lasso(
    x: Float[Tensor, "rows d"],
    unit: Float[Tensor, "n d"],
    gram: Float[Tensor, "n n"],
    penalties: Float[Tensor, "n"],
    tolerance: float,
    nonnegative: bool,
    steps: int,
    slots: int,
) -> tuple[Float[Tensor, "rows slots"], Int[Tensor, "rows slots"], Bool[Tensor, "rows"], int]:
    """Values in unit atoms, indices, which rows finished (moves, slots, duality gap), and the most moves made."""
    values, indices = x.new_zeros(len(x), slots), torch.zeros(len(x), slots, dtype=torch.int64)
    finished, moves = torch.zeros(len(x), dtype=torch.bool), torch.zeros(len(x), dtype=torch.int64)

    def work(part: slice) -> None:
        correlation = (x[part] @ unit.T).numpy()
        out = (values[part].numpy(), indices[part].numpy(), finished[part].numpy(), moves[part].numpy())
        excess = np.empty_like(correlation[0])
        energy = x[part].double().square().sum(1).numpy()
        _lasso(
            correlation,
            *_bits(correlation),
            excess,
            _bits(excess)[0],
            energy,
            gram.numpy(),
            penalties.numpy(),
            tolerance,
            nonnegative,
            min(steps, _BUDGET),
            *out,
        )

    _in_threads(work, len(x), len(unit))
    return values, indices, finished, int(moves.max()) if len(x) else 0


def _in_threads(work: Callable[[slice], None], rows: int, n: int) -> None:
    # Blocks large enough for the product x W to run at full speed (42 rows at n = 24 576 reached 60 GFLOP/s, 256 rows
    # 110), small enough to be shared out among threads.
    size = max(256, 2**20 // n)
    parts = [slice(start, start + size) for start in range(0, rows, size)]
    threads = min(torch.get_num_threads(), len(parts))
    if threads <= 1:
        for part in parts:
            work(part)
        return
    with ThreadPoolExecutor(threads) as pool:
        # list() hands on an exception of any part.
        list(pool.map(work, parts))


@_compiled
def _largest(bits: np.ndarray, mask: np.integer) -> int:
    """argmax |v| from the bits of v, whose magnitudes are ordered as integers are.

    An integer maximum is vectorised, a floating one is not (0.2 against 1.3 microseconds for 1024 numbers); the
    position is then looked for in one stretch of 64.
    """
    n = bits.shape[0]
    whole = n // 64 * 64
    best, where = bits[0] & mask, 0
    for start in range(0, whole, 64):
        part = bits[start : start + 64]
        peak = part[0] & mask
        for i in range(64):
            peak = max(peak, part[i] & mask)
        if peak > best:
            best, where = peak, start
    for i in range(whole, n):
        if bits[i] & mask > best:
            best, where = bits[i] & mask, i
    for i in range(where, n):
        if bits[i] & mask == best:
            return i
    return 0


def _bits(values: np.ndarray) -> tuple[np.ndarray, np.integer]:
    """The same memory as integers, and what masks the sign out."""
    kind = np.int32 if values.dtype == np.float32 else np.int64
    return values.view(kind), kind(np.iinfo(kind).max)


@_compiled
def _orthogonalise(
    row: np.ndarray, basis: np.ndarray, shares: np.ndarray, t: int, alpha: np.ndarray, step: np.floating
) -> None:
    """basis[t] = row - sum_s shares[s] basis[s] over s < t, then alpha -= step basis[t].

    Four directions per pass, so that a number of the sum is loaded and stored once for four products (11 against 15
    microseconds for 1024 x 10); the passes over one stretch follow each other while it is in the innermost cache.
    """
    n, first = row.shape[0], t % 4
    for start in range(0, n, 2048):
        given, out = row[start : start + 2048], basis[t, start : start + 2048]
        width = out.shape[0]
        if first == 0:
            for i in range(width):
                out[i] = given[i]
        elif first == 1:
            c0, v0 = shares[0], basis[0, start : start + 2048]
            for i in range(width):
                out[i] = given[i] - c0 * v0[i]
        elif first == 2:
            c0, v0 = shares[0], basis[0, start : start + 2048]
            c1, v1 = shares[1], basis[1, start : start + 2048]
            for i in range(width):
                out[i] = given[i] - (c0 * v0[i] + c1 * v1[i])
        else:
            c0, v0 = shares[0], basis[0, start : start + 2048]
            c1, v1 = shares[1], basis[1, start : start + 2048]
            c2, v2 = shares[2], basis[2, start : start + 2048]
            for i in range(width):
                out[i] = given[i] - (c0 * v0[i] + c1 * v1[i]) - c2 * v2[i]
        for s in range(first, t, 4):
            c0, v0 = shares[s], basis[s, start : start + 2048]
            c1, v1 = shares[s + 1], basis[s + 1, start : start + 2048]
            c2, v2 = shares[s + 2], basis[s + 2, start : start + 2048]
            c3, v3 = shares[s + 3], basis[s + 3, start : start + 2048]
            for i in range(width):
                out[i] -= (c0 * v0[i] + c1 * v1[i]) + (c2 * v2[i] + c3 * v3[i])
        rest = alpha[start : start + 2048]
        for i in range(width):
            rest[i] -= step * out[i]


@_compiled
def _omp(
    correlation: np.ndarray,
    bits: np.ndarray,
    mask: np.integer,
    gram: np.ndarray,
    energy: np.ndarray,
    k: int,
    tolerance: float,
    floor: float,
    least_pivot: float,
    values: np.ndarray,
    indices: np.ndarray,
    stuck: np.ndarray,
    steps: np.ndarray,
) -> None:
    rows, n = correlation.shape
    # basis[s] = W^T v_s for the s-th direction v_s, orthogonal to those before and not normalised.
    basis = np.empty((k, n), correlation.dtype)
    inverses = np.empty(k, correlation.dtype)
    factor = np.zeros((k, k), correlation.dtype)
    # Scalars pass through an array of the data's type: float64 ones would turn the loops over n into double ones.
    scalar = np.empty(1, correlation.dtype)
    projections = np.zeros(k, correlation.dtype)
    shares = np.zeros(k, correlation.dtype)
    for b in range(rows):
        alpha = correlation[b]
        bar = floor * np.sqrt(energy[b])
        left = float(energy[b])
        t = 0
        while t < k:
            j = _largest(bits[b], mask)
            # Rounding alone brings `left` to 0 while a residual of sqrt(eps) |x| is there to be explained.
            if np.fabs(alpha[j]) <= bar or (tolerance > 0 and left <= tolerance * tolerance * energy[b]):
                break
            pivot = 1.0
            for s in range(t):
                overlap = basis[s, j] * inverses[s]
                factor[t, s] = overlap
                pivot -= overlap * overlap
                shares[s] = overlap * inverses[s]
            if pivot <= least_pivot:
                stuck[b] = True
                break
            inverse = 1 / np.sqrt(pivot)
            factor[t, t] = np.sqrt(pivot)
            inverses[t] = inverse
            projection = alpha[j] * inverse
            projections[t] = projection
            scalar[0] = projection * inverse
            _orthogonalise(gram[j], basis, shares, t, alpha, scalar[0])
            alpha[j] = 0
            indices[b, t] = j
            left = max(left - projection * projection, 0.0)
            t += 1
        steps[b] = t
        # R^T f = z, from the last atom back.
        for s in range(t - 1, -1, -1):
            total = projections[s]
            for later in range(s + 1, t):
                total -= factor[later, s] * values[b, later]
            values[b, s] = total / factor[s, s]


@_compiled
def _lasso(
    correlation: np.ndarray,
    bits: np.ndarray,
    mask: np.integer,
    excess: np.ndarray,
    excess_bits: np.ndarray,
    energy: np.ndarray,
    gram: np.ndarray,
    penalties: np.ndarray,
    tolerance: float,
    nonnegative: bool,
    steps: int,
    values: np.ndarray,
    indices: np.ndarray,
    finished: np.ndarray,
    moves: np.ndarray,
) -> None:
    rows, n = correlation.shape
    slots = values.shape[1]
    # Scalars pass through an array of the data's type: float64 ones would turn the loops over n into double ones.
    scalar = np.zeros(1, correlation.dtype)
    zero = scalar[0]
    scalar = np.zeros(1, correlation.dtype)
    for b in range(rows):
        alpha = correlation[b]
        goal = np.fabs(alpha[_largest(bits[b], mask)]) * tolerance
        used = 0
        made = 0
        while True:
            # By how much each atom would move if it were not held; for a held one that is at most its true move.
            if nonnegative:
                for i in range(n):
                    excess[i] = max(alpha[i] - penalties[i], zero)
            else:
                for i in range(n):
                    excess[i] = max(np.fabs(alpha[i]) - penalties[i], zero)
            fresh = _largest(excess_bits, mask)
            gain = excess[fresh]
            slot, move, held = -1, zero, -1
            for s in range(used):
                j = indices[b, s]
                if j == fresh:
                    held = s
                aim = values[b, s] + alpha[j]
                if aim > penalties[j]:
                    aim -= penalties[j]
                elif aim < -penalties[j] and not nonnegative:
                    aim += penalties[j]
                else:
                    aim = zero
                if np.fabs(aim - values[b, s]) > np.fabs(move):
                    slot, move = s, aim - values[b, s]
            if max(gain, np.fabs(move)) <= goal:
                # On ill-conditioned atoms small moves do not mean that little is left to gain: the duality gap says it.
                size, shrink, inner, mass = 0.0, 1.0, 0.0, 0.0
                for i in range(n):
                    ratio = (alpha[i] if nonnegative else np.fabs(alpha[i])) / penalties[i]
                    shrink = max(shrink, ratio)
                for s in range(used):
                    inner += values[b, s] * alpha[indices[b, s]]
                    mass += np.fabs(values[b, s]) * penalties[indices[b, s]]
                    for other in range(used):
                        size += values[b, s] * values[b, other] * gram[indices[b, s], indices[b, other]]
                left = energy[b] - 2 * inner - size
                dual = (left + inner) / shrink - 0.5 * left / (shrink * shrink)
                finished[b] = 0.5 * left + mass - dual <= tolerance * 0.5 * energy[b]
                if not finished[b] and made < steps and max(gain, np.fabs(move)) > 0:
                    goal *= 0.25
                    continue
                # A value whose best move is to 0, but by less than the tolerance, goes there.
                for s in range(used):
                    j = indices[b, s]
                    aim = values[b, s] + alpha[j]
                    if aim <= penalties[j] and (nonnegative or aim >= -penalties[j]):
                        values[b, s] = 0
                break
            if made == steps:
                break
            if np.fabs(move) >= gain or held >= 0:
                if slot < 0:
                    break
                chosen = indices[b, slot]
            else:
                if used == slots:
                    break
                slot, chosen = used, fresh
                move = gain if alpha[fresh] > 0 else -gain
                indices[b, used] = fresh
                used += 1
            values[b, slot] += move
            row = gram[chosen]
            scalar[0] = move
            step = scalar[0]
            for i in range(n):
                alpha[i] -= step * row[i]
            made += 1
        moves[b] = made
