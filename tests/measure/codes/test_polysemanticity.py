from __future__ import annotations

import math
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superscope.core import Activations, Dictionary
from superscope.measure import effective_features, polysemanticity
from superscope.measure.codes.polysemanticity import random_directions


def aligned(fixed, d=16, rows=640, rotation=None):
    """One feature per coordinate, exactly: a layer without superposition, on its axes or turned away from them."""
    generator = torch.Generator().manual_seed(0)
    f = torch.rand(rows, d, generator=generator) * (torch.rand(rows, d, generator=generator) < 0.2)
    atoms = torch.eye(d) if rotation is None else rotation
    x = f @ atoms
    places = torch.stack([torch.arange(rows) // 10, torch.arange(rows) % 10], 1)
    return fixed(Dictionary(atoms), f, x), [Activations(x, places=places)], f


def test_one_feature_per_neuron(fixed):
    coder, rows, _ = aligned(fixed)
    found = polysemanticity(coder, rows)
    (measured,) = found
    torch.testing.assert_close(found.effective_features, torch.ones(16).double())
    assert measured.value == pytest.approx(1)
    # A random direction of 16 mixes about 16 times less than it could: exp entropy of |normal| shares.
    assert 9 < measured.chance < 14
    torch.testing.assert_close(found.explained, torch.ones(16).double())
    assert found.features[:, 0].tolist() == list(range(16))
    assert (found.signs[:, 0] == 1).all()
    assert found.shares[:, 0].tolist() == pytest.approx([1.0] * 16)


def test_a_rotated_layer_is_at_its_chance_level(fixed):
    turned = random_directions(16, 16, torch.Generator().manual_seed(7)).float()
    coder, rows, _ = aligned(fixed, rotation=turned)
    (measured,) = polysemanticity(coder, rows)
    assert measured.value == pytest.approx(measured.chance, rel=0.15)
    assert measured.low < measured.value < measured.high


def test_shares_are_attributions_over_tokens(fixed):
    atoms = torch.tensor([[3.0, 0.0], [-1.0, 2.0], [0.0, 1.0]])
    f = torch.tensor([[1.0, 0.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    x = f @ atoms
    found = polysemanticity(fixed(Dictionary(atoms), f, x), [Activations(x)], top=3, draws=0)
    attribution = (f[:, :, None] * atoms[None]).abs().double().mean(0)
    shares = attribution / attribution.sum(0)
    assert found.features[0].tolist() == [0, 1, 2]
    torch.testing.assert_close(found.shares, shares.T.sort(1, descending=True).values)
    assert found.signs.tolist() == [[1, -1, 0], [1, 1, 0]]
    entropy = -(shares * shares.clamp(min=1e-300).log()).sum(0)
    torch.testing.assert_close(found.effective_features, entropy.exp())


def test_explained_is_per_neuron_and_centred(fixed):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 3, generator=generator) + torch.tensor([50.0, 0.0, 0.0])
    x[:, 2] = 4.0
    f = torch.stack([x[:, 0] - x[:, 0].mean(), torch.zeros(300)], 1)
    atoms = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    coder = fixed(Dictionary(atoms, torch.tensor([float(x[:, 0].mean()), float(x[:, 1].mean()), 4.0])), f, x)
    found = polysemanticity(coder, [Activations(x)], draws=0)
    assert found.explained[:2].tolist() == pytest.approx([1.0, 0.0], abs=1e-4)
    assert found.explained[2].isnan()
    assert found.effective_features[2].isnan()
    assert "2 neurons that no feature reaches" in found.measurements[0].caution


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(0, 99), st.floats(0.01, 100.0))
def test_range_scale_and_permutation(n, d, seed, factor):
    generator = torch.Generator().manual_seed(seed)
    atoms, mass = torch.randn(n, d, generator=generator), torch.rand(n, generator=generator) + 0.1
    base = effective_features(Dictionary(atoms), mass)
    assert bool(((base >= 1 - 1e-9) & (base <= n + 1e-9)).all())
    order = torch.randperm(n, generator=generator)
    torch.testing.assert_close(effective_features(Dictionary(atoms[order]), factor * mass[order]), base)
    torch.testing.assert_close(effective_features(Dictionary(-atoms), mass), base)


def test_equal_features_count_fully():
    assert effective_features(Dictionary(torch.ones(7, 2)), torch.ones(7)).tolist() == pytest.approx([7.0, 7.0])
    # Half the mass on one, half spread over two: exp(1.5 ln 2).
    halves = effective_features(Dictionary(torch.ones(3, 1)), torch.tensor([2.0, 1.0, 1.0]))
    assert halves.item() == pytest.approx(math.exp(1.5 * math.log(2)))


def test_random_directions_are_orthonormal_and_uniform():
    found = random_directions(6, 4, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.T @ found, torch.eye(4).double())
    generator = torch.Generator().manual_seed(1)
    entries = torch.stack([random_directions(3, 3, generator) for _ in range(2000)])
    # Haar: every entry has mean 0 and variance 1/3.
    assert entries.mean(0).abs().max() < 0.06
    torch.testing.assert_close(entries.var(0), torch.full((3, 3), 1 / 3).double(), atol=0.03, rtol=0)


def test_blocks_do_not_matter(monkeypatch, unit_rows):
    W, mass = Dictionary(unit_rows(9, 7)), torch.rand(9, generator=torch.Generator().manual_seed(0))
    turned = random_directions(7, 5, torch.Generator().manual_seed(1))
    whole = effective_features(W, mass), effective_features(W, mass, turned)
    # The package exports the function under the module's name.
    monkeypatch.setattr(sys.modules["superscope.measure.codes.polysemanticity"], "_BLOCK", 20)
    torch.testing.assert_close(effective_features(W, mass), whole[0])
    torch.testing.assert_close(effective_features(W, mass, turned), whole[1])


def test_silence_is_refused(fixed):
    x = torch.randn(5, 3)
    with pytest.raises(ValueError, match="no latent fires"):
        polysemanticity(fixed(Dictionary(torch.eye(3)), torch.zeros(5, 3), x), [Activations(x)])
