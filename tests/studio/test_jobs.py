"""Jobs: one queue of processes that outlive the server, whose folders say all there is to know."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from superscope.core.files import read_json, write_json
from superscope.studio.server import jobs as module
from superscope.studio.server.jobs import FOLDER, Jobs, Refused

# Speaks as `superscope STUDY ... --events` does, without its seconds of import; what it does stands in a file.
STAND_IN = """
import json, pathlib, signal, sys, time
home = pathlib.Path(sys.argv[sys.argv.index("--out") + 1]).parent
def say(**what): print(json.dumps(what), flush=True)
def run():
    say(event="progress", stage="Working", detail="", done=1, total=2, share=0.5, whole=0.25, left=3.0)
    while not (home / "go").exists():
        time.sleep(0.02)
    what = (home / "go").read_text()
    if what == "fail": say(event="failed", error="no luck."); sys.exit(2)
    if what == "die": sys.exit(1)
    if what == "shout": sys.exit("superscope: out of luck.")
    say(event="finished", seconds=1.0)
# A process that was started in the background may pass an ignored interrupt on; the command listens to it all the same.
signal.signal(signal.SIGINT, signal.SIG_IGN if (home / "deaf").exists() else signal.default_int_handler)
try: run()
except KeyboardInterrupt: say(event="interrupted"); sys.exit(130)
"""
BOUNDS = {"n": 32, "d": 8}
LIMIT = 120.0
"""Seconds within which anything comes to pass, on a machine with much else to do."""


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[], Jobs]]:
    """Opens the folder once more, as a server that is started again does."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    opened: list[Jobs] = []

    def serve() -> Jobs:
        jobs = Jobs(tmp_path / "runs", command=(sys.executable, "-S", str(script)))
        jobs.begin()
        opened.append(jobs)
        return jobs

    yield serve
    (tmp_path / "runs").mkdir(exist_ok=True)
    (tmp_path / "runs" / "go").write_text("finish")
    for jobs in opened:
        jobs.close()
        for process in jobs._processes.values():
            process.wait()


def wait(jobs: Jobs, job: str, *states: str) -> None:
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        shown = {each.id: each.state for each in jobs.all().jobs}
        if shown[job] in states:
            return
        time.sleep(0.02)
    pytest.fail(f"{job} is {shown[job]}, not {states}")


def stage(jobs: Jobs, job: str) -> None:
    until = time.monotonic() + LIMIT
    while not next(each.stage for each in jobs.all().jobs if each.id == job):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_one_runs_and_the_others_wait_their_turn(serve: Callable[[], Jobs], tmp_path: Path) -> None:
    jobs = serve()
    before = jobs.revision
    first, second, third = (jobs.start("bounds", BOUNDS | {"d": d}) for d in (8, 9, 10))
    assert jobs.revision > before
    assert [first.state, second.state, third.state] == ["running", "queued", "queued"]
    assert first.command == f"superscope bounds --n 32 --d 8 --out {tmp_path / 'runs' / first.run}"
    stage(jobs, first.id)
    shown = next(job for job in jobs.all().jobs if job.id == first.id)
    assert (shown.stage, shown.share, shown.whole, shown.left) == ("Working", 0.5, 0.25, 3.0)
    assert jobs.cancel(second.id).state == "cancelled"
    assert next(job for job in jobs.all().jobs if job.id == second.id).can_resume
    (tmp_path / "runs" / "go").write_text("finish")
    wait(jobs, third.id, "finished")
    wait(jobs, first.id, "finished")
    jobs.resume(second.id)
    wait(jobs, second.id, "finished")
    with pytest.raises(Refused, match="over already"):
        jobs.cancel(first.id)
    with pytest.raises(LookupError, match="there is no job 'x'"):
        jobs.cancel("x")


