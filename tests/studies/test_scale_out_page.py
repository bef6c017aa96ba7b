"""docs/scale-out.md: what it tells a reader to type on one machine is typed, and its scripts are run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from superscope.core import Report
from superscope.dictionaries import ARCHITECTURES, load

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scale-out.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, flags=re.DOTALL)


def commands() -> list[str]:
    """Those for this machine: no cluster, no second machine, no download."""
    lines = [line for kind, block in BLOCKS if not kind for line in block.replace("\\\n", " ").splitlines()]
    elsewhere = ("/shared", "--nnodes", "--executor ray", "gpt2", "train_together.py")
    return [line for line in lines if line and not any(word in line for word in elsewhere)]


def test_the_page_names_what_shards() -> None:
    assert ", ".join(sorted(kind.__name__ for kind in ARCHITECTURES if kind.shards)) in PAGE
    assert len(commands()) >= 7


@pytest.mark.slow
def test_commands_and_scripts_of_the_page_run(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def run(line: str) -> None:
        words = shlex.split(line)
        if words[0] == "superscope":
            words = [sys.executable, "-m", "superscope.cli", *words[1:]]
        else:
            assert words[0] == "python"
            words[0] = sys.executable
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{line}\n{done.stderr[-2000:]}"

    for line in commands():
        run(line)
    for kind, block in BLOCKS:
        if kind == "python":
            (tmp_path / block.splitlines()[0].removeprefix("# ")).write_text(block, encoding="utf-8")
    run("python -m torch.distributed.run --standalone --nproc-per-node 2 train_together.py")
    assert load(tmp_path / "sae").n == 4096
    run("python squares.py")
    assert [(tmp_path / "squares" / str(n)).read_text() for n in range(4)] == ["0", "1", "4", "9"]
    curves = {name: Report.load(tmp_path / "runs" / name).tables["training"] for name in ("one", "two", "again")}
    assert curves["two"]["loss"] == curves["again"]["loss"]
    one, two = (curves[name]["fraction_variance_unexplained"] for name in ("one", "two"))
    # Rounding in another order makes a near tie fall the other way sooner or later; until then all is equal.
    assert curves["one"]["step"][:2] == [1, 20]
    assert two[:2] == pytest.approx(one[:2], rel=1e-5)
    assert two == pytest.approx(one, rel=1e-2)
    again, same = (load(tmp_path / "runs" / name / "sae").state_dict() for name in ("two", "again"))
    for name, tensor in again.items():
        assert torch.equal(same[name], tensor), name
