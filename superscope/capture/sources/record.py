"""A text's rows at several sites, read in one pass and kept: in memory where they fit, in a store on disk where not."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

import torch

from ...core import Site, files
from ..inputs.as_corpus import Readable, as_corpus
from ..inputs.images import Images
from ..inputs.policy import Policy
from ..models.facts import device_of
from ..models.load import Subject
from ..reading.harvest import harvest
from ..reading.outliers import is_ordinary
from ..store.fill import fill, prepare, tokenizer_hash
from ..store.places import place
from ..store.windows import write_corpus
from .in_memory import MemorySource, RowBuffer
from .stored import StoreSource

_BYTES = 4
"""Of a number: rows are kept in float32, as they are computed."""


def bytes_to_record(loaded: Subject, sites: Sequence[Site], corpus: Readable) -> int:
    """Bytes that the rows of a corpus take at `sites`; one window is read, to learn how wide they are."""
    corpus = as_corpus(corpus, tokenizer=loaded.tokenizer)
    with_text = corpus.keep.any(1).nonzero()[:1, 0]
    probe = next(harvest(loaded.model, sites, corpus.take(with_text)))
    return corpus.n_tokens * _BYTES * sum(found.x.shape[1] for found in probe.values())


def record(
    loaded: Subject,
    sites: Sequence[Site],
    corpus: Readable,
    folder: Path | None = None,
    *,
    limits: Mapping[Site, float] | None = None,
) -> Generator[int, None, dict[Site, MemorySource | StoreSource]]:
    """Reads a corpus once, yielding how many of its tokens have been read; returns a source for each site.

    Places (sequence, position) of the rows are the corpus's in either case, and so are the rows that are left out.

    Args:
        loaded: model and tokenizer.
        sites: where to read.
        corpus: what to read, at least one token: a corpus, ids [b, t] or texts.
        folder: of a store to keep rows in. What a recording that was cut short left there is verified and kept. In
            memory without it.
        limits: the norm above which a row is an outlier, by site, as `outlier_limits` decided from text to learn from:
            a row beyond the limit of one site is left out at all of them, and kept apart as `left_out` of each source.
            Without it, no row is.

    Raises:
        OSError: if the disk has too little room.
        ValueError: if the folder holds rows of another model or text.
        FloatingPointError: if an activation is not finite.
    """
    corpus = as_corpus(corpus, tokenizer=loaded.tokenizer)
    if isinstance(corpus, Images):
        raise TypeError("record: pictures are kept by `superscope harvest --images`; give text here.")
    yield 0
    if folder is None:
        buffers = {site: RowBuffer(corpus.n_tokens) for site in sites}
        done = 0
        for batch in harvest(loaded.model, sites, corpus):
            ordinary = is_ordinary(batch, limits) if limits else None
            for site, activations in batch.items():
                buffers[site].add(activations, ordinary)
            done += len(next(iter(batch.values())))
            yield done
        limits = limits or {}
        return {site: buffers[site].source(site, limits.get(site, math.inf)) for site in sites}
    if not folder.exists():
        files.require_space(folder, bytes_to_record(loaded, sites, corpus))
    policy = Policy(context=corpus.context, outlier=Policy.outlier if limits else None)
    windows = write_corpus(place(folder), corpus, policy, tokenizer_hash=tokenizer_hash(loaded.tokenizer))
    names = [str(site) for site in sites]
    store = prepare(folder, loaded, names, windows, policy, dtype=torch.float32, limits=limits)
    for units in fill(store, loaded, windows):
        yield min(units * store.manifest.per_unit, len(corpus)) * corpus.n_tokens // len(corpus)
    # What stood was verified, what was missing has just been written.
    where = device_of(loaded.model)
    return {
        site: StoreSource(store, site=name, device=where, verify=False) for site, name in zip(sites, names, strict=True)
    }
