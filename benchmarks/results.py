"""Prints what a benchmark found and appends it, dated, to a file beside the benchmarks."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from timing import environment


def report(lines: str, file: str | None) -> None:
    """Prints the lines under what they were measured on; appends both to `file` in this folder, unless it is None."""
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *map(shlex.quote, sys.argv[1:])])
    text = f"## {environment()}\n\n`{command}`\n\n```\n{lines.rstrip()}\n```\n"
    print(text)
    if file is not None:
        with (Path(__file__).parent / file).open("a", encoding="utf-8") as out:
            out.write(f"\n{text}")
