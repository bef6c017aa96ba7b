"""How far do a model's predictions move under an edit? KL divergence and loss at every position, in nats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from ...capture.inputs.as_corpus import Readable, as_corpus
from ...capture.inputs.images import Images
from ...capture.models.facts import batch_that_fits, device_of, evaluating, keywords_of, text_config
from ...capture.models.load import Subject
from ...capture.reading.harvest import batch, check_fit, inputs
from ..editing import Edits
from ..prompts import causal_model
from ..rewriting import replace

_LOGITS = 2**23
"""Logits held at once: 64 MiB in float64, a few times over."""


@dataclass(frozen=True, eq=False)
class Divergence:
    r"""What an edit does to next-token predictions, summed over the positions of each sequence.

    Args:
        kl: $\sum_t \sum_v p_t(v) \ln (p_t(v) / q_t(v))$, p without the edit and q with it, over every position of text.
            Nothing is clamped: where q gives 0 to what p does not, it is infinite.
        positions: how many those are.
        loss, edited_loss: minus the log-probability of the tokens that follow, without the edit and with it.
        targets: how many those are.
        infinite: positions whose divergence is infinite.
        document: which document each sequence is of.
    """

    kl: Float64[Tensor, "S"]
    positions: Int[Tensor, "S"]
    loss: Float64[Tensor, "S"]
    edited_loss: Float64[Tensor, "S"]
    targets: Int[Tensor, "S"]
    infinite: int
    document: Int[Tensor, "S"]

    @property
    def mean(self) -> float:
        """Nats a position; infinite if one is."""
        return float(self.kl.sum() / self.positions.sum())

    @property
    def delta_loss(self) -> float:
        """Cross-entropy with the edit less that without it, nats a token."""
        return float((self.edited_loss.sum() - self.loss.sum()) / self.targets.sum())

    def by_document(self) -> Float64[Tensor, "documents 4"]:
        """Of each document the sums of KL, positions, gain of loss and targets: what a bootstrap resamples."""
        columns = torch.stack(
            [self.kl, self.positions.double(), self.edited_loss - self.loss, self.targets.double()], 1
        )
        numbers, index = self.document.unique(return_inverse=True)
        return columns.new_zeros(len(numbers), 4).index_add_(0, index, columns)


@torch.no_grad()
def divergences(
    subject: Subject,
    corpus: Readable,
    edits: Sequence[Edits],
    *,
    where: Bool[Tensor, "S t"] | None = None,
    batch_tokens: int | None = None,
) -> tuple[Divergence, ...]:
    """The divergence of each of several edits from the model as it is, on one text; the plain pass is made once.

    Log-softmax is taken in float64. Every position of text counts, wherever the edits act; added special tokens stay
    as they are.

    Args:
        subject: a causal model.
        corpus: of its tokens, or what `capture.as_corpus` takes.
        edits: each by site, as for `edited`.
        where: at which tokens of text they act, such as `ordinary_places`; at all of them without it.
        batch_tokens: ids in one forward pass.

    Raises:
        TypeError: if the subject is an encoder, or the corpus pictures.
        SiteNotFound: if a site is not in the model.
        ValueError: if the corpus does not fit the model, or an edit changes a shape.
    """
    model = causal_model(subject, "divergences")
    corpus = as_corpus(corpus, tokenizer=subject.tokenizer)
    if isinstance(corpus, Images):
        raise TypeError("divergences: pictures have no next token; give text.")
    check_fit(model, corpus)
    vocabulary = max(getattr(text_config(model), "vocab_size", 1), 1)
    tokens = min(batch_tokens or batch_that_fits(model), max(_LOGITS // vocabulary, 1))
    size = max(1, tokens // corpus.context)
    options = {"use_cache": False} if "use_cache" in keywords_of(model) else {}
    shape = (len(edits), len(corpus))
    kl, edited_loss = (torch.zeros(shape, dtype=torch.float64) for _ in range(2))
    loss = torch.zeros(len(corpus), dtype=torch.float64)
    positions, targets = (torch.zeros(len(corpus), dtype=torch.int64) for _ in range(2))
    infinite = [0] * len(edits)
    for at in range(0, len(corpus), size):
        part = slice(at, at + size)
        ids, keep, mask = batch(corpus, part)
        rows, given = keep.to(device_of(model)), inputs(model, model, ids, mask)
        acted = rows if where is None else rows & where[part, : keep.shape[1]].to(rows.device)
        counted = keep[:, 1:].to(rows.device)
        target = ids[:, 1:].to(rows.device)
        plain = _log_probabilities(model, given, options, {}, rows)
        p = plain.exp()
        positions[part], targets[part] = keep.sum(1), keep[:, 1:].sum(1)
        loss[part] = _loss(plain, target, counted)
        for e, edit in enumerate(edits):
            moved = _log_probabilities(model, given, options, edit, acted)
            each = divergence_of(plain, moved, p).masked_fill(~rows, 0.0)
            infinite[e] += int(each.isinf().sum())
            kl[e, part] = each.sum(1).cpu()
            edited_loss[e, part] = _loss(moved, target, counted)
    return tuple(
        Divergence(kl[e], positions, loss, edited_loss[e], targets, infinite[e], corpus.document)
        for e in range(len(edits))
    )


def divergence_of(
    log_p: Float64[Tensor, "*batch v"], log_q: Float64[Tensor, "*batch v"], p: Float64[Tensor, "*batch v"] | None = None
) -> Float64[Tensor, "*batch"]:
    r"""$\sum_v p \ln(p / q)$: a v that p excludes adds 0, one that only q excludes makes it infinite.

    Args:
        log_p, log_q: natural logarithms.
        p: where several q are compared with one p, its exponentials.

    Example:
        >>> masked = torch.tensor([0.0, -float("inf")], dtype=torch.float64)
        >>> half = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
        >>> float(divergence_of(masked, half)), float(divergence_of(half, masked))
        (0.6931471805599453, inf)
    """
    p = log_p.exp() if p is None else p
    ratio = log_p - log_q
    found = torch.linalg.vecdot(p, ratio)
    excluded = found.isnan()
    if excluded.any():
        # 0 (-inf - anything) is 0, not NaN: a token that p excludes costs nothing, whatever q makes of it.
        found[excluded] = torch.where(p[excluded] > 0, p[excluded] * ratio[excluded], 0.0).sum(-1)
    return found


def _log_probabilities(
    model: torch.nn.Module,
    given: Mapping[str, Tensor],
    options: Mapping[str, bool],
    edits: Edits,
    rows: Tensor,
) -> Float64[Tensor, "b t v"]:
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        for site, edit in edits.items():
            stack.enter_context(replace(model, site, edit, rows=rows))
        return model(**given, **options).logits.log_softmax(-1, dtype=torch.float64)


def _loss(log_p: Tensor, target: Tensor, counted: Tensor) -> Float64[Tensor, "b"]:
    chosen = log_p[:, :-1].gather(2, target[..., None])[..., 0]
    return -torch.where(counted, chosen, 0.0).sum(1).cpu()
