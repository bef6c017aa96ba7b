"""Any study over a grid of its settings: each point a run folder of its own, made here, by processes, Slurm or Ray."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import shlex
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from ..core import Answer, Findings, Report, Run, RunFolder
from ..core.errors import nearest
from ..core.threads import torch_threads
from ..core.units import Executor, Ray, Slurm, executor, run_units
from . import STUDIES
from .settings import Count, at_least, fields
from .study import Progress, Study

_SHOWN = 6
_FRAME = "│╭╮╰╯─- "


@dataclass(frozen=True)
class Point:
    """One combination of values.

    Args:
        folder: its name among the points.
        values: what varies, as it was given.
        arguments: of the study's command.
    """

    folder: str
    values: dict[str, str]
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Sweep(Study):
    """Run a study over a grid of its settings, on one machine or many.

    STUDY is another command (toy, phase, frontier, train, scan, harvest ...). Every combination of the values that
    --vary lists is run by itself into a folder of its own; what stands there already is not done again, and what a
    lost worker leaves undone is taken up by another.

    superscope sweep toy --vary n=20,40,80 --vary seeds=0,1,2 --given steps=2000 --executor processes
    superscope sweep frontier --vary site=resid_post.0,resid_post.1 --given source=store
    """

    kind: ClassVar[str] = "sweep"

    study: Annotated[str, tyro.conf.Positional]
    """The command to run at each point."""
    vary: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """NAME=VALUE,VALUE,...: an option of the study and its values. A value of several parts is written with spaces:
    "densities=1.0 0.1,0.03" has two values. May be repeated; all combinations are run."""
    given: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """NAME=VALUE: an option of the study that is the same at every point. May be repeated."""
    executor: Literal["inline", "processes", "slurm", "ray"] = "processes"
    """Where the points are run."""
    workers: Annotated[int, at_least(0)] = 0
    """Worker processes; 0 means one a core."""
    slurm: tuple[str, ...] = ()
    """NAME=VALUE of submitit, such as timeout_min=240 gpus_per_node=1 slurm_partition=gpu; cluster=local tries it out
    with processes of this machine, cluster=debug in this process."""
    ray: str | None = None
    """Address of a running Ray cluster, or "auto"; without one a cluster is started here."""
    threads: Count = 1
    """Threads of one point. With the same number, on processors of one kind, the results are the same to the bit
    whatever the executor."""

    def check(self) -> None:
        commands = [entry.command for entry in STUDIES if entry.command != self.kind]
        if self.study not in commands:
            offer = nearest(self.study, commands)
            raise ValueError(f"there is no study {self.study!r} to sweep.{offer} Known: {', '.join(commands)}.")
        if not self.vary:
            raise ValueError("nothing varies: give --vary NAME=VALUE,VALUE at least once.")
        names = [_split(text, "vary")[0] for text in self.vary] + [_split(text, "given")[0] for text in self.given]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name} is given twice; name it once, under --vary or under --given.")
        _parameters(self.slurm)
        # Every point's settings are checked here, before anything has run.
        for point in self.points():
            settings(self.study, point.arguments)

    def points(self) -> list[Point]:
        """Every combination of the values, in the order in which they are listed."""
        fixed = [argument for text in self.given for argument in _option(*_split(text, "given"))]
        axes = [
            [(name, value.strip()) for value in values.split(",")]
            for name, values in (_split(text, "vary") for text in self.vary)
        ]
        found: dict[str, Point] = {}
        for chosen in itertools.product(*axes):
            title = ",".join(f"{name}={value}" for name, value in chosen)
            folder = "".join(c if c.isalnum() or c in "=,.-_+" else "_" for c in title)
            if folder in found:
                raise ValueError(f"two points would share the folder {folder!r}; list each value once.")
            varied = (argument for name, value in chosen for argument in _option(name, value))
            found[folder] = Point(folder, dict(chosen), (*fixed, *varied))
        return list(found.values())

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        out = run.path
        if out is None:
            raise ValueError("a sweep leaves a folder for each point: give a run folder with --out.")
        run.open()
        points = self.points()
        work = functools.partial(run_point, str(out / "points"), self.study, self.threads)
        stage = f"{self.study}: {len(points)} points"
        yield Progress(stage, 0, len(points))
        is_done = functools.partial(_is_done, out / "points")
        for done in run_units(work, points, is_done=is_done, executor=self._executor(out)):
            yield Progress(stage, done, len(points))
        return self._report(out, points)

    def _executor(self, out: Path) -> Executor:
        if self.executor == "slurm":
            parameters = _parameters(self.slurm)
            cluster = str(parameters.pop("cluster", "slurm"))
            return Slurm(out / "jobs", parameters, cluster)
        if self.executor == "ray":
            return Ray(self.ray, {"num_cpus": self.threads})
        return executor(self.executor, workers=self.workers)

    def _report(self, out: Path, points: list[Point]) -> Answer:
        varied = list(points[0].values)
        measurements = []
        table: dict[str, list[Any]] = {"point": [], **{name: [] for name in varied}, "title": [], "finding": []}
        for point in points:
            RunFolder.open(out / "points" / point.folder).verify()
            found = Report.load(out / "points" / point.folder)
            table["point"].append(point.folder)
            for name, value in point.values.items():
                table[name].append(value)
            table["title"].append(found.title)
            table["finding"].append(found.findings[0] if found.findings else "")
            at = {name: _number(value) for name, value in point.values.items()}
            # Where the study says by itself what varies, its own words stand.
            measurements += [measurement.at_site(**{**at, **measurement.at}) for measurement in found.measurements]
        findings = [f"{len(points)} runs of `superscope {self.study}` stand in {out / 'points'}, one folder each."]
        findings += [
            f"{point}: {finding}"
            for point, finding in list(zip(table["point"], table["finding"], strict=True))[:_SHOWN]
            if finding
        ]
        if len(points) > _SHOWN:
            findings.append(f"The other {len(points) - _SHOWN} are in the table `points`.")
        return Answer(
            title=f"{self.study} over {', '.join(varied)}: {len(points)} points",
            findings=Findings(measurements, {"points": table}),
            sentences=tuple(findings),
        )


def run_point(folder: str, study: str, threads: int, point: Point) -> None:
    """One point, in whatever process: the study's run in a folder of its own, gone on with if it was begun.

    Args:
        folder: of all points.
        study: the command.
        threads: of torch.
        point: which.
    """
    with torch_threads(threads):
        settings(study, point.arguments).run(Path(folder) / point.folder)


def settings(study: str, arguments: tuple[str, ...]) -> Study:
    """The study that a command's arguments describe.

    Raises:
        ValueError: if the study has no such option, or a value is none of it.
    """
    kind = next(entry for entry in STUDIES if entry.command == study).load()
    options = [option for field in fields(kind) for option in field.parts or (field,)]
    names = sorted(option.name for option in options)
    values = _grouped(arguments)
    for name in values:
        if name not in names:
            raise ValueError(f"{study} has no option {name!r}.{nearest(name, names)}")
    positional = [option.name for option in options if option.positional]
    first = [value for name in positional for value in values.get(name, [])]
    repeated = [option.name for option in options if option.repeated]
    named: list[str] = []
    for name, given in values.items():
        if name in repeated:
            named += [word for value in given for word in (_spelled(name), value)]
        elif name not in positional:
            named += [_spelled(name), *given]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return tyro.cli(
                kind,
                prog=f"superscope {study}",
                args=[*first, *named],
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as error:
        # tyro frames what it says; the sentence alone is wanted here.
        lines = (line.strip(_FRAME) for line in said.getvalue().splitlines())
        why = " ".join(line for line in lines if line and not line.startswith("For full helptext"))[:400]
        raise ValueError(f"`superscope {study} {shlex.join([*first, *named])}` cannot be run. {why}") from error


def _grouped(arguments: tuple[str, ...]) -> dict[str, list[str]]:
    """Options with their values."""
    found: dict[str, list[str]] = {}
    name = ""
    for argument in arguments:
        if argument.startswith("--"):
            name = argument.removeprefix("--").replace("-", "_")
            found[name] = []
        else:
            found[name].append(argument)
    return found


def _spelled(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _split(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ValueError(f"--{option} wants NAME=VALUE; got {text!r}.")
    return name.strip().lstrip("-").replace("-", "_"), value


def _option(name: str, value: str) -> list[str]:
    """As the command line has it; True and False are flags."""
    if value in ("True", "False"):
        return [_spelled(name)] if value == "True" else []
    return [_spelled(name), *shlex.split(value)]


def _number(value: str) -> str | float | int:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _parameters(pairs: tuple[str, ...]) -> dict[str, Any]:
    return {name: _number(value) for name, value in (_split(pair, "slurm") for pair in pairs)}


def _is_done(folder: Path, point: Point) -> bool:
    about = folder / point.folder / "about.json"
    return about.is_file() and RunFolder.open(about.parent).about["state"] == "finished"
