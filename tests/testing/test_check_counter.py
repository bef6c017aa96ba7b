"""The laws of counters hold for ours, and catch counters that count what is not there."""

from __future__ import annotations

import pytest

from superscope.core import Measurement
from superscope.measure.counts import COUNTERS, Counter
from superscope.testing import LawBroken, check_counter


def said(value: float | None, **fields) -> Measurement:
    fields = {"name": "example", "unit": "features", "n": 3, "of": "dictionaries", **fields}
    return Measurement(value=value, **fields)


class Example(Counter):
    name = "example"

    def __init__(self, answer):
        self.answer = answer

    def wants(self, n, k, seeds):
        return ()

    def count(self, seen, wanted):
        return [self.answer(seen)]


@pytest.mark.parametrize("counter", COUNTERS, ids=lambda counter: counter.name)
def test_every_counter_keeps_the_laws(counter: Counter) -> None:
    assert "nothing in white noise" in check_counter(counter, steps=180)


@pytest.mark.parametrize(
    ("answer", "law"),
    [
        (lambda seen: said(64.0), "64 features beyond chance in white noise"),
        (lambda seen: said(None, caution="too few rows", name="other"), "first measurement is 'other'"),
        (lambda seen: said(-abs(100 * float(seen.held[0].x[0, 0]))), "a rotation changes its count by"),
        (lambda seen: said(40.0, chance=64.0, chance_is="a guess", low=30.0, high=50.0), "does not hold the 64"),
    ],
)
def test_a_counter_that_breaks_a_law_is_named(answer, law: str) -> None:
    with pytest.raises(LawBroken, match=f"Example: .*({law})"):
        check_counter(Example(answer), steps=1)


def test_one_that_abstains_passes() -> None:
    laws = check_counter(Example(lambda seen: said(None, caution="too few rows")), steps=1)
    assert "its interval holds n" not in laws
