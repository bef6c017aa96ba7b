"""At which tokens is x changed? All, the last, those from a token on, those after the prompt, or those of a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool
from torch import Tensor

Positions: TypeAlias = Literal["all", "last", "after", "answering"] | int
"""Which tokens of a prompt and what follows it.

"all" of them; "last", the prompt's last; "after" the prompt; "answering", the prompt's last and all after it, each of
which predicts a token of the answer; or those from a number on, below 0 counted from the prompt's end.
"""


def rows_at(
    positions: Positions, prompts: Sequence[int], lengths: Sequence[int], *, past: int = 0
) -> Bool[Tensor, "b t"]:
    """The mask of (sequence, position), pads left out.

    Args:
        positions: which.
        prompts: tokens of each prompt.
        lengths: tokens of each sequence.
        past: tokens that stand before those of this pass, where a cache holds them.

    Raises:
        ValueError: if there is no such rule, or a number counts further back than a prompt is long.
    """
    longest, ends = max(lengths), torch.tensor(prompts)[:, None]
    at = torch.arange(past, longest)
    inside = at < torch.tensor(lengths)[:, None]
    if positions == "all":
        return inside
    if positions == "last":
        return inside & (at == ends - 1)
    if positions == "after":
        return inside & (at >= ends)
    if positions == "answering":
        return inside & (at >= ends - 1)
    if isinstance(positions, int):
        if -positions > min(prompts):
            raise ValueError(
                f"positions: {positions} counts {-positions} tokens back and the shortest prompt has {min(prompts)}."
            )
        return inside & (at >= (positions if positions >= 0 else ends + positions))
    raise ValueError(f"positions: there is no rule {positions!r}. Say all, last, after, answering, or a number.")
