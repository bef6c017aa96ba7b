"""Where is a concept in a model, can its direction be relied on, and what else moves when it is steered?"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import tyro
from torch import Tensor

from ... import capture
from ...capture import Corpus, Subject
from ...core import Answer, Findings, Measurement, Run, Site, SparseCoder
from ...dictionaries import load_coder
from ...intervene import Edits, concepts, dose, generate, text_of
from ...intervene.concepts import ContrastRows, ContrastSet, Direction, Finder
from ...intervene.concepts.log_odds import TokenOdds
from ...intervene.edits import Add
from ...intervene.side_effects import AnswerFaults, SideEffects, answer_faults, control_band, divergences, side_effects
from ...measure.interval import Interval, bootstrap, wilson
from ..settings import Count, above
from ..study import Progress, Study

_FINDERS = {finder.name: finder for finder in concepts.FINDERS}
_STEER = concepts.DiffMean.name
_SITES = 4
_PROMPTS, _PROMPT, _NEW = 8, 24, 24
"""Prompts that are continued, tokens of each, and of each answer."""


@dataclass(frozen=True)
class Concept(Study):
    """Where is a concept in this model, and what else moves when it is steered?

    Reads texts with a concept against texts without it, finds its direction at each site in several ways on one half of
    them and tries it on the other, then adds it at the site where it holds best and measures what else moves on
    unrelated text, beside random and orthogonal vectors, the opposite one and the nearest atom, at equal norm, KL and
    effect.
    """

    kind: ClassVar[str] = "concept"

    model: Annotated[str, tyro.conf.Positional] = "pocket"
    """Hub name, local folder or GGUF file; "pocket" travels inside the package."""
    contrast: str | None = None
    """Contrasting texts: a .json, .jsonl or text file (pairs with a tab between). Default: the concepts named."""
    concepts: tuple[str, ...] = ()
    """Concepts by name: of the file, or built in (code, errors, numbers, quoting). Default: all there are."""
    sites: tuple[str, ...] = ()
    """Where to look: roles or module paths. Default: the stream behind at most four blocks."""
    finders: tuple[str, ...] = ()
    """Ways of finding a direction. Default: all that the texts allow."""
    texts: Count = 200
    """Texts on each side of a built-in concept."""
    held_out: Annotated[float, above(0)] = 0.5
    """Share of the texts that directions are tried on."""
    width: Annotated[float, above(0)] | None = None
    """Half the width that a 95 % interval of accuracy may have; too few held-out texts for it are refused."""
    last: bool = False
    """Read each text at its last token instead of the mean over its tokens."""
    sae: str | None = None
    """A saved dictionary of the one site given: its latents are ranked, and watched while steering."""
    steer: bool = True
    """Also add each direction and measure what else moves."""
    rise: Annotated[float, above(0, finite=True)] = 1.0
    """How far steering is to raise the log-odds of the concept's tokens, in nats."""
    unrelated: str | None = None
    """Text that steering should leave alone. Default: the text every Python carries."""
    tokens: Count = 2_000
    """Tokens of it."""
    controls: Count = 4
    """Random vectors to compare with, and as many orthogonal ones of which the most effective is kept."""
    text: bool = True
    """Keep texts and answers in the run folder; with --no-text only their hashes."""
    device: str = "cpu"
    """Where to run: cpu, cuda, mps."""
    seed: int = 0
    """Of the split, the control vectors and the bootstrap."""

    def check(self) -> None:
        if not self.held_out < 1:
            raise ValueError(f"held_out must be a share below 1; got {self.held_out}.")
        if self.width is not None and not self.width < 1:
            raise ValueError(f"width must be half an interval of a share, below 1; got {self.width}.")
        for name in self.finders:
            if name not in _FINDERS:
                raise ValueError(f"there is no finder {name!r}. Finders are {', '.join(_FINDERS)}.")
        if self.contrast is None:
            for name in self.concepts:
                if name not in concepts.POCKET_CONCEPTS:
                    raise ValueError(
                        f"there is no built-in concept {name!r}. There are {', '.join(concepts.POCKET_CONCEPTS)}; for "
                        "others give a file with --contrast."
                    )
        if self.sae is not None and len(self.sites) != 1:
            raise ValueError("a dictionary belongs to one site; give that one with --sites.")

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        yield Progress("Reading the contrasts", 0, 1)
        parts = self._parts()
        coder = None if self.sae is None else load_coder(Path(self.sae).expanduser())
        yield Progress("Reading the contrasts", 1, 1, f"{len(parts)} concepts")
        yield Progress(f"Loading {self.model}", 0, 1)
        subject = capture.load(self.model, device=self.device)
        if subject.tokenizer is None:
            raise ValueError(f"concept: '{subject.name}' reads pictures and no text; give a model of text.")
        sites = capture.sites(subject.model, self.sites) if self.sites else _default_sites(subject)
        yield Progress(f"Loading {self.model}", 1, 1)
        token = "last" if self.last else "mean"
        rows: dict[str, tuple[dict[Site, ContrastRows], dict[Site, ContrastRows]]] = {}
        for done, (name, (train, held)) in enumerate(parts.items()):
            yield Progress("Reading texts", done, len(parts), name)
            first, second = (concepts.contrast_rows(subject, part, sites, token=token) for part in (train, held))
            rows[name] = (first, second)
        yield Progress("Reading texts", len(parts), len(parts))
        found = Findings()
        directions: dict[tuple[Site, str, str], Direction] = {}
        for done, site in enumerate(sites):
            yield Progress("Finding directions", done, len(sites), str(site))
            for name, (first, second) in rows.items():
                caution = _joined(*(part.caution for part in parts[name]))
                for finder in self._finders(first[site]):
                    directions[site, name, finder.name] = self._found(
                        found, site, name, finder, first[site], second[site], caution
                    )
            _entangled(
                found, site, {n: directions[site, n, _STEER] for n in rows if (site, n, _STEER) in directions}, rows
            )
            if coder is not None:
                _in_dictionary(found, site, coder, directions, rows, self.seed)
        yield Progress("Finding directions", len(sites), len(sites))
        sentences = list(_sentences(found, rows))
        if self.steer and subject.kind == "causal":
            yield from self._steered(found, subject, parts, directions, coder)
            sentences += _steering_sentences(found, tuple(rows))
        elif self.steer:
            sentences.append(f"{subject.name} is an encoder and predicts no next token, so nothing was steered.")
        self._texts(found, parts)
        sentences += [
            f"{name}: {caution}." for name, p in parts.items() if (caution := _joined(*(x.caution for x in p)))
        ]
        return Answer(
            title=f"{subject.name}: {', '.join(rows)} at {len(sites)} site{'' if len(sites) == 1 else 's'}",
            findings=found,
            sentences=tuple(sentences),
            arrays={f"{site}/{name}/{how}": d.vector for (site, name, how), d in directions.items()},
        )

    def _parts(self) -> dict[str, tuple[ContrastSet, ContrastSet]]:
        """Each concept's texts to find it on, and to try it on."""
        if self.contrast is None:
            named = self.concepts or concepts.POCKET_CONCEPTS
            sets = tuple(concepts.pocket_contrast(name, n=self.texts, seed=self.seed) for name in named)
        else:
            sets = concepts.read_contrasts(self.contrast)
            known = [one.name for one in sets]
            for name in self.concepts:
                if name not in known:
                    raise ValueError(f"{self.contrast} has no concept {name!r}; it has {', '.join(known)}.")
            sets = tuple(one for one in sets if not self.concepts or one.name in self.concepts)
        parts = {one.name: one.split(self.held_out, seed=self.seed) for one in sets}
        if self.width is not None:
            for _, held in parts.values():
                held.check_size(self.width)
        return parts

    def _finders(self, rows: ContrastRows) -> list[Finder]:
        asked = [_FINDERS[name]() for name in dict.fromkeys(self.finders or _FINDERS)]
        if self.finders and not rows.paired and (bad := next((f for f in asked if f.needs_pairs), None)):
            raise ValueError(f"{rows.name}: {bad.name} is found on pairs and its texts are two sets; give pairs.")
        return [finder for finder in asked if rows.paired or not finder.needs_pairs]

    def _found(
        self,
        found: Findings,
        site: Site,
        name: str,
        finder: Finder,
        train: ContrastRows,
        held: ContrastRows,
        caution: str,
    ) -> Direction:
        """One direction, and what is known of it."""
        direction = finder.find(train)
        known = concepts.reliability(direction, held, train=train, finder=finder)
        at = {"site": str(site), "concept": name, "finder": finder.name}
        texts = len(known.correct)
        most = max(len(held.positive), len(held.negative)) / texts
        said = _joined(caution, known.caution)
        found.add(
            Measurement(
                name="probe_accuracy",
                value=known.accuracy,
                unit="share of texts",
                n=texts,
                of="held-out texts",
                chance=most,
                chance_is="the more frequent side",
                caution=said,
                at=at,
                **wilson(int(known.correct.sum()), texts, of="held-out texts").fields,
            )
        )
        found.add(
            Measurement(
                name="concept_separation",
                value=known.d_prime if math.isfinite(known.d_prime) else None,
                unit="standard deviations",
                n=texts,
                of="held-out texts",
                chance=0.0,
                chance_is="a direction that knows nothing",
                caution="" if math.isfinite(known.d_prime) else "undefined: the sides do not spread",
                at=at,
                **self._separation(direction, held).fields,
            )
        )
        of = "held-out pairs" if held.paired else "held-out texts"
        found.add(
            Measurement(
                name="wrong_way_share",
                value=known.wrong_way,
                unit="share",
                n=len(known.wrong),
                of=of,
                chance=0.5,
                chance_is="a direction that knows nothing",
                at=at,
                **wilson(int(known.wrong.sum()), len(known.wrong), of=of).fields,
            )
        )
        if known.cosine is not None and finder.name == _STEER:
            found.add(
                Measurement(
                    name="pair_cosine",
                    value=known.cosine,
                    unit="cosine",
                    n=len(train.positive),
                    of="pairs",
                    how="no interval: one measurement",
                    chance=1 / math.sqrt(len(train.positive)),
                    chance_is="pairs that share nothing",
                    at=at,
                )
            )
        found.add(
            Measurement(
                name="class_dimension",
                value=float(known.class_dimension),
                unit="directions",
                n=texts,
                of="held-out texts",
                how="no interval: a count",
                caution="the search ended at its limit" if known.capped else "",
                at=at,
            )
        )
        return direction

    def _separation(self, direction: Direction, held: ContrastRows) -> Interval:
        """Of d', texts being resampled."""
        reads = [direction.read(side).numpy() for side in (held.positive, held.negative)]
        # Counts, sums and squares of each side: what d' is made of.
        sums = np.zeros((sum(map(len, reads)), 6))
        start = 0
        for side, read in enumerate(reads):
            part = slice(start, start + len(read))
            sums[part, 3 * side : 3 * side + 3] = np.column_stack([np.ones(len(read)), read, read**2])
            start += len(read)

        def statistic(s: np.ndarray) -> np.ndarray:
            with np.errstate(divide="ignore", invalid="ignore"):
                means = [s[:, 3 * side + 1] / s[:, 3 * side] for side in (0, 1)]
                spread = [s[:, 3 * side + 2] / s[:, 3 * side] - means[side] ** 2 for side in (0, 1)]
                return (means[0] - means[1]) / np.sqrt((spread[0] + spread[1]) / 2)

        return bootstrap(statistic, sums, of="held-out texts", seed=self.seed)

    def _steered(
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
            direction = directions.get((site, name, _STEER), None)
            if direction is None:
                raise ValueError(f"{name}: steering adds {_STEER}; name it among --finders, or give --no-steer.")
            try:
                odds = TokenOdds.of(subject, train)
            except ValueError as error:
                found.row("unsteered", concept=name, why=str(error))
                yield Progress("Steering", done + 1, len(parts), name)
                continue
            bench = _Bench(subject, site, odds, _as_corpus(subject, held.negative), corpus)
            others = {n: directions[site, n, _STEER] for n in parts if n != name and (site, n, _STEER) in directions}
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
        vectors = [("concept", _STEER, own), *band]
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

    def _texts(self, found: Findings, parts: Mapping[str, tuple[ContrastSet, ContrastSet]]) -> None:
        for name, halves in parts.items():
            for part, half in zip(("train", "held out"), halves):
                for side in ("positive", "negative"):
                    texts = getattr(half, side)
                    hashes = [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]
                    columns: dict[str, Sequence[Any]] = {"sha256": hashes}
                    if self.text:
                        columns["text"] = texts
                    found.rows("texts", columns, at={"concept": name, "part": part, "side": side})


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


def _entangled(
    found: Findings,
    site: Site,
    directions: Mapping[str, Direction],
    rows: Mapping[str, tuple[dict[Site, ContrastRows], dict[Site, ContrastRows]]],
) -> None:
    if len(directions) < 2:
        return
    matrix = concepts.entanglement(directions, {name: rows[name][1][site] for name in directions})
    for i, name in enumerate(matrix.names):
        for j, other in enumerate(matrix.names):
            cosine, effect = float(matrix.cosines[i, j]), float(matrix.effects[i, j])
            found.row("entanglement", site=str(site), concept=name, other=other, cosine=cosine, effect=effect)
        found.add(
            Measurement(
                name="concept_crosstalk",
                value=float(matrix.crosstalk[i]),
                unit="share of its own effect",
                n=sum(len(rows[other][1][site].x) for other in matrix.names),
                of="held-out texts",
                at={"site": str(site), "concept": name},
            )
        )


def _in_dictionary(
    found: Findings,
    site: Site,
    coder: SparseCoder,
    directions: Mapping[tuple[Site, str, str], Direction],
    rows: Mapping[str, tuple[dict[Site, ContrastRows], dict[Site, ContrastRows]]],
    seed: int,
) -> None:
    code = concepts.dense_code(coder)
    for name, (first, second) in rows.items():
        at = {"site": str(site), "concept": name}
        ranked = concepts.rank_latents(code, first[site], second[site], seed=seed)
        found.rows(
            "latents",
            {"latent": ranked.latent.tolist(), "auc": ranked.auc.tolist(), "train_auc": ranked.train_auc.tolist()},
            at=at,
        )
        best = float((ranked.auc - 0.5).abs().max()) + 0.5
        found.add(
            Measurement(
                name="best_latent_auc",
                value=best,
                unit="probability",
                n=len(second[site].x),
                of="held-out texts",
                chance=ranked.chance,
                chance_is="the best of as many where sides were shuffled",
                at=at,
            )
        )
        if (site, name, _STEER) not in directions:
            continue
        shared = concepts.shared_features(directions[site, name, _STEER], coder.dictionary, code, second[site])
        for quantity, value, unit in (
            ("own_features", float(shared.own), "latents"),
            ("probe_interference", shared.interference, "share of variance"),
        ):
            found.add(
                Measurement(name=quantity, value=value, unit=unit, n=len(second[site].x), of="held-out texts", at=at)
            )
        found.rows(
            "shared_features",
            {
                "latent": shared.latent[:20].tolist(),
                "cosine": shared.cosine[:20].tolist(),
                "carries": shared.carries[:20].tolist(),
            },
            at=at,
        )


def _own_latents(coder: SparseCoder, vector: Tensor) -> tuple[int, ...]:
    """The latent whose atom the vector is nearest to: what it is meant to move."""
    atoms = coder.dictionary.atoms.detach().double().cpu()
    return (int((atoms @ vector / atoms.norm(dim=1).clamp_min(1e-300)).argmax()),)


def _sentences(found: Findings, names: Mapping[str, Any]) -> Iterator[str]:
    for name in names:
        own = [m for m in found if m.name == "probe_accuracy" and m.at["concept"] == name and m.value is not None]
        best = max(own, key=lambda m: m.value or 0.0)
        yield (
            f"{name}: told apart on {best.value or 0:.0%} of {best.n} held-out texts at {best.at['site']} by "
            f"{best.at['finder']} ({best.chance or 0:.0%} by saying the same of all)."
        )
        bad = [m for m in own if m.caution and m.at["finder"] == _STEER]
        if bad:
            yield f"{name}: at {len(bad)} of the sites its direction is not to be relied on: {bad[0].caution}."


def _steering_sentences(found: Findings, names: Sequence[str]) -> Iterator[str]:
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


def _default_sites(subject: Subject) -> tuple[Site, ...]:
    outputs = capture.default_sites(subject.model)
    count = min(_SITES, len(outputs))
    return tuple(outputs[round((i + 1) * len(outputs) / count) - 1] for i in range(count))


def _as_corpus(subject: Subject, texts: Sequence[str]) -> Corpus:
    corpus = capture.as_corpus(list(texts), tokenizer=subject.tokenizer, context=min(128, _longest(subject)))
    assert isinstance(corpus, Corpus)
    return corpus


def _longest(subject: Subject) -> int:
    most = getattr(subject.model.config, "max_position_embeddings", None)
    return most if isinstance(most, int) and most > 0 else 128


def _joined(*cautions: str) -> str:
    return "; ".join(dict.fromkeys(each for each in cautions if each))
