"""Are the features of one layer, text, seed or model found in another? By what they fire on, and by one dictionary."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import torch
import tyro

from ... import capture, measure
from ...capture import Corpus, Subject
from ...core import Answer, Findings, Measurement, Run, Site
from ...dictionaries import Crosscoder
from ..settings import at_least
from ..study import Progress
from .comparing import Codes, aligned, found_beside_seed, joined
from .layers import Explained
from .readings import Activation, Reading
from .survey import Survey
from .together import SideBySide, Sides, taught, unexplained

_EDGES = np.linspace(0.0, 1.0, 21)


@dataclass(frozen=True)
class Transfer(Survey):
    """Are the features of A found in B?

    A and B are each a model and a site, `pocket@resid_post.1`, `control@...` for A's model with random weights, and a
    text to learn from. Dictionaries of each are learned apart and read the same held-out rows; a feature of A is found
    if some latent of B fires as it does. Beside the share: what another seed of A itself finds, which is as much as may
    be expected, and what remains when rows are shifted against each other.

    Then, unless --no-universal, one dictionary is learned of both: a row is coded from A or from B, and both are
    rebuilt from that. Its latents that fire alike whichever place they are read from are those of both.
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
    universal: bool = True
    """Learn one dictionary of both places as well; where they learn from one text."""

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
        codes, sides, findings = Codes(), Sides(places=2), Findings()
        together = self.universal and texts[0] is texts[1]
        kept: tuple[Reading, ...] = (codes, sides) if together else (codes,)
        for label, subject, site, corpus in zip("AB", (first, second), sites, texts, strict=True):
            found = yield from self.survey(
                run, {label: subject}, [site], corpus, held_out, (Activation(), Explained(), *kept)
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
        if together:
            places = [(label, str(site)) for label, site in zip("AB", sites, strict=True)]
            sentences.append((yield from self._of_both(sides, places, held_out, run, findings)))
        elif self.universal:
            sentences.append("A and B learn from different texts, so that no dictionary was learned of both together.")
        return Answer(
            title=f"Features of {self.a} in {self.b}",
            findings=findings,
            sentences=sentences,
        )

    def _of_both(
        self, sides: Sides, places: Sequence[tuple[str, str]], held_out: Corpus, run: Run, findings: Findings
    ) -> Generator[Progress, None, str]:
        """One dictionary of both, and what its codes from either tell of either."""
        rows = SideBySide.of([sides.learned[at] for at in places], [sides.held[at] for at in places])
        n = self.n or 8 * min(rows.widths)
        sae = Crosscoder(sum(rows.widths), n, self.k, rows.widths, one_site=True, seed=self.seed)
        stage = "Learning one dictionary of both"
        sae = yield from taught(
            sae, rows.learned, run, "saes/both", steps=self.steps, batch=self.batch, stage=stage, seed=self.seed
        )
        documents = held_out.document.numpy()[rows.numbers // held_out.context]
        codes = [sae.from_site(rows.part(place), place) for place in range(2)]
        left: dict[tuple[str, str], Measurement] = {}
        for one, code in zip("AB", codes, strict=True):
            with torch.no_grad():
                rebuilt = sae.decode(code).split(rows.widths, dim=1)
            for place, other in enumerate("AB"):
                left[one, other] = unexplained(rows.part(place), rebuilt[place], documents)
                findings.add(left[one, other], at={"from": one, "to": other})
        shared = measure.latents_shared(*(measure.active([code]) for code in codes), seed=self.seed)
        findings.add(shared)
        across, within = left["A", "B"], left["B", "B"]
        if shared.value is None:
            return f"Of the dictionary of both nothing can be said: {shared.caution}."
        return (
            f"By one dictionary of both A's code leaves {across.value:.0%} of B's variance unexplained, where B's own "
            f"leaves {within.value:.0%}; at least {shared.value:.0%} [{shared.low:.0%}, {shared.high:.0%}] of its "
            f"{shared.n} latents fire alike whichever place they are read from (shifted rows {shared.chance:.1%})."
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
