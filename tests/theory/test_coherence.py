from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superscope.theory import coherence_guarantee


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
