"""What else moves as a concept is added to x? Beside random, orthogonal and opposite vectors, at three doses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from ... import capture
from ...capture import Corpus, Subject
from ...core import Findings, Measurement, Site, SparseCoder
from ...intervene import Edits, dose, generate, text_of
from ...intervene.concepts import ContrastSet, Direction
from ...intervene.concepts.log_odds import TokenOdds
from ...intervene.edits import Add
from ...intervene.side_effects import AnswerFaults, SideEffects, answer_faults, control_band, divergences, side_effects
from ...measure.interval import Interval, bootstrap, wilson
from ..study import Progress
from .concept_directions import STEERED

_PROMPTS, _PROMPT, _NEW = 8, 24, 24
"""Prompts that are continued, tokens of each, and of each answer."""


@dataclass(frozen=True)
class Steering:
    """How concepts are added, and what beside.

    Args:
        rise: of the log-odds of the concept's tokens, nats.
        unrelated: text that should stay as it is; the text every Python carries, without.
        tokens: of it.
        controls: random vectors, and orthogonal ones of which the most effective is kept.
        text: whether texts and answers are kept.
        seed: of the control vectors and the bootstrap.
    """

    rise: float
    unrelated: str | None
    tokens: int
    controls: int
    text: bool
    seed: int

    def add(
        self,
        found: Findings,
        subject: Subject,
        parts: Mapping[str, tuple[ContrastSet, ContrastSet]],
        directions: Mapping[tuple[Site, str, str], Direction],
        coder: SparseCoder | None,
    ) -> Generator[Progress, None, None]:
        """Each concept added at the site where it holds best, beside what any vector would do."""
        yield Progress("Steering", 0, len(parts))
        corpus = capture.tokens(
            subject.tokenizer,
            capture.documents(self.unrelated),
            context=min(128, _longest(subject)),
            limit=self.tokens,
            seed=self.seed,
        )
        for done, (name, (train, held)) in enumerate(parts.items()):
            site = self._best_site(found, name, directions)
            direction = directions.get((site, name, STEERED), None)
            if direction is None:
                raise ValueError(f"{name}: steering adds {STEERED}; name it among --finders, or give --no-steer.")
            try:
                odds = TokenOdds.of(subject, train)
            except ValueError as error:
                found.row("unsteered", concept=name, why=str(error))
                yield Progress("Steering", done + 1, len(parts), name)
                continue
            bench = _Bench(subject, site, odds, _as_corpus(subject, held.negative), corpus)
            others = {n: directions[site, n, STEERED] for n in parts if n != name and (site, n, STEERED) in directions}
            self._measure(found, name, bench, direction.vector, others, coder)
            yield Progress("Steering", done + 1, len(parts), name)

    def _best_site(self, found: Findings, name: str, directions: Mapping[tuple[Site, str, str], Direction]) -> Site:
        """Where the concept's sides lie furthest apart."""
        sites = {site for site, concept, _ in directions if concept == name}
        value = lambda site: found["concept_separation", str(site), name].value or 0.0  # noqa: E731
        return max(sorted(sites, key=str), key=value)

    def _measure(
        self,
        found: Findings,
        name: str,
        bench: _Bench,
        vector: Tensor,
        others: Mapping[str, Direction],
        coder: SparseCoder | None,
    ) -> None:
        slope = bench.slope(vector)
        # At strength 1 the first order promises the rise that is asked for; where it promises none, a mean norm.
        unit = vector * (self.rise / slope) if slope > 0 else vector
        match = dose.matched(lambda s: bench.effect(s * unit), self.rise, most=4.0)
        own = match.strength * unit
        band = [
            (one.kind, one.label, one.vector)
            for one in control_band(
                own,
                dictionary=None if coder is None else coder.dictionary,
                random=self.controls,
                orthogonal=self.controls,
                best=bench.effect,
                seed=self.seed,
            )
        ]
        vectors = [("concept", STEERED, own), *band]
        targets = () if coder is None else _own_latents(coder, own)
        moved = bench.side_effects([v for _, _, v in vectors], others, coder, targets)
        effects = [bench.effect(v) for _, _, v in vectors]
        at = {"site": str(bench.site), "concept": name}
        self._headline(found, at, match, moved, effects, vectors)
        for (kind, label, v), effect, effects_of in zip(vectors, effects, moved):
            _row(found, at, "norm", kind, label, v, effect, effects_of)
        for matching, target, measure in (
            ("kl", moved[0].divergence.mean, bench.kl),
            ("effect", effects[0], bench.effect),
        ):
            if not (math.isfinite(target) and target > 0):
                continue
            for kind, label, v in band:
                if kind == "random" and label != "0":
                    continue
                reached = dose.matched(
                    lambda s, v=v, measure=measure: measure(s * v), target, most=4.0, tolerance=0.1, steps=8
                )
                if not reached.reached:
                    found.row("unmatched", **at, matched=matching, kind=kind, label=label, nearest=reached.effect)
                    continue
                dosed = reached.strength * v
                (one,) = bench.side_effects([dosed], others, coder, targets)
                _row(found, at, matching, kind, label, dosed, bench.effect(dosed), one)
        for other in others:
            found.row("probes", **at, other=other, shift=moved[0].probes[other], opposite=moved[1].probes[other])
        self._answers(found, at, bench, own)

    def _headline(
        self,
        found: Findings,
        at: Mapping[str, str | int | float],
        match: dose.Match,
        moved: Sequence[SideEffects],
        effects: Sequence[float],
        vectors: Sequence[tuple[str, str, Tensor]],
    ) -> None:
        random = [i for i, (kind, _, _) in enumerate(vectors) if kind == "random"]
        middle = lambda values: float(np.median([values[i] for i in random]))  # noqa: E731
        first = moved[0].divergence
        sums = first.by_document().numpy()
        caution = "" if match.reached else f"the rise of {match.target:g} nats was not reached"
        finite = first.infinite == 0
        whose = "median of random vectors of this norm"
        found.add(
            Measurement(
                name="concept_log_odds_rise",
                value=effects[0],
                unit="nats",
                n=int(first.targets.sum()),
                of="tokens",
                how="no interval: the dose that was asked for",
                reference=self.rise,
                reference_is="asked for",
                chance=middle(effects),
                chance_is=whose,
                caution=caution,
                at=at,
            )
        )
        found.add(
            Measurement(
                name="steering_kl",
                value=first.mean if finite else None,
                unit="nats per token",
                n=int(first.positions.sum()),
                of="tokens",
                chance=middle([one.divergence.mean for one in moved]) if finite else None,
                chance_is=whose,
                caution=caution
                if finite
                else f"infinite at {first.infinite} tokens, whose likeliest words are excluded",
                at=at,
                **(
                    bootstrap(lambda s: s[:, 0] / s[:, 1], sums, seed=self.seed)
                    if finite
                    else Interval(None, None, "no interval: infinite")
                ).fields,
            )
        )
        found.add(
            Measurement(
                name="steering_delta_loss",
                value=first.delta_loss,
                unit="nats per token",
                n=int(first.targets.sum()),
                of="tokens",
                chance=middle([one.divergence.delta_loss for one in moved]),
                chance_is=whose,
                at=at,
                **bootstrap(lambda s: s[:, 2] / np.maximum(s[:, 3], 1), sums, seed=self.seed).fields,
            )
        )
        found.add(
            Measurement(
                name="steered_norm_ratio",
                value=moved[0].norm_ratio,
                unit="ratio",
                n=int(first.positions.sum()),
                of="tokens",
                reference=1.0,
                reference_is="unchanged",
                chance=middle([one.norm_ratio for one in moved]),
                chance_is=whose,
                at=at,
            )
        )
        shift = moved[0].latents
        if shift is not None:
            found.add(
                Measurement(
                    name="off_target_share",
                    value=shift.off_target,
                    unit="share of movement",
                    n=int(first.positions.sum()),
                    of="tokens",
                    chance=middle([one.latents.off_target for one in moved if one.latents is not None]),
                    chance_is=whose,
                    at=at,
                )
            )
            found.rows(
                "latents_moved",
                {
                    "latent": shift.worst.tolist(),
                    "change": shift.change.tolist(),
                    "density": shift.density.tolist(),
                    "edited_density": shift.edited_density.tolist(),
                },
                at=at,
            )

    def _answers(self, found: Findings, at: Mapping[str, str | int | float], bench: _Bench, vector: Tensor) -> None:
        """What it writes, with the concept added and without."""
        prompts = [
            bench.corpus.ids[i, : min(int(bench.corpus.length[i]), _longest(bench.subject) // 2, _PROMPT)].tolist()
            for i in range(min(len(bench.corpus), _PROMPTS))
        ]
        faults: dict[str, AnswerFaults] = {}
        added: dict[str, Edits] = {"plain": {}, "steered": {bench.site: Add(vector.float())}}
        for kind, edits in added.items():
            answers = generate(
                bench.subject, prompts, edits=edits, max_new_tokens=min(_NEW, _longest(bench.subject) // 2)
            )
            texts = text_of(bench.subject, answers)
            faults[kind] = answer_faults(answers, texts)
            found.row("answer_faults", **at, kind=kind, **dataclasses.asdict(faults[kind]))
            if self.text:
                asked = text_of(bench.subject, prompts)
                found.rows("answers", {"prompt": asked, "answer": texts}, at={**at, "kind": kind})
        n = faults["steered"].n
        for name, part in (("looping_answers", "loops"), ("empty_answers", "empty")):
            share = float(getattr(faults["steered"], part))
            found.add(
                Measurement(
                    name=name,
                    value=share,
                    unit="share of answers",
                    n=n,
                    of="answers",
                    chance=float(getattr(faults["plain"], part)),
                    chance_is="without steering",
                    at=at,
                    **wilson(round(share * n), n, of="answers").fields,
                )
            )


@dataclass(frozen=True, eq=False)
class _Bench:
    """Where a vector is tried: a site, the concept's log-odds on texts without it, and unrelated text."""

    subject: Subject
    site: Site
    odds: TokenOdds
    without: Corpus
    corpus: Corpus

    def slope(self, vector: Tensor) -> float:
        """What the first order says that the vector does to the log-odds."""
        return float(self.odds.gradient(self.subject, self.without, self.site) @ vector.double())

    def effect(self, vector: Tensor) -> float:
        """Rise of the log-odds, nats."""
        if not bool((vector != 0).any()):
            return 0.0
        return self.odds.mean(self.subject, self.without, {self.site: Add(vector.float())}) - self.plain

    @cached_property
    def plain(self) -> float:
        """The log-odds without an edit."""
        return self.odds.mean(self.subject, self.without)

    def kl(self, vector: Tensor) -> float:
        """Nats a token on unrelated text."""
        if not bool((vector != 0).any()):
            return 0.0
        return divergences(self.subject, self.corpus, [{self.site: Add(vector.float())}])[0].mean

    def side_effects(
        self,
        vectors: Sequence[Tensor],
        probes: Mapping[str, Direction],
        coder: SparseCoder | None,
        targets: Sequence[int],
    ) -> tuple[SideEffects, ...]:
        return side_effects(
            self.subject,
            self.corpus,
            [{self.site: Add(v.float())} for v in vectors],
            watch=self.site,
            probes=probes,
            coder=coder,
            targets=targets,
        )


def _row(
    found: Findings,
    at: Mapping[str, str | int | float],
    matching: str,
    kind: str,
    label: str,
    vector: Tensor,
    effect: float,
    moved: SideEffects,
) -> None:
    found.row(
        "steering",
        **at,
        matched=matching,
        kind=kind,
        label=label,
        norm=float(vector.norm()),
        effect=effect,
        kl=moved.divergence.mean,
        delta_loss=moved.divergence.delta_loss,
        norm_ratio=moved.norm_ratio,
        off_target=None if moved.latents is None else moved.latents.off_target,
    )


def _own_latents(coder: SparseCoder, vector: Tensor) -> tuple[int, ...]:
    """The latent whose atom the vector is nearest to: what it is meant to move."""
    atoms = coder.dictionary.atoms.detach().double().cpu()
    return (int((atoms @ vector / atoms.norm(dim=1).clamp_min(1e-300)).argmax()),)


def sentences(found: Findings, names: Sequence[str]) -> Iterator[str]:
    """What adding each concept did."""
    for name in names:
        kl, rise = found.get("steering_kl", name), found.get("concept_log_odds_rise", name)
        if kl is None or rise is None:
            yield f"{name}: its texts do not differ in their tokens, so that steering could not be measured."
            continue
        if kl.value is None or kl.chance is None:
            yield f"{name}: steering makes some words impossible, so that its KL is infinite."
            continue
        yield (
            f"{name}: adding it at {kl.at['site']} raises the log-odds of its tokens by {rise.value or 0:.2f} nats and "
            f"costs {kl.value:.3f} nats a token on unrelated text; random vectors of its norm raise them by "
            f"{rise.chance or 0:.2f} and cost {kl.chance:.3f}."
        )


def _as_corpus(subject: Subject, texts: Sequence[str]) -> Corpus:
    corpus = capture.as_corpus(list(texts), tokenizer=subject.tokenizer, context=min(128, _longest(subject)))
    assert isinstance(corpus, Corpus)
    return corpus


def _longest(subject: Subject) -> int:
    most = getattr(subject.model.config, "max_position_embeddings", None)
    return most if isinstance(most, int) and most > 0 else 128
