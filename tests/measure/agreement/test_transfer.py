"""Codes whose fate is known: the same ones shuffled, others, and features that split, merge, die and are born."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from superscope.core import ShapeError
from superscope.measure import features_found, latent_correlations, lineage

ROWS = 4000


def codes(n: int, seed: int = 0, density: float = 0.05) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.random((ROWS, n)) < density) * random.uniform(0.5, 1.5, (ROWS, n))


def test_correlations_are_numpys() -> None:
    a, b = codes(5), codes(4, 1)
    b[:, 0] = 2 * a[:, 3]
    expected = np.corrcoef(a.T, b.T)[:5, 5:]
    found = latent_correlations(csr_matrix(a), csr_matrix(b))
    assert found == pytest.approx(expected, abs=1e-9)
    assert found[3, 0] == pytest.approx(1)
    with pytest.raises(ShapeError, match="same"):
        latent_correlations(csr_matrix(a), csr_matrix(b[1:]))


def test_features_are_found_where_they_are_and_nowhere_else() -> None:
    a = codes(40)
    same = csr_matrix(a[:, np.random.default_rng(1).permutation(40)] * 3)
    whole, best = features_found(csr_matrix(a), same)
    assert whole.value == 1
    assert best == pytest.approx(1)
    assert whole.chance == 0
    # Half of them are there, the rest is another's: yes for half, no for the others.
    half = csr_matrix(np.concatenate([a[:, :20], codes(20, 2)], 1))
    found, best = features_found(csr_matrix(a), half)
    assert found.value == 0.5
    assert found.low < 0.5 < found.high
    assert (best[:20] > 0.9).all()
    none, _ = features_found(csr_matrix(a), csr_matrix(codes(40, 3)))
    assert none.value == 0
    silent, _ = features_found(csr_matrix((ROWS, 3)), same)
    assert silent.value is None
    assert "no latent" in silent.caution
    with pytest.raises(ValueError, match="too few"):
        features_found(csr_matrix(a[:10]), csr_matrix(a[:10]))


def test_each_fate_is_told_from_the_others() -> None:
    whole = codes(8)
    before, after = whole[:, [0, 1, 2, 3, 4, 5]].copy(), np.zeros((ROWS, 8))
    after[:, 0] = whole[:, 1]  # kept, under another number
    # 0 splits in five by place; 2 and 3 merge; 4 and 5 die; 6 is born.
    for part in range(5):
        these = np.flatnonzero(whole[:, 0])[part::5]
        after[these, 1 + part] = whole[these, 0]
    after[:, 6] = whole[:, 2] + whole[:, 3]
    after[:, 7] = whole[:, 6]
    # Each of two correlates .7 with their sum, which is then that one; each of six does not.
    after[:, 6] += codes(2, 5).sum(1) + codes(2, 6).sum(1)
    before = np.concatenate([before, codes(2, 5), codes(2, 6)], 1)
    found = lineage(csr_matrix(before), csr_matrix(after), range(10), range(8))
    assert found.kept == ((1, 0),)
    assert found.split == {0: (1, 2, 3, 4, 5)}
    assert set(found.died) == {4, 5}
    assert found.merged == {6: (2, 3, 6, 7, 8, 9)}
    assert found.born == (7,)


def test_nothing_becomes_of_what_stays() -> None:
    f = csr_matrix(codes(30))
    found = lineage(f, f[:, ::-1], range(30), range(30))
    assert found.counts == {"kept": 30, "split": 0, "merged": 0, "died": 0, "born": 0}
    other = lineage(f, csr_matrix(codes(30, 9)), range(30), range(30))
    assert other.counts == {"kept": 0, "split": 0, "merged": 0, "died": 30, "born": 30}
