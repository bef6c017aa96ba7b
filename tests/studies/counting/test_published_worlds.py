"""The worlds of 96 features in 24 dimensions that other counters were held to, counted at the defaults."""

from __future__ import annotations

import pytest

from superscope.core import Run, result_of
from superscope.studies.counting.calibrate import _identity
from superscope.studies.counting.count import counted
from superscope.studies.counting.search import Given
from superscope.worlds import FAMILIES


@pytest.mark.slow
@pytest.mark.parametrize("family", ["uniform", "zipf", "copula", "hierarchy"])
def test_ninety_six_features_in_24_dimensions(family: str) -> None:
    """Right within a tenth. In a hierarchy the number comes out right and the directions are not the features: a
    dictionary absorbs the parent into its children."""
    world = FAMILIES[family](n=96, d=24, l0=1.5)
    x = next(world.batches(50_000, seed=0)).x
    answer, found, _ = result_of(counted(x, Run.begin("count", {}, None), Given(budget=600)))
    assert answer.value == pytest.approx(96, rel=0.1)
    assert answer.low <= 96 <= answer.high
    identity = _identity(found.directions, world.dictionary.atoms)
    if family == "hierarchy":
        assert identity <= 0.6
    else:
        assert identity >= 0.85
