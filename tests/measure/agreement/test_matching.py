from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superscope.core import Dictionary, ShapeError
from superscope.measure import feature_nearest_cosine, latent_nearest_cosine, match, mean_matched_cosine

SCORES = (mean_matched_cosine, feature_nearest_cosine, latent_nearest_cosine)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(2, 6), st.integers(0, 99))
def test_a_permuted_copy_scores_one(n, d, seed):
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.randn(n, d, generator=generator)
    order = torch.randperm(n, generator=generator)
    found = match(Dictionary(atoms), Dictionary(atoms[order]))
    assert torch.equal(found.first[found.second.argsort()], order) or n > 1
    torch.testing.assert_close(found.cosines, torch.ones(n).double())
    for score in SCORES:
        assert score(Dictionary(atoms * 3.0), Dictionary(atoms[order]), draws=0).value == pytest.approx(1)


def test_declared_invariances(unit_rows):
    found, truth = unit_rows(9, 4, 0), unit_rows(7, 4, 1)
    generator = torch.Generator().manual_seed(2)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=generator)).Q
    changes = {
        "rotation": lambda a, b: (a @ rotation, b @ rotation),
        "permutation": lambda a, b: (a[torch.randperm(9, generator=generator)], b),
        "scale": lambda a, b: (a * torch.arange(1.0, 10.0)[:, None], b),
        "sign": lambda a, b: (a * torch.tensor([1.0, -1.0] * 4 + [1.0])[:, None], b),
    }
    for score in SCORES:
        base = score(Dictionary(found), Dictionary(truth), draws=0)
        assert score.declaration.range[0] <= base.value <= score.declaration.range[1]
        for name in score.declaration.invariant:
            a, b = changes[name](found, truth)
            assert score(Dictionary(a), Dictionary(b), draws=0).value == pytest.approx(base.value, abs=1e-6), name


def test_hungarian_is_one_to_one_where_nearest_is_not():
    truth = Dictionary(torch.eye(2))
    found = Dictionary(torch.tensor([[1.0, 0.1], [1.0, 0.2]]))
    matching = match(found, truth)
    assert matching.second.tolist() == [0, 1]
    # Both found atoms are nearest to the first axis: precision is high, recall is not.
    recall, precision = (score(found, truth, draws=0) for score in (feature_nearest_cosine, latent_nearest_cosine))
    assert precision.value > 0.98
    assert recall.value == pytest.approx((0.1**2 + 1) ** -0.5 / 2 + 0.2 / (0.2**2 + 1) ** 0.5 / 2)
    assert (recall.name, precision.name) == ("feature_nearest_cosine", "latent_nearest_cosine")


def test_an_antipode_counts_only_where_signs_do_not():
    here, there = Dictionary(torch.tensor([[1.0, 0.0]])), Dictionary(torch.tensor([[-1.0, 0.0]]))
    assert mean_matched_cosine(here, there, draws=0).value == 1
    assert feature_nearest_cosine(here, there, draws=0).value == -1
    assert match(here, there, signed=True).cosines.item() == -1


@pytest.mark.parametrize(("d", "w", "n", "expected"), [(5, 40, 20, 0.87), (24, 96, 96, 0.50), (24, 384, 96, 0.60)])
def test_chance_of_a_random_dictionary(d, w, n, expected, unit_rows):
    """Values measured independently for these sizes; a random dictionary's own score must equal its chance level."""
    found = mean_matched_cosine(Dictionary(unit_rows(w, d, 1)), Dictionary(unit_rows(n, d, 2)), draws=4)
    assert found.chance == pytest.approx(expected, abs=0.03)
    assert found.value == pytest.approx(found.chance, abs=0.04)


def test_seeded(unit_rows):
    a, b = Dictionary(unit_rows(9, 4, 0)), Dictionary(unit_rows(7, 4, 1))
    assert mean_matched_cosine(a, b, seed=1) == mean_matched_cosine(a, b, seed=1)
    assert mean_matched_cosine(a, b, seed=1).chance != mean_matched_cosine(a, b, seed=2).chance


def test_other_spaces_and_zero_atoms_are_refused():
    with pytest.raises(ShapeError, match="d = 2 and d = 3"):
        match(Dictionary(torch.eye(2)), Dictionary(torch.eye(3)))
    with pytest.raises(ValueError, match="atom 1 is zero"):
        match(Dictionary(torch.tensor([[1.0], [0.0]])), Dictionary(torch.ones(1, 1)))
