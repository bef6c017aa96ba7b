from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from superscope import frames
from superscope.core import Report
from superscope.dictionaries import TopK
from superscope.plots.dictionary import FIGURES_DICTIONARY, capacity_ladder, cosines, recovery_curves, recovery_phase
from superscope.studies.geometry.bounds import Bounds
from superscope.studies.geometry.recovery_diagram import Recover
from superscope.studies.geometry.theory import Theory

SMALL = {"trials": 4, "rotations": 19}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dictionaries")
    np.save(folder / "random.npy", frames.random_unit(n=48, d=12, seed=0).atoms.numpy())
    np.save(folder / "basis.npy", torch.eye(6).numpy())
    np.save(folder / "cross.npy", frames.cross_polytope(d=5).atoms.numpy())
    TopK(d=192, n=208, k=3).save(folder / "sae", notes={"model": "pocket", "site": "transformer.h.0"})
    return folder


@pytest.fixture(scope="module")
def pages(folder):
    pages = {name: Theory(str(folder / f"{name}.npy"), **SMALL).run() for name in ("random", "basis", "cross")}
    return pages | {"sae": Theory(str(folder / "sae"), tokens=200, whole=2, **SMALL).run()}


def drawn(figure, tmp_path):
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "figure.png", dpi=30)
    assert (tmp_path / "figure.png").stat().st_size > 1000
    return figure


def labels(figure):
    return {text for axes in figure.axes for text in axes.get_legend_handles_labels()[1]}


@pytest.mark.parametrize("function", FIGURES_DICTIONARY)
@pytest.mark.parametrize("name", ["random", "basis", "cross", "sae"])
def test_every_figure_draws_for_every_kind_of_dictionary(function, name, pages, tmp_path):
    drawn(function(pages[name]), tmp_path)


def test_figures_carry_their_bounds_and_chance_levels(pages):
    expected = {
        "cosines": {"random frame", "Welch: coherence at least"},
        "nearest_atoms": {"random frame", "Welch: all atoms here at best"},
        "babel_function": {"typical atom, random frame"},
        "recovery_curves": {"random dictionary, l1 (weak Donoho-Tanner)", "guaranteed by coherence"},
        "interference": {"independent features", "least possible mean (tight frame)"},
        "dimensions": {"random frame", "tight frame"},
        "certificates": {"random dictionary, l1 (weak Donoho-Tanner)", "orthogonal atoms"},
        "recovery_phase": {"Donoho-Tanner, nonnegative"},
    }
    for function in FIGURES_DICTIONARY:
        missing = expected.get(function.__name__, set()) - labels(function(pages["random"]))
        assert not missing, function


def test_data_are_drawn_where_there_are_any(pages):
    named = {function.__name__: labels(function(pages["sae"])) for function in FIGURES_DICTIONARY}
    assert "l0 of the codes of data (5 to 95 %)" in named["capacity_ladder"]
    assert "whole codes of data" in named["certificates"]
    assert "weighted by activity of data" in named["dimensions"]


def test_histogram_and_phase_show_the_tables(pages):
    report = pages["random"]
    stairs = cosines(report).axes[0].patches[0].get_data().values
    assert float(np.sum(stairs)) == 48 * 47 / 2
    points = recovery_phase(report).axes[0].collections[0]
    assert points.get_array().tolist() == report.tables["phase"]["share"]


def test_ladder_of_bounds_and_curves_of_recover(folder, tmp_path):
    bars = drawn(capacity_ladder(Bounds(n=64, d=16, snr=3.0).run()), tmp_path).axes[0]
    assert [label.get_text() for label in bars.get_yticklabels()][-1] == "rate bound"
    report = Recover(str(folder / "random.npy"), solver="NNOMP", trials=5).run()
    assert "nonnegative matching pursuit" in labels(drawn(recovery_curves(report), tmp_path))


def test_another_report_is_refused():
    empty = Report(title="nothing", kind="scan", measurements=())
    for function in FIGURES_DICTIONARY:
        with pytest.raises(KeyError):
            function(empty)
