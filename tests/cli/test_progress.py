"""What is said while a study runs, to a file and to a terminal."""

from __future__ import annotations

import io
import itertools
import json
import re
import time
from collections.abc import Generator

import pytest
from rich.console import Console

from superscope.cli.course import Course
from superscope.cli.progress import WIDTH, Bars, Events, Log, Silent, compose, drain, duration, speaker_for
from superscope.studies.study import Progress

from .test_course import MEASURING, SITES, Clock, study


def log(**options) -> tuple[list[str], Clock]:
    """The lines of the study of known durations, with a look at the clock before each Progress."""
    clock, file = Clock(), io.StringIO()
    speaker = Log(Course(clock), Console(file=file), pulse=0.0, **options)
    with speaker:
        for step, _ in study(clock):
            speaker.take(step)
        speaker.finish()
    return file.getvalue().splitlines(), clock


def seconds(line: str) -> int:
    """The clock at the head of a line."""
    clock = line[:8].split(":")
    return sum(int(part) * 60**place for place, part in enumerate(reversed(clock)))


def test_a_log_has_a_line_at_each_begin_and_end_and_each_half_minute() -> None:
    lines, _ = log()
    assert lines[0] == "    0:00  Loading"
    assert lines[1].startswith("    0:07  Loading: done in 7.0 s")
    for site in range(SITES):
        own = [line for line in lines if f"Learning {site}" in line]
        assert own[0].endswith(f"Learning {site}")
        assert "Learning" in own[-1]
        assert f"Learning {site}: done in 1 min" in own[-1]
        # A minute, with one line in the midst of it.
        assert len(own) == 3
        assert f"Learning {site}: 50 %, 30 s left; of all" in own[1]
        assert len([line for line in lines if f"Measuring {site}" in line]) == 2
    assert lines[-1] == "    5:27  Finished in 5 min 27 s"
    times = [seconds(line) for line in lines]
    assert times == sorted(times)
    shares = [int(found[1]) for line in lines if (found := re.search(r"of all (\d+) %", line))]
    assert shares == sorted(shares)
    assert len(shares) > 10
    # The last of these knows what is left: one measuring.
    last = next(line for line in reversed(lines) if "of all" in line)
    assert f", {MEASURING:.0f} s left" in last


def test_between_two_lines_of_a_stage_are_thirty_seconds() -> None:
    lines, _ = log()
    for before, after in itertools.pairwise(lines):
        if "left" in after and "done in" not in after:
            assert seconds(after) - seconds(before) >= 30


def test_a_study_that_yields_nothing_is_heard_of_all_the_same() -> None:
    clock, file = Clock(), io.StringIO()
    with Log(Course(clock), Console(file=file), every=30.0, pulse=0.01) as speaker:
        speaker.take(Progress("Measuring", 0, 1))
        clock.now += 31
        deadline = time.monotonic() + 20
        while file.getvalue().count("\n") < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert file.getvalue().splitlines() == ["    0:00  Measuring", "    0:31  Measuring: 31 s so far"]
    assert not speaker._watch.is_alive()


def test_lines_are_plain_and_narrow_whatever_a_study_says() -> None:
    clock, file = Clock(), io.StringIO()
    speaker = Log(Course(clock), Console(file=file), pulse=0.0)
    stage, detail = "Learning \x1b[31mred\r\nblue\t" + "x" * 200, "a\nb" * 99
    ahead = {stage: 1.0, "Measuring": 3.0}
    for done in range(0, 101, 10):
        speaker.take(Progress(stage, done, 100, detail, ahead=ahead if done == 0 else None))
        clock.now += 40
    speaker.finish()
    lines = file.getvalue().split("\n")[:-1]
    assert len(lines) > 8
    for line in lines:
        assert line.isprintable()
        assert len(line) <= WIDTH <= 100
    assert all(re.search(r"\.\.\.: \d+ %, [^;]* left; of all \d+ %, .* left$", line) for line in lines[1:-2])


def test_what_was_there_already_is_said_where_a_stage_begins() -> None:
    file = io.StringIO()
    speaker = Log(Course(Clock()), Console(file=file), pulse=0.0)
    speaker.take(Progress("Learning", 66, 100, "taken up from the last checkpoint", resumed=True))
    assert file.getvalue() == "    0:00  Learning: 66 % there already (taken up from the last checkpoint)\n"


