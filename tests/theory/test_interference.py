from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superscope.theory import (
    capacity_used,
    exponential,
    fixed,
    frame_interference,
    half_normal,
    interference_floor,
    least_square,
    normal,
    opposite_relu_error,
    pair_interference,
    random_interference,
    readout_signal_to_noise,
    uniform,
)

SAMPLERS = {
    "fixed": (fixed(0.7), lambda g, size: np.full(size, 0.7)),
    "uniform": (uniform(), lambda g, size: g.random(size)),
    "shifted": (uniform(0.5, 1.5), lambda g, size: 0.5 + g.random(size)),
    "half normal": (half_normal(2.0), lambda g, size: 2 * abs(g.standard_normal(size))),
    "normal": (normal(1.5), lambda g, size: 1.5 * g.standard_normal(size)),
    "exponential": (exponential(0.3), lambda g, size: g.exponential(0.3, size)),
}


@pytest.mark.parametrize("law", SAMPLERS)
def test_moments_and_survival_by_simulation(law):
    magnitude, sample = SAMPLERS[law]
    f = sample(np.random.default_rng(0), 400_000)
    assert magnitude.first == pytest.approx(f.mean(), abs=5 * f.std() / 632 + 1e-12)
    assert magnitude.second == pytest.approx((f**2).mean(), rel=0.02)
    for m in (0.1, 0.6, 1.1):
        assert magnitude.survival(m) == pytest.approx((f > m).mean(), abs=0.005)


def test_two_features_of_the_exercise():
    # f ~ U[0, 1] when on: mean c p/2, mean square c^2 p/3, variance c^2 (p/3 - p^2/4).
    p, c = 0.1, -0.6
    mean, variance, square = pair_interference(c, p, 1 / 2, 1 / 3)
    assert mean == pytest.approx(c * p / 2)
    assert square == pytest.approx(c * c * p / 3)
    assert variance == pytest.approx(c * c * (p / 3 - p * p / 4))


@pytest.mark.parametrize("law", SAMPLERS)
def test_interference_of_a_frame_by_simulation(law):
    magnitude, sample = SAMPLERS[law]
    generator = np.random.default_rng(1)
    n, d, p, draws = 12, 5, 0.2, 200_000
    w = generator.standard_normal((n, d))
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    gram = w @ w.T - np.eye(n)
    f = np.where(generator.random((draws, n)) < p, sample(generator, (draws, n)), 0.0)
    received = f @ gram[0]
    expected = frame_interference(gram[0].sum(), (gram[0] ** 2).sum(), p, magnitude.first, magnitude.second)
    assert expected.mean == pytest.approx(received.mean(), abs=6 * received.std() / math.sqrt(draws))
    assert expected.variance == pytest.approx(received.var(), rel=0.03)
    assert expected.square == pytest.approx((received**2).mean(), rel=0.03)


def test_antipodal_pair_behind_a_relu():
    for p in (0.01, 0.1, 1.0):
        assert 2 * opposite_relu_error(-1, p, uniform()) == pytest.approx(p * p / 3, rel=1e-9)


@pytest.mark.parametrize("law", ["fixed", "uniform", "shifted", "half normal", "exponential"])
@pytest.mark.parametrize("cosine", [-1.0, -0.4, 0.0, 0.5])
def test_relu_error_by_simulation(law, cosine):
    magnitude, sample = SAMPLERS[law]
    generator = np.random.default_rng(2)
    p, draws = 0.3, 400_000
    f = np.where(generator.random((draws, 2)) < p, sample(generator, (draws, 2)), 0.0)
    error = (np.maximum(f[:, 0] + cosine * f[:, 1], 0) - f[:, 0]) ** 2
    assert opposite_relu_error(cosine, p, magnitude) == pytest.approx(error.mean(), abs=6 * error.std() / 632 + 1e-12)


def test_least_square_in_closed_form():
    for c in (0.1, 0.5, 1.0):
        assert least_square(c, uniform()) == pytest.approx(c * c / 3 - c**3 / 6, rel=1e-9)
        assert least_square(c, fixed(3.0)) == pytest.approx(9 * c * c, rel=1e-9)
        rate = 1 + 1 / c  # the smaller of exponentials is exponential
        assert least_square(c, exponential()) == pytest.approx(2 / rate**2, rel=1e-9)
    assert least_square(1, half_normal()) == pytest.approx(1 - 2 / math.pi, rel=1e-9)
    assert least_square(1, uniform(0, 1e-6)) == pytest.approx(1e-12 / 6, rel=1e-9)
    assert least_square(1, uniform(0, 1e6)) == pytest.approx(1e12 / 6, rel=1e-9)


@given(st.floats(0.001, 1), st.floats(-1, 1))
def test_relu_never_hurts(p, c):
    magnitude = uniform()
    linear = pair_interference(c, p, magnitude.first, magnitude.second).square
    assert opposite_relu_error(c, p, magnitude) <= linear * (1 + 1e-9)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 40), st.integers(1, 12), st.integers(0, 10**6))
def test_no_frame_is_below_the_floor(n, d, seed):
    w = np.random.default_rng(seed).standard_normal((n, d))
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    squares = ((w @ w.T) ** 2).sum(1) - 1
    mean = np.mean([frame_interference(0, max(s, 0.0), 0.2, 0.5, 1 / 3).variance for s in squares])
    assert mean >= interference_floor(n, d, 0.2, 0.5, 1 / 3) - 1e-12


def test_random_atoms_are_within_one_unit_of_the_floor():
    n, d = 24576, 768
    random, floor = random_interference(n, d, 0.01, 0, 1).square, interference_floor(n, d, 0.01, 0, 1)
    assert 0 < random - floor < 0.01


def test_signal_to_noise():
    assert readout_signal_to_noise(3, 0.01, 0, 1) == pytest.approx(100 / 3)
    assert readout_signal_to_noise(0, 0.5, 0.5, 1 / 3) == math.inf


def test_capacity_used_by_random_atoms():
    assert capacity_used(1024, 256) == pytest.approx(204.96, abs=0.005)
    assert capacity_used(24576, 768) / 768 == pytest.approx(0.970, abs=5e-4)
    w = np.random.default_rng(0).standard_normal((400, 50))
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    assert (1 / ((w @ w.T) ** 2).sum(1)).sum() == pytest.approx(capacity_used(400, 50), rel=0.005)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="which no law has"):
        pair_interference(0.5, 0.1, 1.0, 0.5)
    with pytest.raises(ValueError, match="density must lie in"):
        pair_interference(0.5, 1.1, 0.5, 0.5)
    with pytest.raises(ValueError, match="cosine must lie in"):
        opposite_relu_error(-1.5, 0.1, uniform())
    with pytest.raises(ValueError, match="high must lie in"):
        uniform(1, 1)
    with pytest.raises(ValueError, match="scale must lie in"):
        half_normal(0)
