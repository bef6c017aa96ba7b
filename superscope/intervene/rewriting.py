"""How is x changed while a model runs? By a function in its place, gone without a trace when the block is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from ..capture.reading.hooks import coordinates, fitted, narrowed, visiting
from ..core import Site


@contextmanager
def replace(
    model: nn.Module,
    site: Site | str,
    function: Callable[[Tensor], Tensor],
    *,
    rows: Bool[Tensor, "b t"] | int | None = None,
) -> Iterator[None]:
    r"""Splice: while the block runs, the model computes on with $x \leftarrow \mathrm{function}(x)$ at `site`.

    What else the module returns beside x (the tuples of GPT-Neo, Bloom and T5) is passed on unchanged. On leaving, also
    by an exception, the hook is gone and the model computes what it did before.

    Args:
        model: any module; call it, or the module it belongs to, inside the block.
        site: where; `path:in` replaces what the module is given.
        function: x to its replacement, of the same shape; the dtype is brought back to x's.
        rows: which (sequence, position) pairs to replace; the function then sees [rows, d]. Or a number: the tokens
            from there on, below 0 counted from the end. Without it, all of x.

    Raises:
        SiteNotFound: if the model has no such module.
        ValueError: inside the block, if the function changes the shape, or `rows` does not fit.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, bias=False))
        >>> with replace(model, "0", torch.zeros_like):
        ...     model(torch.ones(1, 3)).tolist()
        [[0.0, 0.0]]
    """

    def splice(place: Site, x: Tensor) -> Tensor:
        mask = _from(rows, x, place) if isinstance(rows, int) else None if rows is None else fitted(rows, x, place)
        whole = x if mask is None else x[mask]
        given = narrowed(whole, place)
        new = function(given)
        if new.shape != given.shape:
            raise ValueError(
                f"replace: the function made {tuple(new.shape)} out of {tuple(given.shape)} at {place}; "
                "a replacement keeps the shape."
            )
        new = new.to(x.dtype)
        if place.columns:
            # A copy again, for the reason below.
            new = whole.index_copy(-1, coordinates(place, x.device), new)
        if mask is None:
            return new
        # index_put on a copy: the original may be a leaf, or be shared with another branch of the network.
        return x.index_put((mask,), new)

    with visiting(model, site, splice):
        yield


def _from(first: int, x: Tensor, site: Site) -> Bool[Tensor, "b t"]:
    """The mask of the tokens of x from `first` on."""
    if x.ndim != 3:
        raise ValueError(
            f"replace: the activation at {site} has shape {tuple(x.shape)}, not [batch, time, d], so its tokens are "
            "not told apart by number; give the mask of (sequence, position) pairs."
        )
    mask = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
    mask[:, first:] = True
    return mask
