"""Which version of a kernel runs: Triton on a GPU where it is installed, else the torch composition."""

from __future__ import annotations

import importlib.util
from functools import cache

from torch import Tensor


@cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def on_gpu(*tensors: Tensor) -> bool:
    """Whether Triton is to run on these: all on a GPU, and Triton installed."""
    return all(t.is_cuda for t in tensors) and _installed()
