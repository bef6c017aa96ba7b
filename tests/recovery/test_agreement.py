"""Solvers against independent ones: scikit-learn, linear programming, least squares; and against theory."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso, orthogonal_mp

from superscope.core import Dictionary, ShapeError, SparseCode
from superscope.recovery import (
    AMP,
    FISTA,
    HTP,
    ISTA,
    NNOMP,
    OMP,
    BasisPursuit,
    CoordinateDescent,
    LinearProgram,
    MatchingPursuit,
    Thresholding,
    lasso_objective,
    refit,
)
from superscope.recovery.amp import weak_threshold
from superscope.recovery.support import non_negative_on_support


def frame(n: int, d: int, seed: int) -> Dictionary:
    return Dictionary(torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).unit()


def clustered(n: int, d: int, cosine: float, seed: int) -> Dictionary:
    """Clusters of 8 atoms with the given cosine inside."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.nn.functional.normalize(torch.randn(n // 8, d, generator=generator, dtype=torch.float64), dim=1)
    own = torch.nn.functional.normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=1)
    return Dictionary(cosine**0.5 * centres.repeat_interleave(8, 0) + (1 - cosine) ** 0.5 * own).unit()


def codes(n: int, k: int, rows: int, seed: int, *, law: str = "uniform", nonnegative: bool = False) -> SparseCode:
    generator = torch.Generator().manual_seed(seed)
    indices = torch.rand(rows, n, generator=generator).topk(k, dim=1).indices
    shape = (rows, k)
    values = {
        "uniform": torch.rand(shape, generator=generator, dtype=torch.float64) + 0.5,
        "flat": torch.ones(shape, dtype=torch.float64),
        "normal": torch.randn(shape, generator=generator, dtype=torch.float64),
        "exponential": torch.empty(shape, dtype=torch.float64).exponential_(generator=generator),
    }[law]
    if not nonnegative:
        values = values * (torch.randint(0, 2, shape, generator=generator) * 2 - 1)
    return SparseCode(values, indices, n)


def share_exact(found: SparseCode, truth: SparseCode, tolerance: float = 1e-3) -> float:
    f = truth.dense()
    return float(((found.dense() - f).norm(dim=1) <= tolerance * f.norm(dim=1)).double().mean())


