"""What does a model compute on a text, at several places at once? Rows of x, aligned over sites, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from ...core import Activations, Site
from ..inputs.as_corpus import Readable, as_corpus
from ..inputs.images import Images
from ..inputs.text import Corpus
from ..models.facts import batch_that_fits, device_of, evaluating, is_causal, keywords_of, text_config
from .hooks import Capture
from .packing import packed as pack
from .packing import packed_inputs, require_sound, rows_of


def harvest(
    model: nn.Module,
    sites: Sequence[Site | str],
    corpus: Readable,
    *,
    tokenizer: Any = None,
    batch_tokens: int | None = None,
    device: torch.device | str | None = None,
    packed: bool = False,
    dtype: torch.dtype | None = torch.float32,
) -> Iterator[dict[Site, Activations]]:
    """Run `model` over `corpus` and yield x at each of `sites`, one row per kept token.

    Rows come in the corpus's order and are the same tokens at every site, so that row i of one belongs with row i of
    another. Pads and added special tokens are never yielded. Dropout is off while the model runs; it is left as it was
    found. Encoders get an attention mask where there are pads; causal models need none, since what is padded stands
    behind what is read.

    Args:
        model: of `transformers`, or any module whose forward takes ids [b, t] first and whose sites hold [b, t, d].
        sites: sites, or paths and patterns.
        corpus: tokens of the model's own tokenizer; or pictures, for a vision model; or what `as_corpus` takes: ids
            [b, t], or texts with their tokenizer.
        tokenizer: of texts.
        batch_tokens: ids in one forward pass, pads included; without it `batch_that_fits`.
        device: where the rows are put; the model's own device without it.
        packed: let short sequences share a row of the batch, after a test that they do not see each other. It saves
            the work on pads, half of it where most texts are half a window long.
        dtype: of x; None leaves what the model computes in.

    Yields:
        For each batch, Activations by site: x, tokens (none for pictures), and places (sequence of the corpus,
        position in it).

    Raises:
        SiteNotFound: if a site is not in the model.
        ValueError: if the corpus does not fit the model: ids or positions it has no embedding for; if packed texts
            see each other in it; and, as TypeError and ShapeError, what `as_corpus` refuses.
        FloatingPointError: if an activation is NaN or infinite; the site, document and position are named.

    Example:
        >>> ids = torch.arange(12).view(3, 4)
        >>> model = nn.Sequential(nn.Embedding(12, 5), nn.Linear(5, 7))
        >>> for batch in harvest(model, ["0", "1"], ids, batch_tokens=8):
        ...     print([tuple(activations.x.shape) for activations in batch.values()])
        [(8, 5), (8, 7)]
        [(4, 5), (4, 7)]
    """
    batch_tokens = batch_that_fits(model) if batch_tokens is None else batch_tokens
    if batch_tokens < 1:
        raise ValueError(f"harvest: batch_tokens is {batch_tokens}; give the ids of one forward pass, at least 1.")
    corpus = as_corpus(corpus, tokenizer=tokenizer)
    if isinstance(corpus, Images):
        if packed:
            raise ValueError("harvest: pictures are of one size and cannot be packed; leave packed out.")
    else:
        check_fit(model, corpus)
        if packed:
            require_sound(model, sites, corpus)
    return _harvest(model, sites, corpus, batch_tokens, device, packed, dtype)


def _harvest(
    model: nn.Module,
    sites: Sequence[Site | str],
    corpus: Corpus | Images,
    batch_tokens: int,
    device: torch.device | str | None,
    packed: bool,
    dtype: torch.dtype | None,
) -> Iterator[dict[Site, Activations]]:
    with Capture(model, sites) as cap:
        place = device_of(model)
        for first, past, ids, keep, given in passes(cap.runs, model, corpus, batch_tokens, packed=packed):
            # Evaluation mode only while the model runs: between two batches the model is the caller's.
            with evaluating(model):
                read = cap(rows=keep.to(place), **given)
            # In the corpus's order, packed or not: sequences stand in their order, and so do their tokens.
            rows = corpus.keep[first:past].nonzero()
            places = rows + torch.tensor([first, 0])
            tokens = None if ids is None else ids[keep]
            result: dict[Site, Activations] = {}
            for site, found in read.items():
                if found.ndim != 2:
                    raise ValueError(
                        f"harvest: {site} holds {tuple(found.shape[1:])} for each token where one vector is wanted; "
                        "choose another site."
                    )
                x = found.to(device=device, dtype=dtype)
                _check_finite(x, site, places, corpus)
                result[site] = Activations(
                    x, tokens=None if tokens is None else tokens.to(x.device), places=places.to(x.device)
                )
            if len(rows):
                yield result


class Pass(NamedTuple):
    """A forward pass: its sequences, their ids (pictures have none), the positions that are rows, the keywords."""

    first: int
    past: int
    ids: Int[Tensor, "b t"] | None
    keep: Bool[Tensor, "b t"]
    given: dict[str, Any]


def passes(
    runs: nn.Module, model: nn.Module, corpus: Corpus | Images, batch_tokens: int, *, packed: bool = False
) -> Iterator[Pass]:
    """The forward passes of `runs`, `model` or a part of it, that read a corpus."""
    size = max(1, batch_tokens // corpus.context)
    if isinstance(corpus, Images):
        dtype = next(model.parameters()).dtype
        for at in range(0, len(corpus), size):
            pixels = corpus.pixels[at : at + size].to(device=device_of(model), dtype=dtype)
            yield Pass(at, at + len(pixels), None, corpus.keep[at : at + size], {"pixel_values": pixels})
        return
    if not packed:
        for at in range(0, len(corpus), size):
            ids, keep, mask = batch(corpus, slice(at, at + size))
            yield Pass(at, min(at + size, len(corpus)), ids, keep, inputs(runs, model, ids, mask))
        return
    rows = rows_of(corpus.length, corpus.context)
    for at in range(0, len(rows), size):
        chosen = rows[at : at + size]
        ids, keep, positions = pack(corpus, chosen)
        given = packed_inputs(runs, ids, positions, device_of(model))
        yield Pass(chosen[0][0], chosen[-1][-1] + 1, ids, keep, given)


def batch(corpus: Corpus, where: slice) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"], Bool[Tensor, "b t"]]:
    """(ids, keep, mask) of some sequences, cut at the longest of them; the mask is False on pads."""
    longest = int(corpus.length[where].max())
    mask = torch.arange(longest) < corpus.length[where][:, None]
    return corpus.ids[where, :longest], corpus.keep[where, :longest], mask


def inputs(runs: nn.Module, model: nn.Module, ids: Tensor, mask: Tensor) -> dict[str, Any]:
    """The keywords to run `runs` with: ids, and a mask where there are pads and something looks ahead to them."""
    device = device_of(model)
    accepted = keywords_of(runs)
    # The name of the first parameter, for modules that do not call their ids input_ids.
    name = "input_ids" if "input_ids" in accepted else _first_parameter(runs)
    made: dict[str, Any] = {name: ids.to(device)}
    if "attention_mask" in accepted and not is_causal(model) and not bool(mask.all()):
        made["attention_mask"] = mask.to(device=device, dtype=torch.int64)
    return made


def check_fit(model: nn.Module, corpus: Corpus) -> None:
    """Raise a sentence where the corpus cannot be this model's: too long a window, or ids it has no embedding for."""
    if not len(corpus):
        raise ValueError("harvest: the corpus has no sequences; make it from text with tokens(...).")
    longest = getattr(text_config(model), "max_position_embeddings", None)
    if isinstance(longest, int):
        for name, module in model.named_modules():
            # RoBERTa and its kin count positions from the one after padding_idx, so they take fewer than they hold.
            if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
                longest = module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    if isinstance(longest, int) and 0 < longest < corpus.context:
        raise ValueError(
            f"harvest: the corpus has windows of {corpus.context} tokens and this model takes {longest}; "
            f"make it again with context={longest} or less."
        )
    embed = getattr(model, "get_input_embeddings", None)
    table = embed() if callable(embed) else None
    if isinstance(table, nn.Embedding) and int(corpus.ids.max()) >= table.num_embeddings:
        raise ValueError(
            f"harvest: the corpus has token {int(corpus.ids.max())} and this model knows {table.num_embeddings} "
            "tokens; make the corpus with the model's own tokenizer."
        )


def _first_parameter(module: nn.Module) -> str:
    import inspect

    return next(iter(inspect.signature(module.forward).parameters))


def _check_finite(x: Tensor, site: Site, places: Tensor, corpus: Corpus | Images) -> None:
    # One sum first: it is not finite if any entry is not, and costs no mask as large as x. A finite but overflowing sum
    # is sorted out by the full test.
    if bool(torch.isfinite(x.sum())):
        return
    bad = (~torch.isfinite(x)).any(1).nonzero()
    if not len(bad):
        return
    row = int(bad[0, 0])
    sequence, position = (int(i) for i in places[row])
    kind = "NaN" if bool(x[row].isnan().any()) else "infinite"
    name = corpus.names[int(corpus.document[sequence])]
    raise FloatingPointError(
        f"harvest: the activation at {site} is {kind} at position {position} of sequence {sequence} "
        f"(document '{name}'). The model's weights are damaged, or its dtype is too narrow: load it in float32."
    )
