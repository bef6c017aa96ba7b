"""A run folder gets the figures its report has the data for, and no others."""

from __future__ import annotations

from pathlib import Path

from superscope.core.files import read_json
from superscope.plots import FIGURES, draw
from superscope.studies import STUDIES, Bounds, ToySweep


def test_every_kind_is_a_study() -> None:
    assert set(FIGURES) <= {entry.load().kind for entry in STUDIES}


def test_figures_that_fit_are_drawn(tmp_path: Path) -> None:
    report = ToySweep(n=3, d=2, densities=(0.1,), seeds=(0,), steps=20, record=4).run()
    written = {path.stem for path in draw(report, FIGURES["toy"], tmp_path / "figures")}
    assert written == {"dimensionality_scatter", "feature_arrows", "training_strip", "gram_matrices"}
    index = read_json(tmp_path / "figures" / "index.json")
    assert {entry["name"] for entry in index} == written
    assert all(entry["shows"].endswith(".") for entry in index)
    for path in (tmp_path / "figures").glob("*.*g"):
        start = path.read_bytes()[:8]
        assert start.startswith(b"<?xml") if path.suffix == ".svg" else start == b"\x89PNG\r\n\x1a\n"


def test_nothing_is_drawn_of_a_report_without_the_data(tmp_path: Path) -> None:
    assert draw(Bounds(n=64, d=16, k=2).run(), FIGURES["theory"][:1], tmp_path / "figures") == ()
    assert not (tmp_path / "figures").exists()