@pytest.mark.parametrize("gram", [True, False])
def test_omp_is_that_of_scikit_learn(gram: bool) -> None:
    W = frame(128, 48, 0)
    x = W.compose(codes(128, 6, 200, 1)) + 0.1 * torch.randn(
        200, 48, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    theirs = torch.from_numpy(orthogonal_mp(W.W.numpy(), x.T.numpy(), n_nonzero_coefs=8).T.copy())
    torch.testing.assert_close(OMP(W, k=8, gram=gram).encode(x).dense(), theirs, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("W", [frame(96, 32, 3), clustered(96, 32, 0.6, 3)], ids=["random", "clustered"])
@pytest.mark.parametrize("penalty", [0.3, 0.02])
def test_lasso_is_that_of_scikit_learn(W: Dictionary, penalty: float, nonnegative: bool) -> None:
    x = W.compose(codes(96, 4, 20, 4, nonnegative=nonnegative))
    # scikit-learn divides the squared error by the number of "samples", here the d coordinates.
    theirs = Lasso(alpha=penalty / 32, fit_intercept=False, positive=nonnegative, tol=1e-12, max_iter=100_000)
    f = torch.from_numpy(np.stack([theirs.fit(W.W.numpy(), row.numpy()).coef_ for row in x]))
    best = lasso_objective(W, x, f, penalty)
    for solver in (
        CoordinateDescent(W, penalty=penalty, nonnegative=nonnegative, tolerance=1e-9),
        FISTA(W, penalty=penalty, nonnegative=nonnegative, tolerance=1e-10, steps=50_000),
    ):
        found = solver.solve(x)
        assert bool(found.converged.all()), solver
        torch.testing.assert_close(
            lasso_objective(W, x, found.code.dense(), penalty), best, rtol=1e-7, atol=1e-9, msg=repr(solver)
        )


@pytest.mark.parametrize("nonnegative", [False, True])
def test_lasso_conditions_hold_at_the_answer(nonnegative: bool) -> None:
    # Atoms of norms from 0.1 to 10: the penalty is on f as given, W^T r = lambda sign(f) where f is nonzero.
    W = Dictionary(frame(60, 24, 5).atoms * torch.logspace(-1, 1, 60, dtype=torch.float64)[:, None])
    x = torch.randn(40, 24, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    found = CoordinateDescent(W, penalty=0.2, nonnegative=nonnegative, tolerance=1e-10).solve(x)
    f = found.code.dense()
    slope = (x - W.compose(f)) @ W.W
    assert bool(found.converged.all())
    on = f != 0
    assert float((slope - 0.2 * f.sign())[on].abs().max()) < 1e-7
    assert float((slope if nonnegative else slope.abs())[~on].max()) < 0.2 + 1e-7


@pytest.mark.parametrize("nonnegative", [False, True])
def test_ista_never_rises(nonnegative: bool) -> None:
    W = clustered(64, 24, 0.5, 7)
    x = torch.randn(10, 24, generator=torch.Generator().manual_seed(8), dtype=torch.float64)

    def objective(steps: int) -> torch.Tensor:
        coder = ISTA(W, 0.05, steps=steps, tolerance=0.0, nonnegative=nonnegative)
        return lasso_objective(W, x, coder.encode(x).dense(), 0.05)

    values = torch.stack([objective(t) for t in (1, 2, 3, 5, 9, 30)])
    assert bool((values.diff(dim=0) <= 1e-12).all())
    assert bool((values[-1] < values[0]).all())


@pytest.mark.parametrize("gram", [False, True])
@pytest.mark.parametrize("nonnegative", [False, True])
def test_coordinate_descent_never_rises(nonnegative: bool, gram: bool) -> None:
    W = clustered(64, 24, 0.5, 9)
    x = torch.randn(10, 24, generator=torch.Generator().manual_seed(10), dtype=torch.float64)

    def objective(steps: int) -> torch.Tensor:
        coder = CoordinateDescent(W, 0.05, steps=steps, nonnegative=nonnegative, gram=gram, engine="torch")
        return lasso_objective(W, x, coder.encode(x).dense(), 0.05)

    values = torch.stack([objective(t) for t in range(1, 30)])
    assert bool((values.diff(dim=0) <= 1e-12).all())


def test_residual_of_pursuit_never_rises() -> None:
    W = clustered(64, 24, 0.5, 11)
    x = torch.randn(10, 24, generator=torch.Generator().manual_seed(12), dtype=torch.float64)
    for make in (
        lambda k: OMP(W, k=k, gram=True),
        lambda k: OMP(W, k=k, gram=False),
        lambda k: NNOMP(W, k=k),
        lambda k: MatchingPursuit(W, k=k, gram=True),
        lambda k: MatchingPursuit(W, k=k, gram=False),
        lambda k: MatchingPursuit(W, k=k, nonnegative=True),
        lambda k: MatchingPursuit(W, k=11, steps=10 + k),
    ):
        error = torch.stack([(x - make(k).reconstruct(x)).norm(dim=1) for k in range(1, 12)])
        assert bool((error.diff(dim=0) <= 1e-12).all()), make(1)


def test_steps_to_the_optimum_of_the_lasso() -> None:
    # 256 x 1024, ten active: 50 steps of FISTA are within 1e-3 of the optimum and 100 within 1e-5; 40 of greedy descent
    # within 1e-5, each of which costs a row of the Gram matrix and not two products with W.
    W = frame(1024, 256, 40)
    x = W.compose(codes(1024, 10, 40, 41, nonnegative=True))

    def excess(coder: FISTA | CoordinateDescent) -> float:
        return float(lasso_objective(W, x, coder.encode(x).dense(), 0.05).mean() / best - 1)

    best = lasso_objective(W, x, CoordinateDescent(W, 0.05, tolerance=1e-10).encode(x).dense(), 0.05).mean()
    assert excess(FISTA(W, 0.05, steps=50, tolerance=0.0)) < 1e-3
    assert excess(FISTA(W, 0.05, steps=100, tolerance=0.0)) < 1e-5
    assert excess(CoordinateDescent(W, 0.05, steps=20, tolerance=0.0)) < 2e-3
    assert excess(CoordinateDescent(W, 0.05, steps=40, tolerance=0.0)) < 1e-5


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("k", [4, 9, 16])
def test_basis_pursuit_is_the_linear_programme(nonnegative: bool, k: int) -> None:
    # k = 16 is beyond the threshold (11 of 32, signed): there the answers differ from f but not from each other.
    W = clustered(80, 32, 0.4, 13)
    x = W.compose(codes(80, k, 10, 14, nonnegative=nonnegative))
    referee = LinearProgram(W, nonnegative=nonnegative).solve(x)
    found = BasisPursuit(W, nonnegative=nonnegative, tolerance=1e-8, steps=20_000).solve(x)
    assert bool(referee.converged.all())
    assert bool(found.converged.all())
    mass, best = found.code.values.abs().sum(1), referee.code.values.abs().sum(1)
    torch.testing.assert_close(mass, best, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(W.compose(found.code), x, rtol=1e-6, atol=1e-6)


def test_x_outside_the_span_does_not_converge() -> None:
    W = Dictionary(torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]], dtype=torch.float64))
    x = torch.tensor([[1.0, 2.0, 0.0], [1.0, 2.0, 1.0]], dtype=torch.float64)
    assert BasisPursuit(W).solve(x).converged.tolist() == [True, False]
    assert LinearProgram(W).solve(x).converged.tolist() == [True, False]


@given(seed=st.integers(0, 10_000), k=st.integers(1, 7), d=st.integers(1, 9))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_non_negative_least_squares_is_that_of_scipy(seed: int, k: int, d: int) -> None:
    # d < k included: dependent atoms, where f is not unique but the error is.
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(torch.randn(5, k, d, generator=generator, dtype=torch.float64) + 0.3, dim=2)
    x = torch.randn(5, d, generator=generator, dtype=torch.float64)
    held = torch.rand(5, k, generator=generator) < 0.8
    chosen = atoms * held[:, :, None]
    f, done = non_negative_on_support(chosen @ chosen.mT, (chosen @ x[:, :, None])[:, :, 0], held)
    assert bool(done.all())
    assert bool((f >= 0).all())
    assert bool((f[~held] == 0).all())
    for row in range(5):
        best = scipy.optimize.nnls(chosen[row].T.numpy(), x[row].numpy())[1]
        assert float((x[row] - f[row] @ chosen[row]).norm()) == pytest.approx(best, abs=1e-7)


def test_nnomp_holds_its_conditions() -> None:
    W = clustered(64, 24, 0.5, 15)
    x = torch.randn(60, 24, generator=torch.Generator().manual_seed(16), dtype=torch.float64)
    found = NNOMP(W, k=8).solve(x)
    assert bool(found.converged.all())
    f = found.code.dense()
    slope = (x - W.compose(f)) @ W.W
    assert bool((f >= 0).all())
    # The refit is optimal on its atoms: no slope where f > 0.
    assert float(slope[f > 0].abs().max()) < 1e-10


def test_nnomp_is_omp_where_no_value_wants_to_be_negative() -> None:
    W = frame(128, 48, 17)
    x = W.compose(codes(128, 3, 100, 18, nonnegative=True))
    both = OMP(W, k=3).encode(x).dense()
    torch.testing.assert_close(NNOMP(W, k=3).encode(x).dense(), both, atol=1e-10, rtol=1e-10)


def test_htp_rests_where_it_says() -> None:
    W = frame(128, 48, 19)
    x = W.compose(codes(128, 8, 60, 20)) + 0.02 * torch.randn(
        60, 48, generator=torch.Generator().manual_seed(21), dtype=torch.float64
    )
    found = HTP(W, k=8).solve(x)
    assert float(found.converged.double().mean()) > 0.9
    # Values are least squares on the support.
    torch.testing.assert_close(refit(W, x, found.code).dense(), found.code.dense(), atol=1e-10, rtol=1e-10)


def test_htp_says_when_its_support_has_not_settled() -> None:
    W = clustered(64, 12, 0.7, 22)
    x = W.compose(codes(64, 6, 200, 23))
    found = HTP(W, k=6, steps=3).solve(x)
    assert 0 < float(found.converged.double().mean()) < 1
    assert bool(((x - W.compose(found.code)).norm(dim=1) <= x.norm(dim=1)).all())


def test_refit_is_least_squares() -> None:
    W = Dictionary(frame(40, 16, 24).atoms * torch.logspace(-2, 2, 40, dtype=torch.float64)[:, None])
    x = torch.randn(30, 16, generator=torch.Generator().manual_seed(25), dtype=torch.float64)
    code = Thresholding(W, k=5).encode(x)
    code = SparseCode(torch.where(torch.arange(5) < torch.arange(30)[:, None] % 6, code.values, 0), code.indices, 40)
    found = refit(W, x, code)
    assert bool((found.support <= code.support).all())
    for row in range(30):
        chosen = W.atoms[code.indices[row][code.values[row] != 0]]
        f = np.linalg.lstsq(chosen.T.numpy(), x[row].numpy(), rcond=None)[0]
        np.testing.assert_allclose(found.values[row][code.values[row] != 0].numpy(), f, rtol=1e-8, atol=1e-12)


def test_refit_with_dependent_atoms_takes_the_smallest() -> None:
    atoms = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], dtype=torch.float64)
    code = SparseCode(torch.ones(4, dtype=torch.float64), torch.arange(4), 4)
    x = torch.tensor([1.0, 1.0], dtype=torch.float64)
    expected = np.linalg.pinv(atoms.T.numpy()) @ x.numpy()
    np.testing.assert_allclose(refit(Dictionary(atoms), x, code).dense().numpy(), expected, atol=1e-10)


