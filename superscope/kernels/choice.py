"""Which version of a kernel runs: Triton on a GPU, compiled loops on a CPU, where they are installed; else torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import torch
from torch import Tensor

# Numbers to go through from which a compiled loop repays the second that its compilation or loading takes.
_WORTH_COMPILING = 2**21
# The same over all the calls of a training. A pass of a compiled loop saves 2 to 4 ns a number, so that this many repay
# the half second that numba and the first loop take to load; the seconds of its first compilation are paid once per
# installation. One loop more takes a twentieth of a second.
_WORTH_LOADING, _WORTH_ANOTHER = 2**27, 2**24
_CALLS: ContextVar[tuple[int, int]] = ContextVar("calls", default=(1, 0))
_ALLOWED: ContextVar[bool] = ContextVar("compiled loops", default=True)


@cache
def installed(package: str) -> bool:
    """Whether a package could be imported."""
    return importlib.util.find_spec(package) is not None


def on_gpu(*tensors: Tensor) -> bool:
    """Whether Triton is to run on these: all on a GPU, and Triton installed."""
    return all(t.is_cuda for t in tensors) and installed("triton")


def compiles(*tensors: Tensor) -> bool:
    """Whether compiled loops are to run on these: float32 on a CPU, one of them large or often, and numba installed."""
    numbers = max(t.numel() for t in tensors)
    times, most = _CALLS.get()
    # By sizes alone, never by what happens to be loaded: a training that is resumed goes on with the same loops.
    loaded = most >= _WORTH_COMPILING or most * times >= _WORTH_LOADING
    return (
        all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
        and (numbers >= _WORTH_COMPILING or numbers * times >= (_WORTH_ANOTHER if loaded else _WORTH_LOADING))
        and _ALLOWED.get()
        and installed("numba")
    )


@cache
def multiplies_bfloat16(device: torch.device | str) -> bool:
    """Whether a device multiplies bfloat16 matrices in hardware; elsewhere they are slower than float32 ones."""
    place = torch.device(device)
    if place.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if place.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


@contextmanager
def repeated(times: int, most: int = 0) -> Iterator[None]:
    """What runs inside will run so many times in all, on tensors of the same sizes.

    Args:
        times: in all.
        most: numbers in the largest tensor that a loop goes through each time; where that repays loading it, smaller
            tensors soon repay loading theirs.
    """
    token = _CALLS.set((times, most))
    try:
        yield
    finally:
        _CALLS.reset(token)


@contextmanager
def compiled_loops(allowed: bool) -> Iterator[None]:
    """With False, torch's own pieces alone run inside, as where numba is not installed."""
    token = _ALLOWED.set(allowed)
    try:
        yield
    finally:
        _ALLOWED.reset(token)
