from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from superscope.theory import (
    best_lower_bound,
    cap_fraction,
    covering_count,
    direction_count,
    packing_rate,
    random_count,
)
from superscope.theory.packing import _delsarte_goethals

LOG10 = math.log(10)


@pytest.mark.parametrize(
    ("n", "d", "value", "by"),
    [
        (3, 3, 0, "none"),
        (4, 3, 1 / 3, "Welch"),
        (28, 7, 1 / 3, "Welch"),
        (9, 7, 0.2, "Bukh-Cox"),
        (12, 4, 0.5, "orthoplex"),
        (120, 8, 0.5, "Levenshtein"),
        (98280, 24, 0.5, "Levenshtein"),
    ],
)
def test_best_lower_bound(n, d, value, by):
    bound = best_lower_bound(n, d)
    assert bound.value == pytest.approx(value, abs=1e-13)
    assert bound.by.startswith(by)


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 3000), st.integers(1, 80), st.booleans())
def test_best_lower_bound_rises_with_n_and_falls_with_d(n, d, signed):
    value = best_lower_bound(n, d, signed=signed).value
    assert best_lower_bound(n + 1, d, signed=signed).value >= value - 1e-12
    assert best_lower_bound(n, d + 1, signed=signed).value <= value + 1e-12
    assert best_lower_bound(n, d, signed=True).value <= best_lower_bound(n, d).value + 1e-12


@given(st.integers(2, 3000), st.floats(0, 0.99))
def test_cap_fraction_is_a_beta_tail(d, eps):
    expected = beta.logsf(eps * eps, 0.5, (d - 1) / 2)
    if expected > -500:
        assert cap_fraction(d, eps) == pytest.approx(expected, rel=1e-8, abs=1e-8)
        assert cap_fraction(d, eps, signed=True) == pytest.approx(expected - math.log(2), rel=1e-8, abs=1e-8)


def test_cap_fraction_by_elementary_areas():
    assert cap_fraction(3, 0.25) == pytest.approx(math.log(0.75), abs=1e-14)
    assert cap_fraction(2, 0.5) == pytest.approx(math.log(2 / 3), abs=1e-14)
    assert cap_fraction(3, -0.5, signed=True) == pytest.approx(math.log(0.75), abs=1e-14)
    # Far below the smallest float: P = c (1 - eps^2)^((d-1)/2) (1 + O(1 - eps^2)) keeps its exponent.
    assert cap_fraction(4096, 0.9) == pytest.approx(-1478.61 * LOG10, abs=0.01 * LOG10)
    assert abs(cap_fraction(1200, 0.62) - beta.logsf(0.62**2, 0.5, 599.5)) < 1e-8


@pytest.mark.parametrize(
    ("d", "eps", "union", "covering"),
    [
        (64, 0.1, 0.33, 0.37),
        (64, 0.2, 0.63, 0.96),
        (256, 0.1, 0.63, 0.96),
        (256, 0.2, 1.60, 2.90),
        (768, 0.05, 0.54, 0.78),
        (1024, 0.05, 0.63, 0.96),
        (4096, 0.05, 1.58, 2.86),
        (768, 0.1, 1.28, 2.26),
        (768, 0.2, 3.98, 7.65),
        (1024, 0.1, 1.59, 2.87),
        (1024, 0.2, 5.14, 9.98),
        (2048, 0.1, 2.77, 5.24),
        (2048, 0.2, 9.75, 19.2),
        (4096, 0.1, 5.08, 9.85),
        (4096, 0.2, 18.9, 37.5),
    ],
)
def test_random_and_covering_counts(d, eps, union, covering):
    # The table has sqrt(2/P), the root of n(n-1) P = 2 without its - 1: half a direction less.
    n = math.exp(random_count(d, eps))
    assert math.log10(n * (n - 1)) / 2 == pytest.approx(union, abs=0.016)
    assert covering_count(d, eps) / LOG10 == pytest.approx(covering, abs=0.03)


