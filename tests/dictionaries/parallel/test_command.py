"""`superscope train` as several processes that torchrun started: one folder, one voice, the run of one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from superscope.cli import main
from superscope.core import FormatError, Report, files
from superscope.dictionaries import load
from superscope.studies.learning.train import Train

from .conftest import ROOT, Processes, wait_for

# In float32: "auto" is bfloat16 on CPUs with AMX, whose product of half the latents rounds and so chooses otherwise.
OPTIONS = ("world:exactly_k", "--n", "65", "--k", "4", "--batch", "64", "--held-out", "200", "--checkpoint-every", "5")
OPTIONS += ("--precision", "full")
SHORT = (*OPTIONS, "--steps", "24")


def same(one: Path, other: Path) -> None:
    """Weights, losses and measurements to 1e-5."""
    wanted, found = (load(folder / "sae").state_dict() for folder in (one, other))
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")
    first, second = Report.load(one), Report.load(other)
    assert second.tables["training"]["step"] == first.tables["training"]["step"]
    assert second.tables["training"]["loss"] == pytest.approx(first.tables["training"]["loss"], rel=1e-5)
    for a, b in zip(first.measurements, second.measurements, strict=True):
        assert (a.name, a.at, a.n) == (b.name, b.at, b.n)
        assert b.value == pytest.approx(a.value, rel=1e-5, abs=1e-5), a.name


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    assert main(["train", *SHORT, "--out", str(out)]) == 0
    return out


def test_torchrun_and_saved_settings_make_the_run_of_one_process(alone: Path, tmp_path: Path) -> None:
    """Started as a user starts it; the settings are those of a run's folder."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "superscope.cli", "train", str(alone), "--out", str(tmp_path / "run")],
        env=os.environ | {"PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Report:") == 1, "each process told the result"
    same(alone, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "about.json").read_text())["state"] == "finished"
    left = {file.name for file in (tmp_path / "run").iterdir()} - {"figures"}
    assert left == {"about.json", "report.json", "report.html", "training.parquet", "sae"}


def test_groups_of_processes_make_it_too(alone: Path, tmp_path: Path, processes: Processes) -> None:
    arguments = ("train", *SHORT, "--groups", "2", "--out", str(tmp_path / "run"))
    processes.run(2, tmp_path / "said", *arguments, program="superscope")
    same(alone, tmp_path / "run")


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2), (2, 3)])
def test_a_run_goes_on_with_another_number_of_processes(
    first: int, then: int, alone: Path, tmp_path: Path, processes: Processes
) -> None:
    """Ended as torchrun and Slurm end a job, after its second checkpoint."""
    arguments = ("train", *SHORT, "--out", str(tmp_path / "run"))
    children = processes.begin(first, tmp_path / "said", *arguments, "--steps", "24", program="superscope")
    marks = {1: "checkpoint.safetensors", 2: "checkpoint/checkpoint.json"}
    wait_for((tmp_path / "run" / marks[first]).exists)
    os.kill(children[0], signal.SIGTERM if first > 1 else signal.SIGKILL)
    outcome = processes.end()
    if first > 1:
        assert outcome.codes == [2, 2]
        said = outcome.errors[0].replace("\n", " ")
        assert "superscope train (process 0 of 2)" in said
        assert "What was finished is kept in" in said
        assert outcome.said == ["", ""]
    processes.run(then, tmp_path / "said", *arguments, program="superscope")
    same(alone, tmp_path / "run")


def test_a_killed_process_is_named_and_the_command_goes_on(tmp_path: Path, processes: Processes) -> None:
    arguments = ("train", *OPTIONS, "--steps", "400", "--out", str(tmp_path / "run"))
    children = processes.begin(2, tmp_path / "said", *arguments, program="superscope")
    wait_for((tmp_path / "run" / "checkpoint" / "checkpoint.json").exists)
    os.kill(children[1], signal.SIGKILL)
    outcome = processes.end()
    assert outcome.codes == [2, -signal.SIGKILL]
    assert "another process of the mesh was lost or is too slow" in outcome.errors[0]
    assert "they go on from the last checkpoint" in outcome.errors[0].replace("\n", " ")
    stages = Train(str(tmp_path / "run")).stages(tmp_path / "run")
    begun = next(progress for progress in stages if progress.stage == "Learning")
    stages.close()
    assert begun.detail == "taken up from the last checkpoint"
    assert begun.done >= 5


def test_bad_settings_are_told_once(tmp_path: Path, processes: Processes) -> None:
    outcome = processes.run(2, tmp_path / "a", "train", "x", "--groups", "0", program="superscope", check=False)
    assert outcome.codes == [2, 2]
    assert "groups must be at least 1; got 0" in outcome.errors[0].replace("\n", " ")
    outcome = processes.run(2, tmp_path / "b", "scan", program="superscope", check=False)
    assert outcome.codes == [2, 2]
    assert outcome.errors == ["superscope scan: this command runs in one process; start it without torchrun.\n", ""]
    outcome = processes.run(2, tmp_path / "c", "train", *SHORT, "--groups", "3", program="superscope", check=False)
    assert "groups must divide the 2 processes; got 3" in outcome.errors[0]
    relu = ("train", "world:exactly_k", "--architecture", "matchingpursuit", "--out", str(tmp_path / "run"))
    outcome = processes.run(2, tmp_path / "d", *relu, program="superscope", check=False)
    assert "MatchingPursuit cannot be shared among devices" in outcome.errors[0]
    assert not (tmp_path / "run").exists()


def test_saved_settings_can_be_changed_and_others_are_refused(alone: Path, tmp_path: Path) -> None:
    changed = Train(str(alone), seed=1, steps=30).meant()
    assert changed is not None
    assert (changed.seed, changed.steps, changed.n, changed.source) == (1, 30, 65, "world:exactly_k")
    about = json.loads((alone / "about.json").read_text())
    files.write_json(tmp_path / "about.json", files.seal(about | {"kind": "scan"}))
    with pytest.raises(FormatError, match="is a run of `superscope scan`, which has no rows to learn from"):
        Train(str(tmp_path)).run()
    files.write_json(tmp_path / "about.json", files.seal(about | {"settings": about["settings"] | {"stps": 1}}))
    with pytest.raises(FormatError, match="unknown key 'stps'. Did you mean"):
        Train(str(tmp_path)).run()
