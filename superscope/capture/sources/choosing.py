"""What does a model's forward pass cost up to a site, and in which type is it faster?"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ...core import Site
from ..models.roles import blocks
from ..reading.hooks import Capture

_SECONDS = 0.25


def parameters_to(model: nn.Module, sites: Sequence[Site]) -> int:
    """Parameters of the blocks that run before the last of `sites` has: half the operations a token costs.

    Example:
        >>> from superscope.capture import load
        >>> model = load("pocket").model
        >>> parameters_to(model, [Site("transformer.h.0")]) * 4 == parameters_to(model, [Site("transformer.h.3")])
        True
    """
    paths = blocks(model)
    within = [i for i, path in enumerate(paths) for site in sites if f"{site.path}.".startswith(f"{path}.")]
    depth = max(within, default=len(paths) - 1)
    return sum(each.numel() for path in paths[: depth + 1] for each in model.get_submodule(path).parameters())


def faster_dtype(model: nn.Module, sites: list[Site], inputs: dict[str, Any]) -> tuple[torch.dtype, dict[str, float]]:
    """float32 or bfloat16, whichever reads `sites` faster here, and the seconds of one pass in each.

    Processors without instructions for bfloat16 are slower in it. Both are run for about a quarter of a second, in
    turn, and the fastest pass of each counts; the model is copied for it and left as it is.

    Args:
        model: in float32.
        sites: where it stops.
        inputs: keywords of one forward pass.
    """
    seconds: dict[torch.dtype, list[float]] = {}
    dtypes = (torch.float32, torch.bfloat16)
    copies = {torch.float32: model, torch.bfloat16: copy.deepcopy(model).to(torch.bfloat16)}
    for dtype in dtypes:
        seconds[dtype] = []
    began = time.perf_counter()
    clock = time.perf_counter if next(model.parameters()).is_cuda else time.process_time
    with Capture(copies[dtypes[0]], sites) as wide, Capture(copies[dtypes[1]], sites) as narrow:
        captures = {torch.float32: wide, torch.bfloat16: narrow}
        for capture in captures.values():
            capture(**inputs)  # the first pass runs to the end, to learn where the last site is
        while time.perf_counter() - began < 2 * _SECONDS or not seconds[torch.bfloat16]:
            for dtype in dtypes:
                start = clock()
                for x in captures[dtype](**inputs).values():
                    x.flatten()[:1].item()
                seconds[dtype].append(clock() - start)
    best = {str(dtype).removeprefix("torch."): min(times) for dtype, times in seconds.items()}
    return min(dtypes, key=lambda dtype: min(seconds[dtype])), best
