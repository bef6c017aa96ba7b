"""Memory for what every step makes and drops again, kept from step to step.

A block of pre-activations is larger than anything else in a step. Given back and asked for again between smaller things
that live longer, it leaves the allocator with holes that it fits into no more, and how many differs from run to run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_HELD: ContextVar[dict[str, Tensor] | None] = ContextVar("scratch", default=None)


@contextmanager
def kept(held: dict[str, Tensor]) -> Iterator[None]:
    """What is asked for inside is kept in `held`, and lent again to who asks next under the same name."""
    token = _HELD.set(held)
    try:
        yield
    finally:
        _HELD.reset(token)


def room(name: str, rows: int, columns: int, like: Tensor) -> Tensor:
    """(rows, columns) numbers of whatever value, in the dtype and on the device of `like`; outside `kept`, new ones."""
    held = _HELD.get()
    found = None if held is None else held.get(name)
    if found is None or found.numel() < rows * columns or (found.dtype, found.device) != (like.dtype, like.device):
        found = torch.empty(rows * columns, dtype=like.dtype, device=like.device)
        if held is not None:
            held[name] = found
    return found[: rows * columns].view(rows, columns)
