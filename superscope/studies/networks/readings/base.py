"""What is read at a site of a network? What every reading is, and what it sees."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from .... import capture, intervene
from ....capture import Corpus, MemorySource, StoreSource, Subject
from ....core import Findings, Site
from ....dictionaries import SAE
from ....measure import Evidence, Nearest, Wanted, nearest

TRAINED, CONTROL = "trained", "control"
"""What the model's own weights are called in tables, and random ones in their place."""


@dataclass(frozen=True, eq=False, kw_only=True)
class View(Evidence):
    """One site of one model with all that is known there.

    Args:
        subject: the model.
        label: what tables call it.
        site: where.
        source, other: where `rows` and `held` are read.
        corpus: the text learned from.
        held_out: the text measured on.
        wanted: the dictionaries of the settings: one for each seed, alike but for it.
        own_loss: what the model itself loses on the first so many windows of the text measured on.
        about: further columns of the table of sites, filled by readings.
        notes: sentences for this site, added by readings.
    """

    subject: Subject
    label: str
    site: Site
    source: MemorySource | StoreSource
    other: MemorySource | StoreSource
    corpus: Corpus
    held_out: Corpus
    wanted: tuple[Wanted, ...]
    own_loss: Callable[[int], intervene.Loss]
    about: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def at(self) -> dict[str, str | int | float]:
        """The place of every measurement made here."""
        return {"site": str(self.site), "model": self.label}

    @property
    def sae(self) -> SAE:
        """The dictionary that is shown."""
        main = self.main
        assert isinstance(main, SAE)
        return main

    @cached_property
    def kind(self) -> capture.Kind:
        """What stands at the site: the stream, neurons, or something else."""
        return self.subject.kind_of(self.site)

    @cached_property
    def texts(self) -> list[str]:
        """How each token is spelled."""
        return capture.spelling(self.subject.tokenizer)

    @cached_property
    def nearest(self) -> Nearest:
        """Each atom's nearest other one."""
        return nearest(self.sae.dictionary)

    def has(self, need: str) -> bool:
        """Whether a reading's need is met here: "causal", "neurons", "residual", "tokens"."""
        return {
            "causal": self.subject.kind == "causal",
            "neurons": self.kind == "neurons",
            "residual": self.kind == "residual",
            "tokens": self.subject.tokenizer is not None,
        }[need]


class Reading(ABC):
    """One thing that is read at a site: a file here and its name in READINGS. Laws: `testing.check_reading`."""

    name: ClassVar[str]
    """In words, for whoever waits."""
    needs: ClassVar[tuple[str, ...]] = ()
    """What a place must have for it (see `View.has`); it is left out elsewhere."""

    prominence: ClassVar[int] = 0
    """How early its sentences stand among those of the report: the largest first."""

    def wants(self, n: int, k: int, seeds: tuple[int, ...]) -> tuple[Wanted, ...]:
        """Dictionaries it needs beside those that are learned anyway: n latents, k active, one for each seed."""
        return ()

    @abstractmethod
    def read(self, seen: View, findings: Findings) -> None:
        """Adds measurements, and rows of tables, to `findings`, all with `seen.at`."""

    def sentences(self, findings: Findings, sites: Sequence[Site]) -> Iterable[str]:
        """What a reader of the whole report should know of it, most important first."""
        return ()