def stages(error: BaseException | None = None) -> Generator[Progress, None, str]:
    yield Progress("Loading [bold]", 0, 1)
    yield Progress("Loading [bold]", 1, 1, "2 sites", ahead={"Learning": 1.0, "Measuring": 1.0})
    yield Progress("Learning", 0, 4)
    if error is not None:
        raise error
    for done in range(1, 5):
        yield Progress("Learning", done, 4, f"{done} of [red]4")
    yield Progress("Measuring", 0, 1)
    return "report"


def test_a_terminal_shows_the_stage_and_the_whole_and_keeps_a_line_of_each_stage() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, color_system=None)
    assert drain(stages(), Bars(Course(), console)) == "report"
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue()).replace("\r", "\n")
    lines = [line.rstrip() for line in text.splitlines()]
    assert [re.sub(r"in [\d.]+ s", "in so long", line) for line in lines if "done in" in line] == [
        "Loading [bold]: done in so long (2 sites)",
        "Learning: done in so long (4 of [red]4)",
        "Measuring: done in so long",
    ]
    assert any(line.startswith("Finished in") for line in lines)
    assert any("The whole command" in line and "50 %" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_an_error_goes_on_and_leaves_no_thread() -> None:
    file = io.StringIO()
    speaker = Log(Course(), Console(file=file))
    with pytest.raises(ValueError, match="no such thing"):
        drain(stages(ValueError("no such thing")), speaker)
    assert not speaker._watch.is_alive()
    assert "Finished" not in file.getvalue()


def test_who_speaks() -> None:
    plain = Console(file=io.StringIO())
    assert isinstance(speaker_for(plain), Log)
    assert isinstance(speaker_for(plain, quiet=True), Silent)
    # What a build server forces upon a pipe makes no terminal of it.
    assert isinstance(speaker_for(Console(file=io.StringIO(), force_terminal=True)), Log)


@pytest.mark.parametrize(
    ("length", "words"),
    [(0.0, "0 s"), (0.31, "0.3 s"), (9.97, "10 s"), (59.4, "59 s"), (59.6, "1 min"), (250.0, "4 min 10 s"),
     (3600.0, "1 h"), (7290.0, "2 h 1 min"), (90_000.0, "1 d 1 h")],
)  # fmt: skip
def test_durations(length: float, words: str) -> None:
    assert duration(length) == words


def test_figures_are_never_cut() -> None:
    line = compose("    0:32  ", "Learning " + "layer" * 30, "41 %, 40 s left", "9.3% unexplained", 60)
    assert len(line) == 60
    assert line.endswith("...: 41 %, 40 s left")


def events(speaker_of, error: BaseException | None = None) -> list[dict]:
    """The objects that a program reads."""
    clock, file = Clock(), io.StringIO()
    speaker = speaker_of(Course(clock), Console(file=file))

    def stages() -> Generator[Progress, None, int]:
        for step, _ in study(clock):
            yield step
        if error is not None:
            raise error
        return 7

    if error is None:
        assert drain(stages(), speaker) == 7
    else:
        with pytest.raises(type(error)):
            drain(stages(), speaker)
    return [json.loads(line) for line in file.getvalue().splitlines()]


def test_a_program_reads_progress_and_end_as_json() -> None:
    told = events(Events)
    assert [each["event"] for each in told[:-1]] == ["progress"] * (len(told) - 1)
    assert told[-1]["event"] == "finished"
    assert told[-1]["seconds"] > 300
    wholes = [each["whole"] for each in told if each.get("whole") is not None]
    assert wholes == sorted(wholes)
    assert any(each.get("left") for each in told)
    # The same stage speaks again only after a while.
    assert len(events(lambda *given: Events(*given, every=1e9))) < len(told)


@pytest.mark.parametrize(
    ("error", "last"),
    [
        (ValueError("n is too small."), {"event": "failed", "error": "n is too small."}),
        (KeyboardInterrupt(), {"event": "interrupted"}),
    ],
)
def test_a_program_reads_why_it_ended(error: BaseException, last: dict) -> None:
    assert events(Events, error)[-1] == last
