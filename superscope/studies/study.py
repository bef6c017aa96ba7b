"""What every study is: a frozen dataclass of settings whose run() is a Report."""

from __future__ import annotations

import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar, final

from ..core import Answer, Report, Run, files, result_of
from . import settings

S = TypeVar("S", bound="Study")


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

    @final
    def __post_init__(self) -> None:
        settings.check(self)
        self.check()

    def check(self) -> None:  # noqa: B027
        """What must hold between settings, once each is within its own limits.

        Raises:
            ValueError: if something does not, in a sentence with the fix.
        """

    @classmethod
    def read(cls: type[S], saved: Mapping[str, Any], *, where: str = "what was saved") -> S:
        """The study that was saved as a dict of its fields, by JSON too.

        Raises:
            FormatError: if there is a setting that is none of its own, with `where` it stands.
            ValueError: if one is out of its limits.
        """
        files.refuse_unknown(saved, tuple(each.name for each in dataclasses.fields(cls)), where)
        return settings.read(cls, saved)

    @classmethod
    def about(cls) -> str:
        """What `--help` says of it before its options."""
        return inspect.cleandoc(cls.__doc__ or "")

    @final
    def stages(self, out: Path | None = None) -> Generator[Progress, None, Report]:
        """Does the work, yielding Progress, and returns the Report.

        Args:
            out: run folder to write as the work goes, so that an interrupted study can be resumed; None writes nothing.

        Raises:
            FileExistsError: if the folder holds another run, a finished one, or files that are no run.
        """
        study = self.meant()
        run = Run.begin(study.kind, dataclasses.asdict(study), out)
        return run.finish((yield from study.answer(run)))

    def meant(self) -> Study:
        """The study that these settings stand for: this one, unless they name a saved one to take up."""
        return self

    @abstractmethod
    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        """Does the work, yielding Progress. What a resumed study should not make again is kept in `run`."""

    def run(self, out: Path | str | None = None) -> Report:
        """The Report, without watching. With `out`, also the run folder."""
        return result_of(self.stages(None if out is None else Path(out)))
