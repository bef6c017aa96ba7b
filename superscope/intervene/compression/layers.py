"""How are a model's weights compressed, and put back? Its linear layers, the inputs they see, and a block of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...capture.inputs.as_corpus import Readable, as_corpus
from ...capture.models.load import Subject
from ...capture.models.sites import module_at, sites
from ...capture.reading.harvest import harvest
from ...core import Site

Layer = str
"""The path of a linear layer in its model."""


def linear_layers(model: nn.Module, places: Sequence[str]) -> tuple[Layer, ...]:
    """The linear layers in the modules that `places` name: `nn.Linear`, and GPT-2's `Conv1D`.

    A layer whose weight another module shares, as the unembedding that is the embedding, is left out: to change the one
    would change the other.

    Args:
        model: any module.
        places: paths or globs, as for `capture.sites`.

    Raises:
        SiteNotFound: if a place is not in the model.
        ValueError: if there is no linear layer at one of them.
    """
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    found: dict[Layer, None] = {}
    for site in sites(model, places):
        own = {
            ".".join(filter(None, (site.path, name))): None
            for name, module in module_at(model, site).named_modules()
            if _is_linear(module) and owners[id(module.weight)] == 1
        }
        if not own:
            raise ValueError(
                f"there is no linear layer at {site} whose weights are its own. Name a block, as in "
                "'transformer.h.2', or a layer in it."
            )
        found |= own
    return tuple(found)


@torch.no_grad()
def input_moments(loaded: Subject, layers: Sequence[Layer], corpus: Readable) -> dict[Layer, Float[Tensor, "d d"]]:
    r"""$\mathbb E[x x^\top]$ of what each layer is given, over the kept tokens of a text, in float64.

    Read in one pass, before anything is compressed: each layer is fitted to the inputs that the whole model gives it.

    Raises:
        ValueError: if the corpus has no token.
    """
    corpus = as_corpus(corpus, tokenizer=loaded.tokenizer)
    places = {Site(layer, "in"): layer for layer in layers}
    sums: dict[Layer, Tensor] = {}
    rows = 0
    for batch in harvest(loaded.model, tuple(places), corpus):
        for site, layer in places.items():
            x = batch[site].x.double()
            product = x.T @ x
            sums[layer] = sums[layer] + product if layer in sums else product
        rows += len(next(iter(batch.values())).x)
    if not rows:
        raise ValueError("input_moments: the text has no token to read; give more.")
    return {layer: total / rows for layer, total in sums.items()}


def weight(model: nn.Module, layer: Layer) -> Float[Tensor, "outputs inputs"]:
    """W of a linear layer, one row per output; a view."""
    module = model.get_submodule(layer)
    stored = module.weight.detach()  # type: ignore[union-attr]
    return stored if isinstance(module, nn.Linear) else stored.T


@contextmanager
def compressed(
    model: nn.Module, change: Callable[[Tensor, Tensor], Tensor], moments: Mapping[Layer, Float[Tensor, "d d"]]
) -> Iterator[dict[Layer, Float[Tensor, "outputs inputs"]]]:
    """While the block runs, each layer's W is `change(W, H)`; on leaving, also by an exception, it is what it was.

    Args:
        model: holds the layers.
        change: W [outputs, inputs] and H [inputs, inputs] to another W of the same shape.
        moments: H by layer, of those that are to be changed.

    Yields:
        The weights as they were.

    Raises:
        ValueError: if a changed W has another shape.

    Example:
        >>> from superscope.intervene.compression import Magnitude
        >>> model = nn.Sequential(nn.Linear(2, 2))
        >>> with compressed(model, lambda W, H: Magnitude().sparse(W, H, 0.5), {"0": torch.eye(2)}):
        ...     int((model[0].weight == 0).sum())
        2
    """
    # Copies: put back bit for bit, whatever a change did in place.
    before = {layer: weight(model, layer).clone() for layer in moments}
    try:
        with torch.no_grad():
            for layer, H in moments.items():
                new = change(before[layer].clone(), H.to(before[layer].device))
                if new.shape != before[layer].shape:
                    raise ValueError(
                        f"compressed: {layer} has a W of {tuple(before[layer].shape)} and was given one of "
                        f"{tuple(new.shape)}; a compressed layer keeps its shape."
                    )
                weight(model, layer).copy_(new)
        yield before
    finally:
        with torch.no_grad():
            for layer, old in before.items():
                weight(model, layer).copy_(old)


def _is_linear(module: nn.Module) -> bool:
    # Conv1D is transformers' own, with its weight transposed; looked up by name so that it need not be imported.
    return isinstance(module, nn.Linear) or (type(module).__name__ == "Conv1D" and hasattr(module, "nf"))
