"""The compiled loops, judged by the torch ones."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from superscope.core import Dictionary, SparseCode
from superscope.recovery import OMP, CoordinateDescent, lasso_objective
from superscope.recovery.problem import Engine

pytest.importorskip(
    "numba", reason="would have compared the compiled loops with the torch ones: install superscope[fast]"
)


def problem(n: int, d: int, k: int, rows: int, seed: int, dtype: torch.dtype) -> tuple[Dictionary, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    W = Dictionary(torch.randn(n, d, generator=generator, dtype=dtype) * torch.rand(n, 1, generator=generator) * 3)
    f = SparseCode(
        torch.randn(rows, k, generator=generator, dtype=dtype),
        torch.rand(rows, n, generator=generator).topk(k, dim=1).indices,
        n,
    )
    return W, W.compose(f) + 0.01 * torch.randn(rows, d, generator=generator, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
# 70, 128 and 200: beside, at and past whole stretches of 64 in the search for the largest.
@pytest.mark.parametrize("n", [5, 70, 128, 200])
def test_omp(n: int, dtype: torch.dtype) -> None:
    d = min(n, 40)
    W, x = problem(n, d, min(4, n), 90, n, dtype)
    slow, fast = (OMP(W, k=min(8, d), gram=True, engine=engine).solve(x) for engine in ("torch", "numba"))
    tolerance = 1e-3 if dtype == torch.float32 else 1e-9
    same = (slow.code.support == fast.code.support).all(1)
    # In float32 two atoms may tie to rounding; both answers are then right.
    assert float(same.double().mean()) >= (0.97 if dtype == torch.float32 else 1.0)
    torch.testing.assert_close(fast.code.dense()[same], slow.code.dense()[same], atol=tolerance, rtol=tolerance)
    assert torch.equal(fast.converged, slow.converged)
    assert fast.steps == slow.steps


@pytest.mark.parametrize("engine", ["torch", "numba"])
def test_without_a_tolerance_no_row_stops_at_a_residual_that_rounding_hides(engine: Engine) -> None:
    # In some rows what the fifth atom explains is 2e-5 of |x|, whose square is beyond float32's last digit.
    W, x = problem(5, 5, 4, 90, 5, torch.float32)
    found = OMP(W, k=5, gram=True, engine=engine).solve(x)
    residual = x.double() - found.code.dense().double() @ W.atoms.double()
    assert float((residual.norm(dim=1) / x.norm(dim=1)).max()) < 1e-5


@pytest.mark.parametrize("tolerance", [0.0, 0.3])
def test_omp_stops_alike(tolerance: float) -> None:
    W, x = problem(60, 20, 3, 50, 1, torch.float64)
    x[7] = 0
    twice = Dictionary(torch.cat([W.atoms, W.atoms[:10]]))
    coder = OMP(twice, k=12, tolerance=tolerance, gram=True)
    slow, fast = (dataclasses.replace(coder, engine=engine).solve(x) for engine in ("torch", "numba"))
    # Which of two equal atoms is taken is a tie: the last bit of their correlations decides.
    once = [f[:, :60] + torch.nn.functional.pad(f[:, 60:], (0, 50)) for f in (fast.code.dense(), slow.code.dense())]
    torch.testing.assert_close(*once, atol=1e-8, rtol=1e-8)
    assert torch.equal(fast.converged, slow.converged)
    assert int(fast.code.l0[7]) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("penalty", [0.5, 0.02])
def test_lasso(penalty: float, nonnegative: bool, dtype: torch.dtype) -> None:
    # The small penalty leaves rows that exceed the budget of single moves: they must come back solved all the same.
    W, x = problem(120, 40, 5, 40, 2, dtype)
    coder = CoordinateDescent(W, penalty=penalty, nonnegative=nonnegative, gram=True, tolerance=1e-5)
    slow, fast = (dataclasses.replace(coder, engine=engine).solve(x) for engine in ("torch", "numba"))
    one, other = (lasso_objective(W, x, found.code.dense(), penalty) for found in (slow, fast))
    # Both stop at a duality gap of 1e-5 of |x|^2 / 2 or better.
    assert bool(((one - other).abs() <= 1e-5 * x.square().sum(1)).all())
    assert bool(fast.converged.all())
    assert torch.equal(fast.code.l0, (fast.code.dense() != 0).sum(1))
    if nonnegative:
        assert bool((fast.code.values >= 0).all())


def test_lasso_respects_its_steps() -> None:
    W, x = problem(80, 20, 4, 30, 3, torch.float64)
    found = CoordinateDescent(W, penalty=0.01, steps=3, gram=True, engine="numba").solve(x)
    assert found.steps <= 3
    assert not bool(found.converged.all())
    assert int(found.code.l0.max()) <= 3


def test_threads_change_nothing() -> None:
    W, x = problem(2048, 16, 3, 3000, 4, torch.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = OMP(W, k=4, gram=True, engine="numba").encode(x)
        torch.set_num_threads(2)
        two = OMP(W, k=4, gram=True, engine="numba").encode(x)
    finally:
        torch.set_num_threads(before)
    assert float((one.support == two.support).all(1).double().mean()) > 0.999


def test_unknown_engine() -> None:
    W, _ = problem(20, 8, 2, 1, 5, torch.float32)
    # A TypeError where annotations are checked.
    with pytest.raises((ValueError, TypeError), match="engine"):
        OMP(W, k=2, engine="cuda")  # type: ignore[arg-type]
