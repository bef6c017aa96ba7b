"""Prints what a benchmark found and appends it, dated, to a file beside the benchmarks; names the code that made it."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
import sys
from pathlib import Path

from timing import environment

import superscope


def commit() -> str:
    """The commit that the working tree is at, "unknown" outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def sources() -> str:
    """What our trainer's and its kernels' sources hash to."""
    package = Path(superscope.__file__).parent
    paths = sorted(path for folder in ("dictionaries", "kernels") for path in (package / folder).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:12]


def report(lines: str, file: str | None) -> None:
    """Prints the lines under what they were measured on; appends both to `file` in this folder, unless it is None."""
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *map(shlex.quote, sys.argv[1:])])
    text = f"## {environment()}\n\n`{command}`\n\n```\n{lines.rstrip()}\n```\n"
    print(text)
    if file is not None:
        with (Path(__file__).parent / file).open("a", encoding="utf-8") as out:
            out.write(f"\n{text}")
