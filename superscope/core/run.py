"""How long does an answer live? A run from its beginning to its report, kept in a folder or nowhere."""

from __future__ import annotations

import datetime
import hashlib
import platform
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from .._version import __version__
from . import files
from .files import RunFolder
from .findings import Findings
from .report import Report

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What a study found out, before it is a report.

    Args:
        title: one sentence.
        findings: measurements and tables.
        sentences: the main results, most important first.
        arrays: tensors by name.
    """

    title: str
    findings: Findings
    sentences: Sequence[str] = ()
    arrays: Mapping[str, Tensor] = field(default_factory=dict)


class Run:
    """One study being answered. What is made on the way is kept in its folder, where it has one, to be read on again.

    No study asks whether there is a folder: without one nothing is kept, nothing is there, and all else is the same.
    The folder appears with the first thing that is kept, so that whatever fails before it leaves nothing behind.

    Args:
        kind: the study's name.
        settings: the study, as a dict of its fields.
        path: of the folder; None keeps nothing.
    """

    def __init__(self, kind: str, settings: Mapping[str, Any], path: Path | None) -> None:
        self.kind, self.settings, self.path = kind, settings, path
        self._folder: RunFolder | None = None
        self._facts: dict[str, Any] = {}
        self._dropped: list[str] = []
        self._leads = True
        self._began, self._clock = timestamp(), time.monotonic()

    @classmethod
    def begin(cls, kind: str, settings: Mapping[str, Any], out: Path | str | None = None) -> Run:
        """A new run, or the unfinished one of the same settings that stands in `out`.

        Raises:
            FileExistsError: if the folder holds another run, a finished one, or files that are no run.
        """
        run = cls(kind, settings, None if out is None else Path(out))
        if run.path is not None:
            # Whether the folder can be used is known before minutes are spent on what would go there.
            run._folder = RunFolder.standing(run.path, kind=kind, settings=settings)
        return run

    @property
    def is_kept(self) -> bool:
        """Whether there is a folder that this process writes to."""
        return self.path is not None and self._leads

    @property
    def created(self) -> str:
        """When the run was begun, also where it was interrupted since."""
        return self._began if self._folder is None else self._folder.about["created"]

    def follow(self, path: Path | None) -> None:
        """Of several processes this one does not report; `path` is the folder of the one that does."""
        self.path, self._leads, self._folder = path, False, None

    def require_space(self, wanted: int) -> None:
        """Checks that the folder's disk can hold so many bytes.

        Raises:
            OSError: with the room there is and the room that is needed.
        """
        if self.is_kept:
            assert self.path is not None
            files.require_space(self.path, wanted)

    def conceal(self, *names: str) -> None:
        """Keeps the texts of these settings out of the folder: each is written as the hash of what it was.

        To be called before anything is kept; an interrupted run is then begun anew.
        """

        def hidden(value: Any) -> Any:
            if isinstance(value, str):
                return f"sha256:{hashlib.sha256(value.encode()).hexdigest()[:16]}"
            return [hidden(one) for one in value] if isinstance(value, (list, tuple)) else value

        self.settings = {**self.settings, **{name: hidden(self.settings[name]) for name in names}}

    def open(self) -> None:
        """From here on there is a folder, also if nothing is kept before the run is cut short."""
        if self.is_kept and self._folder is None:
            assert self.path is not None
            self._folder = RunFolder.start(
                self.path,
                kind=self.kind,
                settings=self.settings,
                environment=environment(),
                version=__version__,
                created=self._began,
            )

    def __truediv__(self, name: str) -> Path:
        """The path of a file of the run; there is one only where `is_kept`."""
        if self.path is None:
            raise ValueError(f"this run keeps nothing, so it has no {name}; give it a folder.")
        return self.path / name

    def has(self, *names: str) -> bool:
        """Whether all these files are whole in the folder."""
        return self._folder is not None and all(self._folder.has(name) for name in names)

    def keep(self, name: str, write: Callable[[Path], Any], parts: Sequence[str] = ()) -> None:
        """Writes a file by `write(path)` and lists it, or a folder with these parts; nothing where nothing is kept."""
        if not self.is_kept:
            return
        self.open()
        assert self._folder is not None
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
        for listed in [f"{name}/{part}" for part in parts] or [name]:
            self._folder.keep(listed)

    def kept(self, name: str, read: Callable[[Path], T], parts: Sequence[str] = ()) -> T | None:
        """What `read(path)` makes of a file, or a folder with these parts, if it is whole in the folder; else None."""
        listed = [f"{name}/{part}" for part in parts] or [name]
        return read(self / name) if self.has(*listed) else None

    def once(
        self,
        name: str,
        make: Generator[Any, None, T],
        *,
        read: Callable[[Path], T],
        write: Callable[[T, Path], Any],
        parts: Sequence[str] = (),
    ) -> Generator[Any, None, T]:
        """What is whole in the folder is read; else it is made, written and listed. Yields what `make` yields."""
        result = self.kept(name, read, parts)
        if result is None:
            result = yield from make
            self.keep(name, lambda path: write(result, path), parts)
        return result

    def drop(self, *names: str) -> None:
        """Files or folders that are no part of the answer: they are gone once the run is finished."""
        self._dropped += names

    def note(self, **facts: Any) -> None:
        """Puts facts about how the answer came about into the report's environment."""
        self._facts |= facts

    def finish(self, answer: Answer) -> Report:
        """The report, with its times; written, where the run is kept."""
        self.open()
        times: dict[str, Any] = {"created": self.created, "finished": timestamp()}
        if self.created != self._began:
            times["resumed"] = self._began
        times["seconds"] = round(time.monotonic() - self._clock, 1)
        report = Report(
            title=answer.title,
            kind=self.kind,
            measurements=tuple(answer.findings.measurements),
            settings=self.settings,
            environment=environment() | times | self._facts,
            tables=answer.findings.tables,
            arrays=answer.arrays,
            findings=tuple(answer.sentences),
        )
        if self._folder is not None:
            self._folder.about["environment"] = dict(report.environment)
            report.write(self._folder)
            for name in self._dropped:
                self._folder.about["files"].pop(name, None)
            self._folder.finish(report.title, times["finished"])
            for name in self._dropped:
                files.remove(self._folder / name)
        return report


def result_of(stages: Generator[Any, None, T]) -> T:
    """What a generator returns, whatever it yields on the way."""
    while True:
        try:
            next(stages)
        except StopIteration as end:
            return end.value


def environment() -> dict[str, Any]:
    """What a result was made with: versions and machine, for the record."""
    versions = {"superscope": __version__, "python": platform.python_version()}
    for package in ("torch", "transformers", "numpy"):
        versions[package] = metadata.version(package)
    return versions | {"platform": platform.system(), "processor": platform.machine()}


def timestamp() -> str:
    """The time in UTC to the second, as records hold it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
