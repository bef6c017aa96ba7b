"""The engine of every study of networks: subjects x sites, each recorded, learned and read."""

from __future__ import annotations

import functools
import itertools
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch

from ... import capture, intervene
from ...capture import Corpus, MemorySource, StoreSource, Subject
from ...core import Activations, Findings, Run, Site
from ...measure import Wanted
from ..counting.combined import measurements
from ..counting.count import FEWEST, counted
from ..counting.search import Given
from ..learned import learned
from ..settings import Count, at_least
from ..study import Progress, Study
from .readings import READINGS, SPLICED_TOKENS, Reading, View

_ROOM = 3 * 2**30
"""Bytes of activations held in memory; more are kept on disk while the survey runs."""

_RECORDING, _MEASURING = 0.3, 1.5
"""What a multiply-add takes while recording and while measuring, in the time of one while learning. Timed on the pocket
model; a kind of stage that has been seen is judged by its own time."""

Rows = MemorySource | StoreSource

_COUNTED = 100_000
"""Rows of a site that features are counted in."""

_KINDS = {
    "residual": "The stream between blocks: its coordinates are no neurons, and nothing makes their axes special.",
    "neurons": "The hidden layer of an MLP: coordinates are neurons.",
}


@dataclass(frozen=True)
class Survey(Study):
    """What a study of networks sets: the text, the dictionaries learned of it, and what is left out.

    A study names its subjects and sites and calls `survey`.
    """

    text: str | None = None
    """Text to read: a file, a folder, or `datasets:NAME`. Default: the text every Python carries."""
    tokens: Count = 300_000
    """Tokens to learn from; less if the text is shorter."""
    held_out: Count = 40_000
    """Tokens of other documents, to measure on."""
    context: Annotated[int, at_least(2)] = 128
    """Tokens the model sees at once."""
    n: Annotated[int, at_least(2)] | None = None
    """Latents of each dictionary. Default: 8 for each dimension of the residual stream."""
    k: Count = 16
    """Latents that may be active at a token."""
    seeds: Annotated[int, at_least(2, why="A direction can only recur over at least two.")] = 3
    """Dictionaries learned at each site, from different random starts."""
    steps: Count = 300
    """Training steps of each dictionary, with the trainer's arguments for few steps (`dictionaries.SHORT`). At block 2
    of the pocket model 250 of them left 0.184 of variance unexplained and 545 directions recurred over three seeds; 500
    with the trainer's defaults left 0.194, and 247 recurred. Block 0, whose rows are nearly tokens, wants more: 225
    left 0.121 where the 500 left 0.118."""
    batch: Annotated[int, at_least(2)] = 1024
    """Activations in one training step. With the trainer's defaults, 600 steps of 1024 gave 271 recurring features
    where 300 of 2048, the same tokens, gave 170 (pocket model, block 2, n = 1536, three seeds)."""
    outliers: Literal["leave-out", "keep"] = "leave-out"
    """Rows whose norm is over 10 times the median and far outside the spread of the others (attention sinks): leave
    them out, at all sites, and say what they held, or keep them."""
    budget: Annotated[float, at_least(0)] = 0.0
    """Minutes for counting features at each site, as `superscope count` does; 0 leaves it at what recurs over seeds."""
    device: str = "cpu"
    """Where to run: cpu, cuda, cuda:1, mps."""
    seed: int = 0
    """Of everything random: the order of the text, the starts, the bootstrap."""

    def survey(
        self,
        run: Run,
        subjects: Mapping[str, Subject],
        sites: Sequence[Site],
        corpus: Corpus,
        held_out: Corpus,
        readings: Sequence[Reading] = (),
        *,
        until: float = math.inf,
    ) -> Generator[Progress, None, Findings]:
        """Records, learns and reads every site of every subject.

        Args:
            run: keeps the dictionaries, and rows that do not fit in memory.
            subjects: models by what tables call them, of one architecture.
            sites: of each.
            corpus: to learn from.
            held_out: to measure on.
            readings: what to read at each site; all of READINGS without.
            until: what `time.monotonic()` says when no further site of a subject is begun, but its first; the table
                `left_out` then has the others.
        """
        readings, findings = readings or READINGS, Findings()
        parts = {"activations": corpus, "held-out activations": held_out}
        for label, subject in subjects.items():
            of = f" ({label})" if len(subjects) > 1 else ""
            own_loss = functools.cache(functools.partial(_own_loss, subject, held_out))
            with self._room(subject, sites, parts.values(), run) as folder:
                if folder is not None:
                    # What has been recorded is kept from here on, should the study be interrupted.
                    run.open()
                # Decided from text to learn from, for each model by itself; what is held out is judged by it.
                limits = capture.outlier_limits(subject.model, sites, corpus) if self.outliers == "leave-out" else None
                recorded = {}
                for name, part in parts.items():
                    place = None if folder is None else folder / label / name.replace(" ", "-")
                    recording = capture.record(subject, sites, part, place, limits=limits)
                    recorded[name] = yield from _counted(recording, f"Recording {name}{of}", part.n_tokens)
                for site in sites:
                    run.open()
                    source, held = (recorded[name].pop(site) for name in parts)
                    if site != sites[0] and time.monotonic() > until:
                        findings.row("left_out", model=label, site=str(site))
                        continue
                    n, seeds = self.width(subject, source.d), tuple(self.seed + i for i in range(self.seeds))
                    own = tuple(Wanted(n, self.k, seed) for seed in seeds)
                    wanted = tuple(dict.fromkeys((*own, *(w for r in readings for w in r.wants(n, self.k, seeds)))))
                    saes = yield from learned(
                        wanted,
                        source,
                        run,
                        steps=self.steps,
                        batch=self.batch,
                        device=subject.model.device,
                        stage=f"Learning {site}{of}",
                        folder=_folders(f"saes/{label}/{str(site).replace(':', '-')}", own),
                        notes={"model": subject.name, "site": str(site), "tokens": len(source)},
                    )
                    for index, (_, curve) in enumerate(saes[w] for w in own):
                        findings.rows("training", curve, at={"site": str(site), "model": label, "seed": index})
                    view = View(
                        rows=_Rows(source),
                        held=list(held.rows()),
                        learned={w: sae for w, (sae, _) in saes.items()},
                        documents=held_out.document,
                        seed=self.seed,
                        subject=subject,
                        label=label,
                        site=site,
                        source=source,
                        other=held,
                        corpus=corpus,
                        held_out=held_out,
                        wanted=own,
                        own_loss=own_loss,
                    )
                    if self.budget:
                        yield from self._counted(view, run, findings)
                    yield from _read(view, readings, findings, f"Measuring {site}{of}")
        return findings

    def _counted(self, view: View, run: Run, findings: Findings) -> Generator[Progress, None, None]:
        """The combined answer at a site, of its first rows in the order of the text."""
        rows = itertools.islice(view.source.rows(), -(-_COUNTED // 4096))
        x = torch.cat([batch.x for batch in rows])[:_COUNTED]
        if len(x) < FEWEST:
            view.notes.append(f"{len(x):,} rows are too few to count features in: {FEWEST:,} are needed.")
            return
        place = f"counts/{view.label}/{str(view.site).replace(':', '-')}"
        given = Given(budget=60 * self.budget, seed=self.seed)
        answer, found, _ = yield from counted(x, run, given, keep_outliers=True, place=place)
        findings.add(measurements(answer, found, len(x)), at=view.at)
        view.notes.extend(answer.reasons)

    def width(self, subject: Subject, d: int) -> int:
        """Latents of the dictionaries of a site of d dimensions."""
        return self.n or 8 * subject.d

    def ahead(
        self, subjects: Mapping[str, Subject], sites: Sequence[Site], corpus: Corpus, held_out: Corpus
    ) -> dict[str, float]:
        """The stages of `survey`, each with its multiply-adds as learning does them."""
        held, ahead = held_out.n_tokens, {}
        for label, subject in subjects.items():
            of = f" ({label})" if len(subjects) > 1 else ""
            token = _RECORDING * capture.parameters_to(subject.model, sites)
            ahead[f"Recording activations{of}"] = token * corpus.n_tokens
            ahead[f"Recording held-out activations{of}"] = token * held
            for site in sites:
                # The hidden layer of an MLP is four times as wide in most models; how wide it is, recording will show.
                d = subject.d * (4 if subject.kind_of(site) == "neurons" else 1)
                row = d * self.width(subject, d)
                ahead[f"Learning {site}{of}"] = float(row * self.seeds * self.steps * self.batch)
                encoded = row * ((self.seeds + 1) * held + corpus.n_tokens)
                ahead[f"Measuring {site}{of}"] = _MEASURING * encoded + 3 * token * min(SPLICED_TOKENS, held)
        return ahead

    def corpora(self, loaded: Subject) -> tuple[Corpus, Corpus]:
        """The text to learn from, and that of other documents to measure on.

        Raises:
            ValueError: if there is too little text.
        """
        everything = self.tokens + self.held_out
        corpus = capture.tokens(
            loaded.tokenizer, capture.documents(self.text), context=self.context, limit=everything, seed=self.seed
        )
        corpus, held_out = corpus.split(self.tokens / everything, seed=self.seed)
        if corpus.n_tokens < self.batch or held_out.n_tokens < 2:
            raise ValueError(
                f"the text gives {corpus.n_tokens:,} tokens to learn from and {held_out.n_tokens:,} to measure on, "
                f"too few for batches of {self.batch:,}. Give more text with --text, or a smaller --batch."
            )
        return corpus, held_out

    @contextmanager
    def _room(self, loaded: Subject, sites: Sequence[Site], parts: Iterable[Corpus], run: Run) -> Iterator[Path | None]:
        """The folder for rows that do not fit in memory, gone when they are no more wanted; None where they fit."""
        wanted = sum(capture.bytes_to_record(loaded, sites, part) for part in parts)
        if wanted <= _ROOM:
            yield None
        elif not run.is_kept:
            with tempfile.TemporaryDirectory(prefix="superscope-scan-") as folder:
                yield Path(folder)
        else:
            yield run / "activations"
            shutil.rmtree(run / "activations")


def _folders(place: str, own: tuple[Wanted, ...]) -> Callable[[Wanted], str]:
    """Where each dictionary of a site is kept: the settings' own by their number, others by what they are."""
    return lambda w: f"{place}/seed{own.index(w)}" if w in own else f"{place}/n{w.n}-k{w.k}-seed{w.seed}"


class _Rows(Iterable[Activations]):
    """The rows of a source, as often as they are asked for."""

    def __init__(self, source: Rows) -> None:
        self.source = source

    def __iter__(self) -> Iterator[Activations]:
        return iter(self.source.rows())


def _read(view: View, readings: Sequence[Reading], findings: Findings, stage: str) -> Generator[Progress, None, None]:
    """All readings of one site, and its row in the table of sites."""
    fitting = [reading for reading in readings if all(view.has(need) for need in reading.needs)]
    for done, reading in enumerate(fitting):
        yield Progress(stage, done, len(fitting), reading.name)
        reading.read(view, findings)
    own = view.wanted[0]
    findings.row(
        "sites",
        **view.at,
        d=view.d,
        n=own.n,
        k=own.k,
        seeds=len(view.wanted),
        rows=len(view.source),
        kind=view.kind,
        note=" ".join(filter(None, (_KINDS.get(view.kind, ""), *view.notes))),
        **view.about,
    )
    yield Progress(stage, len(fitting), len(fitting))


def sentences(readings: Sequence[Reading], findings: Findings, sites: Sequence[Site]) -> list[str]:
    """The sentences of all readings, the most prominent ones first."""
    ranked = sorted(readings, key=lambda reading: -reading.prominence)
    return [sentence for reading in ranked for sentence in reading.sentences(findings, sites)]


def _own_loss(subject: Subject, corpus: Corpus, windows: int) -> intervene.Loss:
    """What the model itself loses on the first windows of a text."""
    with torch.no_grad():
        return intervene.next_token_loss(subject, corpus.take(torch.arange(windows)))


def _counted(
    counts: Generator[int, None, dict[Site, Rows]], stage: str, total: int
) -> Generator[Progress, None, dict[Site, Rows]]:
    """Counts as progress."""
    while True:
        try:
            yield Progress(stage, next(counts), total)
        except StopIteration as end:
            return end.value
