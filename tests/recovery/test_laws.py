"""Laws that every solver obeys, over the list of all solvers."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from superscope.core import Dictionary, ShapeError, SparseCode
from superscope.recovery import (
    AMP,
    FISTA,
    HTP,
    ISTA,
    NNOMP,
    OMP,
    SOLVERS,
    BasisPursuit,
    CoordinateDescent,
    LinearProgram,
    MatchingPursuit,
    RecoveryCoder,
    Thresholding,
    refit,
)
from superscope.recovery.problem import check_real

ALL = (*SOLVERS, LinearProgram)
GREEDY = (Thresholding, MatchingPursuit, OMP, NNOMP, HTP)
PENALISED = (ISTA, FISTA, CoordinateDescent)
TWO_SIGNED = tuple(solver for solver in ALL if solver is not NNOMP)
WITH_GRAM = (MatchingPursuit, OMP, CoordinateDescent)


def build(solver: type[RecoveryCoder], W: Dictionary, k: int = 3, size: float = 1.0) -> RecoveryCoder:
    """The solver for codes of k nonzeros, tight enough that two ways to one solution agree; size is that of x."""
    if solver in (ISTA, FISTA):
        # A fixed number of steps: the iterates themselves obey the laws.
        return solver(W, penalty=0.1 * size, steps=100, tolerance=0.0)  # type: ignore[call-arg]
    if solver is CoordinateDescent:
        return solver(W, penalty=0.1 * size, tolerance=1e-10)
    if solver in GREEDY:
        return solver(W, k=k)  # type: ignore[call-arg]
    if solver is BasisPursuit:
        return BasisPursuit(W, tolerance=1e-9, steps=20000)
    return solver(W)


def frame(n: int, d: int, seed: int, dtype: torch.dtype = torch.float64) -> Dictionary:
    return Dictionary(torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)).unit()


def codes(n: int, k: int, rows: int, seed: int, *, nonnegative: bool = False) -> SparseCode:
    """Supports uniform, amplitudes uniform in [0.5, 1.5] with random signs."""
    generator = torch.Generator().manual_seed(seed)
    indices = torch.rand(rows, n, generator=generator).topk(k, dim=1).indices
    values = torch.rand(rows, k, generator=generator, dtype=torch.float64) + 0.5
    if not nonnegative:
        values = values * (torch.randint(0, 2, values.shape, generator=generator) * 2 - 1)
    return SparseCode(values, indices, n)


def problem(
    n: int, d: int, k: int, rows: int, seed: int, solver: type[RecoveryCoder]
) -> tuple[Dictionary, torch.Tensor]:
    W = frame(n, d, seed)
    return W, W.compose(codes(n, k, rows, seed + 1, nonnegative=solver is NNOMP))


seeds = st.integers(0, 10_000)
shapes = st.tuples(st.integers(10, 18), st.integers(1, 14), st.integers(1, 3))
few = settings(max_examples=6, deadline=None, derandomize=True)


@pytest.mark.parametrize("solver", ALL)
@pytest.mark.parametrize("batch", [(), (5,), (2, 3), (0,)])
def test_shape_dtype_and_range_of_a_solution(solver: type[RecoveryCoder], batch: tuple[int, ...]) -> None:
    W = frame(20, 12, 0)
    x = torch.randn(*batch, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = build(solver, W).solve(x)
    assert found.code.n == 20
    assert found.code.values.shape[:-1] == batch
    assert found.converged.shape == batch
    assert found.code.values.dtype == x.dtype
    assert bool(torch.isfinite(found.code.values).all())
    assert torch.equal(found.code.dense(), build(solver, W).encode(x).dense())


@pytest.mark.parametrize("solver", ALL)
@given(seed=seeds, shape=shapes)
@few
def test_no_index_holds_two_values(solver: type[RecoveryCoder], seed: int, shape: tuple[int, int, int]) -> None:
    d, extra, k = shape
    W, x = problem(d + extra, d, k, 4, seed, solver)
    code = build(solver, W, k).encode(x)
    assert torch.equal(code.l0, (code.dense() != 0).sum(-1))


@pytest.mark.parametrize("solver", GREEDY)
def test_at_most_k_nonzeros(solver: type[RecoveryCoder]) -> None:
    W = frame(30, 15, 3)
    x = torch.randn(50, 15, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    for k in (1, 4, 15):
        assert int(build(solver, W, k).encode(x).l0.max()) <= k


@pytest.mark.parametrize("solver", TWO_SIGNED)
@given(seed=seeds, shape=shapes)
@few
def test_sign_of_x_is_the_sign_of_f(solver: type[RecoveryCoder], seed: int, shape: tuple[int, int, int]) -> None:
    d, extra, k = shape
    W, x = problem(d + extra, d, k, 4, seed, solver)
    coder = build(solver, W, k)
    torch.testing.assert_close(coder.encode(-x).dense(), -coder.encode(x).dense(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("solver", ALL)
@given(seed=seeds, shape=shapes)
@few
def test_order_of_atoms_is_the_order_of_features(
    solver: type[RecoveryCoder], seed: int, shape: tuple[int, int, int]
) -> None:
    d, extra, k = shape
    W, x = problem(d + extra, d, k, 4, seed, solver)
    order = torch.randperm(W.n, generator=torch.Generator().manual_seed(seed))
    shuffled = build(solver, Dictionary(W.atoms[order]), k).encode(x).dense()
    torch.testing.assert_close(shuffled, build(solver, W, k).encode(x).dense()[:, order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("solver", ALL)
@given(seed=seeds, shape=shapes, size=st.sampled_from([1e-6, 0.03, 7.0, 1e6]))
@few
def test_units_of_x_are_units_of_f(
    solver: type[RecoveryCoder], seed: int, shape: tuple[int, int, int], size: float
) -> None:
    d, extra, k = shape
    W, x = problem(d + extra, d, k, 4, seed, solver)
    scaled = build(solver, W, k, size).encode(size * x).dense() / size
    torch.testing.assert_close(scaled, build(solver, W, k).encode(x).dense(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("solver", ALL)
@given(seed=seeds, shape=shapes)
@few
def test_rotation_of_x_and_atoms_changes_nothing(
    solver: type[RecoveryCoder], seed: int, shape: tuple[int, int, int]
) -> None:
    d, extra, k = shape
    W, x = problem(d + extra, d, k, 4, seed, solver)
    turn = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).Q
    turned = build(solver, Dictionary(W.atoms @ turn), k).encode(x @ turn).dense()
    torch.testing.assert_close(turned, build(solver, W, k).encode(x).dense(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("solver", [*GREEDY, AMP])
@given(seed=seeds, shape=shapes)
@few
def test_norms_of_atoms_divide_f(solver: type[RecoveryCoder], seed: int, shape: tuple[int, int, int]) -> None:
    d, extra, k = shape
    W, x = problem(d + extra, d, k, 4, seed, solver)
    norms = torch.logspace(-3, 3, W.n, dtype=torch.float64)
    scaled = build(solver, Dictionary(W.atoms * norms[:, None]), k).encode(x).dense() * norms
    torch.testing.assert_close(scaled, build(solver, W, k).encode(x).dense(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("solver", ALL)
def test_rows_do_not_influence_each_other(solver: type[RecoveryCoder]) -> None:
    W, x = problem(24, 12, 3, 12, 5, solver)
    coder = build(solver, W)
    apart = torch.stack([coder.encode(row).dense() for row in x])
    torch.testing.assert_close(coder.encode(x).dense(), apart, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("solver", ALL)
def test_bias_is_subtracted(solver: type[RecoveryCoder]) -> None:
    W, x = problem(24, 12, 3, 6, 6, solver)
    bias = torch.linspace(-2, 3, 12, dtype=torch.float64)
    biased = build(solver, Dictionary(W.atoms, bias))
    torch.testing.assert_close(
        biased.encode(x + bias).dense(), build(solver, W).encode(x).dense(), atol=1e-6, rtol=1e-6
    )


@pytest.mark.parametrize("solver", ALL)
def test_zero_x_gives_zero_f_and_converges(solver: type[RecoveryCoder]) -> None:
    found = build(solver, frame(10, 6, 7)).solve(torch.zeros(3, 6, dtype=torch.float64))
    assert int(found.code.l0.sum()) == 0
    assert bool(found.converged.all())


@pytest.mark.parametrize("solver", ALL)
def test_a_zero_atom_is_never_used(solver: type[RecoveryCoder]) -> None:
    W, x = problem(24, 12, 3, 8, 8, solver)
    with_zero = Dictionary(torch.cat([torch.zeros(1, 12, dtype=torch.float64), W.atoms]))
    f = build(solver, with_zero).encode(x).dense()
    assert bool((f[:, 0] == 0).all())
    torch.testing.assert_close(f[:, 1:], build(solver, W).encode(x).dense(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("solver", tuple(s for s in ALL if s is not AMP))
def test_a_duplicated_atom_explains_as_much_as_one(solver: type[RecoveryCoder]) -> None:
    W, x = problem(24, 16, 2, 8, 9, solver)
    twice = Dictionary(torch.cat([W.atoms, W.atoms[:4]]))
    f = build(solver, twice, 6).encode(x).dense()
    merged = f[:, :24].clone()
    merged[:, :4] += f[:, 24:]
    assert bool(torch.isfinite(f).all())
    if solver in (OMP, NNOMP, CoordinateDescent, BasisPursuit, LinearProgram):
        torch.testing.assert_close(merged, build(solver, W, 6).encode(x).dense(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "solver", tuple(s for s in SOLVERS if "nonnegative" in {f.name for f in dataclasses.fields(s)})
)
def test_nonnegative_form(solver: type[RecoveryCoder]) -> None:
    W = frame(30, 16, 10)
    positive = W.compose(codes(30, 2, 20, 11, nonnegative=True))
    any_x = torch.randn(20, 16, generator=torch.Generator().manual_seed(12), dtype=torch.float64)
    coder = dataclasses.replace(build(solver, W, 2), nonnegative=True)
    for x in (positive, any_x, -positive):
        assert bool((coder.encode(x).values >= 0).all())
    # Where the unrestricted answer is non-negative already, both forms agree: for convex problems and for pursuit.
    free, bound = build(solver, W, 2).encode(positive).dense(), coder.encode(positive).dense()
    same = (free >= 0).all(1)
    assert bool(same.any())
    if solver in (OMP, MatchingPursuit, CoordinateDescent, BasisPursuit):
        torch.testing.assert_close(bound[same], free[same], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("solver", WITH_GRAM)
@pytest.mark.parametrize("seed", range(3))
def test_with_and_without_gram_agree(solver: type[RecoveryCoder], seed: int) -> None:
    W, x = problem(40, 20, 4, 30, seed, solver)
    noisy = x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
    coder = build(solver, W, 6)
    one, other = (dataclasses.replace(coder, gram=g).encode(noisy).dense() for g in (True, False))
    torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-8)


def two_bases(d: int) -> Dictionary:
    """The identity beside a Hadamard basis: coherence 1 / sqrt(d)."""
    hadamard = torch.ones(1, 1, dtype=torch.float64)
    while len(hadamard) < d:
        hadamard = torch.cat([torch.cat([hadamard, hadamard], 1), torch.cat([hadamard, -hadamard], 1)])
    return Dictionary(torch.cat([torch.eye(d, dtype=torch.float64), hadamard / math.sqrt(d)]))


# 64 dimensions: coherence 1/8, so every support of k = 4 < (1 + 8) / 2 is recovered, and no random draw decides.
@pytest.mark.parametrize("solver", [OMP, NNOMP, HTP, MatchingPursuit, BasisPursuit, *PENALISED])
def test_exact_recovery_inside_the_coherence_guarantee(solver: type[RecoveryCoder]) -> None:
    W, k = two_bases(64), 4
    f = codes(W.n, k, 100, 13, nonnegative=solver is NNOMP)
    x = W.compose(f)
    if solver is MatchingPursuit:
        coder: RecoveryCoder = MatchingPursuit(W, k=k, steps=400)
    elif solver in PENALISED:
        # With k < (1 + 1/mu) / 2 the lasso never leaves the support, at any penalty; refitting then gives f.
        coder = solver(W, penalty=0.02, steps=20000, tolerance=1e-10)  # type: ignore[call-arg]
    else:
        coder = build(solver, W, k)
    found = coder.solve(x)
    assert bool(found.converged.all())
    assert not bool((found.code.support & ~f.support).any())
    code = refit(W, x, found.code) if solver in PENALISED else found.code
    torch.testing.assert_close(code.dense(), f.dense(), atol=1e-6, rtol=1e-6)


def test_thresholding_inside_its_guarantee() -> None:
    # k < (1 + (smallest / largest) / mu) / 2 with equal amplitudes and mu = 1/8: k = 4.
    W = two_bases(64)
    f = codes(W.n, 4, 200, 14)
    f = SparseCode(f.values.sign(), f.indices, f.n)
    found = Thresholding(W, k=4).encode(W.compose(f))
    assert torch.equal(found.support, f.support)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_lower_precision_is_accepted_and_returned(solver: type[RecoveryCoder], dtype: torch.dtype) -> None:
    W, x = problem(24, 16, 2, 8, 15, solver)
    settings_ = {"penalty": 0.1} if solver in PENALISED else {"k": 2} if solver in GREEDY else {}
    found = solver(W.to(dtype), **settings_).solve(x.to(dtype))  # type: ignore[call-arg]
    assert found.code.values.dtype == dtype
    assert bool(torch.isfinite(found.code.values).all())


@pytest.mark.parametrize("solver", ALL)
def test_training_the_dictionary_in_place_is_noticed(solver: type[RecoveryCoder]) -> None:
    W, x = problem(24, 16, 2, 8, 16, solver)
    coder = build(solver, W)
    coder.solve(x)
    other = frame(24, 16, 99)
    W.atoms.copy_(other.atoms)
    x = other.compose(codes(24, 2, 8, 17, nonnegative=True))
    torch.testing.assert_close(coder.encode(x).dense(), build(solver, other).encode(x).dense(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("solver", ALL)
def test_gradients_are_off(solver: type[RecoveryCoder]) -> None:
    W = Dictionary(torch.nn.Parameter(frame(12, 8, 18).atoms))
    x = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert not build(solver, W, 2).encode(x).values.requires_grad


@pytest.mark.parametrize("solver", ALL)
def test_hostile_x(solver: type[RecoveryCoder]) -> None:
    coder = build(solver, frame(20, 12, 19))
    x = torch.zeros(4, 12, dtype=torch.float64)
    with pytest.raises(ShapeError, match="d = 12 numbers per row.*20.*the number of atoms"):
        coder.solve(torch.zeros(4, 20, dtype=torch.float64))
    with pytest.raises(ShapeError, match="transposed"):
        coder.solve(torch.zeros(12, 4, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"x is torch.float32 but the atoms are torch.float64.*x.to\(torch.float64\)"):
        coder.solve(x.float())
    with pytest.raises(TypeError):
        coder.solve(x.long())
    for bad in (math.nan, math.inf):
        x[2, 5] = bad
        with pytest.raises(ValueError, match="row 2 of x has a NaN or infinite entry"):
            coder.solve(x)


def test_hostile_settings() -> None:
    W = frame(20, 12, 20)
    for solver in (OMP, NNOMP, HTP):
        with pytest.raises(ValueError, match="k must be at most d = 12"):
            solver(W, k=13)
    for solver in GREEDY:
        with pytest.raises(ValueError, match="k must be at most n = 20"):
            solver(W, k=21)
        with pytest.raises(ValueError, match="k must be at least 1; got 0"):
            solver(W, k=0)
    for solver in PENALISED:
        for penalty in (0.0, -1.0, math.nan, math.inf):
            with pytest.raises(ValueError, match="penalty must be a finite number above 0"):
                solver(W, penalty=penalty)
        with pytest.raises(ValueError, match="steps must be at least 1"):
            solver(W, penalty=1.0, steps=0)
        with pytest.raises(ValueError, match=r"tolerance must lie in \[0, 1\)"):
            solver(W, penalty=1.0, tolerance=-1e-3)
    # A TypeError either way; the sentence where annotations are not checked.
    with pytest.raises(TypeError):
        FISTA(W, penalty="a little")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="penalty must be a number; got 'a little'. Pass a float"):
        check_real("FISTA", "penalty", "a little")
    with pytest.raises(ValueError, match="alpha must be a finite number above 0"):
        AMP(W, alpha=-1.0)
    with pytest.raises(ValueError, match="steps must be at least 3"):
        MatchingPursuit(W, k=3, steps=2)


@pytest.mark.parametrize("solver", ALL)
@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_a_dictionary_of_nothing_is_refused(solver: type[RecoveryCoder], shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least one atom and one dimension"):
        build(solver, Dictionary(torch.zeros(shape, dtype=torch.float64)), 1)


@pytest.mark.parametrize("solver", ALL)
def test_a_single_atom_is_projected_on(solver: type[RecoveryCoder]) -> None:
    W = Dictionary(torch.tensor([[0.0, 2.0]], dtype=torch.float64))
    x = torch.tensor([[0.0, 6.0]], dtype=torch.float64)
    # The penalty 0.1 on f costs 0.1 / |w|^2.
    expected = 3.0 - (0.025 if solver in PENALISED else 0.0)
    assert float(build(solver, W, 1).encode(x).dense()) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("solver", ALL)
def test_a_bare_matrix_is_refused(solver: type[RecoveryCoder]) -> None:
    with pytest.raises(TypeError):
        build(solver, torch.eye(3))  # type: ignore[arg-type]


def test_a_coder_is_a_value() -> None:
    W = frame(20, 12, 21)
    assert OMP(W, k=3) == OMP(W, k=3)
    assert OMP(W, k=3) != OMP(W, k=4)
    assert len({FISTA(W, penalty=0.1), FISTA(W, penalty=0.1), FISTA(W, penalty=0.2)}) == 2
    assert "k=3" in repr(OMP(W, k=3))
