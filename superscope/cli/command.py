"""Runs one study from the command line: options from its fields, progress on the way, a summary at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.util
import io
import os
import signal
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import tyro
from rich.console import Console

from ..core import Report
from ..studies import Entry
from ..studies.arguments import Asked
from ..studies.study import Progress, Study
from ..studio import write_html
from .course import Course
from .progress import Silent, Speaker, drain, speaker_for
from .refusal import require_writable, sentence, usage
from .summary import show


@dataclasses.dataclass(frozen=True)
class Output:
    """Where the answer goes, the same for every study."""

    out: Path | None = None
    """Run folder to write. Default: a new folder under runs/. An unfinished run there is resumed."""
    json: bool = False
    """Print the report as JSON on standard output instead of a summary."""
    quiet: bool = False
    """Say nothing on the way: no bars in a terminal, no lines in a log. Errors are still told."""
    events: bool = False
    """For a program that watches: progress and end as lines of JSON on standard output, and no summary."""


def run(entry: Entry, arguments: Sequence[str]) -> int:
    """Parses the options, runs the study, writes the run folder and its HTML, prints the summary.

    Of several processes that torchrun started the first does all this; the others follow it and speak of errors alone.
    """
    rank, processes = (int(os.environ.get(name, fallback)) for name, fallback in (("RANK", "0"), ("WORLD_SIZE", "1")))
    if processes > 1:
        signal.signal(signal.SIGTERM, _told_to_end)
    study_class = entry.load()
    if processes > 1 and not getattr(study_class, "shared", False):
        if rank == 0:
            alone = f"superscope {entry.command}: this command runs in one process; start it without torchrun."
            Console(stderr=True, highlight=False).print(alone, markup=False, soft_wrap=True, style="red")
        return 2

    # Two flat groups of options from two dataclasses: tyro reads their fields and docstrings.
    flat = tyro.conf.arg(name="")
    command_class = dataclasses.make_dataclass(
        "Command", [("study", Annotated[study_class, flat]), ("output", Annotated[Output, flat], Output())]
    )
    errors = Console(stderr=True, highlight=False)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            parsed = tyro.cli(
                command_class,
                prog=f"superscope {entry.command}",
                description=study_class.about(),
                args=list(arguments),
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
                console_outputs=rank == 0,
            )
    except SystemExit as end:
        if complaint.getvalue():
            errors.print(usage(complaint.getvalue()), markup=False, soft_wrap=True)
        return end.code if isinstance(end.code, int) else 2
    except Asked as asked:
        Console(highlight=False).print(str(asked), markup=False, soft_wrap=True)
        return 0
    except ValueError as error:
        errors.print(f"superscope {entry.command}: {error}", markup=False, soft_wrap=True, style="red")
        return 2
    study, output = parsed.study, parsed.output
    out = output.out or new_folder(entry.command, study)
    command = f"superscope {entry.command} {' '.join(arguments)}".strip()
    if output.events:
        # A program ends it by either signal, and may itself have been started where the first is ignored.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
    if output.out is None:
        command += f" --out {out}"
    try:
        require_writable(out)
        if rank:
            drain(study.stages(out), Silent(Course()))
            return 0
        report, page = drain(_stages(study, out), _speaker(errors, output))
    except Asked as asked:
        Console(highlight=False).print(str(asked), markup=False, soft_wrap=True)
        return 0
    except KeyboardInterrupt:
        # Keys pressed once more would cut off what is said here, or end the process with a signal while it leaves.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if rank:
            return 130
        errors.print()
        if (out / "about.json").exists():
            errors.print(f"Interrupted. What was finished is kept in {out}; resume with: {command}", soft_wrap=True)
        else:
            errors.print("Interrupted before anything was written.")
        return 130
    except (ValueError, TypeError, LookupError, OSError, FloatingPointError, ModuleNotFoundError) as error:
        one = f" (process {rank} of {processes})" if processes > 1 else ""
        errors.print(f"superscope {entry.command}{one}: {sentence(error)}", markup=False, soft_wrap=True, style="red")
        if rank == 0 and (out / "about.json").exists():
            errors.print(f"What was finished is kept in {out}; resume with: {command}", markup=False, soft_wrap=True)
        return 2
    if output.events:
        return 0
    if output.json:
        print((out / "report.json").read_text(encoding="utf-8").rstrip())
    else:
        show(report, page, Console(highlight=False))
    return 0


def _speaker(errors: Console, output: Output) -> Speaker:
    return speaker_for(errors, quiet=output.quiet, events=Console(file=sys.stdout) if output.events else None)


def _draw(report: Report, out: Path) -> None:
    """The figures of the report, where matplotlib (the extra `plots`) is installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return
    from ..plots import FIGURES, draw

    draw(report, FIGURES.get(report.kind, ()), out / "figures")


def new_folder(command: str, study: Any) -> Path:
    """runs/COMMAND-SUBJECT-TIME, the subject being what the study reads."""
    named = (getattr(study, name, None) for name in ("model", "source", "dictionary"))
    subject = Path(next((str(one) for one in named if one), "")).name.replace(":", "-")
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / "-".join(part for part in (command, subject, stamp) if part)


def _told_to_end(number: int, frame: FrameType | None) -> None:
    # torchrun ends all processes with this signal once one of them is gone; Slurm does when the time is over.
    raise InterruptedError("told to end (SIGTERM): another process was lost, or the job's time is over.")


def _stages(study: Study, out: Path) -> Generator[Progress, None, tuple[Report, Path]]:
    """The study's own stages, and after them what is made of its report for people."""
    report = yield from study.stages(out)
    yield Progress("Writing the report", 0, 1)
    _draw(report, out)
    return report, write_html(out)