def test_refit_non_negative_and_hostile() -> None:
    W = frame(40, 16, 26)
    x = torch.randn(30, 16, generator=torch.Generator().manual_seed(27), dtype=torch.float64)
    code = Thresholding(W, k=5).encode(x)
    found = refit(W, x, code, nonnegative=True)
    for row in range(30):
        best = scipy.optimize.nnls(W.atoms[code.indices[row]].T.numpy(), x[row].numpy())[1]
        assert float((x[row] - W.compose(found[row : row + 1])[0]).norm()) == pytest.approx(best, abs=1e-9)
    with pytest.raises(ShapeError, match="one code per row"):
        refit(W, x[:3], code)
    with pytest.raises(ShapeError, match="code indexes 41 features but the dictionary has 40 atoms"):
        refit(W, x, SparseCode(code.values, code.indices, 41))


def test_refit_undoes_the_shrinkage_of_the_lasso() -> None:
    W = frame(256, 64, 28)
    f = codes(256, 4, 100, 29)
    x = W.compose(f)
    shrunk = CoordinateDescent(W, penalty=0.1).encode(x)
    before, after = ((W.compose(c) - x).norm(dim=1).mean() for c in (shrunk, refit(W, x, shrunk)))
    assert float(after) < 1e-3 * float(before)


