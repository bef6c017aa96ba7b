from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from superscope.core import Dictionary, ShapeError, SparseCode
from superscope.features import Independent
from superscope.measure.geometry.polytope import _templates
from superscope.measure.toy import (
    components,
    dimensionalities,
    feature_dimensionality,
    features_per_dimension,
    interference,
    jumps,
    overlaps,
    representedness,
)

seeds = st.integers(0, 2**31)


@pytest.mark.parametrize(
    ("size", "name", "value"),
    [
        ((1, 1), "point", 1),
        ((2, 1), "digon", 1 / 2),
        ((3, 2), "triangle", 2 / 3),
        ((4, 3), "tetrahedron", 3 / 4),
        ((5, 4), "5-cell", 4 / 5),
        ((5, 2), "pentagon", 2 / 5),
        ((7, 2), "heptagon", 2 / 7),
        ((8, 3), "square antiprism", 3 / 8),
        ((6, 3), "octahedron", 1 / 2),
        ((12, 3), "icosahedron", 1 / 4),
    ],
)
def test_known_answers(size, name, value):
    vertices = torch.as_tensor(dict(_templates(*size))[name])
    assert torch.allclose(dimensionalities(vertices), torch.full((size[0],), value).double(), atol=1e-9)
    # A common scale of a symmetric cluster changes nothing.
    assert torch.allclose(dimensionalities(3 * vertices), dimensionalities(vertices))


@given(seeds, st.integers(1, 12), st.integers(1, 6))
def test_dimensionality_is_capacity_and_sums_to_at_most_the_rank(seed, n, d):
    W = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    D = dimensionalities(W)
    G = W @ W.T
    assert torch.allclose(D, G.diagonal() ** 2 / G.square().sum(1))
    leverage = (W @ torch.linalg.pinv(W.T @ W) * W).sum(1)
    assert bool((leverage + 1e-9 >= D).all())
    assert float(D.sum()) <= min(n, d) + 1e-9
    unit = W / W.norm(dim=1, keepdim=True)
    expected = (unit @ W.T).square().sum(1) - W.square().sum(1)
    assert torch.allclose(overlaps(W), expected, atol=1e-9)


def test_batches_of_models_agree_with_single_ones():
    W = torch.randn(3, 7, 4, generator=torch.Generator().manual_seed(0))
    for function in (dimensionalities, overlaps, representedness):
        assert torch.allclose(function(W)[1], function(W[1]))


def test_dead_features_have_no_dimension_and_break_nothing():
    W = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    assert dimensionalities(W).tolist() == [0.5, 0.0, 0.5]
    assert overlaps(W).tolist() == [1.0, 0.0, 1.0]
    assert feature_dimensionality(Dictionary(W)).n == 2
    assert features_per_dimension(Dictionary(W)).value == 1.0


def test_interference_agrees_with_its_expectation():
    law = Independent(6, 0.3)
    W = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    f = law.sample(50_000, generator=torch.Generator().manual_seed(2))
    found = interference(Dictionary(W), f)
    A = (W.double() @ W.double().T) / W.double().square().sum(1)[:, None] - torch.eye(6)
    second = law.covariance + torch.outer(law.mean, law.mean)
    expected = float(torch.einsum("ij,jk,ik->", A, second, A) / 6)
    assert found.low < expected < found.high or found.value == pytest.approx(expected, rel=0.02)
    dense = interference(Dictionary(W), f.dense())
    assert dense.value == pytest.approx(found.value)


def test_interference_of_random_directions_is_its_chance_level():
    # Zero-mean features, for which the cross terms of independent directions vanish on average.
    f = torch.randn(4000, 60, generator=torch.Generator().manual_seed(0))
    ratios = []
    for seed in range(20):
        W = torch.randn(60, 30, generator=torch.Generator().manual_seed(seed))
        found = interference(Dictionary(W / W.norm(dim=1, keepdim=True)), f)
        ratios.append(found.value / found.chance)
    assert sum(ratios) / 20 == pytest.approx(1, abs=0.03)


def test_orthogonal_features_do_not_interfere():
    f = SparseCode.from_dense(torch.eye(4))
    assert interference(Dictionary(2 * torch.eye(4)), f).value == pytest.approx(0, abs=1e-12)


def test_components_of_a_tegum_product():
    W = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -0.5, 0.8], [0, -0.5, -0.8], [0, 0, 0.01]])
    found = components(W)
    assert [c.features for c in found] == [(2, 3, 4), (0, 1)]
    assert [c.rank for c in found] == [2, 1]
    assert found[0].dimensionality == pytest.approx(2, abs=0.05)


def test_jumps():
    steps = list(range(0, 3000, 100))
    D = torch.full((30, 2), 0.5)
    D[17:, 1] = 0.9
    found = jumps(D, steps)
    assert [(j.feature, j.start, j.stop) for j in found] == [(1, 1500, 2000)]
    assert found[0].change == pytest.approx(0.4, abs=1e-6)
    assert jumps(D, steps, after=2000) == ()


def test_hostile_input():
    with pytest.raises(ValueError, match="every atom is zero"):
        feature_dimensionality(Dictionary(torch.zeros(2, 2)))
    with pytest.raises(ShapeError, match="f has 3 features but W has 2"):
        interference(Dictionary(torch.eye(2)), torch.ones(4, 3))
    with pytest.raises(ValueError, match="at least 2 rows"):
        interference(Dictionary(torch.eye(2)), torch.ones(1, 2))
    with pytest.raises(ValueError, match="threshold must be above 0"):
        components(torch.eye(2), threshold=0.0)
    with pytest.raises(ShapeError, match="rows of D"):
        jumps(torch.ones(2, 2), [1])
    assert "zero atoms" in interference(Dictionary(torch.tensor([[1.0], [0.0]])), torch.ones(2, 2)).caution
    assert math.isfinite(interference(Dictionary(torch.tensor([[1.0], [0.0]])), torch.ones(2, 2)).value)
