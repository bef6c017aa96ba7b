from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superscope.theory import (
    babel_guarantee,
    coherence_guarantee,
    matching_pursuit_needs,
    rip_ceiling,
    rip_dimension,
    rip_floor,
    rip_guarantee,
    rip_random,
    rip_typical,
    rip_upper,
    rip_upper_from_babel,
    welch,
)


def _atoms(n, d, seed):
    w = np.random.default_rng(seed).standard_normal((n, d))
    return w / np.linalg.norm(w, axis=1, keepdims=True)


def _babel(w):
    g = abs(w @ w.T)
    np.fill_diagonal(g, 0)
    return np.cumsum(-np.sort(-g, axis=1)[:, :-1], axis=1).max(0)


def _exact(w, k):
    gram = w @ w.T
    values = [np.linalg.eigvalsh(gram[np.ix_(s, s)]) for s in itertools.combinations(range(len(w)), k)]
    return max(max(v[-1] - 1, 1 - v[0]) for v in values)


@settings(deadline=None, max_examples=25)
@given(st.integers(4, 9), st.integers(2, 6), st.integers(2, 4), st.integers(0, 10**6))
def test_bounds_hold_the_exact_constant_of_small_frames(n, d, k, seed):
    w = _atoms(n, d, seed)
    babel = _babel(w)
    exact = _exact(w, k)
    assert rip_floor(n, d, k) <= exact + 1e-9
    assert exact <= rip_upper_from_babel(k, list(babel)) + 1e-9
    assert rip_upper_from_babel(k, list(babel)) <= rip_upper(k, min(1.0, babel[0])) + 1e-9


def test_pair_constant_is_the_coherence():
    w = _atoms(8, 4, 0)
    assert _exact(w, 2) == pytest.approx(rip_upper(2, _babel(w)[0]))


def test_floor_is_reached_by_an_orthonormal_pair_of_bases():
    # Any equiangular tight frame: every pair deviates by exactly the Welch bound.
    assert rip_floor(6, 3, 2) == pytest.approx(1 / math.sqrt(5))
    assert rip_floor(28, 7, 5) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("n", "d"), [(1024, 256), (24576, 768), (10, 3), (131072, 4096), (7, 6)])
def test_ceiling_is_the_largest_strict_k(n, d):
    k = rip_ceiling(n, d)
    assert k == 0 or math.sqrt(2 * k - 1) * welch(n, d) < 1 / math.sqrt(2)
    assert math.sqrt(2 * k + 1) * welch(n, d) >= 1 / math.sqrt(2) - 1e-12
    assert k <= d / 4 * n / (n - d) + 1


@pytest.mark.parametrize(
    ("k", "deviation", "search"),
    [(2, 0.050, 0.297), (4, 0.152, 0.564), (8, 0.279, 0.949), (16, 0.455, 1.47), (32, 0.729, 2.17), (64, 1.152, 3.13)],
)
def test_measured_constants_of_a_random_frame(k, deviation, search):
    # Measured on Gaussian 256 x 1024: mean over random supports, and local search for the worst support.
    assert rip_floor(1024, 256, k) <= search
    assert rip_random(1024, 256, k) >= search
    if k >= 8:
        assert rip_typical(256, k) == pytest.approx(deviation, rel=0.4)
        assert rip_typical(256, k) > deviation


@pytest.mark.parametrize(("k", "upper"), [(2, 0.297), (4, 0.891), (8, 2.08), (16, 4.45), (32, 9.21), (64, 18.7)])
def test_upper_bound_of_a_random_frame(k, upper):
    assert rip_upper(k, 0.297) == pytest.approx(upper, rel=2e-3)


def test_typical_deviation_by_simulation():
    d, k = 400, 100
    top = [np.linalg.norm(_atoms(k, d, seed), 2) ** 2 - 1 for seed in range(8)]
    assert rip_typical(d, k) == pytest.approx(np.mean(top), rel=0.05)


def test_random_matrices_keep_their_promise():
    n, d, k = 8, 4000, 2
    worst = []
    for seed in range(20):
        w = np.random.default_rng(seed).standard_normal((n, d)) / math.sqrt(d)
        worst.append(_exact(w, k))
    assert np.median(worst) <= rip_random(n, d, k)
    assert rip_random(n, rip_dimension(n, k, 0.5), k) <= 0.5 + 1e-9
    assert rip_random(n, rip_dimension(n, k, 0.5) - 1, k) > 0.5


def test_rip_asks_for_more_dimensions_than_features():
    assert rip_dimension(1024, 20) > 1024


@given(st.floats(1e-4, 1))
def test_guarantee_through_rip_is_never_better_than_coherence(mu):
    assert rip_guarantee(mu) <= coherence_guarantee(mu)
    k = rip_guarantee(mu)
    assert k == 0 or (2 * k - 1) * mu < 1 / math.sqrt(2)


@settings(deadline=None, max_examples=30)
@given(st.integers(3, 40), st.integers(2, 20), st.integers(0, 10**6))
def test_babel_is_at_least_as_good_as_coherence(n, d, seed):
    w = _atoms(n, d, seed)
    babel = _babel(w)
    mu = min(1.0, float(babel[0]))
    if mu < 1 - 1e-9:
        assert babel_guarantee(list(babel)) >= min(coherence_guarantee(mu), n - 1)


def test_babel_guarantee_by_hand():
    assert babel_guarantee([0.2, 0.4, 0.5, 0.6]) == 3
    assert babel_guarantee([0.5, 0.9]) == 1
    assert babel_guarantee([1.0]) == 1


def test_matching_pursuit_needs():
    assert matching_pursuit_needs(3) == 0.5


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="must rise while"):
        babel_guarantee([0.1, 0.3])
    with pytest.raises(ValueError, match="babel has 2 entries"):
        rip_upper_from_babel(5, [0.2, 0.3])
    with pytest.raises(ValueError, match="k = 9 atoms out of n = 8"):
        rip_floor(8, 4, 9)
    with pytest.raises(ValueError, match="mu must lie in"):
        rip_upper(3, 1.5)
    with pytest.raises(ValueError, match="n must be at least 5"):
        rip_ceiling(4, 4)
