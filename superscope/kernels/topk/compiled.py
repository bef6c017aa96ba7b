"""Exact selection in one pass over a row while it is in the first cache.

The row is cut into runs; the k-th largest of the runs' maxima is a value that at least k entries reach, and hardly more
do: entries below it cannot be among the k largest, and only runs whose maximum reaches it are looked into. What decides
is halved towards, never sorted: a heap's comparisons, which no processor can foresee, took three times as long.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..loops import compiled, in_threads

# Runs per latent wanted, and runs at least: with four, few more than k entries reach the floor.
_RUNS, _LEAST = 4, 128


def _runs(k: int) -> int:
    return max(2 ** (_RUNS * k - 1).bit_length(), _LEAST)


def suits(n: int, k: int) -> bool:
    """Whether a row has enough entries to be cut into runs."""
    return n >= 4 * _runs(k)


def topk(pre: Float[Tensor, "b n"], k: int) -> tuple[Float[Tensor, "b k"], Int[Tensor, "b k"]] | None:
    """As the reference but for the order and for which of equals are taken; None where a row holds NaN."""
    values, indices = pre.new_empty(len(pre), k), torch.empty(len(pre), k, dtype=torch.long)
    runs = _runs(k)

    def work(part: slice) -> bool:
        given = pre[part]
        out = (values[part].numpy(), indices[part].numpy())
        return _topk(given.numpy(), given.view(torch.int32).numpy(), k, runs, *out)

    return (values, indices) if all(in_threads(work, len(pre))) else None


@compiled
def _reached(keys: np.ndarray, size: int, k: int, slack: int) -> np.int32:
    """A key that k of the first `size` reach, and at most `slack` more but for equals; its halvings have no branch that
    a processor would have to guess."""
    low = high = np.int64(keys[0])
    for j in range(size):
        low, high = min(low, np.int64(keys[j])), max(high, np.int64(keys[j]))
    high += 1
    while high - low > 1:
        middle = np.int32((low + high) >> 1)
        count = np.int32(0)
        for j in range(size):
            count += np.int32(keys[j] >= middle)
        if count < k:
            high = np.int64(middle)
            continue
        low = np.int64(middle)
        if count <= k + slack:
            break
    return np.int32(low)


@compiled
def _key(bits: np.int32) -> np.int32:
    """A whole number in the order of the float32 of these bits."""
    return bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


@compiled
def _topk(pre: np.ndarray, bits: np.ndarray, k: int, runs: int, values: np.ndarray, indices: np.ndarray) -> bool:
    """False where there is a NaN, which no comparison would put anywhere."""
    n = pre.shape[1]
    whole = n // runs * runs
    largest, maxima = np.empty(runs, np.float32), np.empty(runs, np.int32)
    some, keys, found = np.empty(runs + 1, np.int64), np.empty(n + 1, np.int32), np.empty(n + 1, np.int64)
    for b in range(pre.shape[0]):
        row = pre[b]
        # Entry i is in run i mod runs, so that the maxima of all runs are taken side by side.
        unordered = np.int32(0)
        for j in range(runs):
            unordered += np.int32(row[j] != row[j])
            largest[j] = row[j]
        for start in range(runs, whole, runs):
            part = row[start : start + runs]
            for j in range(runs):
                unordered += np.int32(part[j] != part[j])
                largest[j] = part[j] if part[j] > largest[j] else largest[j]
        for i in range(whole, n):
            unordered += np.int32(row[i] != row[i])
            largest[i - whole] = row[i] if row[i] > largest[i - whole] else largest[i - whole]
        if unordered:
            return False
        seen = largest.view(np.int32)
        for j in range(runs):
            maxima[j] = _key(seen[j])
        floor = _reached(maxima, runs, k, k // 8)
        n_some = 0
        for j in range(runs):
            some[n_some] = j
            n_some += np.int64(maxima[j] >= floor)
        # Written whether it reaches the floor or not, and kept where it does: again nothing to guess.
        count = 0
        for j in range(n_some):
            for i in range(some[j], n, runs):
                keys[count], found[count] = _key(bits[b, i]), i
                count += np.int64(keys[count] >= floor)
        if count > k:
            floor = _reached(keys, count, k, 0)
        taken = 0
        for c in range(count):
            if keys[c] > floor:
                values[b, taken], indices[b, taken] = row[found[c]], found[c]
                taken += 1
        for c in range(count):
            if taken < k and keys[c] == floor:
                values[b, taken], indices[b, taken] = row[found[c]], found[c]
                taken += 1
    return True
