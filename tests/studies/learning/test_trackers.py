"""What trackers are told: tensorboard reads its own files; of the hosted ones the calls are recorded."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from superscope.studies.learning.train import Train

SMALL = {"n": 32, "k": 2, "steps": 45, "batch": 64, "held_out": 100, "checkpoint_every": 25}
SHOWN = [1, 20, 40, 45]
NAMES = {"loss", "fraction_variance_unexplained", "l0", "dead", "rows_per_second"}


@pytest.fixture
def rows(tmp_path: Path) -> str:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(400, 8)).astype("float32"))
    return str(tmp_path / "x.npy")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_the_curve_of_the_report(rows: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    report = Train(rows, tracker="tensorboard", **SMALL).run(tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == NAMES
    curve = report.tables["training"]
    for name in ("loss", "l0", "fraction_variance_unexplained"):
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == SHOWN == curve["step"]
        assert [scalar.value for scalar in scalars] == pytest.approx(curve[name], rel=1e-6)


class Recorder(types.ModuleType):
    """A package with the three functions that are called of wandb and trackio."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, dict]] = []

    def init(self, **settings) -> None:
        self.calls.append(("init", settings))

    def log(self, numbers: dict, step: int) -> None:
        self.calls.append(("log", {"numbers": numbers, "step": step}))

    def finish(self) -> None:
        self.calls.append(("finish", {}))


@pytest.mark.parametrize("package", ["wandb", "trackio"])
def test_hosted_trackers_are_begun_told_and_closed(rows: str, tmp_path: Path, monkeypatch, package: str) -> None:
    recorder = Recorder(package)
    monkeypatch.setitem(sys.modules, package, recorder)
    study = Train(rows, tracker=package, **SMALL)
    study.run(tmp_path / "run")
    (begin, *logs, end) = recorder.calls
    assert (begin[0], end[0]) == ("init", "finish")
    about = begin[1]
    assert (about["project"], about["resume"]) == ("superscope", "allow")
    assert about["name"].startswith("run-")
    assert ("id" in about) == (package == "wandb")
    assert about["config"]["steps"] == 45
    assert [call[1]["step"] for call in logs] == SHOWN
    assert all(set(call[1]["numbers"]) == NAMES for call in logs)


def test_a_run_that_goes_on_is_the_same_run_of_the_tracker(rows: str, tmp_path: Path, monkeypatch) -> None:
    recorder = Recorder("wandb")
    monkeypatch.setitem(sys.modules, "wandb", recorder)
    study = Train(rows, tracker="wandb", **SMALL)
    stages = study.stages(tmp_path / "run")
    for progress in stages:
        if progress.stage == "Learning" and progress.done == 20:
            break
    stages.close()
    assert recorder.calls[-1][0] == "finish", "a run that is cut short is closed too"
    study.run(tmp_path / "run")
    first, second = (call[1] for call in recorder.calls if call[0] == "init")
    assert first["id"] == second["id"]
    assert first["id"] in first["name"] == second["name"]
    assert [call[1]["step"] for call in recorder.calls if call[0] == "log"] == SHOWN


@pytest.mark.parametrize("package", ["trackio", "wandb"])
def test_a_missing_tracker_is_named(rows: str, monkeypatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=f"pip install {package}"):
        Train(rows, tracker=package, **SMALL).run()


def test_without_one_nothing_is_written(rows: str, tmp_path: Path) -> None:
    Train(rows, **SMALL).run(tmp_path / "run")
    assert not (tmp_path / "run" / "tensorboard").exists()
