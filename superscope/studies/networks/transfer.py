"""Are the features of one layer, text, seed or model found in another? By what they fire on, beside another seed."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import torch
import tyro

from ... import capture
from ...capture import Corpus, Subject
from ...core import Answer, Findings, Measurement, Run, Site
from ..settings import at_least
from ..study import Progress
from .comparing import Codes, aligned, found_beside_seed, joined
from .layers import Explained
from .readings import Activation
from .survey import Survey

_EDGES = np.linspace(0.0, 1.0, 21)


@dataclass(frozen=True)
class Transfer(Survey):
    """Are the features of A found in B?

    A and B are each a model and a site, `pocket@resid_post.1`, `control@...` for A's model with random weights, and a
    text to learn from. Dictionaries of each are learned apart and read the same held-out rows; a feature of A is found
    if some latent of B fires as it does. Beside the share: what another seed of A itself finds, which is as much as may
    be expected, and what remains when rows are shifted against each other.
    """

    kind: ClassVar[str] = "transfer"

    a: Annotated[str, tyro.conf.Positional] = "pocket@resid_post.1"
    """A model and a site of it, `MODEL@SITE`."""
    b: Annotated[str, tyro.conf.Positional] = "pocket@resid_post.2"
    """Another, or the same with another text; `control@SITE` is A's model with random weights."""
    text_b: str | None = None
    """Text that B's dictionaries are learned from; A's without it. They are compared on held-out text of both."""
    seeds: Annotated[int, at_least(2, why="The second says how much one place finds of itself.")] = 2
    """Dictionaries learned of each, from different random starts."""

    def check(self) -> None:
        for name in ("a", "b"):
            model, at, site = getattr(self, name).rpartition("@")
            if not (model and at and site):
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}. Write a model and a site, as pocket@resid_post.1."
                )

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        yield Progress("Loading models", 0, 1)
        (model_a, _, site_a), (model_b, _, site_b) = self.a.rpartition("@"), self.b.rpartition("@")
        first = capture.load(model_a, device=self.device)
        second = (
            first
            if model_b == model_a
            else capture.control(first, self.seed)
            if model_b == "control"
            else capture.load(model_b, device=self.device)
        )
        if (
            first.tokenizer is None
            or second.tokenizer is None
            or first.tokenizer.get_vocab() != second.tokenizer.get_vocab()
        ):
            raise ValueError(
                f"'{first.name}' and '{second.name}' cut text into other tokens, so they have no rows in common. "
                "Compare models of one tokenizer."
            )
        sites = _one(first, site_a), _one(second, site_b)
        yield Progress("Loading models", 1, 1)
        yield Progress("Reading the text", 0, 1)
        texts, held_out = self._texts(first)
        yield Progress("Reading the text", 1, 1, f"{held_out.n_tokens:,} tokens to compare on")
        codes, findings = Codes(), Findings()
        for label, subject, site, corpus in zip("AB", (first, second), sites, texts, strict=True):
            found = yield from self.survey(
                run, {label: subject}, [site], corpus, held_out, (Activation(), Explained(), codes)
            )
            findings.add(found)
            for name, table in found.tables.items():
                findings.rows(name, table)
        yield Progress("Comparing features", 0, 2)
        a, b = aligned(codes.kept["A", str(sites[0])], codes.kept["B", str(sites[1])])
        ways, sentences = (("A", "B", a, b), ("B", "A", b, a)), []
        for done, (one, other, of, in_other) in enumerate(ways):
            shared, own, best = found_beside_seed(of, in_other, seed=self.seed)
            at = {"from": one, "to": other}
            findings.add([shared, own], at=at)
            sentences.append(sentence(shared, one, other))
            counts = np.histogram(best.clip(0, 1), _EDGES)[0].tolist()
            findings.rows(
                "best_correlations",
                {"low": _EDGES[:-1].tolist(), "high": _EDGES[1:].tolist(), "latents": counts},
                at=at,
            )
            yield Progress("Comparing features", done + 1, 2)
        return Answer(
            title=f"Features of {self.a} in {self.b}",
            findings=findings,
            sentences=sentences,
        )

    def _texts(self, loaded: Subject) -> tuple[tuple[Corpus, Corpus], Corpus]:
        """What each learns from, and what both are compared on: as much of either text."""
        corpus, held_out = self.corpora(loaded)
        if self.text_b is None or self.text_b == self.text:
            return (corpus, corpus), held_out
        other, other_held = replace(self, text=self.text_b).corpora(loaded)
        return (corpus, other), joined([_half(held_out, other_held), _half(other_held, held_out)])


def _half(corpus: Corpus, other: Corpus) -> Corpus:
    """Windows of a corpus, as many tokens as both have."""
    least = min(corpus.n_tokens, other.n_tokens)
    return corpus.take(torch.arange(max(int((corpus.keep.sum(1).cumsum(0) <= least).sum()), 1)))


def _one(subject: Subject, asked: str) -> Site:
    (site, *more) = capture.sites(subject.model, [asked])
    if more:
        raise ValueError(f"{asked!r} names {1 + len(more)} sites of '{subject.name}'. Name one, as resid_post.2.")
    return site


def sentence(found: Measurement, one: str, other: str) -> str:
    """How much of one was found in another, beside another seed and shifted rows."""
    if found.value is None or found.low is None:
        return f"Of {one} nothing can be said: {found.caution}."
    beside = "" if found.reference is None else f" Another seed of {one} finds {found.reference:.0%}"
    return (
        f"{found.value:.0%} [{found.low:.0%}, {found.high:.0%}] of {found.n} latents of {one} are found "
        f"in {other}.{beside}, and shifted rows {found.chance:.1%}."
    )
