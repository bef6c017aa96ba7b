from __future__ import annotations

from pathlib import Path

import pytest

from superscope.core import Report
from superscope.plots import criteria, draw
from superscope.plots import frontier as draw_frontier
from superscope.studies.learning import stream
from superscope.studies.learning.frontier import Frontier, recommend
from superscope.worlds import exactly_k

SMALL = {"ks": (1, 2, 4), "n": 32, "seeds": 2, "steps": 40, "batch": 128, "held_out": 500}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch):
    """Puts a world of chosen size in the place of the preset."""

    def put(**arguments) -> None:
        monkeypatch.setitem(stream.worlds.PRESETS, "exactly_k", lambda: exactly_k(**arguments))

    return put


def test_the_report_has_every_k_with_its_interval_and_its_figures(world, tmp_path: Path) -> None:
    world(n=32, d=16, k=2)
    report = Frontier("world:exactly_k", **SMALL).run(tmp_path / "run")
    assert report.tables["frontier"]["k"] == [1, 2, 4]
    for name in ("fraction_variance_unexplained", "l0", "description_length", "decoder_projection"):
        found = report[name]
        assert [m.at["k"] for m in found] == [1, 2, 4]
        assert all(m.low <= m.value <= m.high for m in found)
    (chosen,) = report["recommended_k"]
    assert chosen.reference == pytest.approx(2)
    assert report.findings[0].startswith(f"Take k = {chosen.value:.0f}")
    draw(Report.load(tmp_path / "run"), (draw_frontier, criteria), tmp_path / "figures")
    assert len(list((tmp_path / "figures").iterdir())) >= 2


def test_a_finished_k_is_taken_from_an_interrupted_run(world, tmp_path: Path) -> None:
    world(n=32, d=16, k=2)
    study = Frontier("world:exactly_k", **SMALL)
    whole = study.run(tmp_path / "whole")
    stages = study.stages(tmp_path / "cut")
    for progress in stages:
        if progress.stage == "Learning dictionaries" and progress.done > 40:
            break
    stages.close()
    details = []
    stages = study.stages(tmp_path / "cut")
    while True:
        try:
            details.append(next(stages).detail)
        except StopIteration as end:
            resumed = end.value
            break
    assert "k = 1 taken from the interrupted run" in details
    assert resumed.tables["frontier"] == whole.tables["frontier"]


def table(bits: list[float], spread: float = 0.0) -> dict:
    return {
        "k": [2, 4, 8, 16],
        "description_length": bits,
        "description_length_high": [b + spread for b in bits],
        "decoder_projection": [0.3, 0.1, 0.2, 0.4],
        "recurring_features": [10.0, 50.0, 50.0, 20.0],
    }


def test_the_shortest_description_is_recommended_and_the_smaller_k_within_its_spread() -> None:
    assert recommend(table([9.0, 5.0, 6.0, 9.0]))[0] == 4
    assert recommend(table([9.0, 5.1, 5.0, 9.0], spread=0.2))[0] == 4
    k, reasons = recommend(table([9.0, 8.0, 6.0, 5.0]))
    assert k == 16
    assert any("extend --ks" in reason for reason in reasons)
    assert any("factor of two" in reason for reason in reasons)


def test_bad_settings_are_told_in_sentences(world) -> None:
    for settings, message in (
        ({"ks": (1, 2)}, "at least 3"),
        ({"seeds": 1}, "no interval"),
        ({"ks": (0, 1, 2)}, "every k"),
        ({"precision": 0.0}, "precision"),
    ):
        with pytest.raises(ValueError, match=message):
            Frontier("world:exactly_k", **(SMALL | settings))
    with pytest.raises(ValueError, match="cannot be active among n = 32"):
        Frontier("world:exactly_k", **(SMALL | {"ks": (1, 2, 64)})).run()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "ks"),
    [
        ({"n": 64, "d": 32, "k": 2}, (1, 2, 3, 4, 6, 8)),
        ({"n": 96, "d": 48, "k": 4}, (1, 2, 3, 4, 6, 8, 12)),
        ({"n": 96, "d": 64, "k": 6, "noise": 0.05}, (2, 3, 4, 6, 8, 12)),
    ],
)
def test_the_recommendation_is_within_half_of_the_truth(world, arguments: dict, ks: tuple[int, ...]) -> None:
    world(**arguments)
    report = Frontier("world:exactly_k", ks=ks, n=arguments["n"], seeds=2, steps=600, batch=512, held_out=4000).run()
    (chosen,) = report["recommended_k"]
    assert arguments["k"] / 1.5 <= (chosen.value or 0) <= arguments["k"] * 1.5