# Donoho-Tanner at d = 128, n = 512: half of all codes at k = 34.2 (signed) and 46.7 (non-negative). At distance 10
# the success of 40 draws is all or nothing, for l1 whatever the amplitudes.
@pytest.mark.parametrize("solver", [BasisPursuit, AMP])
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("law", ["normal", "flat"])
def test_l1_follows_the_donoho_tanner_threshold(solver: type, nonnegative: bool, law: str) -> None:
    W = frame(512, 128, 30)
    threshold = 128 * weak_threshold(0.25, nonnegative=nonnegative)[0]
    for k, low, high in ((round(threshold) - 11, 0.85, 1.0), (round(threshold) + 11, 0.0, 0.15)):
        f = codes(512, k, 40, 31, law=law, nonnegative=nonnegative)
        f = SparseCode(f.values.abs() if nonnegative else f.values, f.indices, 512)
        found = solver(W, nonnegative=nonnegative, steps=500).solve(W.compose(f))
        assert low <= share_exact(found.code, f) <= high, (k, share_exact(found.code, f))


def test_amp_says_that_it_diverges_on_clusters() -> None:
    W = clustered(512, 128, 0.6, 32)
    f = codes(512, 15, 40, 33, nonnegative=True)
    x = W.compose(f)
    found = AMP(W, nonnegative=True).solve(x)
    assert float(found.converged.double().mean()) < 0.1
    assert bool(torch.isfinite(found.code.values).all())
    assert share_exact(BasisPursuit(W, nonnegative=True).encode(x), f) == 1.0


