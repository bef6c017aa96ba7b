"""What does a change to x cost the model? Next-token loss, with any site's activations replaced on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor, nn

from ..capture.inputs.as_corpus import Readable, as_corpus
from ..capture.inputs.images import Images
from ..capture.models.facts import batch_that_fits, device_of, evaluating, keywords_of, text_config
from ..capture.models.load import Subject
from ..capture.reading.harvest import batch, check_fit, inputs
from ..core import Site
from .rewriting import replace

_LOGITS = 2**25
"""Logits held at once: 128 MiB in float32, and as much again for their logarithms."""


@dataclass(frozen=True, eq=False)
class Loss:
    """Next-token loss of each sequence: the sum over its predicted tokens, and how many those are.

    Args:
        nats: minus the log-probability of the tokens of each sequence, summed.
        counts: predicted tokens of each sequence.
    """

    nats: Float64[Tensor, "S"]
    counts: Int[Tensor, "S"]

    @property
    def mean(self) -> float:
        """Nats per predicted token, every token counting alike."""
        return float(self.nats.sum() / self.counts.sum())


def next_token_loss(
    loaded: Subject | nn.Module,
    corpus: Readable,
    *,
    tokenizer: Any = None,
    splice: Mapping[Site | str, Callable[[Tensor], Tensor]] | None = None,
    where: Bool[Tensor, "S t"] | None = None,
    batch_tokens: int | None = None,
) -> Loss:
    r"""$-\sum_t \ln p(\mathrm{token}_t \mid \mathrm{token}_{<t})$ of each sequence, in nats.

    The first token of a window is predicted only where a beginning-of-sequence token stands before it. Pads and added
    special tokens are no targets. Losses are summed in float64.

    Args:
        loaded: a causal language model.
        corpus: tokens of its tokenizer; or what `capture.as_corpus` takes: ids [b, t], or texts.
        tokenizer: of texts; the subject's own without it.
        splice: what to put in place of x, by site: a function of rows [rows, d]. It is applied where the corpus keeps
            tokens: added special tokens, whose activations are of another size and which no dictionary was trained on,
            stay as they are. Without it, the model's own loss.
        where: at which of those tokens it is applied, such as `ordinary_places`: outliers that no dictionary was
            trained on stay as they are too. All of them without it. Every token is a target in either case.
        batch_tokens: ids in one forward pass, fewer where the vocabulary is large; without it as many as fit (see
            `harvest`).

    Raises:
        TypeError: if the model has no next-token logits, or `corpus` is pictures.
        SiteNotFound: if a spliced site is not in the model.
        ValueError: if the corpus does not fit the model, or a function changes a shape.
    """
    model = loaded.model if isinstance(loaded, Subject) else loaded
    if isinstance(loaded, Subject) and loaded.kind != "causal":
        raise TypeError(
            f"next_token_loss: '{loaded.name}' is an encoder and predicts no next token; give a causal model."
        )
    if tokenizer is None and isinstance(loaded, Subject):
        tokenizer = loaded.tokenizer
    corpus = as_corpus(corpus, tokenizer=tokenizer)
    if isinstance(corpus, Images):
        raise TypeError("next_token_loss: pictures have no next token; give text.")
    check_fit(model, corpus)
    batch_tokens = batch_that_fits(model) if batch_tokens is None else batch_tokens
    n_vocabulary = getattr(text_config(model), "vocab_size", 1)
    size = max(1, min(batch_tokens, _LOGITS // max(n_vocabulary, 1)) // corpus.context)
    options = {"use_cache": False} if "use_cache" in keywords_of(model) else {}
    nats = torch.zeros(len(corpus), dtype=torch.float64)
    counts = torch.zeros(len(corpus), dtype=torch.int64)
    for at in range(0, len(corpus), size):
        part = slice(at, at + size)
        ids, keep, mask = batch(corpus, part)
        rows = (keep if where is None else keep & where[part, : keep.shape[1]]).to(device_of(model))
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(evaluating(model))
            for site, function in (splice or {}).items():
                stack.enter_context(replace(model, site, function, rows=rows))
            output = model(**inputs(model, model, ids, mask), **options)
        logits = getattr(output, "logits", output)
        if not isinstance(logits, Tensor) or logits.shape[:2] != ids.shape:
            raise TypeError(
                f"next_token_loss: {type(model).__name__} gives no logits [batch, time, vocabulary]; "
                "give a causal model."
            )
        target = ids[:, 1:].to(logits.device)
        counted = keep[:, 1:].to(logits.device)
        # Gathered and reduced rather than log_softmax: half the memory over a large vocabulary.
        logits = logits[:, :-1].float()
        chosen = logits.gather(2, target[..., None])[..., 0]
        loss = (logits.logsumexp(2) - chosen).double().masked_fill(~counted, 0.0)
        nats[part] = loss.sum(1).cpu()
        counts[part] = counted.sum(1).cpu()
    return Loss(nats, counts)
