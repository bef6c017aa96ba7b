"""Calibration: the table's arithmetic on made-up worlds, and a short run that may not get worse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from superscope.core import Report
from superscope.studies import Calibrate
from superscope.studies.counting.calibrate import summary
from superscope.worlds.families import Family


def world(n: int, value: float | None, low: float, high: float | None, **more: Any) -> dict[str, Any]:
    return {
        "family": "made up",
        "null": n == 0,
        "held_out": False,
        "size": [n, 32, 2.0],
        "seed": 0,
        "n": n,
        "kappa_cs": 0.5,
        "identity": 1.0,
        "counts": {"feature_count": {"value": value, "low": low, "high": high, "seconds": 1.0}},
    } | more


def test_errors_coverage_and_nulls_are_tabulated() -> None:
    answer = summary(
        [
            world(100, 100.0, 90.0, 110.0),
            world(100, 110.0, 105.0, 120.0),  # misses
            world(100, 50.0, 45.0, None),  # at least
            world(100, None, 0.0, None),  # abstains: "at least 0" is no interval
            world(0, None, 0.0, None),
            world(0, 2.0, 1.0, 3.0),
        ]
    )
    table = answer.findings.tables["estimators"]
    (row,) = ({name: cells[i] for name, cells in table.items()} for i in range(len(table["group"])))
    assert (row["worlds"], row["answers"], row["at_least"], row["nulls"], row["most_on_nulls"]) == (4, 3, 1, 2, 2.0)
    assert row["coverage"] == pytest.approx(2 / 3)
    assert row["median_error"] == pytest.approx(0.0953, abs=1e-3)
    assert row["bias"] == pytest.approx(0.0)
    coverage = answer.findings["coverage"]
    assert coverage.n == 3
    assert coverage.low is not None
    assert coverage.high is not None
    assert coverage.low < 2 / 3 < coverage.high


def test_a_short_calibration_is_no_worse_than_it_was(tmp_path: Path) -> None:
    """A family and a null, of the size of `--short`: an error below a tenth, and nothing where there is nothing."""
    study = Calibrate(families=("uniform", "gaussian"), short=True, rows=45_000, budget=0.25)
    study.run(tmp_path / "run")
    table = Report.load(tmp_path / "run").tables["worlds"]
    worlds = list(zip(table["n"], table["count"], table["low"], table["high"], strict=True))
    for n, value, low, high in worlds:
        if n:
            assert abs(value / n - 1) < 0.1
            # "At least", which has no upper end, is the answer of a machine too slow for the budget.
            assert low <= n
            assert high < 0 or n <= high
        else:
            assert value <= 1


def test_an_interrupted_calibration_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = []

    def of_family(_: Calibrate, family: Family, size: tuple[int, int, float], seed: int) -> dict[str, Any]:
        counted.append(family.name)
        return world(0, None, 0.0, None, family=family.name, size=list(size), seed=seed, null=True)

    monkeypatch.setattr(Calibrate, "_world", of_family)
    study = Calibrate(families=("gaussian", "coloured"), short=True)
    stages = study.stages(tmp_path / "run")
    for step in stages:
        if step.done == 1:
            break
    stages.close()
    (kept,) = (tmp_path / "run" / "worlds").iterdir()
    before = kept.stat().st_mtime_ns
    study.run(tmp_path / "run")
    assert kept.stat().st_mtime_ns == before
    assert len(list((tmp_path / "run" / "worlds").iterdir())) == 2
    assert counted == ["gaussian", "coloured"]


def test_an_unknown_family_is_told() -> None:
    with pytest.raises(ValueError, match="uniform"):
        Calibrate(families=("uniforn",))
