from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import roots_jacobi

from superscope.theory import levenshtein, levenshtein_count, orthoplex, rankin, welch

LINES = [
    (3, 1 / math.sqrt(5), 6),
    (4, 1 / 2, 12),
    (6, 1 / 2, 36),
    (7, 1 / 2, 63),
    (7, 1 / 3, 28),
    (8, 1 / 2, 120),
    (16, 1 / 4, 144),
    (22, 1 / 3, 1408),
    (23, 1 / 5, 276),
    (23, 1 / 3, 2300),
    (24, 1 / 2, 98280),
]
CODES = [(8, 1 / 2, 240), (24, 1 / 2, 196560), (3, 1 / math.sqrt(5), 12), (7, 1 / 3, 56), (22, 1 / 4, 891), (5, 0, 10)]


@pytest.mark.parametrize(("d", "eps", "n"), LINES)
def test_sharp_line_systems(d, eps, n):
    assert math.exp(levenshtein_count(eps, d)) == pytest.approx(n, rel=1e-12)
    assert levenshtein(n, d) == pytest.approx(eps, abs=1e-14)


@pytest.mark.parametrize(("d", "eps", "n"), CODES)
def test_sharp_spherical_codes(d, eps, n):
    assert math.exp(levenshtein_count(eps, d, signed=True)) == pytest.approx(n, rel=1e-12)
    assert levenshtein(n, d, signed=True) == pytest.approx(eps, abs=1e-13)


@pytest.mark.parametrize(
    ("d", "eps", "log10"),
    [
        (64, 0.1, 2.25),
        (64, 0.2, 4.05),
        (256, 0.1, 5.19),
        (256, 0.2, 10.88),
        (768, 0.05, 5.74),
        (768, 0.1, 11.05),
        (768, 0.2, 26.35),
        (1024, 0.05, 6.38),
        (1024, 0.1, 13.67),
        (1024, 0.2, 33.55),
        (2048, 0.1, 24.3),
        (2048, 0.2, 61.8),
        (4096, 0.05, 16.6),
        (4096, 0.1, 42.3),
        (4096, 0.2, 116),
    ],
)
def test_sizes_of_real_networks(d, eps, log10):
    assert levenshtein_count(eps, d) / math.log(10) == pytest.approx(log10, abs=0.5 if log10 > 100 else 0.051)


def _weight_at_one(eps: float, d: int) -> float:
    """1 / L by its definition: the weight at t = 1 of the rule with nodes ..., s, 1 (odd) or -1, ..., s, 1 (even)."""
    alpha, beta, s = (d - 3) / 2, -0.5, 2 * eps * eps - 1
    x, w = roots_jacobi(40, alpha, beta)
    w = w / w.sum()

    def largest(k, a, b):
        return roots_jacobi(k, a, b)[0].max()

    k = 1
    while True:
        if s <= largest(k, alpha + 1, beta):
            fixed, degree = [s, 1.0], 2 * k - 1
            break
        if s <= largest(k, alpha + 1, beta + 1):
            fixed, degree = [-1.0, s, 1.0], 2 * k
            break
        k += 1
    # Interior nodes: zeros of the polynomial orthogonal to lower degrees for the measure times prod (t - fixed).
    m = degree + 1 - len(fixed)  # the rule has m/2 more nodes and is exact to `degree`
    free = m // 2
    factor = np.prod([x - f for f in fixed], axis=0)
    powers = np.vander(x, free + 1, increasing=True)
    gram = (powers.T * (w * factor)) @ powers
    if free:
        coefficients = np.append(np.linalg.solve(gram[:free, :free], -gram[:free, free]), 1.0)
        nodes = np.concatenate([np.roots(coefficients[::-1]).real, fixed])
    else:
        nodes = np.array(fixed)
    others = nodes[:-1]
    lagrange = np.prod([(x - other) / (1 - other) for other in others], axis=0)
    return float(w @ lagrange)


@pytest.mark.parametrize("d", [3, 4, 5, 8, 12])
@pytest.mark.parametrize("eps", [0.1, 0.3, 0.45, 0.5, 0.6, 0.7])
def test_closed_form_is_the_quadrature_weight(d, eps):
    assert math.exp(-levenshtein_count(eps, d)) == pytest.approx(_weight_at_one(eps, d), rel=1e-7)


@given(st.integers(2, 400), st.floats(0, 0.99), st.floats(0, 0.99), st.booleans())
def test_count_rises_with_eps_and_d(d, one, other, signed):
    low, high = sorted((one, other))
    a, b = levenshtein_count(low, d, signed=signed), levenshtein_count(high, d, signed=signed)
    assert a <= b + 1e-9 * max(1.0, b)
    assert levenshtein_count(low, d + 1, signed=signed) >= a - 1e-9
    assert a >= math.log(2 * d if signed else d) - 1e-9


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 5000), st.integers(1, 60), st.booleans())
def test_bound_inverts_count_and_contains_the_simple_ones(n, d, signed):
    mu = levenshtein(n, d, signed=signed)
    if signed:
        assert mu >= rankin(n, d) - 1e-12
    else:
        # orthoplex is better on one short stretch only, d(d+1)/2 < n <= d(d+2)/2
        assert mu >= welch(n, d) - 1e-12
        if n >= d * (d + 2) / 2:
            assert mu >= orthoplex(n, d) - 1e-12
    if d >= 2 and n > 2 * d and mu < 0.999:
        assert levenshtein_count(mu, d, signed=signed) == pytest.approx(math.log(n), abs=1e-6)


@pytest.mark.parametrize(("n", "d"), [(11, 4), (20, 4), (300, 8), (5000, 24)])
def test_second_degree_formula(n, d):
    assert levenshtein(n, d) ** 2 == pytest.approx(
        max((3 * n - d * d - 2 * d) / ((n - d) * (d + 2)), 0), abs=1e-12
    ) or (n > d * (d + 1) * (d + 2) / 6)


def test_plane():
    assert levenshtein(7, 2) == pytest.approx(math.cos(math.pi / 7), abs=1e-15)
    assert levenshtein(7, 2, signed=True) == pytest.approx(math.cos(2 * math.pi / 7), abs=1e-15)
    assert math.exp(levenshtein_count(math.cos(math.pi / 7), 2)) == pytest.approx(7, rel=1e-9)


def test_hostile_sizes_end():
    assert 0.99 < levenshtein(10**6, 3) < 1
    assert 0 < levenshtein(10**9, 768) < 1
    assert levenshtein(3, 1) == 1


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"eps must lie in \[0, 1\)"):
        levenshtein_count(1.0, 5)
    with pytest.raises(ValueError, match="d must be at least 2"):
        levenshtein_count(0.5, 1)
    with pytest.raises(ValueError, match=r"eps must lie in \[-1, 1\)"):
        levenshtein_count(-1.1, 5, signed=True)
