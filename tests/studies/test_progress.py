"""What studies say of the way ahead comes true: the stages they announce are those that follow, in that order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from superscope.studies import (
    Frontier,
    PhaseDiagram,
    Recover,
    ToyCorrelation,
    ToyRobustness,
    ToyScaling,
    ToySweep,
    Train,
)
from superscope.studies.study import Progress, Study

WORLD = {"n": 16, "steps": 40, "batch": 64, "held_out": 256}
STUDIES: dict[str, Callable[[Path], Study]] = {
    "toy": lambda _: ToySweep(n=4, d=2, densities=(0.3,), seeds=(0, 1), steps=40, batch=16),
    "phase": lambda _: PhaseDiagram(size=3, restarts=4, steps=80),
    "toy-correlation": lambda _: ToyCorrelation(
        d=2, size=2, ratios=(1, 2), correlations=(0.0, 1.0), seeds=2, steps=20, batch=16
    ),
    "toy-scaling": lambda _: ToyScaling(n=16, widths=(2, 3, 4), seeds=1, steps=20, batch=16),
    "toy-robustness": lambda _: ToyRobustness(n=6, d=2, densities=(1.0, 0.5, 0.1), steps=40, batch=16),
    "train": lambda folder: Train(str(folder / "rows.safetensors"), k=2, **WORLD),
    "frontier": lambda folder: Frontier(str(folder / "rows.safetensors"), ks=(1, 2, 3), seeds=2, **WORLD),
    "recover": lambda folder: Recover(str(folder / "rows.safetensors"), solver="OMP", ks=(1, 2), trials=4),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = torch.randn(2048, 8, generator=torch.Generator().manual_seed(0))
    save_file({"x": rows}, tmp_path / "rows.safetensors")
    return tmp_path


def drained(study: Study, out: Path, *, stop: int | None = None) -> list[Progress]:
    """All Progress, or so much that `stop` further ones come after something was done."""
    stages, steps = study.stages(out), []
    for step in stages:
        steps.append(step)
        if stop is not None and sum(s.done > 0 and s.total > 1 for s in steps) == stop:
            stages.close()
            break
    return steps


@pytest.mark.parametrize("name", STUDIES)
def test_stages_come_as_they_were_announced(name: str, folder: Path) -> None:
    steps = drained(STUDIES[name](folder), folder / "run")
    first = next(i for i, step in enumerate(steps) if step.ahead is not None)
    ahead = steps[first].ahead
    assert ahead is not None
    names = list(dict.fromkeys(step.stage for step in steps[first:]))
    assert names == list(ahead)
    assert all(work > 0 for work in ahead.values())
    assert all(step.ahead in (None, ahead) for step in steps)
    assert not any(step.resumed for step in steps)
    for stage in names:
        own = [step for step in steps if step.stage == stage]
        # Where a stage begins is said before anything of it is done, and it ends whole.
        assert own[0].done == 0
        assert [step.done for step in own] == sorted(step.done for step in own)
        if own[0].total > 1:
            assert own[-1].done == own[-1].total


@pytest.mark.parametrize("name", ["toy", "phase", "toy-correlation", "toy-scaling", "toy-robustness"])
def test_what_was_there_already_is_told_apart_from_what_was_worked_for(name: str, folder: Path) -> None:
    study = STUDIES[name](folder)
    whole = drained(study, folder / "whole")
    stop = {"toy": 18, "phase": 10}.get(name, 6)
    cut = drained(study, folder / "run", stop=stop)
    resumed = drained(study, folder / "run")
    begins = [step for step in resumed if step.resumed]
    assert len(begins) >= 1
    assert begins[0].done > 0
    assert begins[0].ahead == next(step.ahead for step in whole if step.ahead is not None)
    # It begins where the state was kept, not beyond what had been seen.
    seen = [step.done for step in cut if step.stage == begins[0].stage]
    assert begins[0].done <= max(seen)
