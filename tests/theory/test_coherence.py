from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superscope.theory import (
    babel_guarantee,
    coherence_guarantee,
    random_babel,
    random_coherence,
    random_nearest,
    readout_guarantee,
    spark_bound,
)


@pytest.mark.parametrize(("mu", "k"), [(1, 1), (1 / 3, 1), (0.3333, 2), (1 / 5, 2), (0.2133, 2), (0.0355, 14)])
def test_coherence_guarantee(mu, k):
    assert coherence_guarantee(mu) == k


@given(st.floats(1e-9, 1))
def test_coherence_guarantee_is_the_largest_strict_k(mu):
    k = coherence_guarantee(mu)
    assert k == 1 or k < (1 + 1 / mu) / 2
    assert k + 1 >= (1 + 1 / mu) / 2


def test_orthogonal_atoms_have_no_limit():
    assert coherence_guarantee(0) == sys.maxsize
    assert coherence_guarantee(1e-300) == sys.maxsize


@pytest.mark.parametrize("mu", [-0.1, 1.1, float("nan")])
def test_coherence_outside_its_range_is_named(mu):
    with pytest.raises(ValueError, match="mu must lie in"):
        coherence_guarantee(mu)


@pytest.mark.parametrize(
    ("n", "d", "nearest", "median", "low", "high", "k"),
    [
        (1024, 256, 0.2106, 0.2963, 0.279, 0.325, 2),
        (4096, 512, 0.1653, 0.2340, 0.223, 0.253, 2),
        (24576, 768, 0.1504, 0.2133, 0.205, 0.228, 2),
        (32768, 768, 0.1527, 0.2166, 0.208, 0.231, 2),
        (16384, 2304, 0.0852, 0.1213, 0.116, 0.130, 4),
        (65536, 2304, 0.0916, 0.1305, 0.126, 0.139, 4),
        (131072, 4096, 0.0711, 0.1013, 0.098, 0.107, 5),
        (1_000_000, 4096, 0.0774, 0.1104, 0.107, 0.116, 5),
    ],
)
def test_random_frames(n, d, nearest, median, low, high, k):
    assert random_nearest(n, d) == pytest.approx(nearest, abs=6e-5)
    assert random_coherence(n, d) == pytest.approx(median, abs=6e-5)
    assert random_coherence(n, d, 0.05) == pytest.approx(low, abs=6e-4)
    assert random_coherence(n, d, 0.95) == pytest.approx(high, abs=6e-4)
    assert coherence_guarantee(median) == k


@pytest.mark.parametrize(
    ("n", "d", "unique"),
    [
        (1024, 256, 2.19),
        (4096, 512, 2.64),
        (24576, 768, 2.84),
        (32768, 768, 2.81),
        (16384, 2304, 4.62),
        (65536, 2304, 4.33),
        (131072, 4096, 5.44),
        (1_000_000, 4096, 5.03),
    ],
)
def test_popular_size_of_a_random_coherence_overshoots(n, d, unique):
    mu = random_coherence(n, d)
    assert (1 + 1 / mu) / 2 == pytest.approx(unique, abs=0.006)
    assert 1.05 < np.sqrt(4 * np.log(n) / d) / mu < 1.115


@pytest.mark.parametrize(("n", "d", "mean"), [(16384, 768, 0.1485), (24576, 768, 0.152)])
def test_mean_cosine_of_nearest_atoms(n, d, mean):
    # A benchmark of 16 384 features states 0.15 for its own, orthogonalised ones: what chance gives.
    quantiles = (np.arange(100) + 0.5) / 100
    assert np.mean([random_nearest(n, d, q) for q in quantiles]) == pytest.approx(mean, abs=3e-4)


@pytest.mark.parametrize(("m", "value"), [(1, 0.153), (4, 0.573), (16, 2.11), (64, 7.58), (128, 14.2)])
def test_random_babel(m, value):
    assert random_babel(24576, 768, m) == pytest.approx(value, rel=7e-3)


def test_random_laws_by_simulation():
    n, d = 60, 10
    generator = np.random.default_rng(0)
    largest, nearest, four = [], [], []
    for _ in range(1500):
        w = generator.standard_normal((n, d))
        w /= np.linalg.norm(w, axis=1, keepdims=True)
        cosines = abs(w @ w.T) - 2 * np.eye(n)
        largest.append(cosines.max())
        nearest.append(cosines[0].max())
        four.append(np.sort(cosines[0])[-4:].sum())
    for q in (0.05, 0.5, 0.95):
        # The share of draws below the q-quantile is q, within four standard errors.
        assert np.mean(np.array(largest) < random_coherence(n, d, q)) == pytest.approx(q, abs=0.055)
        assert np.mean(np.array(nearest) < random_nearest(n, d, q)) == pytest.approx(q, abs=0.055)
    # Mean logarithms of ranks are 1 % low at this small n and exact to four digits at SAE sizes.
    assert random_babel(n, d, 4) == pytest.approx(np.mean(four), rel=0.02)


@given(st.floats(1e-6, 1), st.floats(1, 100))
def test_dynamic_range_only_costs(mu, span):
    assert readout_guarantee(mu, span) <= readout_guarantee(mu) == coherence_guarantee(mu)


@pytest.mark.parametrize(("mu", "spark"), [(1, 2), (0.5, 3), (1 / 3, 4), (0.25, 5), (0.3, 5)])
def test_spark_bound(mu, spark):
    assert spark_bound(mu) == spark


def test_more_bad_input_is_named():
    with pytest.raises(ValueError, match="m = 10 neighbours out of n - 1 = 9"):
        random_babel(10, 5, 10)
    with pytest.raises(ValueError, match="quantile must lie in"):
        random_coherence(10, 5, 1.0)
    with pytest.raises(ValueError, match="dynamic_range must lie in"):
        readout_guarantee(0.1, 0.5)


def test_a_babel_function_need_not_be_concave():
    # One atom has a single close neighbour, another has three at 0.5: the largest sums are of different atoms.
    curve = np.maximum(np.cumsum([0.6, 0.1, 0.1]), np.cumsum([0.5, 0.5, 0.5]))
    assert curve[2] - curve[1] > curve[1] - curve[0]
    assert babel_guarantee(curve) == 1
    assert babel_guarantee(curve / 4) == 3
    with pytest.raises(ValueError, match="must rise"):
        babel_guarantee([0.2, 0.5])
