"""What every study is: a frozen dataclass of settings whose run() is a Report."""

from __future__ import annotations

import dataclasses
import datetime
import platform
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from .._version import __version__
from ..core import Report, RunFolder


@dataclass(frozen=True)
class Progress:
    """How far one stage of a study is.

    The first Progress of a stage says where it begins; what later ones add was worked for.

    Args:
        stage: what is being done, in words. Stages that begin with the same word are work of the same kind.
        done, total: in the stage's own unit; total 0 when unknown.
        detail: the latest figure worth seeing.
        resumed: what is done was taken from an interrupted run, and cost nothing now.
        ahead: the stages that are still to come, in order, perhaps with this one, and how much work each is, in any one
            unit. Said once, as soon as it is known; never said where it cannot be known.
    """

    stage: str
    done: int
    total: int
    detail: str = ""
    resumed: bool = False
    ahead: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Study(ABC):
    """A whole question. Its fields are its configuration: constructor, command line and saved settings alike."""

    kind: ClassVar[str]

    @abstractmethod
    def stages(self, out: Path | None = None) -> Generator[Progress, None, Report]:
        """Does the work, yielding Progress, and returns the Report.

        Args:
            out: run folder to write as the work goes, so that an interrupted study can be resumed; None writes nothing.
        """

    def run(self, out: Path | str | None = None) -> Report:
        """The Report, without watching. With `out`, also the run folder."""
        stages = self.stages(None if out is None else Path(out))
        while True:
            try:
                next(stages)
            except StopIteration as end:
                return end.value

    def open_run(self, out: Path | None) -> RunFolder | None:
        """The run folder, new or the unfinished one of the same settings; None without `out`.

        Raises:
            FileExistsError: if the folder holds another run, a finished one, or files that are no run.
        """
        if out is None:
            return None
        return RunFolder.start(
            out,
            kind=self.kind,
            settings=dataclasses.asdict(self),
            environment=environment(),
            version=__version__,
            created=timestamp(),
        )


def environment() -> dict[str, Any]:
    """What a result was made with: versions and machine, for the record."""
    versions = {"superscope": __version__, "python": platform.python_version()}
    for package in ("torch", "transformers", "numpy"):
        versions[package] = metadata.version(package)
    return versions | {"platform": platform.system(), "processor": platform.machine()}


def timestamp() -> str:
    """The time in UTC to the second, as records hold it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
