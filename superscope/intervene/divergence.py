"""How far do a model's predictions move when x is replaced on the way? KL divergence at every position."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack

import torch
from jaxtyping import Bool
from torch import Tensor

from ..capture.inputs.as_corpus import Readable, as_corpus
from ..capture.inputs.images import Images
from ..capture.models.facts import batch_that_fits, device_of, evaluating, keywords_of, text_config
from ..capture.models.load import Subject
from ..capture.reading.harvest import batch, check_fit, inputs
from ..core import Site
from .loss import Loss
from .rewriting import replace

_LOGITS = 2**24


def next_token_divergence(
    loaded: Subject,
    corpus: Readable,
    splice: Mapping[Site | str, Callable[[Tensor], Tensor]],
    *,
    where: Bool[Tensor, "S t"] | None = None,
) -> Loss:
    r"""$\sum_t \mathrm{KL}(p_t \| q_t)$ of each sequence, in nats: p of the model as it is, q with x replaced.

    Over all positions whose next token is one of the text's, as `next_token_loss` counts them; log-probabilities and
    sums in float64 where they are reduced, so that a divergence is never below 0 by more than rounding.

    Args:
        loaded: a causal language model.
        corpus: as for `next_token_loss`.
        splice: what takes the place of x, by site.
        where: at which tokens; at all of the text's without it.

    Raises:
        TypeError: if the model predicts no next token, or the corpus is pictures.
        ValueError: if the corpus does not fit the model.
    """
    if loaded.kind != "causal":
        raise TypeError(f"next_token_divergence: '{loaded.name}' predicts no next token; give a causal model.")
    corpus = as_corpus(corpus, tokenizer=loaded.tokenizer)
    if isinstance(corpus, Images):
        raise TypeError("next_token_divergence: pictures have no next token; give text.")
    model = loaded.model
    check_fit(model, corpus)
    vocabulary = getattr(text_config(model), "vocab_size", 1)
    size = max(1, min(batch_that_fits(model), _LOGITS // max(vocabulary, 1)) // corpus.context)
    options = {"use_cache": False} if "use_cache" in keywords_of(model) else {}
    nats = torch.zeros(len(corpus), dtype=torch.float64)
    counts = torch.zeros(len(corpus), dtype=torch.int64)
    for at in range(0, len(corpus), size):
        part = slice(at, at + size)
        ids, keep, mask = batch(corpus, part)
        rows = (keep if where is None else keep & where[part, : keep.shape[1]]).to(device_of(model))
        given = inputs(model, model, ids, mask)
        with torch.no_grad(), evaluating(model):
            clean = model(**given, **options).logits[:, :-1].float().log_softmax(2)
            with ExitStack() as stack:
                for site, function in splice.items():
                    stack.enter_context(replace(model, site, function, rows=rows))
                moved = model(**given, **options).logits[:, :-1].float().log_softmax(2)
            each = (clean.exp() * (clean - moved)).sum(2, dtype=torch.float64)
        counted = keep[:, 1:].to(each.device)
        nats[part] = each.masked_fill(~counted, 0.0).sum(1).cpu()
        counts[part] = counted.sum(1).cpu()
    return Loss(nats, counts)
