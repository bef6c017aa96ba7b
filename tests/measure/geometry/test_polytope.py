from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superscope.measure.geometry.polytope import _templates, nearest_polytope, polytopes, tegum_name

SIZES = [
    (1, 1),
    (2, 1),
    (3, 2),
    (4, 2),
    (5, 2),
    (6, 2),
    (7, 2),
    (4, 3),
    (5, 4),
    (6, 3),
    (8, 3),
    (8, 4),
    (12, 3),
    (5, 3),
    (7, 3),
]
NAMED = [(name, torch.as_tensor(vertices)) for size in SIZES for name, vertices in _templates(*size)]


def test_the_names_the_issue_asks_for():
    names = {name for name, _ in NAMED}
    assert names >= {
        "digon",
        "triangle",
        "tetrahedron",
        "pentagon",
        "square antiprism",
        "octahedron",
        "icosahedron",
        "5-cell",
    }


@settings(max_examples=6)
@given(st.integers(0, 2**31))
@pytest.mark.parametrize(("name", "vertices"), NAMED, ids=[name for name, _ in NAMED])
def test_a_turned_shuffled_scaled_polytope_is_named(name, vertices, seed):
    g = torch.Generator().manual_seed(seed)
    k, d = vertices.shape
    turn = torch.linalg.qr(torch.randn(d + 2, d, generator=g, dtype=torch.float64)).Q
    noise = 0.02 * torch.randn(k, d + 2, generator=g, dtype=torch.float64)
    lengths = 0.8 + 0.4 * torch.rand(k, 1, generator=g, dtype=torch.float64)
    found = nearest_polytope((vertices @ turn.T * lengths + noise * (d > 0))[torch.randperm(k, generator=g)])
    assert found.name == name
    assert found.error is not None
    assert found.error < 0.1
    exact = nearest_polytope(vertices[torch.randperm(k, generator=g)] @ turn.T)
    assert exact.error == pytest.approx(0, abs=1e-6)


def test_random_directions_do_not_fit():
    errors = []
    for seed in range(10):
        X = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))
        errors.append(nearest_polytope(X).error)
    assert min(errors) > 0.2


def test_factors_of_a_tegum_product():
    angles = 2 * torch.pi * torch.arange(3) / 3
    W = torch.zeros(6, 4)
    W[:3, :2] = torch.stack([angles.cos(), angles.sin()], 1)
    W[3, 2], W[4, 2], W[5, 3] = 1.0, -1.0, 1.0
    found = polytopes(W)
    assert [(p.name, p.features) for p in found] == [("triangle", (0, 1, 2)), ("digon", (3, 4)), ("point", (5,))]
    assert tegum_name(found[:2]) == "triangular bipyramid"
    assert tegum_name(found) == "triangle + digon + point"


def test_what_has_no_name_gets_none():
    found = nearest_polytope(torch.randn(11, 5, generator=torch.Generator().manual_seed(0)))
    assert (found.name, found.error) == ("", None)
    assert str(found) == "11 vectors in 5 dimensions"


def test_a_zero_vector_is_refused():
    with pytest.raises(ValueError, match="vector 1 is zero"):
        nearest_polytope(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
