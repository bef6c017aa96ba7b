"""Units are done once, whatever runs them, and again when their worker is lost."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from superscope.core.units import Executor, Inline, Processes, Ray, Slurm, executor, run_units


def square(folder: Path, number: int) -> None:
    temporary = folder / f".{number}.{os.getpid()}"
    temporary.write_text(str(number * number))
    temporary.replace(folder / str(number))


def dies_once(folder: Path, number: int) -> None:
    """Kills its own process the first time it is given 3; other units wait so that some are lost with it."""
    mark = folder / "died"
    if number == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    square(folder, number)


def dies_always(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuses_two(folder: Path, number: int) -> None:
    if number == 2:
        raise ValueError("two is refused")
    square(folder, number)


def nothing(number: int) -> None:
    pass


def stands(folder: Path) -> Callable[[int], bool]:
    return lambda number: (folder / str(number)).exists()


def slurm_here(folder: Path) -> Slurm:
    pytest.importorskip("submitit")
    return Slurm(folder / "slurm", {"timeout_min": 2}, cluster="local")


EXECUTORS: dict[str, Callable[[Path], Executor]] = {
    "inline": lambda folder: Inline(),
    "processes": lambda folder: Processes(2),
    "slurm": slurm_here,
    "ray": lambda folder: Ray(),
}
# Ray weighs 600 MB and is in no set-up of ours: `pip install .[ray] && pytest -m ray`.
WITH_RAY = pytest.param("ray", marks=pytest.mark.ray)


@pytest.mark.parametrize("name", ["inline", "processes", "slurm", WITH_RAY])
def test_results_are_the_same_whatever_the_executor(name: str, tmp_path: Path) -> None:
    counts = list(
        run_units(
            functools.partial(square, tmp_path),
            list(range(5)),
            is_done=stands(tmp_path),
            executor=EXECUTORS[name](tmp_path),
        )
    )
    assert counts == [0, 1, 2, 3, 4, 5]
    assert [int((tmp_path / str(number)).read_text()) for number in range(5)] == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("name", ["processes", pytest.param("slurm", marks=pytest.mark.slow), WITH_RAY])
def test_a_lost_workers_units_are_done_again(name: str, tmp_path: Path) -> None:
    work = functools.partial(dies_once, tmp_path)
    counts = list(run_units(work, list(range(6)), is_done=stands(tmp_path), executor=EXECUTORS[name](tmp_path)))
    assert (tmp_path / "died").exists()
    assert counts[-1] == 6
    assert counts == sorted(counts)
    assert [int((tmp_path / str(number)).read_text()) for number in range(6)] == [0, 1, 4, 9, 16, 25]


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    (tmp_path / "1").write_text("kept")
    assert list(run_units(functools.partial(square, tmp_path), [0, 1, 2], is_done=stands(tmp_path))) == [1, 2, 3]
    assert (tmp_path / "1").read_text() == "kept"


@pytest.mark.parametrize("where", [Inline(), Processes(2)])
def test_a_units_own_error_comes_back_with_its_name(where: Executor, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two is refused") as caught:
        list(run_units(functools.partial(refuses_two, tmp_path), [0, 1, 2], is_done=stands(tmp_path), executor=where))
    assert any("unit 2" in note for note in caught.value.__notes__)


def test_giving_up_when_every_worker_is_lost() -> None:
    with pytest.raises(RuntimeError, match="lost 2 times in a row with nothing done; 1 units are left"):
        list(run_units(dies_always, [7], is_done=lambda unit: False, executor=Processes(1), attempts=2))


def test_a_unit_without_a_result_is_not_believed() -> None:
    with pytest.raises(RuntimeError, match="without an error and without a result"):
        list(run_units(nothing, [1], is_done=lambda unit: False))


def test_bad_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="attempts must be at least 1; got 0"):
        list(run_units(nothing, [1], is_done=lambda unit: False, attempts=0))
    with pytest.raises(ValueError, match="workers must be at least 1, or 0 for one per core; got -1"):
        Processes(-1)
    with pytest.raises(ValueError, match="there is no executor 'cluster'; choose inline"):
        executor("cluster")
    with pytest.raises(ValueError, match="slurm needs a folder"):
        executor("slurm")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for make, extra in ((lambda: Slurm(tmp_path), "slurm"), (Ray, "ray")):
        with pytest.raises(ModuleNotFoundError, match=f"superscope\\[{extra}\\]"):
            make()


def test_a_name_gives_an_executor(tmp_path: Path) -> None:
    assert executor("inline") == Inline()
    assert executor("processes", workers=3) == Processes(3)
    pytest.importorskip("submitit")
    assert executor("slurm", folder=tmp_path) == Slurm(tmp_path, {"timeout_min": 1440})
