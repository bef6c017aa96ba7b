from __future__ import annotations

import pytest
import torch
from matplotlib.figure import Figure

from superscope import plots
from superscope.studies.phase_diagram import PhaseDiagram
from superscope.studies.toy_sweep import ToySweep

SHORT = {"steps": 20, "batch": 32, "seeds": (0, 1)}


@pytest.fixture(scope="module")
def flat():
    return ToySweep(n=5, d=2, densities=(0.3, 0.05), **SHORT).run()


@pytest.fixture(scope="module")
def solid():
    return ToySweep(n=6, d=3, densities=(0.3,), **SHORT).run()


def drawn(figure, tmp_path):
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "figure.png", dpi=30)
    assert (tmp_path / "figure.png").stat().st_size > 1000
    return figure


def words(figure):
    return " ".join(
        text for axes in figure.axes for text in (axes.get_xlabel(), axes.get_ylabel(), axes.get_title())
    ) + str(figure.get_suptitle())


def test_every_figure_draws(flat, solid, tmp_path):
    for function in (plots.dimensionality_scatter, plots.feature_arrows, plots.training_strip, plots.gram_matrices):
        assert "P(feature active)" in words(drawn(function(flat), tmp_path)), function
    assert "P(feature active)" in words(drawn(plots.polytope(solid), tmp_path))


@pytest.mark.parametrize(("n", "d"), [(2, 1), (3, 2), (3, 1)])
def test_phase_diagrams(n, d, tmp_path):
    report = PhaseDiagram(n=n, d=d, size=4, restarts=2, steps=12).run()
    figure = drawn(plots.phase_diagram(report), tmp_path)
    assert "P(feature active)" in words(figure)
    # Every cell is drawn with the phase the table gives it.
    mesh = figure.axes[0].collections[0].get_array()
    names = sorted(set(report.tables["cells"]["phase"]) | {t for t in report.tables["cells"]["theory"] if t})
    counts = [int((mesh == i).sum()) for i in range(len(names))]
    assert counts == [report.tables["cells"]["phase"].count(name) for name in names]


def test_arrows_end_at_the_features(flat):
    axes = plots.feature_arrows(flat, seed=1).axes[1]
    ends = torch.tensor([text.xy for text in axes.texts])
    assert torch.allclose(ends, flat.arrays["W"][3].to(ends), atol=1e-6)


def test_scatter_shows_each_represented_feature_once(flat):
    (points,) = plots.dimensionality_scatter(flat).axes[0].collections
    assert len(points.get_offsets()) == sum(norm > 0.5 for norm in flat.tables["features"]["norm"])


def test_what_cannot_be_drawn_says_why(flat, solid):
    with pytest.raises(ValueError, match="d = 3"):
        plots.feature_arrows(solid)
    with pytest.raises(ValueError, match="d = 2"):
        plots.polytope(flat)
    with pytest.raises(ValueError, match="got 0.7"):
        plots.polytope(solid, density=0.7)
    with pytest.raises(ValueError, match="seeds"):
        plots.gram_matrices(flat, seed=9)
    with pytest.raises(ValueError, match="no snapshots"):
        plots.training_strip(ToySweep(n=3, d=2, densities=(0.5,), record=0, **SHORT).run())
