"""Processes that talk to each other, forked from one that has torch loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = str(HERE.parents[2])
_STREAMS = ("out", "err")


def wait_for(condition: Callable[[], bool], seconds: float = 180) -> None:
    """Waits until it holds; a run that ended too early must not be waited for without end."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.001)


@dataclass
class Outcome:
    """How each process ended, by rank, and what it said."""

    codes: list[int]
    said: list[str]
    errors: list[str]


class Processes:
    """Runs the script `two`, or the command `superscope`, on some processes."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, str(HERE / "two.py"), "--serve"],
            env=os.environ | {"PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, count: int, out: Path, *arguments: str, program: str = "two") -> list[int]:
        """Starts them; their ids. What process 0 says is in the files out0 and err0 of a folder."""
        assert self._server.stdin is not None
        self._out = out
        out.mkdir(exist_ok=True)
        for name in _STREAMS:
            for rank in range(count):
                (out / f"{name}{rank}").unlink(missing_ok=True)
        place = ("--out", str(out)) if program == "two" else ()
        self._server.stdin.write(json.dumps([str(count), str(out), program, *place, *arguments]) + "\n")
        self._server.stdin.flush()
        return self._line()

    def end(self) -> Outcome:
        """Waits for them."""
        codes = self._line()
        said, errors = ([(self._out / f"{name}{rank}").read_text() for rank in range(len(codes))] for name in _STREAMS)
        return Outcome(codes, said, errors)

    def run(self, count: int, out: Path, *arguments: str, program: str = "two", check: bool = True) -> Outcome:
        """Starts them and waits for them."""
        self.begin(count, out, *arguments, program=program)
        outcome = self.end()
        assert not check or outcome.codes == [0] * count, "\n".join(outcome.errors)[-3000:]
        return outcome

    def _line(self) -> list[int]:
        assert self._server.stdout is not None
        return json.loads(self._server.stdout.readline())

    def close(self) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()


@pytest.fixture(scope="session")
def processes() -> Iterator[Processes]:
    server = Processes()
    yield server
    server.close()
