"""Are the speeds that README and docs claim still so? Runs each claim in a short form and writes docs/speed.md.

    scripts/bench                    # all of them, some forty minutes on two idle cores; `make bench` is the same
    scripts/bench --only omp step    # some; the page keeps what it has of the others
    scripts/bench --list             # their names
    scripts/bench --page             # runs nothing: the page anew from what has been kept

Needs nothing but Python: environments are made where they are missing, each beside the others, since packages that
peers pin clash (dictionary_learning wants nnsight before 0.4, and reading a model with nnsight is written for 0.5 and
later). A peer that is missing or too old is left out with a line that says so, and so is a claim whose benchmark fails.
What was measured is kept in benchmarks/speed.json, part by part with its date and machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "benchmarks" / "speed.json"
PAGE = ROOT / "docs" / "speed.md"
BEGIN, END = "<!-- table: written by benchmarks/bench.py -->", "<!-- end of table -->"


@dataclass(frozen=True)
class Environment:
    """A virtual environment of its own.

    Args:
        folder: where it is made, from the repository's root.
        extras: of pyproject.toml, whose packages are installed beside what the library needs.
        constraints: the file that pins them.
        peers: the name by which scripts/peers makes it first, and the variable in which that reads its folder.
    """

    folder: str
    extras: tuple[str, ...]
    constraints: str
    peers: tuple[str, str] | None = None

    @property
    def python(self) -> Path:
        return ROOT / self.folder / "bin" / "python"


ENVIRONMENTS = {
    # scripts/peers installs theirs; asked for again here, nnsight would bring back the torchvision that it takes out.
    "peers": Environment(
        os.environ.get("VENV_PEERS", ".venv-peers"),
        ("fast", "plots"),
        "constraints-peers.txt",
        ("dictionaries", "VENV_PEERS"),
    ),
    # What its packages ask for the library's own requirements refuse: scripts/peers makes all of it.
    "steering": Environment(
        os.environ.get("VENV_PEERS_STEERING", ".venv-peers-steering"),
        (),
        "constraints-peers-steering.txt",
        ("steering", "VENV_PEERS_STEERING"),
    ),
    "reading": Environment(".venv-bench/reading", ("bench-reading", "fast"), "constraints.txt"),
    "recovery": Environment(".venv-bench/recovery", ("bench", "fast"), "constraints.txt"),
}


@dataclass(frozen=True)
class Part:
    """A benchmark in its short form.

    Args:
        script: in this folder.
        arguments: what makes it short.
        environment: where it runs.
        said: where its figures are claimed.
        minutes: after which it is given up.
    """

    script: str
    arguments: tuple[str, ...]
    environment: str
    said: str
    minutes: float = 10


PARTS = {
    "quality": Part("time_to_quality.py", ("--short",), "peers", "README.md"),
    "step": Part("sae_step.py", ("--short",), "peers", "README.md"),
    "serving": Part("store_serving.py", ("--short",), "peers", "README.md"),
    "omp": Part("recovery_omp.py", ("--short",), "recovery", "README.md, docs/how-to-choose.md"),
    "lasso": Part("recovery_lasso.py", ("--short",), "recovery", "docs/how-to-choose.md"),
    "reading": Part("capture_forward.py", ("--short",), "reading", "benchmarks/capture_results.md"),
    "writing": Part("store_writing.py", ("--short",), "peers", "docs/store.md"),
    "many": Part("many.py", ("--short",), "peers", "docs/training.md"),
    "toys": Part("toys_training.py", ("--short",), "peers", "docs/toy-lab.md"),
    "phase": Part("toys_phase.py", ("--rounds", "3"), "peers", "docs/toy-lab.md"),
    "steering": Part("steering_speed.py", ("--short",), "steering", "docs/steering.md"),
}
"""Every claim that is of one process on a CPU and against something else."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="NAME", help="of --list")
    parser.add_argument("--list", action="store_true", help="the names, and nothing else")
    parser.add_argument("--page", action="store_true", help="run nothing; write the page from what has been kept")
    options = parser.parse_args()
    if options.list:
        print(*(f"{name:10s}{part.script} {' '.join(part.arguments)}" for name, part in PARTS.items()), sep="\n")
        return
    if not options.page:
        for name in options.only:
            found = run(name)
            for line in found["left_out"]:
                print(line)
            for claim in found["claims"]:
                print(f"{claim['what']}, {peer(claim)}: {claim['ratio']} ({claim['quality']})")
            print(f"{name}: {found['minutes']:.1f} minutes, {found['when']}\n", flush=True)
            keep(name, found)
    if not KEPT.exists():
        raise SystemExit("Nothing has been measured yet: run scripts/bench without --page.")
    PAGE.write_text(placed(PAGE.read_text(), table(json.loads(KEPT.read_text()))))
    print(f"Written: {PAGE.relative_to(ROOT)}")


def run(name: str) -> dict[str, Any]:
    """What a part claims now, and what it left out; a part that cannot run is itself left out."""
    part = PARTS[name]
    began = time.monotonic()
    claims: list[dict[str, str]] = []
    left_out: list[str] = []
    when = ""
    try:
        python = made(part.environment)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "claims"
            done = subprocess.run(
                [str(python), str(ROOT / "benchmarks" / part.script), *part.arguments],
                cwd=ROOT,
                env={**os.environ, **surroundings(file)},
                capture_output=True,
                text=True,
                timeout=60 * part.minutes,
                check=False,
            )
            left_out = [line for line in done.stdout.splitlines() if line.startswith("Left out:")]
            if done.returncode:
                left_out.append(f"Left out: {name}, since {part.script} failed: {last(done.stderr)}")
            elif file.exists():
                claims = [json.loads(line) for line in file.read_text().splitlines()]
        when = said(python)
    except subprocess.TimeoutExpired:
        left_out.append(f"Left out: {name}, since {part.script} took more than {part.minutes:g} minutes.")
    except (OSError, subprocess.CalledProcessError) as error:
        left_out.append(f"Left out: {name}, since its environment {part.environment!r} could not be made: {why(error)}")
    minutes = (time.monotonic() - began) / 60
    return {"claims": claims, "left_out": left_out, "when": when, "minutes": round(minutes, 2)}


