"""Exact selection in one pass over a row while it is in the first cache.

The row is cut into runs; the k-th largest of the runs' maxima is a value that at least k entries reach, and hardly more
do: entries below it cannot be among the k largest, and only runs whose maximum reaches it are looked into.
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
        return _topk(pre[part].numpy(), k, runs, values[part].numpy(), indices[part].numpy())

    return (values, indices) if all(in_threads(work, len(pre))) else None


def sink(heap: np.ndarray, places: np.ndarray, at: int, size: int) -> None:
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


sink = compiled(sink)


@compiled
def _topk(pre: np.ndarray, k: int, runs: int, values: np.ndarray, indices: np.ndarray) -> bool:
    """False where there is a NaN, which no comparison would put anywhere."""
    n = pre.shape[1]
    whole = n // runs * runs
    largest = np.empty(runs, pre.dtype)
    heap, places = np.empty(k, pre.dtype), np.empty(k, np.int64)
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
        for j in range(k):
            heap[j], places[j] = largest[j], j
        for j in range(k // 2 - 1, -1, -1):
            sink(heap, places, j, k)
        for j in range(k, runs):
            if largest[j] > heap[0]:
                heap[0], places[0] = largest[j], j
                sink(heap, places, 0, k)
        floor = heap[0]
        found = 0
        for j in range(runs):
            if largest[j] < floor:
                continue
            for i in range(j, n, runs):
                if row[i] < floor:
                    continue
                if found < k:
                    heap[found], places[found] = row[i], i
                    found += 1
                    if found == k:
                        for s in range(k // 2 - 1, -1, -1):
                            sink(heap, places, s, k)
                elif row[i] > heap[0]:
                    heap[0], places[0] = row[i], i
                    sink(heap, places, 0, k)
        for j in range(k):
            values[b, j], indices[b, j] = heap[j], places[j]
    return True
