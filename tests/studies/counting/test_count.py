"""The count of features: worlds whose truth is known, rows that hold nothing, and rows that cannot be counted in."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import superscope as ss
from superscope.core import Report, Run, ShapeError, result_of
from superscope.measure.counts import SharedParts
from superscope.studies import CountFeatures
from superscope.studies.counting import combined as combining
from superscope.studies.counting.combined import combined
from superscope.studies.counting.count import counted, ordinary
from superscope.studies.counting.search import Given, search
from superscope.worlds import FAMILIES

ROWS = 24_000


def rows(name: str, count: int = ROWS, seed: int = 3, **settings: float) -> Tensor:
    return next(FAMILIES[name](**settings).batches(count, seed=seed)).x


@pytest.fixture(scope="module")
def uniform() -> Tensor:
    return rows("uniform", n=48, d=24, l0=1.5)


@pytest.fixture(scope="module")
def report(uniform: Tensor) -> Report:
    # k is found by the procedure in the short calibration.
    return ss.count(uniform, k=2, budget=30)


def test_the_plain_world_is_counted_right_and_more_than_its_dimensions(report: Report) -> None:
    (count,) = report["feature_count"]
    assert count.low is not None
    assert count.high is not None
    assert 24 < count.low <= 48 <= count.high < 60
    assert abs(math.log((count.value or 0) / 48)) < 0.05
    assert count.chance is not None
    assert count.chance <= 1
    (certified,) = report["directions_certified"]
    assert 44 <= (certified.value or 0) <= 49
    assert report.findings[0].startswith(f"{count.value:.0f} features in 24 dimensions")


def test_every_look_is_in_the_table(report: Report) -> None:
    looks = report.tables["looks"]
    assert len(set(zip(looks["n"], looks["k"], looks["steps"], strict=True))) == len(looks["n"])
    assert any(looks["plausible"])
    assert len(report.tables["features"]["density"]) >= 48


def test_the_count_is_of_the_rows_and_not_of_their_coordinates(uniform: Tensor, report: Report) -> None:
    """Any invertible map of x leaves as many features: here one of condition 30."""
    random = torch.Generator().manual_seed(7)
    turn = torch.linalg.qr(torch.randn(24, 24, generator=random)).Q
    stretched = uniform @ (turn * torch.logspace(0, 1.5, 24)) @ turn.T
    (count,) = ss.count(stretched + 5, n=96, k=2, steps=120)["feature_count"]
    (before,) = report["feature_count"]
    assert before.low is not None
    assert before.high is not None
    assert before.low <= (count.value or 0) <= before.high


def test_a_few_enormous_rows_change_nothing(uniform: Tensor, report: Report) -> None:
    with_sinks = uniform.clone()
    full = torch.nonzero(uniform.norm(dim=1) > 0.5).flatten()[::1000]
    with_sinks[full] *= 70
    _, left_out = ordinary(with_sinks)
    assert left_out == len(full)
    (count,) = ss.count(with_sinks, n=96, k=2, steps=120)["feature_count"]
    (before,) = report["feature_count"]
    assert before.low is not None
    assert before.high is not None
    assert before.low <= (count.value or 0) <= before.high


@pytest.mark.parametrize("name", ["gaussian", "coloured", "elliptical"])
def test_nothing_is_counted_where_there_is_nothing(name: str) -> None:
    answer, found, findings = result_of(
        counted(rows(name, 9000, d=24), Run.begin("count", {}, None), Given(n=96, steps=30, budget=600))
    )
    assert answer.abstains
    assert found.best.count.counted <= 1
    count = findings["feature_count"]
    assert count.value is None
    assert count.caution == answer.caution
    assert "recur" in count.caution


def test_too_many_active_at_once_is_no_count() -> None:
    """kappa_cs 2.2: nobody can read sparse features back."""
    x = rows("uniform", 9000, n=96, d=16, l0=8)
    answer, _, _ = result_of(counted(x, Run.begin("count", {}, None), Given(n=128, steps=40, budget=20)))
    assert answer.abstains or (answer.at_least and answer.low <= 96)


def test_a_budget_that_ends_too_soon_says_at_least(uniform: Tensor) -> None:
    answer, found, _ = result_of(counted(uniform, Run.begin("count", {}, None), Given(n=24, budget=1e-3)))
    assert len(found.looks) <= 2
    assert answer.abstains or (answer.at_least and answer.low <= 48)


def test_an_interrupted_count_goes_on(uniform: Tensor, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", uniform[:9000].numpy())
    study = CountFeatures(str(tmp_path / "rows.npy"), n=96, k=2, steps=30, budget=10.0)
    stages = study.stages(tmp_path / "run")
    for step in stages:
        if step.detail.endswith("agreed on"):
            break
    stages.close()
    resumed = [step for step in study.stages(tmp_path / "run") if step.resumed]
    assert resumed
    again = Report.load(tmp_path / "run")
    (count,), (fresh,) = again["feature_count"], study.run()["feature_count"]
    assert (count.value, count.low, count.high) == (fresh.value, fresh.low, fresh.high)


def test_planted_directions_are_found_and_a_twin_world_is_counted_right(uniform: Tensor) -> None:
    run = Run.begin("count", {}, None)
    _, _, findings = result_of(counted(uniform[:12_000], run, Given(n=96, k=2, steps=120, budget=600), checks=True))
    plants, twins = findings["plant_completeness"], findings["count_by_twins"]
    assert (plants.n, plants.value) == (5, 1.0)
    assert plants.low == pytest.approx(0.05 ** (1 / 5), abs=1e-6)
    assert abs(findings["twin_bias"].value or 1.0) < 0.05
    assert twins.low is not None
    assert twins.high is not None
    assert twins.low <= 48 <= twins.high


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (torch.randn(500, 8), ValueError, "500 rows are too few"),
        (torch.randn(5000, 1), ShapeError, "2 numbers or more"),
        (torch.randn(5000), ShapeError, "matrix"),
        (torch.ones(5000, 8), ValueError, "only 1 of the first"),
        (torch.randn(100, 8).repeat(60, 1), ValueError, "only 100 of the first"),
        (torch.full((5000, 8), math.nan), ValueError, "NaN"),
    ],
)
def test_rows_that_cannot_be_counted_in_are_refused_in_a_sentence(
    x: Tensor, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        ss.count(x)


def test_what_is_given_is_kept(uniform: Tensor) -> None:
    given = Given(n=96, k=2, steps=50, budget=600)
    found = result_of(search(uniform[:9000], uniform[9000:12_000], Run.begin("count", {}, None), given))
    assert len(found.looks) == 1
    assert (found.best.setting.n, found.best.setting.k, found.best.setting.steps) == (96, 2, 50)
    assert all(found.flat.values())
    assert not combined(found, 24).at_least


def test_features_that_may_hide_in_shared_parts_raise_the_upper_end_where_there_is_one(
    uniform: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Given(n=96, k=2, steps=50, budget=600)
    found = result_of(search(uniform[:9000], uniform[9000:12_000], Run.begin("count", {}, None), given))
    plain = combined(found, 24)
    counted_there = found.best.count.counted
    monkeypatch.setattr(combining, "shared_parts", lambda directions: SharedParts(len(directions), 8, 0.5))
    hidden = counted_there - 8
    wider = combined(found, 24)
    assert (wider.value, wider.low) == (plain.value, plain.low)
    assert wider.high == pytest.approx(plain.high * (1 + hidden / counted_there))
    assert f"may be up to {hidden} features" in wider.reasons[-1]
    endless = combined(replace(found, flat={**found.flat, "n": False}), 24)
    assert endless.at_least
    assert not any("never occur alone" in reason for reason in endless.reasons)
    assert endless.caution.startswith("The budget ended")


def test_directions_are_those_of_the_world(uniform: Tensor) -> None:
    truth = FAMILIES["uniform"](n=48, d=24, l0=1.5).truth
    assert truth is not None
    given = Given(n=96, k=2, steps=120, budget=600)
    found = result_of(search(uniform[:20_000], uniform[20_000:], Run.begin("count", {}, None), given))
    nearest = (truth.dictionary.unit().atoms @ found.directions.T).max(1).values
    assert int((nearest > 0.95).sum()) >= 47
