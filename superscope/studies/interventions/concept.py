"""Where is a concept in a model, can its direction be relied on, and what else moves when it is steered?"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from ... import capture
from ...capture import Subject
from ...core import Answer, Findings, Run, Site
from ...dictionaries import load_coder
from ...intervene import concepts
from ...intervene.concepts import ContrastRows, ContrastSet, Direction, Finder
from ..settings import Count, above
from ..study import Progress, Study
from .concept_directions import STEERED, entangled, in_dictionary, joined, judged
from .concept_steering import Steering
from .concept_steering import sentences as steering_sentences

_FINDERS = {finder.name: finder for finder in concepts.FINDERS}
_SITES = 4


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
                caution = joined(*(part.caution for part in parts[name]))
                for finder in self._finders(first[site]):
                    directions[site, name, finder.name] = judged(
                        found, site, name, finder, first[site], second[site], caution, self.seed
                    )
            entangled(
                found, site, {n: directions[site, n, STEERED] for n in rows if (site, n, STEERED) in directions}, rows
            )
            if coder is not None:
                in_dictionary(found, site, coder, directions, rows, self.seed)
        yield Progress("Finding directions", len(sites), len(sites))
        sentences = list(_sentences(found, rows))
        if self.steer and subject.kind == "causal":
            steering = Steering(self.rise, self.unrelated, self.tokens, self.controls, self.text, self.seed)
            yield from steering.add(found, subject, parts, directions, coder)
            sentences += steering_sentences(found, tuple(rows))
        elif self.steer:
            sentences.append(f"{subject.name} is an encoder and predicts no next token, so nothing was steered.")
        self._texts(found, parts)
        sentences += [
            f"{name}: {caution}." for name, p in parts.items() if (caution := joined(*(x.caution for x in p)))
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


def _sentences(found: Findings, names: Mapping[str, Any]) -> Iterator[str]:
    for name in names:
        own = [m for m in found if m.name == "probe_accuracy" and m.at["concept"] == name and m.value is not None]
        best = max(own, key=lambda m: m.value or 0.0)
        yield (
            f"{name}: told apart on {best.value or 0:.0%} of {best.n} held-out texts at {best.at['site']} by "
            f"{best.at['finder']} ({best.chance or 0:.0%} by saying the same of all)."
        )
        bad = [m for m in own if m.caution and m.at["finder"] == STEERED]
        if bad:
            yield f"{name}: at {len(bad)} of the sites its direction is not to be relied on: {bad[0].caution}."


def _default_sites(subject: Subject) -> tuple[Site, ...]:
    outputs = capture.default_sites(subject.model)
    count = min(_SITES, len(outputs))
    return tuple(outputs[round((i + 1) * len(outputs) / count) - 1] for i in range(count))