def test_random_directions_are_fewer_than_a_basis_at_real_sizes():
    # 768 dimensions, cosines up to 0.1: a random draw keeps 19 directions, a greedy choice 182, a basis 768.
    assert int(math.exp(random_count(768, 0.1))) == 19
    assert math.ceil(math.exp(covering_count(768, 0.1))) == 182
    assert direction_count(768, 0.1).lower > 1e5


@pytest.mark.parametrize(("eps", "d"), [(0.1, 1096), (0.2, 193), (0.3, 64)])
def test_where_covering_first_beats_a_basis(eps, d):
    assert covering_count(d, eps) > math.log(d)
    assert covering_count(d - 1, eps) <= math.log(d - 1)


@pytest.mark.parametrize("d", range(1, 10))
def test_a_tenth_allows_only_a_basis_below_ten(d):
    count = direction_count(d, 0.1)
    assert (count.lower, count.upper, count.is_exact) == (d, d, True)


@pytest.mark.parametrize(("d", "upper"), [(10, 11), (50, 99), (64, 176), (99, 4950)])
def test_a_tenth_up_to_a_hundred(d, upper):
    count = direction_count(d, 0.1)
    assert count.lower == d + 1
    assert count.upper == upper


@pytest.mark.parametrize(
    ("d", "eps", "n"),
    [
        (2, 0.5, 3),
        (3, 1 / math.sqrt(5), 6),
        (4, 0.5, 12),
        (6, 0.5, 36),
        (7, 1 / 3, 28),
        (7, 0.5, 63),
        (8, 0.5, 120),
        (16, 0.25, 144),
        (23, 0.2, 276),
        (23, 1 / 3, 2300),
        (24, 0.5, 98280),
    ],
)
def test_counts_that_are_known_exactly(d, eps, n):
    assert direction_count(d, eps).is_exact
    assert direction_count(d, eps).lower == n


@pytest.mark.parametrize(
    ("d", "angle", "n"),
    [(2, 2, 3), (3, 5**0.5, 6), (6, 3, 16), (7, 3, 28), (15, 5, 36), (21, 5, 126), (22, 5, 176), (23, 5, 276)],
)
def test_most_equiangular_lines(d, angle, n):
    # The largest systems are the largest of their cosine: nothing is lost by asking for at most it.
    count = direction_count(d, 1 / angle)
    assert (count.lower, count.upper) == (n, n)


@pytest.mark.parametrize(
    ("d", "angle", "known", "upper"),
    [
        (5, 3, 10, 10),
        (16, 5, 40, 42),
        (17, 5, 48, 51),
        (18, 5, 57, 61),
        (19, 5, 72, 76),
        (20, 5, 90, 96),
        (42, 7, 276, 288),
        (43, 7, 344, 344),
    ],
)
def test_equiangular_lines_lie_in_the_bracket(d, angle, known, upper):
    # d(1 - a^2) / (1 - d a^2), the relative bound, reached only by the last and by 5.
    count = direction_count(d, 1 / angle)
    assert count.lower <= known <= count.upper
    assert count.upper == upper


@pytest.mark.parametrize(
    ("d", "eps", "n"),
    [(2, 0.5, 6), (8, 0.5, 240), (24, 0.5, 196560), (5, 0, 10), (3, -1 / 3, 4), (9, -0.5, 3), (4, -1, 2)],
)
def test_signed_counts_that_are_known_exactly(d, eps, n):
    count = direction_count(d, eps, signed=True)
    assert (count.lower, count.upper) == (n, n)


@pytest.mark.parametrize(
    ("d", "known"),
    [
        (1, 2),
        (3, 12),
        (4, 24),
        (5, 40),
        (6, 72),
        (7, 126),
        (16, 4320),
        (9, 306),
        (10, 510),
        (11, 593),
        (12, 840),
    ],
)
def test_kissing_numbers_lie_in_the_bracket(d, known):
    count = direction_count(d, 0.5, signed=True)
    assert count.lower <= known <= count.upper
    # From 9 to 12 dimensions the best known ones are no lines of a lattice, and only their number is known here.
    assert (count.lower == known) == (d not in (9, 10, 11, 12))


