"""What does a unit say of prompts, and the model of how likely they are? Exactly, and by the slope of each token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...capture.models.facts import batch_that_fits, evaluating, keywords_of, text_config
from ...capture.models.load import Subject
from ...capture.reading.harvest import inputs
from ...capture.reading.hooks import Capture, narrowed, visiting
from ...core import Site
from ..fisher import frozen
from ..prompts import causal_model, check_length
from .target import Target, require_rows

_LOGITS = 2**25


@dataclass(frozen=True, eq=False)
class ReadPrompts:
    """What was read of prompts.

    Args:
        value: of the target, at `position`; NaN where every row is an outlier.
        score: what is climbed, minus infinity there.
        position: in the prompt, counted from its first token.
        nats: mean -ln p(token) of the prompt's tokens under the model; NaN where that was not asked.
    """

    value: Float[Tensor, "b"]
    score: Float[Tensor, "b"]
    position: Int[Tensor, "b"]
    nats: Float[Tensor, "b"]

    @staticmethod
    def joined(parts: Sequence[ReadPrompts]) -> ReadPrompts:
        """Several as one."""
        names = ("value", "score", "position", "nats")
        return ReadPrompts(*(torch.cat([getattr(part, name) for part in parts]) for name in names))

    def __getitem__(self, index: Tensor) -> ReadPrompts:
        return ReadPrompts(self.value[index], self.score[index], self.position[index], self.nats[index])


@dataclass(frozen=True, eq=False)
class PromptReader:
    """A target at a site of a causal language model, read of prompts.

    Args:
        subject: the model.
        site: where x is read.
        target: what is read of x.
        before: ids that the model's text always begins with, such as its beginning-of-text token.
        best: read the prompt's best position; its last one otherwise.
        limit: the norm above which a row is an outlier, and no activation of the prompt's.

    Raises:
        TypeError: if the model predicts no next token, or has no table of embeddings.
    """

    subject: Subject
    site: Site
    target: Target
    before: tuple[int, ...] = ()
    best: bool = False
    limit: float = float("inf")

    def __post_init__(self) -> None:
        causal_model(self.subject, "PromptReader")
        embed = getattr(self.subject.model, "get_input_embeddings", None)
        if not isinstance(embed() if callable(embed) else None, nn.Embedding):
            raise TypeError(
                f"PromptReader: '{self.subject.name}' does not say where its tokens are embedded, so no slope can be "
                "taken there. Load the model by transformers: its name or folder."
            )

    @property
    def embedding(self) -> nn.Embedding:
        """The table of the model's tokens."""
        return self.subject.model.get_input_embeddings()

    @torch.no_grad()
    def values(self, prompts: Int[Tensor, "b t"]) -> ReadPrompts:
        """The target alone: the model stops at the site."""
        model, parts = self.subject.model, []
        with evaluating(model), Capture(model, [self.site]) as cap:
            for some in self._split(prompts, batch_that_fits(model)):
                ids = self._ids(some)
                (x,) = cap(**inputs(cap.runs, model, ids, torch.ones_like(ids, dtype=torch.bool))).values()
                found = self._found(x, some)
                parts.append(ReadPrompts(*found, torch.full((len(some),), torch.nan, dtype=torch.float64)))
        return ReadPrompts.joined(parts)

    @torch.no_grad()
    def along(self, prompts: Int[Tensor, "b t"]) -> Float[Tensor, "b t"]:
        """The target's value at every token of prompts; NaN at outliers."""
        model, parts = self.subject.model, []
        with evaluating(model), Capture(model, [self.site]) as cap:
            for some in self._split(prompts, batch_that_fits(model)):
                ids = self._ids(some)
                (x,) = cap(**inputs(cap.runs, model, ids, torch.ones_like(ids, dtype=torch.bool))).values()
                rows = self._rows(x, len(some), some.shape[1]).float()
                value = self.target.value(rows).masked_fill(rows.norm(dim=-1) > self.limit, torch.nan)
                parts.append(value.double().cpu())
        return torch.cat(parts)

    @torch.no_grad()
    def read(self, prompts: Int[Tensor, "b t"]) -> ReadPrompts:
        """The target, and the prompts' likelihood."""
        parts = []
        for some in self._split(prompts, self._most):
            with self._seen() as seen:
                logits = self._logits(some)
            nats = self._likelihood(logits, some)
            parts.append(ReadPrompts(*self._found(seen[0], some), nats.double().cpu()))
        return ReadPrompts.joined(parts)

    def slopes(self, prompts: Int[Tensor, "b t"], fluency: Float[Tensor, "b"], scale: float) -> Float[Tensor, "b t v"]:
        r"""$\partial L / \partial o_{tv}$ of $L = s / \mathrm{scale} - \lambda h$, o the prompt's tokens one-hot.

        s is what is climbed of the target and h the prompt's mean cross-entropy, in which a token counts twice: as what
        is predicted and as what later tokens are predicted from.

        Args:
            prompts: where.
            fluency: lambda of each.
            scale: of the target.
        """
        model, count, length = self.subject.model, len(prompts), prompts.shape[1]
        leaf: list[Tensor] = []

        def embedded(_: Site, x: Tensor) -> Tensor:
            leaf.append(x.detach().requires_grad_())
            return leaf[0]

        place = next(name for name, module in model.named_modules() if module is self.embedding)
        with torch.enable_grad(), frozen(model), visiting(model, Site(place), embedded), self._seen() as seen:
            logits = self._logits(prompts)
            x = self._rows(seen[0], count, length)
            _, _, position = self._found(seen[0].detach(), prompts)
            chosen = x[torch.arange(count, device=x.device), position.to(x.device)]
            climbed = self.target.slope(chosen)
            nats = self._likelihood(logits, prompts)
            weights = fluency.to(nats)
            (gradient,) = torch.autograd.grad((climbed / scale).sum() - (weights * nats).sum(), leaf)
        table = self.embedding.weight.detach()
        slopes = gradient[:, -length:].to(table) @ table.T
        predicted = self._predicting(logits.detach(), length).log_softmax(-1)
        v, counted = min(slopes.shape[-1], predicted.shape[-1]), predicted.shape[1]
        slopes = slopes[..., :v]
        if counted:
            slopes[:, length - counted :] += weights[:, None, None] * predicted[..., :v] / counted
        return slopes.float().cpu()

    @property
    def _most(self) -> int:
        vocabulary = getattr(text_config(self.subject.model), "vocab_size", 1)
        return max(min(batch_that_fits(self.subject.model), _LOGITS // vocabulary), 1)

    def _split(self, prompts: Tensor, most: int) -> Iterator[Tensor]:
        length = len(self.before) + prompts.shape[1]
        check_length(self.subject.model, length, "PromptReader")
        yield from prompts.split(max(most // length, 1))

    def _ids(self, prompts: Tensor) -> Tensor:
        return torch.cat([torch.tensor(self.before, dtype=torch.int64).expand(len(prompts), -1), prompts], 1)

    @contextmanager
    def _seen(self) -> Iterator[list[Tensor]]:
        seen: list[Tensor] = []

        def look(site: Site, x: Tensor) -> None:
            seen.append(narrowed(x, site))

        with evaluating(self.subject.model), visiting(self.subject.model, self.site, look):
            yield seen

    def _logits(self, prompts: Tensor) -> Tensor:
        model: Any = self.subject.model
        options = {"use_cache": False} if "use_cache" in keywords_of(model) else {}
        ids = self._ids(prompts)
        return model(**inputs(model, model, ids, torch.ones_like(ids, dtype=torch.bool)), **options).logits

    def _predicting(self, logits: Tensor, length: int) -> Tensor:
        """The logits that predict the prompt's tokens; of its first one only where something stands before it."""
        return logits[:, -length - 1 : -1].float() if self.before else logits[:, -length:-1].float()

    def _likelihood(self, logits: Tensor, prompts: Tensor) -> Tensor:
        predicting = self._predicting(logits, prompts.shape[1])
        if not predicting.shape[1]:
            return predicting.new_zeros(len(prompts))
        targets = prompts[:, -predicting.shape[1] :].to(predicting.device)
        chosen = predicting.gather(2, targets[..., None])[..., 0]
        return (predicting.logsumexp(2) - chosen).mean(1)

    def _rows(self, x: Tensor, count: int, length: int) -> Float[Tensor, "b t d"]:
        return require_rows(x, self.site, count)[:, -length:]

    def _found(self, x: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(value, score, position) of each prompt."""
        rows = self._rows(x, len(prompts), prompts.shape[1]).float()
        rows = rows if self.best else rows[:, -1:]
        outlying = rows.norm(dim=-1) > self.limit
        score = self.target.score(rows).masked_fill(outlying, -torch.inf)
        at = score.argmax(1)
        each = torch.arange(len(prompts), device=at.device)
        value = self.target.value(rows).masked_fill(outlying, torch.nan)[each, at]
        position = at if self.best else at + prompts.shape[1] - 1
        return value.double().cpu(), score[each, at].double().cpu(), position.cpu()
