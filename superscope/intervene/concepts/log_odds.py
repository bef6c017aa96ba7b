"""How much does a model want to write what a concept is written with? Log-odds of its tokens, and their gradient."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from ...capture.inputs.as_corpus import Readable, as_corpus
from ...capture.inputs.images import Images
from ...capture.models.facts import batch_that_fits, device_of, evaluating, keywords_of
from ...capture.models.load import Subject
from ...capture.reading.harvest import batch, check_fit, inputs
from ...core import Site
from ..editing import Edits
from ..prompts import causal_model
from ..rewriting import replace
from .contrast import ContrastSet


@dataclass(frozen=True, eq=False)
class TokenOdds:
    r"""$\ln \sum_{v \in V_+} p(v) - \ln \sum_{v \in V_-} p(v)$ of the next token, averaged over the tokens of a text.

    Args:
        positive, negative: ids of the tokens that texts with the concept have more of, and fewer.
    """

    positive: Int[Tensor, "p"]
    negative: Int[Tensor, "q"]

    @classmethod
    def of(cls, subject: Subject, contrast: ContrastSet, *, most: int = 40, least: int = 5) -> TokenOdds:
        """The tokens whose frequencies differ most, by their log-ratio, each side's counts raised by 1/2.

        Args:
            subject: whose tokens.
            contrast: texts with the concept and without.
            most: tokens on each side.
            least: how often a token must occur on both sides together.

        Raises:
            ValueError: if no token is more frequent on either side.
        """
        counts = [
            Counter(i for text in texts for i in subject.tokenizer(text, add_special_tokens=False)["input_ids"])
            for texts in (contrast.positive, contrast.negative)
        ]
        totals = [sum(count.values()) for count in counts]
        known = sorted(i for i in counts[0] | counts[1] if counts[0][i] + counts[1][i] >= least)
        if not known:
            raise ValueError(f"{contrast.name}: no token occurs {least} times in its texts; give more texts.")
        ratio = torch.tensor(
            [[(count[i] + 0.5) / (total + 0.5) for count, total in zip(counts, totals)] for i in known]
        ).log()
        ratio = ratio[:, 0] - ratio[:, 1]
        ids, sides = torch.tensor(known), []
        for signed in (ratio, -ratio):
            values, order = signed.topk(min(most, len(known)))
            sides.append(ids[order[values > 0]])
        if not len(sides[0]) or not len(sides[1]):
            raise ValueError(
                f"{contrast.name}: its sides do not differ in their tokens, so that its log-odds cannot be read from "
                "these; score answers with `log_odds` instead."
            )
        return cls(*sides)

    def mean(self, subject: Subject, corpus: Readable, edits: Edits | None = None) -> float:
        """The log-odds on a text, with x edited or not, nats.

        Raises:
            TypeError: if the subject is an encoder.
            SiteNotFound: if a site is not in the model.
        """
        total, count = self.by_sequence(subject, corpus, edits).sum(0).tolist()
        return total / count

    @torch.no_grad()
    def by_sequence(
        self, subject: Subject, corpus: Readable, edits: Edits | None = None
    ) -> Float64[Tensor, "sequences 2"]:
        """Of each sequence the sum of the log-odds and the tokens summed over: what a bootstrap resamples.

        Raises:
            TypeError: if the subject is an encoder.
            SiteNotFound: if a site is not in the model.
        """
        parts = []
        for model, _ids, rows, given, options in _passes(subject, corpus):
            with ExitStack() as stack:
                stack.enter_context(evaluating(model))
                for site, edit in (edits or {}).items():
                    stack.enter_context(replace(model, site, edit, rows=rows))
                logits = model(**given, **options).logits
            owner = rows.nonzero()[:, 0]
            sums = torch.zeros(len(rows), dtype=torch.float64, device=owner.device)
            sums.index_add_(0, owner, self._odds(logits[rows]))
            parts.append(torch.stack([sums, rows.sum(1).double()], 1).cpu())
        return torch.cat(parts)

    def gradient(self, subject: Subject, corpus: Readable, site: Site | str) -> Float64[Tensor, "d"]:
        """Of the mean with respect to a vector added to x at every token of the text.

        Raises:
            TypeError: if the subject is an encoder.
            SiteNotFound: if the site is not in the model.
        """
        total: Tensor | None = None
        count = 0
        for model, _ids, rows, given, options in _passes(subject, corpus):
            leaves: list[Tensor] = []

            def leaf(x: Tensor, leaves: list[Tensor] = leaves) -> Tensor:
                leaves.append(torch.zeros_like(x, requires_grad=True))
                return x.detach() + leaves[-1]

            with torch.enable_grad(), evaluating(model), replace(model, site, leaf, rows=rows):
                odds = self._odds(model(**given, **options).logits[rows]).sum()
                (slope,) = torch.autograd.grad(odds, leaves[0])
            step = slope.double().sum(0).cpu()
            total = step if total is None else total + step
            count += int(rows.sum())
        assert total is not None
        return total / count

    def _odds(self, logits: Tensor) -> Tensor:
        wide = logits.double()
        device = wide.device
        return wide[:, self.positive.to(device)].logsumexp(1) - wide[:, self.negative.to(device)].logsumexp(1)


def _passes(subject: Subject, corpus: Readable):
    """The model with what it is given, batch by batch."""
    model = causal_model(subject, "TokenOdds")
    corpus = as_corpus(corpus, tokenizer=subject.tokenizer)
    if isinstance(corpus, Images):
        raise TypeError("TokenOdds: pictures have no next token; give text.")
    check_fit(model, corpus)
    size = max(1, batch_that_fits(model) // corpus.context)
    options = {"use_cache": False} if "use_cache" in keywords_of(model) else {}
    for at in range(0, len(corpus), size):
        ids, keep, mask = batch(corpus, slice(at, at + size))
        yield model, ids, keep.to(device_of(model)), inputs(model, model, ids, mask), options
