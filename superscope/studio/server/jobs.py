"""What is running? A job is a command in a process of its own, and two folders are all that is known of it.

The run folder holds what the study has made, so that a job goes on where it stopped; the job's own folder holds the
command, its lines of progress and a lock that its process keeps for as long as it lives. A server that is killed
therefore loses nothing: the next one reads the folders, sees by the lock which processes still live, and goes on.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core import RunFolder
from ...core.errors import nearest
from ...core.files import read_json, write_json
from ...core.run import timestamp
from . import shapes
from .forms import options

WAITING = 20
"""Most jobs that may wait."""
KEPT = 200
"""Most jobs that are remembered."""
PATIENCE = 20.0
"""Seconds in which a job may end by itself before it is killed."""
FOLDER = ".superscope"
"""Beside the runs, hidden."""
# -P: a file beside the runs must not pass for one of Python's own modules.
COMMAND = (sys.executable, "-P", "-m", "superscope.cli")

_POLL = 0.2
_TAIL = 8_192
_NAME = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")


class Refused(Exception):
    """Why a job cannot be started, cancelled or resumed now."""


@dataclass
class _Record:
    """What a job's folder says of it."""

    folder: Path
    about: dict[str, Any]

    @property
    def id(self) -> str:
        return self.folder.name

    def write(self, **changes: Any) -> None:
        self.about |= changes
        write_json(self.folder / "job.json", self.about)

    def is_alive(self) -> bool:
        """Whether its process, or one that it started, holds the lock."""
        try:
            with (self.folder / "lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def last(self) -> dict[str, Any]:
        """The last whole line that the process wrote."""
        for line in reversed(_tail(self.folder / "events.jsonl").split(b"\n")[:-1]):
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    return event
        return {}

    def complaint(self) -> str:
        """The last line that the process wrote to standard error."""
        lines = _tail(self.folder / "errors.txt").decode(errors="replace").strip().splitlines()
        return lines[-1][:600] if lines else ""


class Jobs:
    """One queue over a folder of runs: one job runs, the others wait in the order in which they came.

    Args:
        root: the folder of runs.
        why_not: why nothing may be started here; empty where it may.
        command: what starts a study, before the study's name.
    """

    def __init__(self, root: Path, why_not: str = "", command: Sequence[str] = COMMAND) -> None:
        self.root, self.why_not, self.command = root, why_not, command
        self._mutex = threading.RLock()
        self._records: dict[str, _Record] = {}
        self._ended: dict[str, float] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._claim: Any = None
        self._shown: list[shapes.Job] = []
        self.revision = 0
        """Grows whenever something about a job has changed."""

    def begin(self) -> None:
        """Finds the jobs of an earlier server again, if there was one, and goes on with them."""
        if not self.why_not and (self.root / FOLDER).is_dir():
            self._open()

    def close(self) -> None:
        """Leaves everything as it is: a running job runs on."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        if self._claim is not None:
            self._claim.close()

    def all(self) -> shapes.JobList:
        """All jobs, those that were asked for last before the others."""
        with self._mutex:
            return shapes.JobList(jobs=list(self._shown))

    def makes(self, run: str) -> bool:
        """Whether a job that waits or runs writes this run."""
        return any(job.run == run and job.state in ("queued", "running") for job in self.all().jobs)

    def start(self, study: str, settings: dict[str, Any]) -> shapes.Job:
        """Puts a study into the queue.

        Raises:
            LookupError, ValueError: if there is no such study or setting, or the study does not take them.
            Refused: if nothing may be started here, or too many jobs wait.
        """
        self._may()
        words = options(study, settings)
        with self._mutex:
            self._open()
            if sum(record.about["state"] == "queued" for record in self._records.values()) >= WAITING:
                raise Refused(f"{WAITING} jobs wait already. Cancel one, or wait until one is over.")
            stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
            name = f"{stamp}-{secrets.token_hex(4)}"
            about = {
                "study": study,
                "settings": settings,
                "words": words,
                "run": f"{study}-{name}",
                "state": "queued",
                "created": timestamp(),
                "asked": time.time(),
                "pid": None,
            }
            record = _Record(self.root / FOLDER / "jobs" / name, about)
            record.folder.mkdir(parents=True)
            record.write()
            self._records[name] = record
            self._look()
            return self._shape(record)

    def cancel(self, job: str) -> shapes.Job:
        """Ends a job; what it has made is kept, and it can be resumed.

        Raises:
            LookupError: if there is no such job.
            Refused: if it is over.
        """
        self._may()
        with self._mutex:
            record = self._record(job)
            if record.about["state"] == "queued":
                record.write(state="cancelled")
            elif record.about["state"] == "running":
                if job not in self._ended:
                    self._ended[job] = time.monotonic()
                    _send(record, signal.SIGINT)
            else:
                raise Refused("this job is over already.")
            self._look()
            return self._shape(record)

    def resume(self, job: str) -> shapes.Job:
        """Puts a job that did not finish into the queue once more, to go on from what its run folder holds.

        Raises:
            LookupError: if there is no such job.
            Refused: if it runs, waits or is finished.
        """
        self._may()
        with self._mutex:
            record = self._record(job)
            if not self._can_resume(record):
                raise Refused("only a job that was cancelled, failed or lost can be resumed.")
            record.write(state="queued", asked=time.time())
            self._look()
            return self._shape(record)

    def _may(self) -> None:
        if self.why_not:
            raise Refused(self.why_not)

    def _record(self, job: str) -> _Record:
        if job not in self._records:
            raise LookupError(f"there is no job {job[:80]!r}.{nearest(job[:80], list(self._records))}")
        return self._records[job]

    def _open(self) -> None:
        """Claims the folder for this server, reads what is there and begins to watch."""
        with self._mutex:
            if self._thread is not None:
                return
            place = self.root / FOLDER
            (place / "jobs").mkdir(parents=True, exist_ok=True)
            claim = (place / "lock").open("wb")
            try:
                fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                claim.close()
                self.why_not = f"another studio runs the jobs of {self.root}. Use that one, or close it."
                raise Refused(self.why_not) from None
            self._claim = claim
            for folder in sorted(place.glob("jobs/*")):
                with contextlib.suppress(ValueError, OSError, LookupError, TypeError):
                    if _NAME.fullmatch(folder.name) and not folder.is_symlink():
                        about = read_json(folder / "job.json")
                        # A command is made of what was asked for, never read from a file.
                        words = options(about["study"], about["settings"])
                        run = f"{about['study']}-{folder.name}"
                        record = _Record(folder, about | {"words": words, "run": run})
                        self._shape(record)
                        self._records[folder.name] = record
            self._look()
            self._thread = threading.Thread(target=self._watch, name="jobs", daemon=True)
            self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(_POLL):
            with self._mutex, contextlib.suppress(OSError):
                self._look()

    def _look(self) -> None:
        """Sees which jobs have ended, and starts the next."""
        for record in self._records.values():
            if record.about["state"] == "running":
                if not record.is_alive():
                    self._settle(record)
                elif (asked := self._ended.get(record.id)) is not None and time.monotonic() - asked > PATIENCE:
                    _send(record, signal.SIGKILL)
        if not any(record.about["state"] == "running" for record in self._records.values()):
            waiting = [record for record in self._records.values() if record.about["state"] == "queued"]
            if waiting:
                self._run(min(waiting, key=lambda record: record.about["asked"]))
        latest = sorted(self._records.values(), key=lambda record: record.about["asked"], reverse=True)
        shown = [self._shape(record) for record in latest[:KEPT]]
        if shown != self._shown:
            self._shown = shown
            self.revision += 1

    def _settle(self, record: _Record) -> None:
        process = self._processes.pop(record.id, None)
        if process is not None:
            process.wait()
        event = record.last().get("event")
        asked = self._ended.pop(record.id, None) is not None
        ended = {"finished": "finished", "failed": "failed", "interrupted": "cancelled"}.get(str(event))
        state = ended or ("cancelled" if asked else "failed" if record.complaint() else "lost")
        record.write(state=state, pid=None)

    def _run(self, record: _Record) -> None:
        out = self.root / record.about["run"]
        command = [*self.command, record.about["study"], *record.about["words"]]
        with (
            (record.folder / "lock").open("wb") as lock,
            (record.folder / "events.jsonl").open("wb") as events,
            (record.folder / "errors.txt").open("wb") as errors,
        ):
            # The process has the lock for as long as it, or what it starts, lives: no number of a process is believed.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            process = subprocess.Popen(
                [*command, "--out", str(out), "--events"],
                stdin=subprocess.DEVNULL,
                stdout=events,
                stderr=errors,
                start_new_session=True,
                pass_fds=(lock.fileno(),),
            )
        self._processes[record.id] = process
        record.write(state="running", pid=process.pid)

    def _can_resume(self, record: _Record) -> bool:
        return record.about["state"] in ("cancelled", "failed", "lost") and not self._is_finished(record)

    def _is_finished(self, record: _Record) -> bool:
        try:
            return RunFolder.open(self.root / record.about["run"]).about["state"] == "finished"
        except (OSError, ValueError):
            return False

    def _shape(self, record: _Record) -> shapes.Job:
        about = record.about
        state = about["state"]
        event = record.last() if state != "queued" else {}
        words = [about["study"], *about["words"], "--out", str(self.root / about["run"])]
        left, whole, share = (_number(event.get(key)) for key in ("left", "whole", "share"))
        error = ""
        if state in ("failed", "lost"):
            error = str(event.get("error") or record.complaint() or "Its process is gone and did not say why.")
        return shapes.Job(
            id=record.id,
            study=about["study"],
            settings=about["settings"],
            command=f"superscope {shlex.join(words)}",
            run=about["run"],
            state=state,
            created=about["created"],
            stage=str(event.get("stage", "")),
            detail=str(event.get("detail", "")),
            share=share,
            whole=whole,
            left=left,
            error=error,
            can_resume=self._can_resume(record),
        )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _tail(path: Path) -> bytes:
    """The end of a file; nothing where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - _TAIL, 0))
            return file.read()
    except OSError:
        return b""


def _send(record: _Record, number: int) -> None:
    """A signal to the processes of a job, which the lock says are alive."""
    pid = record.about["pid"]
    if isinstance(pid, int) and pid > 1 and record.is_alive():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, number)
