"""How many nats does a small change of x cost a model's predictions? The Fisher matrix, pulled back to a site."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from ..capture.inputs.as_corpus import Readable, as_corpus
from ..capture.inputs.images import Images
from ..capture.models.facts import batch_that_fits, device_of, evaluating, keywords_of
from ..capture.models.load import Subject
from ..capture.reading.harvest import batch, check_fit, inputs
from ..core import Site
from .prompts import causal_model
from .rewriting import replace


@dataclass(frozen=True, eq=False)
class Fisher:
    r"""F, so that adding $\delta$ costs $\tfrac12 \delta^\top F \delta$ nats a token, for small $\delta$.

    Args:
        matrix: F.
        samples: gradients that it is the mean of.
        tokens: tokens that were predicted.
    """

    matrix: Float64[Tensor, "d d"]
    samples: int
    tokens: int

    def nats(self, direction: Float[Tensor, "d"]) -> float:
        r"""$\tfrac12 \delta^\top F \delta$."""
        v = direction.double().cpu()
        return float(v @ self.matrix @ v) / 2

    @staticmethod
    def mean(parts: Sequence[Fisher]) -> Fisher:
        """That of several texts together, each token counting alike.

        Raises:
            ValueError: if there is none.
        """
        if not parts:
            raise ValueError("Fisher.mean: there are no parts; give at least one.")
        tokens = sum(part.tokens for part in parts)
        matrix = torch.stack([part.matrix * (part.tokens / tokens) for part in parts]).sum(0)
        return Fisher(matrix, sum(part.samples for part in parts), tokens)


def pullback_fisher(
    subject: Subject,
    site: Site | str,
    corpus: Readable,
    *,
    at: Literal["every", "one"] = "every",
    draws: int = 1,
    batch_tokens: int | None = None,
    seed: int = 0,
) -> Fisher:
    r"""$F = \mathrm{E}[s s^\top]$, $s = \partial \ln p(y) / \partial x$, y drawn from the model.

    Drawn and not the text's own next token: that would be the empirical Fisher matrix, which is no bound of any KL.
    Scores of different tokens are uncorrelated given the text, so that one backward pass serves all of a window.

    Args:
        subject: a causal model.
        site: where x is changed.
        corpus: text that is to stay as it is: unrelated to what is steered.
        at: "every": the same change at every token of a window, per predicted token; "one": a change at one token, its
            effect on all that follow.
        draws: of y for each window.
        batch_tokens: ids in one pass.
        seed: of the draws.

    Raises:
        TypeError: if the subject is an encoder, or the corpus pictures.
        SiteNotFound: if the site is not in the model.
        ValueError: if draws is below 1, or the corpus does not fit the model.

    Source:
        The pullback of FishBack (2605.17231); Kunstner et al., "Limitations of the empirical Fisher approximation",
        2019.
    """
    model = causal_model(subject, "pullback_fisher")
    if draws < 1:
        raise ValueError(f"pullback_fisher: draws is {draws}; draw at least one.")
    corpus = as_corpus(corpus, tokenizer=subject.tokenizer)
    if isinstance(corpus, Images):
        raise TypeError("pullback_fisher: pictures have no next token; give text.")
    check_fit(model, corpus)
    size = max(1, (batch_tokens or batch_that_fits(model)) // corpus.context)
    generator = torch.Generator().manual_seed(seed)
    options = {"use_cache": False} if "use_cache" in keywords_of(model) else {}
    total: Tensor | None = None
    samples = tokens = 0
    for start in range(0, len(corpus), size):
        ids, keep, mask = batch(corpus, slice(start, start + size))
        rows = keep.to(device_of(model))
        # A leaf of zeros added to x at every kept token: its gradient is that of x.
        leaves: list[Tensor] = []

        def leaf(x: Tensor, leaves: list[Tensor] = leaves) -> Tensor:
            leaves.append(torch.zeros_like(x, requires_grad=True))
            return x.detach() + leaves[-1]

        with torch.enable_grad(), evaluating(model), frozen(model), replace(model, site, leaf, rows=rows):
            logits = model(**inputs(model, model, ids, mask), **options).logits
            if len(leaves) != 1:
                raise ValueError(
                    f"pullback_fisher: {site} ran {len(leaves)} times in one pass; choose a module that runs once."
                )
            # A token is predicted from each kept position, the text's last included.
            log_p = logits[rows].float().log_softmax(-1)
            for draw in range(draws):
                y = torch.multinomial(log_p.detach().exp().cpu(), 1, generator=generator).to(log_p.device)
                picked = log_p.gather(1, y).sum()
                (s,) = torch.autograd.grad(picked, leaves[0], retain_graph=draw + 1 < draws)
                s = s.double()
                if at == "every":
                    owner = rows.nonzero()[:, 0]
                    s = torch.zeros(len(rows), s.shape[1], dtype=s.dtype, device=s.device).index_add_(0, owner, s)
                square = (s.T @ s).cpu()
                total = square if total is None else total + square
                samples += len(s)
                tokens += len(log_p)
    assert total is not None
    return Fisher(total / tokens, samples, tokens)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Inside the block parameters take no gradients, so that none are computed; after it each is as it was."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
