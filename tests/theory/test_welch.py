from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superscope.theory import bukh_cox, mean_power, orthoplex, rankin, welch


@pytest.mark.parametrize(
    ("n", "d", "squared"),
    [
        (6, 3, 1 / 5),
        (14, 7, 1 / 13),
        (18, 9, 1 / 17),
        (30, 15, 1 / 29),
        (38, 19, 1 / 37),
        (42, 21, 1 / 41),
        (16, 6, 1 / 9),
        (16, 10, 1 / 25),
        (28, 7, 1 / 9),
        (276, 23, 1 / 25),
        (9, 8, 1 / 64),
    ],
)
def test_equiangular_tight_frames_reach_order_one(n, d, squared):
    assert welch(n, d) == pytest.approx(math.sqrt(squared), abs=1e-15)


@pytest.mark.parametrize(
    ("n", "d", "value"),
    [
        (1024, 256, 0.0542),
        (4096, 512, 0.0413),
        (24576, 768, 0.0355),
        (32768, 768, 0.0357),
        (16384, 2304, 0.0193),
        (65536, 2304, 0.0205),
        (131072, 4096, 0.0154),
        (1_000_000, 4096, 0.0156),
    ],
)
def test_dictionary_sizes(n, d, value):
    assert welch(n, d) == pytest.approx(value, abs=5e-5)


@pytest.mark.parametrize(("order", "value"), [(1, 0.125), (2, 0.0375), (3, 0.015625), (4, 105 / 13440)])
def test_mean_power_in_eight_dimensions(order, value):
    assert mean_power(8, order) == pytest.approx(value, rel=1e-14)


@given(st.integers(1, 40), st.integers(1, 5))
def test_mean_power_is_the_moment_of_a_beta_variable(d, order):
    # <u, v>^2 is Beta(1/2, (d-1)/2); its moments by the gamma function.
    expected = math.exp(math.lgamma(order + 0.5) + math.lgamma(d / 2) - math.lgamma(0.5) - math.lgamma(d / 2 + order))
    assert mean_power(d, order) == pytest.approx(expected, rel=1e-11)
    assert mean_power(d, order, field="complex") <= mean_power(d, order) * (1 + 1e-12)


@given(st.integers(2, 60), st.integers(1, 12), st.integers(1, 6), st.integers(0, 1000))
def test_no_random_frame_beats_any_bound(n, d, order, seed):
    w = np.random.default_rng(seed).standard_normal((n, d))
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    cosines = (w @ w.T)[~np.eye(n, dtype=bool)]
    mu = abs(cosines).max()
    for bound in (welch(n, d, order), welch(n, d, order, field="complex"), orthoplex(n, d), bukh_cox(n, d)):
        assert mu >= bound - 1e-12
    assert cosines.max() >= rankin(n, d) - 1e-12
    assert ((w @ w.T) ** (2 * order)).mean() >= mean_power(d, order) - 1e-12


@given(st.integers(2, 10_000), st.integers(1, 500), st.integers(1, 8))
def test_bounds_rise_with_n_and_fall_with_d(n, d, order):
    for bound in (lambda n, d: welch(n, d, order), orthoplex, bukh_cox, rankin):
        assert bound(n + 1, d) >= bound(n, d) - 1e-12
        assert bound(n, d + 1) <= bound(n, d) + 1e-12
        assert -1 <= bound(n, d) <= 1


def test_real_bound_is_at_least_the_complex_one():
    assert welch(1000, 5, 3) > welch(1000, 5, 3, field="complex")
    assert welch(1000, 5) == welch(1000, 5, field="complex")


@pytest.mark.parametrize(("n", "d", "value"), [(9, 7, 0.2), (6, 4, 1 / 3), (6, 3, 1 / math.sqrt(5)), (5, 4, 0.25)])
def test_bukh_cox_is_reached(n, d, value):
    assert bukh_cox(n, d) == pytest.approx(value, abs=1e-15)


def test_orthoplex_needs_more_than_the_gerzon_number():
    assert orthoplex(10, 4) == 0
    assert orthoplex(11, 4) == 0.5


def test_rankin():
    assert rankin(4, 3) == pytest.approx(-1 / 3)
    assert rankin(6, 3) == 0


@pytest.mark.parametrize("bound", [welch, orthoplex, bukh_cox, rankin])
def test_bad_input_is_named(bound):
    with pytest.raises(ValueError, match=r"n must be at least 2; got 1"):
        bound(1, 3)
    with pytest.raises(ValueError, match=r"d must be at least 1; got 0"):
        bound(3, 0)
    with pytest.raises(TypeError):
        bound(3.5, 2)
    with pytest.raises(ValueError, match="order must be at least 1"):
        welch(3, 2, 0)
    with pytest.raises((ValueError, TypeError), match="field"):
        welch(3, 2, field="quaternion")