@pytest.mark.parametrize(
    ("says", "state", "error"),
    [
        ("fail", "failed", "no luck."),
        ("die", "lost", "did not say why"),
        ("shout", "failed", "superscope: out of luck."),
    ],
)
def test_an_end_is_told_as_it_was(serve: Callable[[], Jobs], tmp_path: Path, says: str, state: str, error: str) -> None:
    jobs = serve()
    job = jobs.start("bounds", BOUNDS)
    (tmp_path / "runs" / "go").write_text(says)
    wait(jobs, job.id, state)
    (shown,) = jobs.all().jobs
    assert error in shown.error
    assert shown.can_resume
    (tmp_path / "runs" / "go").write_text("finish")
    jobs.resume(job.id)
    wait(jobs, job.id, "finished")


def test_a_running_job_is_cancelled_kindly_and_then_not(
    serve: Callable[[], Jobs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = serve()
    job = jobs.start("bounds", BOUNDS)
    stage(jobs, job.id)
    jobs.cancel(job.id)
    wait(jobs, job.id, "cancelled")
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    (tmp_path / "runs" / "deaf").write_text("")
    jobs.resume(job.id)
    wait(jobs, job.id, "running")
    stage(jobs, job.id)
    jobs.cancel(job.id)
    wait(jobs, job.id, "cancelled")


def test_a_server_that_was_killed_finds_its_jobs_again(serve: Callable[[], Jobs], tmp_path: Path) -> None:
    first = serve()
    running, waiting = first.start("bounds", BOUNDS), first.start("bounds", BOUNDS)
    stage(first, running.id)
    # What the end of its process would do, and no more.
    first._over.set()
    first._claim.close()
    second = serve()
    assert {job.id: job.state for job in second.all().jobs} == {running.id: "running", waiting.id: "queued"}
    second.cancel(running.id)
    wait(second, running.id, "cancelled")
    wait(second, waiting.id, "running")
    stage(second, waiting.id)
    second._over.set()
    second._claim.close()
    os.killpg(read_json(tmp_path / "runs" / FOLDER / "jobs" / waiting.id / "job.json")["pid"], signal.SIGKILL)
    # The one that started it is gone in earnest; here it has to take leave of its child.
    second._processes[waiting.id].wait()
    third = serve()
    assert {job.id: job.state for job in third.all().jobs} == {running.id: "cancelled", waiting.id: "lost"}
    assert all(job.can_resume for job in third.all().jobs)


def test_of_two_servers_one_has_the_jobs(serve: Callable[[], Jobs]) -> None:
    first = serve()
    first.start("bounds", BOUNDS)
    with pytest.raises(Refused, match="another studio runs the jobs"):
        serve()


def test_the_queue_is_bounded(serve: Callable[[], Jobs], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 1)
    jobs = serve()
    jobs.start("bounds", BOUNDS)
    jobs.start("bounds", BOUNDS)
    with pytest.raises(Refused, match="1 jobs wait already"):
        jobs.start("bounds", BOUNDS)


def test_a_folder_that_was_tampered_with_starts_nothing_else(serve: Callable[[], Jobs], tmp_path: Path) -> None:
    place = tmp_path / "runs" / FOLDER / "jobs"
    about = {"study": "bounds", "settings": BOUNDS, "words": ["--n", "99"], "run": "../../x", "state": "finished"}
    about |= {"created": "", "asked": 0.0, "pid": 1}
    names = [f"20260101-000000-0000000{i}" for i in range(4)]
    for name, change in zip(names, ({}, {"study": "rm"}, {"settings": {"n": "--out"}}, {"state": "odd"}), strict=True):
        (place / name).mkdir(parents=True)
        write_json(place / name / "job.json", about | change)
    (place / "elsewhere").mkdir()
    (place / "20260101-000000-00000009").mkdir()
    (place / "20260101-000000-00000009" / "job.json").write_text("{")
    (shown,) = serve().all().jobs
    assert shown.run == f"bounds-{names[0]}"
    assert shown.command.startswith("superscope bounds --n 32 --d 8 --out")