def made(name: str) -> Path:
    """The Python of an environment, which is made where it is missing or older than what it is made of.

    Raises:
        OSError, subprocess.CalledProcessError: if it cannot be made.
    """
    environment = ENVIRONMENTS[name]
    folder, ready = ROOT / environment.folder, ROOT / environment.folder / f"bench-{name}"
    constraints, project = ROOT / environment.constraints, ROOT / "pyproject.toml"
    if ready.exists() and ready.stat().st_mtime > max(constraints.stat().st_mtime, project.stat().st_mtime):
        return environment.python
    print(f"Making {environment.folder}, which takes some minutes ...", flush=True)
    if environment.peers:
        # The environment that our files and directions are compared with those of other packages in.
        asked, variable = environment.peers
        env = {**os.environ, variable: str(folder)}
        subprocess.run([str(ROOT / "scripts" / "peers"), "--only", asked], cwd=ROOT, env=env, check=True)
    elif not environment.python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    if environment.peers and not environment.extras:
        ready.touch()
        return environment.python
    listed = folder / "bench-requirements.txt"
    listed.write_text("\n".join(requirements(tomllib.loads(project.read_text()), environment.extras)) + "\n")
    install = [str(environment.python), "-m", "pip", "install", "--quiet", "--constraint", str(constraints)]
    subprocess.run([*install, "--requirement", str(listed)], check=True)
    # nnsight asks for torchvision, whose usual build fits the CUDA build of torch alone and then breaks transformers.
    if subprocess.run([str(environment.python), "-c", "import torchvision"], capture_output=True).returncode:
        uninstall = [str(environment.python), "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision"]
        subprocess.run(uninstall, capture_output=True)
    ready.touch()
    return environment.python


def requirements(project: Mapping[str, Any], extras: Sequence[str]) -> list[str]:
    """What the library needs and its extras add; an extra that names others of ours brings theirs.

    Example:
        >>> extras = {"fast": ["numba"], "bench": ["skglm", "superscope[fast]"]}
        >>> requirements({"project": {"dependencies": ["torch"], "optional-dependencies": extras}}, ["bench"])
        ['torch', 'skglm', 'numba']
    """
    found = list(project["project"]["dependencies"])
    waiting = list(extras)
    while waiting:
        for one in project["project"]["optional-dependencies"][waiting.pop(0)]:
            if one.startswith("superscope["):
                waiting += one.removeprefix("superscope[").removesuffix("]").split(",")
            else:
                found.append(one)
    return list(dict.fromkeys(found))


def surroundings(claims: Path) -> dict[str, str]:
    """Ours is imported from the repository; one thread; where claims go."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {"PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled", "SUPERSCOPE_CLAIMS": str(claims), **threads}


def said(python: Path) -> str:
    """Date, versions, machine and commit, as the benchmarks print them."""
    code = "from results import commit; from timing import environment; print(environment() + ', commit ' + commit())"
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'benchmarks'}"}
    return subprocess.run([str(python), "-c", code], env=env, capture_output=True, text=True, check=True).stdout.strip()


def last(text: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")


def why(error: Exception) -> str:
    return last(str(error))


def keep(name: str, found: Mapping[str, Any]) -> None:
    """Puts a part in place of what was kept of it, in one step."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    kept[name] = found
    new = KEPT.with_suffix(".new")
    new.write_text(json.dumps({name: kept[name] for name in PARTS if name in kept}, indent=1) + "\n")
    new.replace(KEPT)


def peer(claim: Mapping[str, str]) -> str:
    return f"{claim['peer']} ({claim['version']})" if claim["version"] else claim["peer"]


def table(kept: Mapping[str, Mapping[str, Any]]) -> str:
    """Claim, peer with version, ratio, quality, and where it is said; then what was left out, and on what it ran."""
    rows = ["| | against | ratio | quality, ours and theirs | said in |", "|---|---|--:|---|---|"]
    left_out: list[str] = []
    machines: dict[str, list[str]] = {}
    for name in PARTS:
        if name not in kept:
            left_out.append(f"Left out: {name}, which has not been measured; `scripts/bench --only {name}` does so.")
            continue
        for claim in kept[name]["claims"]:
            cells = (claim["what"], peer(claim), claim["ratio"], claim["quality"], PARTS[name].said)
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        left_out += kept[name]["left_out"]
        if kept[name]["claims"]:
            machines.setdefault(kept[name]["when"], []).append(f"{name} {kept[name]['minutes']:.1f}")
    parts = ["\n".join(rows)]
    if left_out:
        parts.append("\n".join(f"- {line}" for line in dict.fromkeys(left_out)))
    parts.append("\n".join(f"- {when}; minutes: {', '.join(names)}" for when, names in machines.items()))
    return "\n\n".join(parts)


def placed(page: str, text: str) -> str:
    """The page with a table in place of its table.

    Raises:
        ValueError: if the page has no place for one.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"docs/speed.md must have the lines {BEGIN} and {END} once each, around its table.")
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    main()
