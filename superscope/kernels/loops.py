"""How loops are compiled for the CPU and shared among threads; needs the extra `superscope[fast]` (numba)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numba
import torch

T = TypeVar("T")


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The loop in machine code, without whatever checks the function has been wrapped in.

    Sums may be made in another order, so that they are vectorised, but NaN and infinity stay what they are.
    """
    compile_ = numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
    return compile_(inspect.unwrap(function))


def in_threads(work: Callable[[slice], T], rows: int) -> list[T]:
    """What `work` makes of equal shares of the rows, in order, as many at once as torch has threads."""
    threads = min(torch.get_num_threads(), max(rows, 1))
    parts = [slice(rows * i // threads, rows * (i + 1) // threads) for i in range(threads)]
    if threads == 1:
        return [work(parts[0])]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, parts))
