"""What is predicted of a read-out is what happens to it where features are independent, and putting back restores."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError
from scipy.stats import spearmanr

from superscope.core import ShapeError
from superscope.features import Zipf
from superscope.frames import random_unit
from superscope.intervene.collateral import second_moment
from superscope.intervene.compression import projection, restored_loss, survival


@pytest.fixture(scope="module")
def world():
    f = Zipf(n=40, alpha=0.7, active=2.0).sample(20_000, generator=torch.Generator().manual_seed(0)).dense()
    atoms = random_unit(n=40, d=12, seed=0).atoms
    return f, atoms, f @ atoms


def test_prediction_is_measurement_for_independent_features(world) -> None:
    f, atoms, x = world
    P = projection(second_moment(x), 6)
    found = survival(f, x, P(x), atoms, (atoms.double() @ P.matrix.T).float())
    assert torch.allclose(found.predicted_before, found.before, rtol=0.25)
    assert spearmanr(found.predicted, found.measured).statistic > 0.97
    assert torch.allclose(found.density, (f != 0).double().mean(0))
    # A projection shortens an atom to the cosine that it has with what is left of it.
    assert torch.allclose(found.cosine, (atoms.double() @ P.matrix.T).norm(dim=1), atol=1e-5)


def test_nothing_changed_is_all_survived(world) -> None:
    f, atoms, x = world
    found = survival(f, x, x, atoms, atoms)
    assert torch.allclose(found.measured, torch.ones(40, dtype=torch.float64))
    assert torch.allclose(found.cosine, torch.ones(40, dtype=torch.float64))
    gone = survival(f, x, torch.zeros_like(x), atoms, torch.zeros_like(atoms))
    assert float(gone.measured.max()) == 0
    assert bool(gone.cosine.isnan().all())


def test_a_feature_that_is_put_back_is_missed_no_more(world) -> None:
    f, atoms, x = world
    lost = torch.zeros_like(atoms)
    lost[0] = atoms[0]

    def loss(y: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return (y - x[rows]).square().sum(1)

    y = x - f[:, :1] * atoms[0]
    mean, deviation = restored_loss(loss, f, y, atoms, atoms - lost, torch.tensor([0, 1]))
    on = f[:, 0] != 0
    assert float(mean[0]) == pytest.approx(float(f[on][:2000, 0].square().mean()), rel=1e-4)
    assert float(deviation[0]) > 0
    # What was not lost gives nothing back.
    assert float(mean[1]) == pytest.approx(0, abs=1e-6)
    never = torch.zeros_like(f)
    assert bool(restored_loss(loss, never, y, atoms, atoms, torch.tensor([0]))[0].isnan().all())


def test_refusals(world) -> None:
    f, atoms, x = world
    with pytest.raises((ShapeError, TypeCheckError)):
        survival(f[:, :3], x, x, atoms, atoms)
    with pytest.raises(ValueError, match="needs at least 2"):
        survival(f[:1], x[:1], x[:1], atoms, atoms)
