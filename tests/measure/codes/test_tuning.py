"""Thresholds and selectivity of neurons; mixing told apart from superposition, where one is without the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from superscope.core import Activations, Dictionary, SparseCode, SparseCoder
from superscope.measure import neuron_tuning, polysemanticity, signed_interference
from superscope.measure.codes.polysemanticity import random_directions
from superscope.measure.codes.tuning import THRESHOLDS, _mid_ranks, _selectivity
from superscope.measure.geometry.capacity import dimensions_per_feature


class Known(SparseCoder):
    """Codes looked up by the row itself."""

    def __init__(self, W: Dictionary, f: torch.Tensor) -> None:
        self.dictionary, x = W, W.compose(f)
        self._rows = {tuple(row): f[i] for i, row in enumerate(x.tolist())}
        places = torch.stack([torch.arange(len(x)) // 10, torch.arange(len(x)) % 10], 1)
        self.rows = [Activations(part, places=p) for part, p in zip(x.split(256), places.split(256), strict=True)]

    def encode(self, x):
        return SparseCode.from_dense(torch.stack([self._rows[tuple(row)] for row in x.tolist()]))


def features(n, rows=1200, density=0.1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    on = torch.rand(rows, n, generator=generator, dtype=torch.float64) < density
    return on * (0.5 + torch.rand(rows, n, generator=generator, dtype=torch.float64))


def test_the_curve_counts_what_its_definition_says():
    W = Dictionary(random_directions(6, 6, torch.Generator().manual_seed(2))[:5] * 2)
    f = features(5)
    coder = Known(W, f)
    found = neuron_tuning(coder, coder.rows)
    x = W.compose(f)
    moved = (f[:, :, None] * W.atoms).abs() / x.std(0)
    wanted = [float((moved > theta).sum(1).double().mean()) for theta in THRESHOLDS]
    assert found.strong.tolist() == pytest.approx(wanted, rel=1e-6)
    assert found.measurements[0].value == pytest.approx(wanted[THRESHOLDS.index(0.5)])
    assert (found.strong[1:] <= found.strong[:-1]).all()
    assert (found.low <= found.strong).all()
    assert (found.strong <= found.high).all()


def test_ranks_and_areas():
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 9, (200, 5), generator=generator).double()
    np.testing.assert_array_equal(_mid_ranks(x).numpy(), rankdata(x.numpy(), axis=0))
    f = features(7, rows=200, density=0.3)
    best, told = _selectivity(_mid_ranks(x), SparseCode.from_dense(f), 5)
    for j in range(5):
        areas = []
        for i in range(7):
            on = f[:, i] != 0
            a, b = x[on, j][:, None], x[~on, j][None]
            areas.append(abs(2 * float(((a > b).double() + 0.5 * (a == b)).mean()) - 1))
        assert float(best[j]) == pytest.approx(max(areas))
        assert int(told[j]) == int(np.argmax(areas))


def test_a_neuron_for_one_feature_is_selective_and_luck_is_not():
    coder = Known(Dictionary(torch.eye(12, dtype=torch.float64)), features(12))
    strong, neurons, directions = found = neuron_tuning(coder, coder.rows)
    assert neurons.value == pytest.approx(1)
    assert found.told.tolist() == list(range(12))
    assert neurons.chance < 0.35
    assert directions.value < neurons.value - 0.05
    # One feature, active a tenth of the time, and always by more than half a deviation.
    assert strong.value == pytest.approx(0.1, abs=0.02)
    assert strong.chance > 2 * strong.value


def test_a_constant_neuron_and_rare_features():
    W = Dictionary(torch.eye(4, dtype=torch.float64)[:3])
    coder = Known(W, features(3))
    found = neuron_tuning(coder, coder.rows)
    assert found.selectivity[3].isnan()
    assert found.told[3] == -1
    none = neuron_tuning(coder, coder.rows, least=1000)
    assert none["neuron_selectivity"].value is None
    assert "often enough" in none["neuron_selectivity"].caution
    with pytest.raises(ValueError, match="constant"):
        neuron_tuning(coder, [Activations(coder.rows[0].x[:1].expand(20, 4))])


def both(W, n):
    """Mixing of neurons beside chance, selectivity beside random directions, and interference while off."""
    coder = Known(W, features(n))
    mixing = polysemanticity(coder, coder.rows).measurements[0]
    tuning = neuron_tuning(coder, coder.rows)
    return mixing, tuning, signed_interference(coder, coder.rows)["false_alarm_power"]


def test_polysemantic_without_superposition():
    """Sixteen orthogonal features turned away from the axes: every neuron mixes, and nothing interferes."""
    W = Dictionary(random_directions(16, 16, torch.Generator().manual_seed(4)))
    mixing, tuning, false_alarm = both(W, 16)
    assert mixing.value > 8
    assert mixing.value == pytest.approx(mixing.chance, rel=0.15)
    strong = tuning["strong_features_per_neuron"]
    assert strong.value == pytest.approx(strong.chance, rel=0.25)
    neurons, directions = tuning["neuron_selectivity"], tuning["direction_selectivity"]
    assert neurons.value == pytest.approx(directions.value, abs=0.15)
    assert false_alarm.value == pytest.approx(0, abs=1e-12)
    assert dimensions_per_feature(W).value == pytest.approx(1)


def test_superposed_without_polysemanticity():
    """Thirty-two features on sixteen axes, two to an axis with opposite signs: neurons mix two, and they interfere."""
    W = Dictionary(torch.cat([torch.eye(16, dtype=torch.float64), -torch.eye(16, dtype=torch.float64)]))
    mixing, tuning, false_alarm = both(W, 32)
    assert 1.5 < mixing.value <= 2
    assert mixing.value < 0.2 * mixing.chance
    strong = tuning["strong_features_per_neuron"]
    assert strong.value < 0.7 * strong.chance
    neurons, directions = tuning["neuron_selectivity"], tuning["direction_selectivity"]
    assert neurons.value > 0.8
    assert neurons.value > directions.value + 0.2
    assert false_alarm.value > 0.05
    assert dimensions_per_feature(W).value == pytest.approx(0.5)