@pytest.mark.parametrize(
    ("delta", "signed", "alpha", "positive", "alpha_positive"),
    [
        (0.01, 0.106878, 2.6143, 0.123369, 2.3749),
        (0.1, 0.189429, 1.7357, 0.240976, 1.4202),
        (0.25, 0.267384, 1.2922, 0.365089, 0.9359),
        (0.5, 0.385690, 0.8769, 0.558228, 0.5061),
        (0.9, 0.678169, 0.3274, 0.902657, 0.0829),
    ],
)
def test_weak_threshold(delta: float, signed: float, alpha: float, positive: float, alpha_positive: float) -> None:
    assert weak_threshold(delta) == pytest.approx((signed, alpha), abs=5e-5)
    assert weak_threshold(delta, nonnegative=True) == pytest.approx((positive, alpha_positive), abs=5e-5)


def test_one_step_needs_equal_amplitudes_and_pursuit_needs_unequal_ones() -> None:
    # d = 256, n = 1024. One step finds half of flat supports at k = 11, of normal ones at 2; OMP 35 and 83.
    W = frame(1024, 256, 34).to(torch.float32)

    def found(solver: type, k: int, law: str) -> float:
        f = codes(1024, k, 60, 35, law=law)
        f = SparseCode(f.values.float(), f.indices, 1024)
        code = solver(W, k=k).encode(W.compose(f))
        return float((code.support == f.support).all(1).double().mean())

    assert found(Thresholding, 7, "flat") > 0.75
    assert found(Thresholding, 7, "normal") < 0.25
    assert found(OMP, 55, "flat") < 0.1
    f = codes(1024, 55, 60, 36, law="normal")
    f = SparseCode(f.values.float(), f.indices, 1024)
    # A normal law has amplitudes near 0 that no support test should count: the error decides.
    assert share_exact(OMP(W, k=55).encode(W.compose(f)), f, 0.01) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("solver", "law", "nonnegative", "expected"),
    [
        (OMP, "flat", False, 36),
        (OMP, "normal", False, 83),
        (OMP, "flat", True, 35),
        (NNOMP, "uniform", True, 48),
        (NNOMP, "flat", True, 41),
        (NNOMP, "exponential", True, 115),
        (HTP, "normal", False, 88),
        (HTP, "flat", False, 58),
        (BasisPursuit, "normal", False, 68.45),
        (BasisPursuit, "flat", False, 68.45),
        (BasisPursuit, "uniform", True, 93.46),
        (BasisPursuit, "flat", True, 93.46),
        (AMP, "normal", False, 67),
        (AMP, "flat", False, 67),
        (AMP, "flat", True, 91),
        (AMP, "uniform", True, 90),
    ],
)
def test_half_of_all_codes_are_recovered_at(solver: type, law: str, nonnegative: bool, expected: float) -> None:
    W = frame(1024, 256, 37)
    shares = []
    grid = range(round(expected) - 8, round(expected) + 9, 4)
    for k in grid:
        f = codes(1024, k, 60, 38 + k, law=law, nonnegative=nonnegative)
        if solver in (BasisPursuit, AMP):
            coder = solver(W, nonnegative=nonnegative)
        elif solver is NNOMP:
            coder = NNOMP(W, k=k)
        else:
            coder = solver(W, k=k)
        shares.append(share_exact(coder.encode(W.compose(f)), f, 0.01))
    # A least-squares logistic through the shares; 60 codes at five k put its half point within 3 (two deviations).
    log_odds = np.log((np.array(shares) * 60 + 0.5) / (60 - np.array(shares) * 60 + 0.5))
    slope, intercept = np.polyfit(np.array(grid), log_odds, 1)
    assert -intercept / slope == pytest.approx(expected, abs=4)
