from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from superscope import plots
from superscope.studies.toys.phase_diagram import PhaseDiagram
from superscope.studies.toys.sweep import ToySweep

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
    assert len(np.asarray(points.get_offsets())) == sum(norm > 0.5 for norm in flat.tables["features"]["norm"])


def test_scatter_draws_the_dimensions_per_feature_of_each_density(flat):
    axes = plots.dimensionality_scatter(flat).axes[0]
    (line,) = [line for line in axes.lines if str(line.get_label()).startswith("dimensions per feature")]
    W = flat.arrays["W"].double()
    star = {
        p: torch.stack([2 / W[i].square().sum(), 2 / W[i + 2].square().sum()]).median()
        for i, p in ((0, 0.3), (1, 0.05))
    }
    x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    assert dict(zip(x.tolist(), y.tolist(), strict=True)) == pytest.approx({p: float(v) for p, v in star.items()})
    legend = axes.get_legend()
    assert legend is not None
    assert "a feature of norm above 1/2" in [text.get_text() for text in legend.get_texts()]


def test_a_feature_has_one_colour_in_every_panel_and_a_name(flat):
    figure = plots.training_strip(flat)
    strip, bottom = figure.axes[0], figure.axes[-1]
    assert [text.arrow_patch.get_edgecolor()[:3] for text in strip.texts] == [
        to_rgb(x.get_color()) for x in bottom.lines
    ]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [f"feature {i}" for i in range(5)]


def test_polytope_has_one_scale_for_its_three_axes(solid):
    axes = plots.polytope(solid).axes[0]
    assert axes.get_xlim() == axes.get_ylim() == axes.get_zlim()
    reach = float(solid.arrays["W"][0].abs().max())
    assert axes.get_xlim()[1] >= reach


def test_many_densities_stand_in_several_rows():
    report = ToySweep(n=3, d=2, densities=(1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05), **SHORT).run()
    for function in (plots.feature_arrows, plots.gram_matrices):
        figure = function(report)
        assert figure.get_figwidth() < 16
        assert sum("P(feature active)" in axes.get_title() for axes in figure.axes) == 7


def test_phase_boundaries_meet_cells_half_way_in_logarithms():
    report = PhaseDiagram(n=2, d=1, size=3, restarts=2, steps=12).run()
    mesh = plots.phase_diagram(report).axes[0].collections[0].get_coordinates()
    densities = sorted(set(report.tables["cells"]["density"]))
    assert mesh[0, 1:3, 0].tolist() == pytest.approx([(a * b) ** 0.5 for a, b in itertools.pairwise(densities)])


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
