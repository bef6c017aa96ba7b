"""What is said while a study runs: bars in a terminal, lines in a log, JSON for a program, nothing where nothing is
wanted."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeVar

import rich.progress
from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from ..studies.study import Progress
from .course import Course
from .refusal import sentence

T = TypeVar("T")
WIDTH = 100
"""Columns of a line in a log."""

_EVERY = 30.0
"""Seconds between two lines of one stage."""


class Speaker(AbstractContextManager["Speaker"], ABC):
    """Tells of a run as it goes; a context that is entered before the first stage and left after the last."""

    def __init__(self, course: Course) -> None:
        self.course = course

    @abstractmethod
    def take(self, step: Progress) -> None:
        """What the study has yielded."""

    @abstractmethod
    def finish(self) -> None:
        """The run has ended well."""


class Silent(Speaker):
    """Says nothing."""

    def take(self, step: Progress) -> None:
        pass

    def finish(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class Log(Speaker):
    """Lines for a file or a batch job: as a stage begins, as it ends, and each half minute between.

    Args:
        course: where the run stands.
        console: to whose file lines are written, and flushed one by one.
        width: columns that no line exceeds.
        every: seconds after which a stage that goes on says so.
        pulse: seconds between two looks at the clock while the study says nothing; 0 never looks.
    """

    def __init__(
        self, course: Course, console: Console, *, width: int = WIDTH, every: float = _EVERY, pulse: float = 1.0
    ) -> None:
        super().__init__(course)
        self.console, self.width, self.every, self.pulse = console, width, every, pulse
        self._spoken = course.began
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Log:
        if self.pulse:
            self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self.pulse:
            self._watch.join()

    def take(self, step: Progress) -> None:
        with self._lock:
            if step.stage != self.course.stage:
                self._end()
            new = self.course.take(step)
            if new or step.resumed:
                there = f"{_percent(self.course.stage_share)} there already".strip() if step.resumed else ""
                self._write(step.stage, there, step.detail)
        # A stage that is done is about to say so.
        if self.course.stage_share != 1:
            self.tick()

    def tick(self) -> None:
        """Says how far the stage is, if nothing has been said for long enough."""
        with self._lock:
            step = self.course.step
            if step is not None and self.course.stage is not None and self._since() >= self.every:
                self._write(step.stage, stage_figures(self.course) + whole_figures(self.course), step.detail)

    def finish(self) -> None:
        with self._lock:
            self._end()
            self._write(f"Finished in {duration(self.course.seconds)}", "", "")

    def _end(self) -> None:
        step = self.course.step
        if self.course.stage is not None and step is not None:
            took = f"done in {duration(self.course.stage_seconds)}"
            self.course.end()
            self._write(step.stage, took + whole_figures(self.course), step.detail)

    def _since(self) -> float:
        return self.course.clock() - self._spoken

    def _write(self, stage: str, figures: str, detail: str) -> None:
        self._spoken = self.course.clock()
        line = compose(f"{_clock(self.course.seconds):>8}  ", stage, figures, detail, self.width)
        print(line, file=self.console.file, flush=True)

    def _look(self) -> None:
        while not self._over.wait(self.pulse):
            self.tick()


class Events(Speaker):
    """One JSON object a line, for a program that watches: `event` is progress, finished, failed or interrupted.

    A line of progress has stage, detail, done and total in the stage's own unit (total 0 where unknown), share of the
    stage and whole of all stages (null while nothing says so), and left, seconds (null where nobody knows).

    Args:
        course: where the run stands.
        console: to whose file lines are written, and flushed one by one.
        every: seconds between two lines of one stage.
    """

    def __init__(self, course: Course, console: Console, *, every: float = 0.2) -> None:
        super().__init__(course)
        self.console, self.every = console, every
        self._spoken = -every

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, KeyboardInterrupt):
            self._write(event="interrupted")
        elif error is not None:
            self._write(event="failed", error=sentence(error) or type(error).__name__)

    def take(self, step: Progress) -> None:
        new, now = self.course.take(step), self.course.clock()
        if new or now - self._spoken >= self.every or self.course.stage_share == 1:
            self._spoken = now
            self._write(
                event="progress",
                stage=step.stage,
                detail=step.detail,
                done=step.done,
                total=step.total,
                share=self.course.stage_share,
                whole=self.course.share,
                left=self.course.left,
            )

    def finish(self) -> None:
        self._write(event="finished", seconds=self.course.seconds)

    def _write(self, **what: Any) -> None:
        print(json.dumps(what), file=self.console.file, flush=True)


class Bars(Speaker):
    """In a terminal: a line for each stage that is over, a bar for the one that runs and one for the whole."""

    def __init__(self, course: Course, console: Console) -> None:
        super().__init__(course)
        # Where the line is too long, words are cut; counts and times never.
        whole, cut = Column(no_wrap=True), Column(no_wrap=True, overflow="ellipsis")
        self._bars = rich.progress.Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=replace(cut, ratio=2), markup=False),
            BarColumn(bar_width=10, table_column=whole),
            _Live("figures", whole),
            TextColumn("{task.fields[detail]}", table_column=replace(cut, ratio=1), markup=False),
            console=console,
            expand=True,
        )
        self._width = console.width
        self._stage: TaskID | None = None
        self._all: TaskID | None = None

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        for task in (self._stage, self._all):
            if task is not None:
                self._bars.remove_task(task)
        self._bars.stop()

    def take(self, step: Progress) -> None:
        if step.stage != self.course.stage:
            self._end()
        if self.course.take(step):
            before, self._stage = (
                self._stage,
                self._bars.add_task(
                    step.stage,
                    total=step.total or None,
                    detail="",
                    figures=lambda: self._count() + left(self.course.stage_left),
                ),
            )
            if before is not None:
                self._bars.remove_task(before)
            self._place_whole()
        assert self._stage is not None
        self._bars.update(self._stage, completed=step.done, total=step.total or None, detail=step.detail)
        if self._all is None:
            self._place_whole()
        if self._all is not None:
            self._bars.update(self._all, completed=self.course.share or 0.0)

    def finish(self) -> None:
        self._end()
        self._print(f"Finished in {duration(self.course.seconds)}", "", "")

    def _place_whole(self) -> None:
        """The whole stands below the stage, once there is something to say of it."""
        if self.course.share is None:
            return
        if self._all is not None:
            self._bars.remove_task(self._all)
        self._all = self._bars.add_task("The whole command", total=1.0, detail="", figures=self._whole)

    def _whole(self) -> str:
        return f"{_percent(self.course.share)}{left(self.course.left)}"

    def _count(self) -> str:
        step = self.course.step
        spent = duration(self.course.stage_seconds)
        return f"{step.done:,}/{step.total:,}, {spent}" if step is not None and step.total > 1 else spent

    def _end(self) -> None:
        step = self.course.step
        if self.course.stage is not None and step is not None:
            took = f"done in {duration(self.course.stage_seconds)}"
            self.course.end()
            self._print(step.stage, took, step.detail)

    def _print(self, stage: str, figures: str, detail: str) -> None:
        line = compose("", stage, figures, detail, min(self._width, WIDTH))
        self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)


class _Live(ProgressColumn):
    """A field of the task that is a function, asked each time the bars are drawn."""

    def __init__(self, name: str, column: Column) -> None:
        super().__init__(table_column=column)
        self._name = name

    def render(self, task: rich.progress.Task) -> Text:
        return Text(task.fields[self._name]())


def speaker_for(console: Console, *, quiet: bool = False, events: Console | None = None) -> Speaker:
    """Bars where the console is a terminal, lines where it is a file or a pipe, nothing where `quiet`; where there is a
    console for events, JSON in its file and nothing else."""
    course = Course()
    if events is not None:
        return Events(course, events)
    if quiet:
        return Silent(course)
    if console.is_terminal and not console.is_dumb_terminal and console.file.isatty():
        return Bars(course, console)
    return Log(course, console)


def drain(stages: Generator[Progress, None, T], speaker: Speaker) -> T:
    """What the stages return, with each of their Progress told on the way."""
    with speaker, closing(stages):
        while True:
            try:
                step = next(stages)
            except StopIteration as end:
                speaker.finish()
                return end.value
            speaker.take(step)


def compose(head: str, stage: str, figures: str, detail: str, width: int) -> str:
    """One line of at most `width` columns: the detail is cut first, then the stage, figures never."""
    stage, detail = _plain(stage), _plain(detail)
    figures = f": {figures}" if figures else ""
    room = width - len(head) - len(figures)
    if detail and len(stage) + 12 <= room:
        figures += f" ({_cut(detail, room - len(stage) - 3)})"
    return head + _cut(stage, max(width - len(head) - len(figures), 8)) + figures


def stage_figures(course: Course) -> str:
    """How far the stage is, in words."""
    if course.stage_share is None:
        return f"{duration(course.stage_seconds)} so far{left(course.stage_left)}"
    return f"{_percent(course.stage_share)}{left(course.stage_left)}"


def whole_figures(course: Course) -> str:
    """How far the whole is, in words that follow those of a stage; empty where the study cannot say."""
    share = course.share
    return "" if share is None or share >= 1 else f"; of all {_percent(share)}{left(course.left)}"


def left(seconds: float | None) -> str:
    """How long something will still take, as the end of a phrase; empty where nobody knows."""
    return "" if seconds is None else f", {duration(_rounded(seconds))} left"


def duration(seconds: float) -> str:
    """A length of time with at most two units."""
    if seconds < 10:
        return f"{seconds:.1f} s" if 0.05 <= seconds < 9.95 else f"{seconds:.0f} s"
    whole = round(seconds)
    for size, unit, part, smaller in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def _rounded(seconds: float) -> float:
    """An estimate is not known to the second."""
    step = 1 if seconds < 60 else 10 if seconds < 600 else 60 if seconds < 36_000 else 600
    return float(round(seconds / step) * step)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _percent(share: float | None) -> str:
    # Rounded down: 100 % is said of nothing that goes on.
    return "" if share is None else f"{int(share * 100)} %"


def _plain(text: str) -> str:
    """Without characters that a terminal would obey, or that would end the line."""
    return "".join(c if c.isprintable() else " " for c in text)


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 3]}..."
