"""Refined codes: exact on known answers, never worse than what they began with, never more latents."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from superscope.core import Dictionary, ShapeError, SparseCode
from superscope.recovery import OMP, REFINEMENTS, Refinement, Refit, SubspacePursuit, Thresholding, refit
from superscope.worlds import exactly_k

EVERY = (*REFINEMENTS, SubspacePursuit(rounds=5, join=3))


def rows(n=40, d=16, k=4, count=200, *, seed=0, noise=0.0, dtype=torch.float64):
    world = exactly_k(n=n, d=d, k=k, noise=noise, seed=seed)
    batch = next(world.batches(count, seed=seed))
    return world.dictionary.to(dtype), batch.x.to(dtype), SparseCode(batch.code.values.to(dtype), batch.code.indices, n)


def errors(W, x, code):
    return (x - W.compose(code)).square().sum(-1)


def active(code):
    return [set(row.nonzero()[:, 0].tolist()) for row in code.dense()]


def test_refit_is_least_squares_on_the_support():
    W, x, truth = rows(noise=0.1)
    code = SparseCode(torch.rand_like(truth.values) + 0.1, truth.indices, truth.n)
    found = Refit().improve(W, x, code).dense()
    for row, value in zip(x, found, strict=True):
        at = value.nonzero()[:, 0]
        wanted = np.linalg.lstsq(W.atoms[at].T.numpy(), row.numpy(), rcond=None)[0]
        np.testing.assert_allclose(value[at].numpy(), wanted, atol=1e-9)


def test_nonnegative_refit_is_nonnegative_least_squares_on_the_support():
    W, x, _ = rows(noise=0.5, count=80)
    code = Thresholding(W, k=6, nonnegative=True).encode(x)
    found = Refit().improve(W, x, code, nonnegative=True)
    dense, zeroed = found.dense(), 0
    for row, value, before in zip(x, dense, code.dense(), strict=True):
        at = before.nonzero()[:, 0]
        wanted = nnls(W.atoms[at].T.numpy(), row.numpy())[0]
        np.testing.assert_allclose(value[at].numpy(), wanted, atol=1e-7)
        zeroed += int((wanted == 0).sum())
    assert zeroed, "no value was at its bound, so the test tells nothing"


def test_refit_and_the_function_agree_and_undo_shrinkage():
    W, x, truth = rows()
    shrunk = SparseCode(0.7 * truth.values, truth.indices, truth.n)
    for nonnegative in (False, True):
        mine = Refit().improve(W, x, shrunk, nonnegative=nonnegative)
        assert torch.allclose(mine.values, refit(W, x, shrunk, nonnegative=nonnegative).values)
        assert torch.allclose(mine.values, truth.values, atol=1e-9)


@pytest.mark.parametrize("refinement", EVERY, ids=str)
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", ["random", "equal atoms", "more atoms than dimensions", "norms", "nothing active"])
def test_no_row_gets_worse_or_more_latents(refinement, nonnegative, dtype, case):
    W, x, _ = rows(noise=0.2, dtype=dtype, count=120)
    k = 20 if case == "more atoms than dimensions" else 5
    if case == "equal atoms":
        W = Dictionary(W.atoms[torch.arange(40) // 2], torch.ones(16, dtype=dtype))
    elif case == "norms":
        W = Dictionary(W.atoms * torch.logspace(-3, 3, 40, dtype=dtype)[:, None])
    code = Thresholding(W, k=k, nonnegative=nonnegative).encode(x)
    if case == "nothing active":
        code = SparseCode(torch.zeros_like(code.values), torch.zeros_like(code.indices), 40)
    found = refinement.improve(W, x, code, nonnegative=nonnegative)
    scale = x.square().sum(-1)
    slack = 1e-5 if dtype == torch.float32 else 1e-12
    assert (errors(W, x, found) <= errors(W, x, code) + slack * scale).all()
    assert (found.l0 <= code.l0).all()
    assert found.values.dtype == dtype
    assert torch.isfinite(found.values).all()
    assert not nonnegative or (found.values >= 0).all()
    # No atom stands in two slots that are in use.
    assert torch.equal((found.dense() != 0).sum(-1), found.l0)
    if isinstance(refinement, Refit):
        assert all(after <= before for before, after in zip(active(code), active(found), strict=True))


def test_pursuit_finds_the_true_support_from_a_wrong_one():
    W, x, truth = rows(n=64, d=32, k=3)
    wrong = SparseCode(torch.ones_like(truth.values), (truth.indices + 1) % 64, 64)
    assert errors(W, x, Refit().improve(W, x, wrong)).mean() > 0.1
    found = SubspacePursuit(rounds=6).improve(W, x, wrong)
    assert (errors(W, x, found) < 1e-12).double().mean() > 0.95
    # It is no worse than orthogonal pursuit from nothing, which is exact on these rows.
    assert errors(W, x, OMP(W, k=3).encode(x)).mean() < 1e-12


def test_more_rounds_never_raise_the_error_and_the_first_round_can_only_lower_that_of_refit():
    W, x, _ = rows(noise=0.3)
    code = Thresholding(W, k=5).encode(x)
    before = errors(W, x, Refit().improve(W, x, code))
    for rounds in (1, 2, 4):
        after = errors(W, x, SubspacePursuit(rounds=rounds).improve(W, x, code))
        assert (after <= before + 1e-12).all()
        before = after
    assert after.sum() < errors(W, x, Refit().improve(W, x, code)).sum()


def test_a_row_is_refined_alone_and_in_any_shape():
    W, x, _ = rows(noise=0.2, count=300)
    code = Thresholding(W, k=5, nonnegative=True).encode(x)
    for refinement in EVERY:
        whole = refinement.improve(W, x, code, nonnegative=True).dense()
        for shape in ((300, 1), (3, 100), (2, 3, 50)):
            part = refinement.improve(
                W,
                x.reshape(*shape, 16),
                SparseCode(code.values.reshape(*shape, 5), code.indices.reshape(*shape, 5), 40),
                nonnegative=True,
            )
            assert part.values.shape == (*shape, 5)
            assert torch.allclose(part.dense().reshape(300, 40), whole, atol=1e-9)
        none = refinement.improve(W, x[:0], code[:0])
        assert none.values.shape == (0, 5)


def test_half_precision_is_solved_in_full():
    W, x, _ = rows(dtype=torch.bfloat16)
    code = Thresholding(W, k=4, nonnegative=True).encode(x)
    found = SubspacePursuit().improve(W, x, code, nonnegative=True)
    assert found.values.dtype == torch.bfloat16
    assert errors(W, x, found).float().mean() < errors(W, x, code).float().mean()


def test_sentences():
    W, x, truth = rows()
    with pytest.raises(ShapeError, match="40 atoms"):
        Refit().improve(W, x, SparseCode(truth.values, truth.indices, 41))
    with pytest.raises(ShapeError, match="one code per row"):
        Refit().improve(W, x[:3], truth)
    with pytest.raises(ValueError, match="negative values"):
        Refit().improve(W, x, SparseCode(-truth.values, truth.indices, 40), nonnegative=True)
    with pytest.raises(ValueError, match="NaN"):
        Refit().improve(W, torch.full_like(x, torch.nan), truth)
    with pytest.raises(ValueError, match="Did you mean refit"):
        Refinement.of("refitt")
    with pytest.raises(ValueError, match="rounds"):
        SubspacePursuit(rounds=0)
    assert Refinement.of(Refit()) == Refit()
