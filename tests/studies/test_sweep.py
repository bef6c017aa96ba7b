"""Any study over a grid: the same results whatever runs it, lost workers' points done again; harvests likewise."""

from __future__ import annotations

import gc
import importlib.util
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from superscope import capture
from superscope.capture import Policy, Store, Windows
from superscope.core import FormatError, Report, files
from superscope.core.units import Executor, Processes, Ray, Slurm
from superscope.studies import STUDIES, Harvest
from superscope.studies.sweep import Sweep, settings

GIVEN = ("d=2", "steps=40", "batch=32", "seeds=0", "record=4")
TOY: dict[str, Any] = {"study": "toy", "vary": ("n=4,6", "densities=1.0 0.1,0.3"), "given": GIVEN}
FOLDERS = ["n=4,densities=1.0_0.1", "n=4,densities=0.3", "n=6,densities=1.0_0.1", "n=6,densities=0.3"]
EXECUTORS = [
    pytest.param({"executor": "slurm", "slurm": ("cluster=debug",)}, id="slurm-debug"),
    pytest.param(
        {"executor": "slurm", "slurm": ("cluster=local", "timeout_min=5")}, id="slurm-local", marks=pytest.mark.slow
    ),
    pytest.param({"executor": "ray"}, id="ray", marks=pytest.mark.ray),
]


# The debug executor of submitit runs a job in this process and never closes its log files; the test collects them.
debugging = pytest.mark.filterwarnings("ignore::ResourceWarning")


def has_slurm(options: dict[str, Any]) -> None:
    if options["executor"] == "slurm":
        pytest.importorskip("submitit")


def results(out: Path) -> dict[str, Any]:
    """What every point found: measurements, tables and every number in its files."""
    found: dict[str, Any] = {}
    for folder in FOLDERS:
        report = Report.load(out / "points" / folder)
        arrays = {
            path.name: {name: tensor.tolist() for name, tensor in files.read_tensors(path).items()}
            for path in sorted((out / "points" / folder).glob("*.safetensors"))
        }
        found[folder] = (report.measurements, {name: dict(table) for name, table in report.tables.items()}, arrays)
    return found


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("inline") / "run"
    Sweep(**TOY, executor="inline").run(out)
    return out


def test_every_point_is_the_study_run_by_itself(inline: Path, tmp_path: Path) -> None:
    report = Report.load(inline)
    assert report.tables["points"]["point"] == FOLDERS
    assert report.tables["points"]["n"] == ["4", "4", "6", "6"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    study = settings("toy", ("--n", "6", "--densities", "1.0", "0.1", *(w for g in GIVEN for w in _words(g))))
    by_itself = study.run(tmp_path / "run")
    torch.set_num_threads(threads)
    assert Report.load(inline / "points" / FOLDERS[2]).measurements == by_itself.measurements
    assert len(report.measurements) == sum(len(m) for m, _, _ in results(inline).values())
    assert {measurement.at["n"] for measurement in report} == {4, 6}


def _words(given: str) -> tuple[str, str]:
    name, value = given.split("=")
    return f"--{name}", value


@debugging
@pytest.mark.parametrize("options", EXECUTORS)
def test_results_are_the_same_whatever_runs_it(options: dict[str, Any], inline: Path, tmp_path: Path) -> None:
    has_slurm(options)
    Sweep(**TOY, **options).run(tmp_path / "run")
    gc.collect()
    assert results(tmp_path / "run") == results(inline)
    assert Report.load(tmp_path / "run").measurements == Report.load(inline).measurements


def test_points_of_killed_workers_are_done_again(inline: Path, tmp_path: Path) -> None:
    """Worker processes; all that live when the first point is done are killed with signal 9."""
    killed = 0
    for progress in Sweep(**TOY, executor="processes", workers=1).stages(tmp_path / "run"):
        if progress.stage.startswith("toy") and progress.done >= 1 and not killed:
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)
                killed += 1
    assert killed
    assert results(tmp_path / "run") == results(inline)


def test_what_is_finished_is_not_done_again(inline: Path, tmp_path: Path) -> None:
    shutil.copytree(inline, tmp_path / "run")
    about = json.loads((tmp_path / "run" / "about.json").read_text())
    files.write_json(tmp_path / "run" / "about.json", files.seal(about | {"state": "running"}))
    shutil.rmtree(tmp_path / "run" / "points" / FOLDERS[1])
    marks = {f: (tmp_path / "run" / "points" / f / "about.json").stat().st_mtime_ns for f in FOLDERS if f != FOLDERS[1]}
    Sweep(**TOY, executor="inline").run(tmp_path / "run")
    assert results(tmp_path / "run") == results(inline)
    assert all((tmp_path / "run" / "points" / f / "about.json").stat().st_mtime_ns == at for f, at in marks.items())
    report = tmp_path / "run" / "points" / FOLDERS[0] / "report.json"
    report.write_text(report.read_text().replace("Training", "training") + " ")
    files.write_json(tmp_path / "run" / "about.json", files.seal(about | {"state": "running"}))
    with pytest.raises(FormatError, match="missing or has changed since the run wrote it"):
        Sweep(**TOY, executor="inline").run(tmp_path / "run")


