"""What does a model do with x changed at several sites? A context manager over edits, gone without a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Literal, TypeAlias

from jaxtyping import Bool
from torch import Tensor, nn

from ..capture.models.load import Subject
from ..core import Site
from .rewriting import replace

Edits: TypeAlias = Mapping[Site | str, Callable[[Tensor], Tensor]]
"""What becomes of x, by site: an `Edit`, or any function of rows."""


@contextmanager
def edited(
    model: Subject | nn.Module,
    edits: Edits,
    *,
    positions: Literal["all", "last"] | int | Bool[Tensor, "b t"] = "all",
) -> Iterator[None]:
    """While the block runs, the model computes on with x edited at each site.

    On leaving, also by an exception, its hooks are gone and those of others stand as they did.

    Args:
        model: call it, or the module it belongs to, inside the block.
        edits: by site. Two edits of one site are two blocks, the inner one second.
        positions: "all"; "last", the last of what is given; a number, from that token on (below 0 from the end); or
            the mask of (sequence, position) pairs, the only one that knows of pads.

    Raises:
        SiteNotFound: if a site is not in the model.
        ValueError: inside the block, if an edit changes a shape, or positions do not fit what the model is given.

    Example:
        >>> import torch
        >>> from superscope.intervene.edits import Add
        >>> network = nn.Sequential(nn.Identity(), nn.Identity())
        >>> with edited(network, {"0": Add(torch.ones(2))}, positions="last"):
        ...     network(torch.zeros(1, 3, 2))[..., 0].tolist()
        [[0.0, 0.0, 1.0]]
    """
    network = model.model if isinstance(model, Subject) else model
    rows = _rows(positions)
    with ExitStack() as stack:
        for site, edit in edits.items():
            stack.enter_context(replace(network, site, edit, rows=rows))
        yield


def _rows(positions: str | int | Tensor) -> Tensor | int | None:
    if isinstance(positions, (Tensor, int)):
        return positions
    if positions not in ("all", "last"):
        raise ValueError(
            f"edited: positions is {positions!r}; say all, last, the number of a token, or give a mask. Where a prompt "
            "ends is known to `generate` and `log_probabilities`."
        )
    return None if positions == "all" else -1
