"""Sparsity of codes over latents and over tokens, and of atoms over coordinates: against the dense definitions."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from superscope.core import Activations, Dictionary
from superscope.measure import (
    activation_sparsity,
    effective_number,
    excess_kurtosis,
    feature_sparsity,
    hoyer,
    treves_rolls,
    weight_sparsity,
)
from superscope.measure.codes.polysemanticity import random_directions

from .test_interference import Given, drawn


@pytest.mark.parametrize("signed", [False, True])
def test_a_code_by_definition(signed):
    f = drawn(12, rows=400, density=0.1, signed=signed)
    f[:, 5] = 0
    coder = Given(Dictionary(torch.eye(12, dtype=torch.float64)), f)
    found = {m.name: m for m in feature_sparsity(coder, coder.rows)}
    there = f[(f != 0).any(1)]
    assert found["code_hoyer"].value == pytest.approx(float(hoyer(there).mean()), rel=1e-9)
    assert found["code_treves_rolls"].value == pytest.approx(float(treves_rolls(there).mean()), rel=1e-9)
    assert f"{400 - len(there)} rows" in found["code_hoyer"].caution
    assert found["participating_latents"].value == pytest.approx(float(effective_number(f.abs().mean(0), 2)), rel=1e-9)
    alive = f[:, (f != 0).any(0)]
    assert found["lifetime_treves_rolls"].value == pytest.approx(
        float(np.median(treves_rolls(alive.T).numpy())), rel=1e-9
    )
    kurtosis = np.median(scipy.stats.kurtosis(alive.numpy(), axis=0))
    assert found["lifetime_kurtosis"].value == pytest.approx(kurtosis, rel=1e-9)
    for measured in found.values():
        assert measured.low <= measured.value <= measured.high
        assert measured.n == (11 if measured.of == "alive latents" else len(there) if "code" in measured.name else 400)


def test_an_on_off_latent_has_the_kurtosis_of_its_density():
    f = torch.zeros(1000, 4, dtype=torch.float64)
    f[:100, 0] = f[100:200, 1] = f[200:300, 2] = f[300:400, 3] = 2.0
    coder = Given(Dictionary(torch.eye(4, dtype=torch.float64)), f)
    found = {m.name: m.value for m in feature_sparsity(coder, coder.rows)}
    assert found["lifetime_kurtosis"] == pytest.approx(1 / 0.09 - 6)
    assert found["lifetime_treves_rolls"] == pytest.approx(0.9 / (1 - 1 / 1000))
    assert found["participating_latents"] == pytest.approx(4)
    assert found["code_hoyer"] == pytest.approx(1)


def test_a_silent_code_has_no_numbers():
    coder = Given(Dictionary(torch.eye(4, dtype=torch.float64)), torch.zeros(50, 4, dtype=torch.float64))
    assert all(m.value is None and "no latent fires" in m.caution for m in feature_sparsity(coder, coder.rows))
    with pytest.raises(ValueError, match="at least 2"):
        feature_sparsity(Given(Dictionary(torch.ones(1, 1)), torch.ones(50, 1)), coder.rows)


def test_kurtosis_is_scipys_and_undefined_for_equal_entries():
    c = torch.randn(7, 50, dtype=torch.float64) ** 3
    np.testing.assert_allclose(excess_kurtosis(c).numpy(), scipy.stats.kurtosis(c.numpy(), axis=1), rtol=1e-9)
    assert excess_kurtosis(torch.full((3,), 0.1)).isnan()


def test_activations_by_definition():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 9, generator=generator, dtype=torch.float64) ** 3
    x[:, 2] = 0
    x[:, 7] = 5.0
    places = torch.stack([torch.arange(500) // 10, torch.arange(500) % 10], 1)
    rows = [Activations(a, places=p) for a, p in zip(x.split(128), places.split(128), strict=True)]
    found = {m.name: m for m in activation_sparsity(rows)}
    assert found["activation_used_dimension"].value == 8
    mass = x.abs().mean(0)
    assert found["activation_participating_dimension"].value == pytest.approx(float(effective_number(mass, 2)))
    assert found["activation_treves_rolls"].value == pytest.approx(float(treves_rolls(x).mean()))
    varying = x[:, [0, 1, 3, 4, 5, 6, 8]].numpy()
    kurtosis = found["activation_kurtosis"]
    assert kurtosis.value == pytest.approx(np.median(scipy.stats.kurtosis(varying, axis=0)), rel=1e-9)
    assert kurtosis.n == 7
    assert kurtosis.low <= kurtosis.value <= kurtosis.high


def test_the_atoms_of_a_basis_are_sparse_and_turned_ones_are_at_chance():
    basis, turned = (
        {m.name: m for m in weight_sparsity(Dictionary(atoms))}
        for atoms in (torch.eye(32), random_directions(32, 32, torch.Generator().manual_seed(1)).float())
    )
    assert basis["weight_participating_dimension"].value == pytest.approx(1)
    assert basis["weight_kurtosis"].value == pytest.approx(32 + 1 / 31 - 5)
    for name, measured in turned.items():
        assert measured.low <= measured.chance <= measured.high, name
        assert measured.value == pytest.approx(measured.chance, rel=0.15, abs=0.3)
        assert basis[name].value != pytest.approx(basis[name].chance, rel=0.15, abs=0.3)
    # Gini of |N(0, 1)|.
    assert turned["weight_gini"].chance == pytest.approx(2**0.5 - 1, abs=0.02)