VARIED = {
    "bounds": "d=8,16",
    "calibrate": "seed=0,1",
    "concept": "seed=0,1",
    "compare": "threshold=0.6,0.8",
    "convert": None,
    "neuronpedia": None,
    "interpret": None,
    "count": "seed=0,1",
    "frontier": "seed=0,1",
    "judge": "seed=0,1",
    "harvest": "sites=resid_post.0,resid_post.1 mlp_out.0",
    "phase": "steps=100,200",
    "plan": "latents=16,32",
    "recover": "seed=0,1",
    "reproduce": None,
    "scan": "seed=0,1",
    "sites": "model=pocket,gpt2",
    "theory": "seed=0,1",
    "toy": "n=4,6",
    "layers": "seed=0,1",
    "survey": "seed=0,1",
    "domains": "seed=0,1",
    "dynamics": "site=resid_post.1,resid_post.2",
    "scale": "seed=0,1",
    "populations": "seed=0,1",
    "maximise": "seed=0,1",
    "transfer": "seed=0,1",
    "manifolds": "seed=0,1",
    "evaluate": "seed=0,1",
    "steer": "seed=0,1",
    "bench": "seed=0,1",
    "ablate": "seed=0,1",
    "spare": "seed=0,1",
    "sycophancy": "seed=0,1",
    "compress": "seed=0,1",
    "perturb": "seed=0,1",
    "collateral": "seed=0,1",
    "toy-correlation": "steps=100,200",
    "toy-robustness": "steps=100,200",
    "toy-scaling": "alpha=0.5,1.0",
    "train": "k=4,8",
}
"""An option of every study to vary; None where a grid has no sense."""


@pytest.mark.parametrize("command", [entry.command for entry in STUDIES if entry.command != "sweep"])
def test_every_sweep_is_reachable(command: str) -> None:
    """Toy grids, frontiers, worlds, scans of layers: each point's settings are those its own command would take."""
    vary = VARIED[command]
    if vary is None:
        return
    study = next(entry for entry in STUDIES if entry.command == command).load()
    given = {
        "bounds": ("n=32",),
        "recover": ("dictionary=x",),
        "train": ("source=x",),
        "count": ("source=x",),
        "judge": ("dictionary=x",),
        "compare": ("sources=x y",),
        "frontier": ("source=x",),
        "plan": ("d=8", "tokens=1e6", "k=4"),
        "theory": ("dictionary=x",),
        "manifolds": ("source=x",),
        "evaluate": ("dictionary=x",),
    }
    points = Sweep(command, vary=(vary,), given=given.get(command, ())).points()
    first, second = (settings(command, point.arguments) for point in points)
    assert type(first) is type(second) is study
    assert first != second


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"study": "toys"}, "no study 'toys' to sweep. Did you mean toy, "),
        ({"study": "sweep"}, "no study 'sweep' to sweep"),
        ({"vary": ()}, "nothing varies: give --vary"),
        ({"vary": ("n",)}, "--vary wants NAME=VALUE; got 'n'"),
        ({"vary": ("n=1,1",)}, "share the folder 'n=1'; list each value once"),
        ({"vary": ("n=1,2", "n=3")}, "n is given twice"),
        ({"vary": ("m=1,2",)}, "toy has no option 'm'"),
        ({"vary": ("n=1,x",)}, "cannot be run. .*invalid"),
        ({"vary": ("n=0,1",)}, "n must be at least 1; got 0"),
        ({"threads": 0}, "threads must be at least 1; got 0"),
    ],
)
def test_bad_settings(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Sweep(**({"study": "toy", "vary": ("n=4,6",)} | options))


def test_a_sweep_wants_a_folder() -> None:
    with pytest.raises(ValueError, match="give a run folder with --out"):
        Sweep(**TOY).run()


def test_a_points_own_refusal_comes_back(tmp_path: Path) -> None:
    sweep = Sweep("train", vary=("seed=0,1",), given=("source=world:mars",), executor="inline")
    with pytest.raises(ValueError, match="no world 'mars'") as caught:
        sweep.run(tmp_path / "run")
    assert any("seed=0" in note for note in caught.value.__notes__)


def units(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((store / "units").glob("*.safetensors"))}


@debugging
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda folder: Slurm(folder, {"timeout_min": 5}, "debug"), id="slurm-debug"),
        pytest.param(
            lambda folder: Slurm(folder, {"timeout_min": 5}, "local"), id="slurm-local", marks=pytest.mark.slow
        ),
        pytest.param(lambda folder: Processes(1), id="processes", marks=pytest.mark.slow),
        pytest.param(lambda folder: Ray(), id="ray", marks=pytest.mark.ray),
    ],
)
def test_a_harvest_is_the_same_whatever_makes_its_units(
    make: Callable[[Path], Executor], model_folder: Callable[[str], Path], text_folder: Path, tmp_path: Path
) -> None:
    """To the byte; where workers are processes of this one, they are killed once on the way."""
    model = model_folder("GPT-2")
    study = Harvest(
        str(model), text=str(text_folder), tokens=1500, compute="float32", per_unit=12, policy=Policy(context=32)
    )
    study.run(tmp_path / "inline")
    if importlib.util.find_spec("submitit") is None and "slurm" in str(make):
        pytest.skip("needs submitit")
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "inline" / "store", other)
    shutil.rmtree(other / "units")
    executor = make(tmp_path / "jobs")
    store = Store(capture.place(other))
    killed = False
    for done in capture.fill(store, capture.load(str(model)), Windows(store.place), executor=executor):
        if isinstance(executor, Processes) and done == 1 and not killed:
            killed = True
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)
    gc.collect()
    assert len(units(other)) >= 4
    assert units(other) == units(tmp_path / "inline" / "store")


def test_settings_of_an_architecture_vary_like_any_other(tmp_path: Path) -> None:
    given = ("source=world:exactly_k", "architecture=relu", "steps=2", "batch=16", "held_out=64", "n=16")
    study = Sweep("train", vary=("set=coefficient=1 norm=weighted,coefficient=2",), given=given, executor="inline")
    points = [settings("train", point.arguments) for point in study.points()]
    assert [point.set for point in points] == [("coefficient=1", "norm=weighted"), ("coefficient=2",)]  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="relu has no setting 'widths'"):
        Sweep("train", vary=("set=widths=2:4,widths=4:8",), given=given)
