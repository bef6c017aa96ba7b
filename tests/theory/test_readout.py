from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superscope.theory import readout_recall, readout_success, readout_threshold, threshold_success, weak_count

UNIFORM = tuple(a if i else 1 + a / 2 for i, a in enumerate(np.polynomial.legendre.leggauss(40)))
EXPONENTIAL = np.polynomial.laguerre.laggauss(100)
NORMAL = tuple(a if i else abs(a) for i, a in enumerate(np.polynomial.hermite_e.hermegauss(200)))


@pytest.mark.parametrize(
    ("n", "d", "k"),
    [(1024, 256, 11), (24576, 768, 22), (16384, 2304, 59), (65536, 2304, 54), (131072, 4096, 87), (10**6, 4096, 78)],
)
def test_ladder(n, d, k):
    assert readout_threshold(n, d) == k


@pytest.mark.parametrize(
    ("law", "signed", "measured"),
    [
        (((1.0,), None), False, 11),
        (((1.0,), None), True, 11),
        (UNIFORM, False, 7),
        (EXPONENTIAL, False, 2),
        (NORMAL, True, 2),
    ],
    ids=["flat", "signs", "uniform", "exponential", "normal"],
)
def test_measured_half_points(law, signed, measured):
    # Experiments of 40 to 60 trials on 256 x 1024 Gaussian atoms, uncertain by 2.
    assert abs(readout_threshold(1024, 256, *law, signed=signed) - measured) <= 2


@pytest.mark.parametrize(
    ("law", "signed", "measured", "slack"),
    [
        (((1.0,), None), False, (0.98, 0.83, 0.65, 0.55), 0.025),
        (((1.0,), None), True, (0.97, 0.78, 0.58, 0.46), 0.025),
        (UNIFORM, False, (0.86, 0.74, 0.60, 0.53), 0.025),
        (EXPONENTIAL, False, (0.54, 0.46, 0.40, 0.37), 0.045),
        (NORMAL, True, (0.60, 0.50, 0.41, 0.37), 0.03),
    ],
    ids=["flat", "signs", "uniform", "exponential", "normal"],
)
def test_measured_recall(law, signed, measured, slack):
    for k, share in zip((10, 20, 40, 64), measured):
        assert readout_recall(1024, 256, k, *law, signed=signed) == pytest.approx(share, abs=slack)


def test_success_by_simulation_of_its_own_model():
    # Independent normal scores, as the formula assumes: tests the integral, not the assumption.
    n, d, k, trials = 300, 100, 5, 20_000
    generator = np.random.default_rng(1)
    on = 1 + generator.standard_normal((trials, k)) * math.sqrt((k - 1) / d)
    off = generator.standard_normal((trials, n - k)) * math.sqrt(k / d)
    share = (on.min(1) > off.max(1)).mean()
    assert readout_success(n, d, k) == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / trials))
    share = (abs(on).min(1) > abs(off).max(1)).mean()
    assert readout_success(n, d, k, signed=True) == pytest.approx(
        share, abs=4 * math.sqrt(share * (1 - share) / trials)
    )
    share = ((on.min(1) > 0.5) & (off.max(1) < 0.5)).mean()
    assert threshold_success(n, d, k) == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / trials))


def test_success_by_simulation_of_random_atoms():
    n, d, k, trials = 256, 128, 6, 400
    generator = np.random.default_rng(2)
    hits = 0
    for _ in range(trials):
        w = generator.standard_normal((n, d))
        w /= np.linalg.norm(w, axis=1, keepdims=True)
        scores = w @ w[:k].sum(0)
        hits += scores[:k].min() > scores[k:].max()
    assert readout_success(n, d, k) == pytest.approx(hits / trials, abs=0.12)


@settings(deadline=None, max_examples=50)
@given(st.integers(100, 5000), st.integers(16, 500), st.integers(1, 8), st.booleans())
def test_success_falls_with_k_and_n_and_rises_with_d(n, d, k, signed):
    here = readout_success(n, d, k, signed=signed)
    assert 0 <= here <= 1
    assert readout_success(n, d, k + 1, signed=signed) <= here + 1e-9
    assert readout_success(2 * n, d, k, signed=signed) <= here + 1e-9
    assert readout_success(n, d + 1, k, signed=signed) >= here - 1e-9
    assert readout_success(n, d, k, signed=True) <= readout_success(n, d, k) + 1e-9


def test_one_step_is_far_below_l1():
    assert 4 * readout_threshold(24576, 768) < weak_count(24576, 768)


@pytest.mark.parametrize(("n", "d"), [(1024, 256), (24576, 768), (16384, 2304), (131072, 4096)])
def test_simple_forms_are_of_the_right_size(n, d):
    # Leading terms for large n, both too low: d / (8 ln n) for a threshold at 1/2, and for the k largest
    # d / (2 (sqrt(ln k) + sqrt(ln n))^2).
    k = readout_threshold(n, d)
    assert 0.6 < d / (2 * (math.sqrt(math.log(k)) + math.sqrt(math.log(n))) ** 2) / k < 1
    fixed = d / (8 * math.log(n))
    assert (
        threshold_success(n, d, max(1, math.floor(0.75 * fixed))) > 0.5 > threshold_success(n, d, math.ceil(2 * fixed))
    )


def test_threshold_below_keeping_the_largest():
    # A fixed threshold also has to know where to stand.
    for k in (2, 6, 10):
        assert threshold_success(1024, 256, k) < readout_success(1024, 256, k)


def test_sizes_at_which_nothing_is_read():
    assert readout_threshold(1000, 2) == 0
    assert readout_threshold(2, 1000) == 1


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="leave none of n = 5 idle"):
        readout_success(5, 3, 5)
    with pytest.raises(ValueError, match="values must be a list of finite positive"):
        readout_success(5, 3, 2, (0.0,))
    with pytest.raises(ValueError, match="success must lie in"):
        readout_threshold(5, 3, success=1)
    with pytest.raises(ValueError, match="level must lie in"):
        threshold_success(5, 3, 2, level=1.5)