@pytest.mark.parametrize(
    ("d", "eps", "log10"),
    [
        (64, 0.2, 3.32),
        (256, 0.1, 4.52),
        (1024, 0.05, 5.72),
        (1024, 0.1, 8.43),
        (1024, 0.2, 11.14),
        (4096, 0.05, 10.24),
        (4096, 0.1, 13.55),
    ],
)
def test_algebraic_lower_bounds(d, eps, log10):
    count = direction_count(d, eps)
    assert count.log_lower / LOG10 == pytest.approx(log10, abs=0.006)
    assert "set in" in count.lower_by


def test_where_algebra_is_not_the_best_known():
    # A basis (and one more) where nothing algebraic fits; 3 x Kerdock-256 and Delsarte-Goethals of the third kind.
    assert direction_count(64, 0.1).lower == 65
    assert direction_count(768, 0.05).lower == 769
    third = max(count for count, size, _ in _delsarte_goethals(4096, 0.2**2) if size == 4096)
    assert math.log10(third) == pytest.approx(16.86, abs=0.005)
    assert direction_count(4096, 0.2).log_lower / LOG10 == pytest.approx(37.5, abs=0.05)


def test_blocks_beat_three_kerdock_sets():
    assert direction_count(768, 0.1).log_lower > math.log(3 * (256**2 / 2 + 256))


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 600), st.floats(0, 0.95), st.booleans())
def test_bracket_is_ordered_and_rises(d, eps, signed):
    count = direction_count(d, eps, signed=signed)
    assert count.log_lower <= count.log_upper + 1e-9
    assert count.lower <= count.upper
    wider, deeper = direction_count(d, min(eps * 1.05, 0.96), signed=signed), direction_count(d + 1, eps, signed=signed)
    assert wider.log_upper >= count.log_upper - 1e-9
    assert deeper.log_upper >= count.log_upper - 1e-9
    assert wider.log_lower >= count.log_lower - 1e-9
    assert direction_count(d, eps, signed=True).log_upper >= direction_count(d, eps).log_upper + math.log(2) - 1e-9


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 8), st.integers(2, 40), st.integers(0, 10**6))
def test_random_directions_respect_the_upper_bound(d, n, seed):
    w = np.random.default_rng(seed).standard_normal((n, d))
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    cosines = (w @ w.T)[np.triu_indices(n, 1)]
    if abs(cosines).max() < 1 - 1e-9:
        assert direction_count(d, abs(cosines).max()).upper >= n
        assert direction_count(d, cosines.max(), signed=True).upper >= n


def test_packing_rate():
    for eps in (0.05, 0.1, 0.3, 0.7):
        lower, upper = packing_rate(eps)
        assert lower == pytest.approx(-0.5 * math.log(1 - eps * eps), rel=1e-12)
        assert lower < upper
        # Finite d approaches both exponents from the right sides.
        d = 20000
        assert covering_count(d, eps) / d == pytest.approx(lower, rel=0.15)
        assert packing_rate(eps / 2)[1] < upper
    assert packing_rate(0.01)[1] == pytest.approx(0.01**2 / 4 * math.log(4 * math.e / 0.01**2), rel=1e-3)


def test_beyond_the_largest_float():
    count = direction_count(4096, 0.9)
    assert count.lower == math.inf
    assert not count.is_exact
    assert math.isfinite(count.log_lower)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="eps must lie in"):
        direction_count(5, -0.1)
    with pytest.raises(ValueError, match="eps must lie in"):
        direction_count(5, 1.0, signed=True)
    with pytest.raises(ValueError, match="d must be at least 1"):
        direction_count(0, 0.1)
    with pytest.raises(ValueError, match="n must be at least 2"):
        best_lower_bound(1, 4)
