"""Prints what a benchmark found and appends it, dated, to a file beside the benchmarks; names the code that made it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import itertools
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from timing import environment

import superscope

CLAIMS = "SUPERSCOPE_CLAIMS"
"""The environment variable in which `benchmarks/bench.py` names the file for claims."""


def claim(what: str, peer: str, ratio: str, quality: str, package: str = "") -> None:
    """A line of docs/speed.md, kept where `make bench` asks for it.

    Args:
        what: the work.
        peer: who does the same, or what it is compared with.
        ratio: peer over ours, its range in brackets.
        quality: what ours and the peer reach, in words.
        package: the peer's distribution, whose version is noted.
    """
    if file := os.environ.get(CLAIMS):
        version = importlib.metadata.version(package) if package else ""
        line = {"what": what, "peer": peer, "version": version, "ratio": ratio, "quality": quality}
        with Path(file).open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")


def available(peer: str, module: str, package: str, least: str = "") -> bool:
    """Whether a peer can be imported and is new enough; says so in a line where not.

    Args:
        peer: what the line calls it.
        module, package: what is imported, and its distribution.
        least: the version from which on it can be called as it is here.
    """
    if importlib.util.find_spec(module) is None:
        print(f"Left out: {peer}, since {package} is not installed in this environment.", flush=True)
        return False
    version = importlib.metadata.version(package)
    if least and numbers(version) < numbers(least):
        print(f"Left out: {peer}, since {package} is {version} in this environment, older than {least}.", flush=True)
        return False
    return True


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version.

    Example:
        >>> numbers("0.10.2rc1") < numbers("0.10.10"), numbers("2.13.0+cpu")
        (True, (2, 13, 0))
    """
    found = []
    for part in version.split("+")[0].split("."):
        digits = "".join(itertools.takewhile(str.isdigit, part))
        if not digits:
            break
        found.append(int(digits))
        if digits != part:
            break
    return tuple(found)


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
