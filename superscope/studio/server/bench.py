"""Which model is kept, and what is being tried with it? The only part of the server that holds one.

One model at a time, opened when the first trial asks for it; one trial at a time, in a thread that can be stopped
between its steps; answers in memory, the last few. What is tried, and all formulas, are `superscope.studies.Bench`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core import Report
from ...core.files import read_json
from . import shapes
from .jobs import Refused
from .library import Library, said

if TYPE_CHECKING:
    from ...studies.interventions.bench import Bench
    from ...studies.interventions.desk import Desk

ANSWERS = 8
"""Answers that are kept."""


class Desks:
    """The bench of one server.

    Args:
        library: whose dictionaries can be steered by.
        why_not: why nothing may be tried; empty where it may.
    """

    def __init__(self, library: Library, why_not: str = "") -> None:
        self.library, self.why_not = library, why_not
        self._mutex = threading.Lock()
        self._desk: tuple[tuple[Any, ...], Desk] | None = None
        self._answers: OrderedDict[str, Report] = OrderedDict()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._state: dict[str, Any] = {"state": "idle", "trial": "", "stage": "", "done": 0, "total": 0, "error": ""}

    def state(self) -> shapes.BenchState:
        """What the bench does."""
        # What can be tried is known without opening a model, and once.
        from ...intervene.concepts import POCKET_CONCEPTS

        desk = self._desk
        return shapes.BenchState(
            can_try=not self.why_not,
            why_not=self.why_not,
            model="" if desk is None else desk[1].subject.name,
            site="" if desk is None else str(desk[1].site),
            kept=list(self._answers),
            concepts=list(POCKET_CONCEPTS),
            edits=["add", "norm_kept", "least", "project_out", "gated"],
            dictionaries=places(self.library),
            **self._state,
        )

    def start(self, asked: shapes.Try) -> shapes.BenchState:
        """Begins a trial; what was tried before with the same settings is there at once.

        Raises:
            LookupError: if there is no such dictionary.
            ValueError: if the settings cannot be.
            Refused: if nothing may be tried, or a trial is under way.
        """
        if self.why_not:
            raise Refused(self.why_not)
        if asked.model != "pocket" and not Path(asked.model).expanduser().exists():
            raise ValueError(
                f"there is no folder or file {asked.model[:200]!r}. The bench opens models of this machine: pocket, a "
                "local folder, or a GGUF file."
            )
        study = self._study(asked)
        name = trial_of(asked)
        with self._mutex:
            # What is told decides, and not whether the thread lives: it lives a moment longer than it works.
            if self._state["state"] == "working":
                raise Refused("the bench is at work. Wait until it is done, or stop it.")
            if name in self._answers:
                self._answers.move_to_end(name)
                self._say(state="idle", trial=name, stage="", done=0, total=0, error="")
                return self.state()
            self._say(state="working", trial=name, stage="Starting", done=0, total=0, error="")
            # An event of its own, so that one trial is never stopped in place of another.
            self._stop = threading.Event()
            self._thread = threading.Thread(
                target=self._work, args=(name, study, self._stop), name="bench", daemon=True
            )
            begun = self.state()
            self._thread.start()
        return begun

    def stop(self) -> shapes.BenchState:
        """Ends the trial after the step that it is in, without an answer; the model stays."""
        with self._mutex:
            self._stop.set()
            if self._state["state"] == "working":
                self._say(stage="Stopping", done=0, total=0)
        return self.state()

    def close(self) -> None:
        """Ends the trial and waits a moment for it."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5.0)

    def answer(self, trial: str) -> Report:
        """What a trial found.

        Raises:
            LookupError: if it is not kept any more, or never was.
        """
        if trial not in self._answers:
            raise LookupError("the bench has no answer to this; it keeps the last few. Try it again.")
        return self._answers[trial]

    def keep(self, trial: str) -> shapes.Kept:
        """Writes what a trial found as a run of the studio's folder.

        Raises:
            LookupError: if it is not kept any more.
            Refused: if nothing may be written.
        """
        if self.why_not:
            raise Refused(self.why_not)
        folder = self.library.root / f"bench-{trial}"
        report = self.answer(trial)
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            report.save(folder)
        return shapes.Kept(run=self.library.id_of(folder))

    def _study(self, asked: shapes.Try) -> Bench:
        from ...studies.interventions.bench import Bench

        given = asked.model_dump()
        given["site"] = asked.site or None
        given["dictionary"] = str(self.library.source(asked.dictionary)) if asked.dictionary else None
        settings: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in given.items()
        }
        return Bench(**settings)

    def _work(self, name: str, study: Bench, stop: threading.Event) -> None:
        from ...core import Run

        try:
            run = Run.begin(study.kind, dataclasses.asdict(study))
            desk = self._desk[1] if self._desk is not None and self._desk[0] == study.place else None
            if desk is None:
                # One model at a time: the old one goes before the new one comes.
                self._desk = None
                desk = self._drive(study.opened(), stop)
                self._desk = study.place, desk
            report = run.finish(self._drive(study.tried(desk), stop))
            report = self.library.portable(report, [Path(study.dictionary)] if study.dictionary else [])
            with self._mutex:
                if stop.is_set():
                    raise _Stopped
                self._answers[name] = report
                while len(self._answers) > ANSWERS:
                    self._answers.popitem(last=False)
                self._say(state="idle", stage="", done=0, total=0)
        except _Stopped:
            with self._mutex:
                self._say(state="idle", trial="", stage="", done=0, total=0)
        # A thread's failure is told where it is asked for; nobody else could.
        except Exception as error:
            with self._mutex:
                self._say(state="failed", stage="", done=0, total=0, error=said(error))

    def _drive(self, work: Any, stop: threading.Event) -> Any:
        """The result of a generator of Progress, whose steps are told; stopped between two of them."""
        try:
            while True:
                progress = next(work)
                with self._mutex:
                    if not stop.is_set():
                        self._say(stage=progress.stage, done=progress.done, total=progress.total)
                        continue
                work.close()
                raise _Stopped
        except StopIteration as end:
            return end.value

    def _say(self, **more: Any) -> None:
        self._state = {**self._state, **more}


class _Stopped(Exception):
    """Somebody asked for it."""


def trial_of(asked: shapes.Try) -> str:
    """The id of what is asked: the same for the same settings, so that an address finds its answer."""
    text = json.dumps(asked.model_dump(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def places(library: Library) -> list[shapes.Place]:
    """The dictionaries in runs, with where they were learned."""
    found = []
    for name, folder in library.dictionaries().items():
        try:
            about = read_json(folder / "about.json")
            notes = about.get("notes", {})
            kind = str(about.get("architecture", about.get("kind", "")))
            size = about.get("arguments", {}).get("n", "")
            site = str(notes.get("site") or notes.get("source") or "")
        except (OSError, ValueError, AttributeError, TypeError):
            continue
        title = f"{name}: {kind}{f' of {size}' if size else ''}{f', {site}' if site else ''}"
        found.append(shapes.Place(id=name, title=title[:200], site=site[:200]))
    return found
