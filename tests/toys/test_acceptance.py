"""Known answers of the toy lab that take seconds of training, each with the criterion it was given beforehand."""

from __future__ import annotations

import pytest
import torch

from superscope.features import Independent
from superscope.studies.toys.phase_diagram import PhaseDiagram
from superscope.theory import toy_loss
from superscope.toys import Ensemble, Recipe, Tied
from superscope.toys.train import _adamw


def test_phase_diagram_is_the_theorys_and_never_worse():
    report = PhaseDiagram(n=2, d=1, size=41, restarts=8).run()
    cells = report.tables["cells"]
    agreement = report["agreement_with_theory"][0].value
    assert agreement is not None
    assert agreement >= 0.96
    # Trained to within a thousandth of the theory's best model wherever it is not below it.
    for p, r, loss in zip(cells["density"], cells["ratio"], cells["loss"], strict=True):
        assert loss <= min(toy_loss.phase_2_1(p, r)[1].values()) * 1.001 + 1e-9
    # At equal importance sharing ends at 4/7 in the theory and between there and 0.8 at the true optimum.
    middle = sorted(set(cells["ratio"]))[20]
    assert middle == pytest.approx(1.0)
    at = {p: phase for p, r, phase in zip(cells["density"], cells["ratio"], cells["phase"], strict=True) if r == middle}
    assert all(phase == "antipodal" for p, phase in at.items() if p < 4 / 7)
    assert all(phase != "antipodal" for p, phase in at.items() if p > 0.8)
    # The three phases meet there: above and below the dense end of that row lie the two others.
    dense = max(cells["density"])
    ends = {
        r: phase for p, r, phase in zip(cells["density"], cells["ratio"], cells["phase"], strict=True) if p == dense
    }
    assert ends[min(ends)] == "first only"
    assert ends[max(ends)] == "second only"


@pytest.mark.parametrize(
    ("density", "name"), [(0.45, "digon"), (0.207, "pentagon"), (0.15, "square antiprism"), (0.07, "icosahedron")]
)
def test_gain_per_dimension_predicts_the_polytope(density, name):
    assert toy_loss.best_cluster(density)[0].name == name


def test_incidental_polysemanticity():
    # 64 one-hot rows in 256 neurons without biases, |h|_1 penalised (Lecomte et al., 2023): n^2 / (4 d) = 4 neurons end
    # with two features, though there are neurons for all.
    n, d, models = 64, 256, 8
    ensemble = Ensemble(Tied(n, d), Independent(n, 1 / n), seeds=range(models))
    generator = torch.Generator().manual_seed(0)
    ensemble.parameters["W"] = torch.randn(models, n, d, generator=generator) / d**0.5
    f = torch.eye(n).expand(models, n, n)
    recipe = Recipe(lr=2e-3)
    with torch.no_grad():
        for index in range(1600):
            _, slopes = ensemble.family.loss_gradient(ensemble.parameters, f, None, 1e-3)
            slopes["b"].zero_()
            _adamw(ensemble, slopes, recipe, index)
    W = ensemble.parameters["W"].abs()
    counts = (((W > 0.8) & (W < 1.2)).sum(1) >= 2).sum(1).double()
    assert float(ensemble.parameters["b"].abs().max()) == 0
    assert abs(float(counts.mean()) - 4) < 2 * float(counts.std()) / models**0.5 + 0.5, counts
    # And each feature is stored.
    assert bool((ensemble.parameters["W"].norm(dim=-1) > 0.8).all())
