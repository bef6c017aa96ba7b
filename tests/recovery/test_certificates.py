"""Certificates of recovery on given supports: what is certified is found, by the solvers they speak of."""

from __future__ import annotations

import math

import pytest
import torch

from superscope import frames
from superscope.core import Dictionary, ShapeError, SparseCode
from superscope.recovery import OMP, BasisPursuit, exact_recovery_coefficient, fuchs


@pytest.mark.parametrize("nonnegative", [True, False])
def test_certified_codes_are_found_and_unfound_codes_are_not_certified(nonnegative):
    W = Dictionary(frames.random_unit(n=40, d=20, seed=3).atoms.double())
    generator = torch.Generator().manual_seed(0)
    indices = torch.rand(200, 40, generator=generator).topk(6, dim=1).indices
    values = 0.5 + torch.rand(200, 6, generator=generator, dtype=torch.float64)
    # Some rows have unused slots, whose index is that of an atom outside the support.
    values[:60, 3:] = 0
    if not nonnegative:
        values = values * (2 * torch.randint(0, 2, (200, 6), generator=generator) - 1)
    code = SparseCode(values, indices, 40)
    certified, condition = fuchs(W, code, nonnegative=nonnegative)
    answer = BasisPursuit(W, nonnegative=nonnegative).encode(W.compose(code)).dense()
    solved = (answer - code.dense()).abs().amax(1) < 1e-3
    assert 20 < int(certified.sum()) < 200
    assert bool(solved[certified].all())
    assert bool((condition >= 1).all())


def test_a_duplicate_in_the_support_is_never_certified():
    W = Dictionary(torch.cat([torch.eye(3), torch.eye(3)[:1]]))
    both = SparseCode(torch.ones(2, 2), torch.tensor([[0, 3], [1, 2]]), 4)
    certified, condition = fuchs(W, both, nonnegative=True)
    assert certified.tolist() == [False, True]
    assert condition.tolist() == [math.inf, 1.0]


def test_exact_recovery_holds_for_all_signs_and_for_pursuit():
    W = Dictionary(frames.random_unit(n=40, d=24, seed=3).atoms.double())
    generator = torch.Generator().manual_seed(0)
    indices = torch.rand(300, 40, generator=generator).topk(3, dim=1).indices
    values = torch.randn(300, 3, generator=generator, dtype=torch.float64)
    code = SparseCode(values, indices, 40)
    coefficient = exact_recovery_coefficient(W, code)
    sure = coefficient < 1
    assert 30 < int(sure.sum()) < 290
    for coder in (OMP(W, k=3), BasisPursuit(W)):
        answer = coder.encode(W.compose(code)).dense()
        assert float((answer - code.dense())[sure].abs().max()) < 1e-4
    # Fuchs' condition knows the signs, so it certifies whatever this one does.
    assert bool(fuchs(W, code, nonnegative=False)[0][sure].all())


def test_exact_recovery_of_frames_in_closed_form():
    # On a simplex each outside atom is -1/(d + 1 - k) times the sum of the k inside, plus what is orthogonal to them.
    d = 6
    W = frames.simplex(d=d, dtype=torch.float64)
    for k in (1, 2, 4):
        code = SparseCode(torch.ones(1, k), torch.arange(k)[None], d + 1)
        assert float(exact_recovery_coefficient(W, code)) == pytest.approx(k / (d + 1 - k))
    eye = Dictionary(torch.eye(4))
    assert exact_recovery_coefficient(eye, SparseCode(torch.ones(1, 4), torch.arange(4)[None], 4)).tolist() == [0.0]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_certificates_are_of_the_atoms_as_given(scale):
    W = frames.random_unit(n=20, d=10, seed=1, dtype=torch.float64)
    indices = torch.rand(50, 20, generator=torch.Generator().manual_seed(2)).topk(4, dim=1).indices
    values = torch.ones(50, 4, dtype=torch.float64)
    values[:20, 2:] = 0
    code = SparseCode(values, indices, 20)
    scaled = Dictionary(W.atoms * scale)
    torch.testing.assert_close(exact_recovery_coefficient(scaled, code), exact_recovery_coefficient(W, code))
    for one, other in zip(fuchs(scaled, code, nonnegative=True), fuchs(W, code, nonnegative=True), strict=True):
        torch.testing.assert_close(one, other)


def test_codes_of_another_dictionary_are_refused():
    W = frames.simplex(d=3)
    with pytest.raises(ShapeError, match="indexes 9 features but the dictionary has 4"):
        fuchs(W, SparseCode(torch.ones(1, 2), torch.tensor([[0, 1]]), 9), nonnegative=True)
    with pytest.raises(ShapeError, match="list of rows"):
        exact_recovery_coefficient(W, SparseCode(torch.ones(2), torch.tensor([0, 1]), 4))


def test_broken_codes_are_refused_and_no_rows_give_no_answers():
    W = frames.simplex(d=3)
    with pytest.raises(ValueError, match="row 1 of code has a NaN or infinite value"):
        fuchs(
            W, SparseCode(torch.tensor([[1.0, 1.0], [1.0, math.nan]]), torch.tensor([[0, 1]] * 2), 4), nonnegative=True
        )
    with pytest.raises(ValueError, match="exact_recovery_coefficient: row 0 of code"):
        exact_recovery_coefficient(W, SparseCode(torch.tensor([[math.inf]]), torch.tensor([[0]]), 4))
    none = SparseCode(torch.ones(0, 2), torch.zeros(0, 2, dtype=torch.long), 4)
    assert [len(part) for part in fuchs(W, none, nonnegative=True)] == [0, 0]
    assert len(exact_recovery_coefficient(W, none)) == 0


def test_codes_of_more_atoms_than_dimensions_are_never_certified():
    W = frames.random_unit(n=10, d=4)
    six = SparseCode(torch.ones(1, 6), torch.arange(6)[None], 10)
    assert exact_recovery_coefficient(W, six).tolist() == [math.inf]
    assert fuchs(W, six, nonnegative=True)[0].tolist() == [False]
