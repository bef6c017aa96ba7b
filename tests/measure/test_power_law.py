"""Powers: exponents of laws that are known, of laws above a floor, and of what obeys none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from superscope.core import Dictionary
from superscope.measure import interference_energy, power_law, power_law_above_floor

WIDTHS = (8, 16, 32, 64, 128)


def overlap(rows: torch.Tensor) -> float:
    found = interference_energy(Dictionary(rows))
    assert found.value is not None
    return found.value / (found.n - 1)


def test_squared_cosines_of_random_directions_fall_as_one_over_width() -> None:
    random = torch.Generator().manual_seed(0)
    means = [np.mean([overlap(torch.randn(1500, d, generator=random)) for _ in range(2)]) for d in WIDTHS]
    law = power_law(WIDTHS, [float(m) for m in means])
    low, high = law.interval.low, law.interval.high
    assert low is not None
    assert high is not None
    assert low <= -1 <= high
    assert high - low < 0.02
    assert not law.is_none


def test_directions_about_a_common_one_overlap_alike_at_every_width() -> None:
    """Rows e_0 + e_i have cosines of 1/2 whatever d is: no law."""
    means = []
    for d in WIDTHS:
        rows = torch.eye(d)[1:]
        rows[:, 0] = 1.0
        means.append(overlap(rows))
    assert means == pytest.approx([0.25] * len(WIDTHS))
    law = power_law(WIDTHS, means)
    assert law.exponent == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("fit", [power_law, power_law_above_floor])
def test_noise_without_a_law_is_said_to_have_none(fit) -> None:
    random = np.random.default_rng(0)
    found = [fit(WIDTHS, np.exp(0.1 * random.standard_normal(len(WIDTHS))).tolist()).is_none for _ in range(400)]
    assert np.mean(found) >= 0.93


@pytest.mark.parametrize("exponent", [-0.5, -1.0, -2.0])
def test_an_interval_holds_the_exponent_it_was_made_of(exponent: float) -> None:
    random = np.random.default_rng(1)
    x = np.array(WIDTHS, dtype=float)
    held = {power_law: 0, power_law_above_floor: 0}
    for _ in range(200):
        pure = 3 * x**exponent * np.exp(0.02 * random.standard_normal(len(x)))
        above = 3 * x**exponent + 2 + 0.01 * random.standard_normal(len(x))
        for fit, y in ((power_law, pure), (power_law_above_floor, above)):
            law = fit(x.tolist(), y.tolist())
            assert law.interval.low is not None
            assert law.interval.high is not None
            held[fit] += law.interval.low - 0.01 <= exponent <= law.interval.high + 0.01
    assert min(held.values()) >= 184, held


def test_a_pure_power_is_blind_to_a_floor_that_the_other_finds() -> None:
    y = [5 / d + 1 for d in WIDTHS]
    assert power_law(WIDTHS, y).exponent > -0.3
    law = power_law_above_floor(WIDTHS, y)
    assert (law.exponent, law.floor, law.scale) == pytest.approx((-1, 1, 5), abs=0.05)
    assert law.explained > 0.999


def test_what_rises_has_no_falling_law() -> None:
    law = power_law_above_floor(WIDTHS, [float(d) for d in WIDTHS])
    assert law.is_none
    assert "not bounded" in law.interval.how
    assert power_law(WIDTHS, [float(d) for d in WIDTHS]).exponent == pytest.approx(1)


@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        ((1, 2), (1, 2), "2 values of x"),
        ((2, 2, 2, 2), (1, 2, 3, 4), "different x"),
        ((1, 2, 3, 4), (1, 2, 0, 4), r"y holds \[0.0\]"),
        ((1, 2, 3, 4), (1, 2, float("nan"), 4), r"y holds \[nan\]"),
    ],
)
def test_no_points_for_a_law(x: tuple, y: tuple, sentence: str) -> None:
    for fit in (power_law, power_law_above_floor):
        with pytest.raises(ValueError, match=sentence):
            fit(x, y)
