"""Store activations or compute them anew for each use? And in which type? Each from a measurement or a count."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from ...core import Site
from ..models.roles import blocks
from ..reading.hooks import Capture

_WORTH = 0.25
"""Share of all work that computing anew may add before storing pays for its disk."""

_SECONDS = 0.25


@dataclass(frozen=True)
class Choice:
    """Whether to store, and why, in a sentence.

    Args:
        store: True to store rows, False to compute them whenever they are asked for.
        why: with the figures that decided.
    """

    store: bool
    why: str


def choose(
    *,
    parameters: int,
    d: int,
    n: int,
    rows: int,
    uses: int | float,
    free: int,
    bytes_per_number: int = 2,
    where: Literal["on disk", "in memory"] = "on disk",
) -> Choice:
    r"""Store where $(u - 1) L / (L + u S) > 1/4$ and there is room: L, S work per token of model and dictionary.

    L = 2 * parameters is the model's forward pass up to the site, S = 6 n d a training step of the dictionary, dense. A
    wide dictionary costs so much more than the model that running the model again is lost in it; for one use nothing
    is gained by storing.

    Args:
        parameters: of the model up to the site.
        d: width of the site.
        n: latents of each dictionary.
        rows: tokens.
        uses: how often each row is read: dictionaries, epochs, measurements.
        free: bytes there are for the rows.
        bytes_per_number: 2 for bfloat16.
        where: they would be kept.

    Example:
        >>> choose(parameters=10**8, d=768, n=6144, rows=10**6, uses=5, free=10**12).store
        True
        >>> choose(parameters=10**8, d=768, n=10**6, rows=10**6, uses=2, free=10**12).store
        False
    """
    model, dictionary = 2.0 * parameters, 6.0 * n * d
    more = (uses - 1) * model / (model + uses * dictionary)
    room = rows * d * bytes_per_number
    if uses <= 1:
        return Choice(False, "no row is read twice, so rows are computed as they are needed")
    if more <= _WORTH:
        return Choice(
            False,
            f"running the model for each of {uses:.3g} uses adds {more:.0%} to the work, which storing "
            f"{room / 1e9:.3g} GB would not pay for; rows are computed as they are needed",
        )
    if room > free:
        return Choice(
            False,
            f"storing would save {more / (1 + more):.0%} of the work but takes {room / 1e9:.3g} GB and there are "
            f"{free / 1e9:.3g} GB {where}; rows are computed as they are needed",
        )
    return Choice(
        True,
        f"running the model for each of {uses:.3g} uses would add {more:.0%} to the work; rows take "
        f"{room / 1e9:.3g} GB {where} and are stored",
    )


def parameters_to(model: nn.Module, sites: Sequence[Site]) -> int:
    """Parameters of the blocks that run before the last of `sites` has: half the operations a token costs.

    Example:
        >>> from .huggingface import load
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
