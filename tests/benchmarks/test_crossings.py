"""Where a curve meets a target, and what may be said of two such moments."""

from __future__ import annotations

import math

import pytest
from crossings import Ratio, crossing, middle, ratio
from hypothesis import given
from hypothesis import strategies as st


@given(st.floats(0.2, 3), st.floats(0.1, 10), st.floats(0.05, 0.95))
def test_a_power_law_is_met_where_it_is(exponent: float, factor: float, share: float) -> None:
    seconds = [1.0, 2.0, 5.0, 11.0, 30.0]
    unexplained = [factor * t**-exponent for t in seconds]
    truly = 30.0**share
    found = crossing(unexplained, factor * truly**-exponent)
    assert found.bound == ""
    assert found.seconds(seconds) == pytest.approx(truly, rel=1e-6)


def test_the_first_crossing_counts() -> None:
    found = crossing([1.0, 0.4, 0.6, 0.3], 0.5)
    assert (found.index, found.bound) == (0, "")
    assert found.at([0.0, 10.0, 20.0, 30.0]) == pytest.approx(10 * math.log(2) / math.log(2.5))


def test_a_point_on_the_target_is_the_crossing() -> None:
    assert crossing([1.0, 0.5, 0.2], 0.5).seconds([1.0, 4.0, 9.0]) == pytest.approx(4.0)
    assert crossing([0.5, 0.2], 0.5).bound == ""


def test_beyond_the_ends_there_are_bounds() -> None:
    early, late = crossing([0.5, 0.2], 0.7), crossing([0.5, 0.2], 0.1)
    assert (early.bound, early.seconds([3.0, 8.0])) == ("at most", pytest.approx(3.0))
    assert (late.bound, late.seconds([3.0, 8.0])) == ("at least", pytest.approx(8.0))
    with pytest.raises(ValueError, match="no points"):
        crossing([], 0.5)


@pytest.mark.parametrize(
    ("peer", "ours", "said"),
    [
        ("", "", "4.0"),
        ("at least", "", "≥ 4.0"),
        ("", "at most", "≥ 4.0"),
        ("at least", "at most", "≥ 4.0"),
        ("", "at least", "≤ 4.0"),
        ("at most", "", "≤ 4.0"),
        ("at least", "at least", "–"),
        ("at most", "at most", "–"),
    ],
)
def test_a_ratio_of_bounds_is_a_bound_or_nothing(peer: str, ours: str, said: str) -> None:
    assert str(ratio((20.0, peer), (5.0, ours))) == said


def test_a_bound_moves_the_median_only_from_its_side() -> None:
    exact = [Ratio(1.0, ""), Ratio(2.0, ""), Ratio(3.0, "")]
    assert str(middle(exact)) == "2.0"
    assert str(middle([*exact[:2], Ratio(3.0, "at least")])) == "2.0"
    assert str(middle([Ratio(1.0, "at least"), *exact[1:]])) == "≥ 2.0"
    assert str(middle([*exact[:2], Ratio(3.0, "at most")])) == "≤ 2.0"
    assert str(middle([Ratio(2.0, "at least"), Ratio(2.0, "at most")])) == "–"
    assert str(middle([Ratio(9.0, None), *exact])) == "2.0"
    with pytest.raises(ValueError, match="none of the ratios"):
        middle([Ratio(9.0, None)])
