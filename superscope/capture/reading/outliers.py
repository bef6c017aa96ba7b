"""Which rows are outliers at each site? Limits on their norm, from one first look at the text that is learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from ...core import Activations, Site
from ..inputs.as_corpus import Readable, as_corpus
from ..inputs.permutation import Bijection
from ..inputs.policy import Policy, outlier_limit
from ..inputs.text import Corpus
from .harvest import harvest

_LOOK = 8192
"""Ids in the first look: a median and a 95th percentile need no more, and it is 3 % of a scan's text."""


def first_look(sequences: int, context: int, seed: int = 0) -> Tensor:
    """The sequences that limits are decided from: drawn from the whole text by the seed, about 8 192 ids of them."""
    return Bijection(sequences, seed)(torch.arange(min(sequences, max(1, _LOOK // context))))


def outlier_limits(
    model: nn.Module,
    sites: Sequence[Site],
    corpus: Readable,
    *,
    tokenizer: Any = None,
    multiple: float | None = Policy.outlier,
    seed: int | None = 0,
    batch_tokens: int | None = None,
) -> dict[Site, float]:
    """The norm above which a row is an outlier, at each site: `outlier_limit` of the norms in a first look.

    Decided once for each site, from text to learn from, and given on to whatever reads other text there.

    Args:
        model: as for `harvest`.
        sites: where.
        corpus: the text that is learned from, as for `harvest`.
        tokenizer: of texts.
        multiple: of the median norm; None keeps all rows, so that there are no limits.
        seed: of the sequences that are looked at; None looks at all.
        batch_tokens: ids in one forward pass.
    """
    if multiple is None:
        return {}
    corpus = as_corpus(corpus, tokenizer=tokenizer)
    seen = corpus if seed is None else corpus.take(first_look(len(corpus), corpus.context, seed))
    norms: dict[Site, list[Tensor]] = {site: [] for site in sites}
    for batch in harvest(model, sites, seen, batch_tokens=batch_tokens, device="cpu"):
        for site, activations in batch.items():
            norms[site].append(activations.x.norm(dim=1))
    return {site: outlier_limit(torch.cat(found), multiple) if found else float("inf") for site, found in norms.items()}


def is_ordinary(batch: Mapping[Site, Activations], limits: Mapping[Site, float]) -> Bool[Tensor, "rows"]:
    """Which rows are within the limits at every site that has one: the same rows everywhere, so that row i of one site
    still belongs with row i of another."""
    first = next(iter(batch.values()))
    ordinary = torch.ones(len(first), dtype=torch.bool, device=first.x.device)
    for site, limit in limits.items():
        if site in batch:
            ordinary &= batch[site].x.float().norm(dim=1) <= limit
    return ordinary


def ordinary_places(corpus: Corpus, left_out: Activations | None) -> Bool[Tensor, "S t"]:
    """Which positions of a corpus are rows once outliers are left out: where a reconstruction may take x's place.

    Args:
        corpus: the text.
        left_out: its outliers, as a source of its rows has them.
    """
    keep = corpus.keep.clone()
    if left_out is not None and left_out.places is not None:
        sequence, position = left_out.places.cpu().unbind(1)
        keep[sequence, position] = False
    return keep
