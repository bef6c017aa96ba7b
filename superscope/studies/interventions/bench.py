"""What does a model do as you change it, and what else? A site kept open, at which one thing is tried after another."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
import tyro
from torch import Tensor

from ... import capture
from ...capture import Corpus, Subject
from ...core import Answer, Findings, Run, Site
from ...intervene import Edit, Fisher, concepts, dose, pullback_fisher
from ...intervene.concepts import ContrastSet
from ...intervene.edits import Add, Least, NormKept, ProjectOut
from ...intervene.gates import Gate
from ..learning.reader import in_run, read_coder
from ..settings import Count, at_least, at_most
from ..study import Progress, Study
from .aimed import rows_of_corpus
from .desk import HELD, OWN, TEXTS, Desk, Target, latent_number, of_contrast, of_latent
from .distance import OTHER_SEED, distances, metrics_of
from .trial import REMOVING, Trial

_WINDOWS = 8
"""Windows of text whose part of the Fisher matrix is drawn in one step."""
_MATRIX_NATS = 0.1
"""What each concept's direction costs, by the second order, in the matrix of concepts."""


@dataclass(frozen=True)
class Bench(Study):
    """What does a model do as one or several directions are added to x, or taken out, and what else moves?

    Targets are concepts, latents of a dictionary, or contrasting texts of your own. Says at each dose, in mean norms
    and in nats: what the target's tokens gain, what unrelated predictions lose, beside random directions and what the
    second order promised; what it does to texts that have the target and that have not; which other concepts and
    latents move; what is written. The studio's bench is this, with the model kept.
    """

    kind: ClassVar[str] = "bench"

    model: Annotated[str, tyro.conf.Positional] = "pocket"
    """Hub name, local folder or GGUF file; "pocket" travels inside the package."""
    site: str | None = None
    """Where: a role (resid_post.2) or module path. Default: the stream behind the middle block."""
    dictionary: str | None = None
    """A dictionary of the site, in any known format, whose latents can be targets and are watched."""
    targets: tuple[str, ...] = ("code",)
    """What is steered, added up at equal lengths: concepts (code, errors, numbers, quoting), `latent 12`, or `own`."""
    towards: tuple[str, ...] = ()
    """Texts that have what `own` stands for."""
    away: tuple[str, ...] = ()
    """Texts that have not."""
    edit: Literal["add", "norm_kept", "least", "project_out", "gated"] = "add"
    """"add" the direction; turn x towards it at its length; add what moves the target's tokens at the "least"
    collateral; "project_out" what x has along it, or only where a linear read-out of the target ("gated") is on."""
    doses: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0)
    """How much, in --unit; of what is taken out, the share."""
    unit: Literal["norms", "nats"] = "norms"
    """"norms": mean lengths of x; "nats": what unrelated predictions lose, to second order."""
    prompts: tuple[str, ...] = ("The",)
    """What is continued."""
    new_tokens: Annotated[int, at_least(0)] = 24
    """Tokens to write at each dose; 0 writes none."""
    unrelated: str | None = None
    """Text that should stay as it is. Default: the text every Python carries."""
    tokens: Annotated[int, at_least(200)] = 600
    """Tokens of it."""
    fisher_tokens: Count = 2_000
    """Tokens of it that the Fisher matrix is drawn on."""
    draws: Count = 8
    """Draws of the next token for each of them: so many say what a dose costs, as many others which edit is least."""
    controls: Annotated[int, at_least(2), at_most(32)] = 3
    """Random directions at each dose, and as many orthogonal ones at the largest."""
    matrix: bool = True
    """Also add each concept's direction by itself and read all concepts."""
    device: str = "cpu"
    """Where to run: cpu, cuda, mps."""
    seed: int = 0
    """Of the texts, draws, controls and the bootstrap."""

    def check(self) -> None:
        if not self.targets:
            raise ValueError(f"there is no target; name one of {', '.join(concepts.POCKET_CONCEPTS)}, latent 12, own.")
        for name in self.targets:
            if name == OWN and not (self.towards and self.away):
                raise ValueError("own has two sides; give texts with --towards and with --away.")
            if name not in (*concepts.POCKET_CONCEPTS, OWN) and latent_number(name) is None:
                raise ValueError(
                    f"there is no target {name!r}. There are {', '.join(concepts.POCKET_CONCEPTS)}, own, and latents, "
                    "as in latent 12."
                )
        if not self.doses or not all(math.isfinite(one) for one in self.doses) or 0 in self.doses:
            raise ValueError(f"doses must be finite numbers other than 0, at least one; got {self.doses}.")
        if self.edit in REMOVING and not all(0 < one <= 1 for one in self.doses):
            raise ValueError(f"{self.edit} takes out a share; give doses above 0 and up to 1, got {self.doses}.")
        if self.unit == "nats" and self.edit not in REMOVING and min(self.doses) < 0:
            raise ValueError("a dose in nats is above 0; give such doses, or --unit norms.")
        if any(not prompt.strip() for prompt in self.prompts):
            raise ValueError("a prompt is blank; leave it out.")

    @property
    def place(self) -> tuple[Any, ...]:
        """The settings that a desk stands for: two benches of one place share it."""
        return (
            self.model,
            self.site,
            self.dictionary,
            self.unrelated,
            self.tokens,
            self.fisher_tokens,
            self.draws,
            self.device,
            self.seed,
        )

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        desk = yield from self.opened()
        return (yield from self.tried(desk))

    def opened(self) -> Generator[Progress, None, Desk]:
        """The model, its site, unrelated text and the Fisher matrix there.

        Raises:
            TypeError: if the model predicts no next token.
            ValueError: if several sites are named, the text is too short, or the dictionary is of another d.
        """
        yield Progress(f"Loading {self.model}", 0, 1)
        subject = capture.load(self.model, device=self.device)
        if subject.kind != "causal":
            raise TypeError(f"'{subject.name}' is an encoder and predicts no next token; give a causal model.")
        name = self.site or f"resid_post.{(len(capture.blocks(subject.model)) - 1) // 2}"
        places = capture.sites(subject.model, [name])
        if len(places) != 1:
            raise ValueError(f"one site is changed; {name} names {len(places)}.")
        (site,) = places
        longest = getattr(subject.model.config, "max_position_embeddings", None) or 128
        corpus = capture.tokens(
            subject.tokenizer,
            capture.documents(self.unrelated),
            context=min(64, int(longest)),
            limit=max(self.tokens, self.fisher_tokens),
            seed=self.seed,
        )
        yield Progress(f"Loading {self.model}", 1, 1, str(site))
        yield Progress("Reading x", 0, 1)
        x = rows_of_corpus(subject, site, corpus)
        reader = None
        if self.dictionary is not None:
            place, _ = in_run(self.dictionary)
            reader = read_coder(place, self.dictionary)
            if reader.dictionary.d != x.shape[1]:
                raise ValueError(
                    f"{self.dictionary} reads rows of {reader.dictionary.d} numbers and x has {x.shape[1]} at {site}; "
                    "give the site it is of."
                )
        if len(x) <= x.shape[1]:
            raise ValueError(
                f"{len(x)} tokens of unrelated text cannot tell {x.shape[1]} dimensions; give more, with "
                "--fisher-tokens."
            )
        windows = torch.arange(max(1, min(len(corpus), self.fisher_tokens // corpus.context)))
        fisher, other = yield from self._fishers(subject, site, corpus.take(windows))
        kept = torch.arange(max(1, min(len(corpus), -(-self.tokens // corpus.context))))
        return Desk(subject, site, corpus.take(kept), x, fisher, other, reader)

    def _fishers(self, subject: Subject, site: Site, corpus: Corpus) -> Generator[Progress, None, tuple[Fisher, ...]]:
        """F of some draws, and of as many others; in steps, so that a bench can be stopped between them."""
        stage, parts = "Drawing the Fisher matrix", torch.arange(len(corpus)).split(_WINDOWS)
        drawn: tuple[list[Fisher], ...] = ([], [])
        for done, part in enumerate(parts):
            yield Progress(stage, done, len(parts))
            for half, them in enumerate(drawn):
                seed = self.seed + half * OTHER_SEED + done
                them.append(pullback_fisher(subject, site, corpus.take(part), draws=self.draws, seed=seed))
        yield Progress(stage, len(parts), len(parts))
        return tuple(Fisher.mean(them) for them in drawn)

    def tried(self, desk: Desk) -> Generator[Progress, None, Answer]:
        """One trial at a desk that is open.

        Raises:
            ValueError: if there is no such latent, or texts of one's own do not differ.
        """
        yield Progress("Finding the target", 0, len(self.targets))
        targets = []
        for done, name in enumerate(self.targets):
            targets.append(self._target(desk, name))
            yield Progress("Finding the target", done + 1, len(self.targets), name)
        first = targets[0]
        unit = sum((one.direction.double() / one.direction.double().norm() for one in targets), torch.zeros(desk.d))
        if not float(unit.norm()) > 1e-9:
            raise ValueError("these targets point against each other and add up to nothing; take others.")
        direction = dose.in_mean_norms(unit.float(), desk.x)
        read = first.odds.gradient(desk.subject, first.absent or desk.corpus, desk.site)
        metrics = metrics_of(desk.x, desk.other)
        if self.edit == "least":
            direction = dose.in_mean_norms(Least(read, metrics["Fisher"]).direction.float(), desk.x)
        gate = first.gate() if self.edit == "gated" else None
        build = lambda vector: self._edit(vector.float(), gate)  # noqa: E731
        found = Findings()
        trial = Trial(self, desk, first, direction, build, found)
        yield from trial.doses()
        yield from trial.controls()
        yield from trial.damage()
        if self.edit not in REMOVING:
            yield from trial.validity()
            added = trial.direction[None]
            found.add(distances(added, read, metrics, desk.fisher, desk.other, tokens=len(desk.x)))
        if self.matrix:
            yield from self._matrix(desk, found)
        yield from trial.writing()
        return Answer(
            title=f"{desk.subject.name}: {' + '.join(self.targets)} {_VERB[self.edit]} at {desk.site}",
            findings=found,
            sentences=tuple(trial.sentences()),
            arrays={"direction": direction, "read": read},
        )

    def _edit(self, vector: Tensor, gate: Gate | None) -> Edit:
        if self.edit == "norm_kept":
            return NormKept(Add(vector))
        if self.edit == "project_out":
            return ProjectOut(vector)
        if gate is not None:
            return ProjectOut(vector, gate=gate)
        return Add(vector)

    def _target(self, desk: Desk, name: str) -> Target:
        if (number := latent_number(name)) is not None:
            return of_latent(desk, number)
        if name == OWN:
            return of_contrast(desk, ContrastSet(OWN, self.towards, self.away), None)
        if name not in desk.found:
            texts = concepts.pocket_contrast(name, n=TEXTS + HELD, seed=self.seed)
            train, held = texts.split(HELD / (TEXTS + HELD), seed=self.seed)
            desk.found[name] = of_contrast(desk, train, held)
        return desk.found[name]

    def _matrix(self, desk: Desk, found: Findings) -> Generator[Progress, None, None]:
        """Each concept's direction at one cost, and the rise of every concept's tokens on texts without it."""
        names = tuple(concepts.POCKET_CONCEPTS)
        if not desk.matrix:
            for done, name in enumerate(names):
                yield Progress("Concept by concept", done, len(names), name)
                self._target(desk, name)
            for done, name in enumerate(names):
                yield Progress("Concept by concept", done, len(names), name)
                v = desk.found[name].direction
                added = Add(dose.in_nats(v, desk.fisher.matrix).float() * math.sqrt(_MATRIX_NATS))
                for other in names:
                    target = desk.found[other]
                    w = target.direction
                    rise, spread = target.rise(desk, added, self.seed)
                    cosine = float(v @ w / (v.norm() * w.norm()))
                    desk.matrix.append(
                        {"concept": name, "other": other, "cosine": cosine, "rise": rise}
                        | {"low": spread.low, "high": spread.high}
                    )
        for row in desk.matrix:
            found.row("concept_matrix", nats=_MATRIX_NATS, **row)


_VERB: Mapping[str, str] = {
    "add": "added",
    "norm_kept": "added at the length of x",
    "least": "moved at the least collateral",
    "project_out": "taken out",
    "gated": "taken out where it is on",
}
