"""Read-out interference on data, the restricted isometry interval, and alignment with the axes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from superscope.core import Dictionary, ShapeError, SparseCode
from superscope.measure import axis_alignment, coherence, isometry, read_out_interference
from superscope.theory import welch
from superscope.theory.rip import BASIS_PURSUIT_NEEDS


def random(n: int, d: int, seed: int) -> Dictionary:
    return Dictionary(torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def independent(n: int, rows: int, density: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    on = torch.rand(rows, n, generator=generator) < density
    return torch.rand(rows, n, generator=generator, dtype=torch.float64) * on


# --- interference --------------------------------------------------------------------------------------------------


def test_interference_of_independent_features_is_predicted() -> None:
    W = Dictionary(random(128, 32, 0).unit().atoms * torch.linspace(0.5, 2, 128, dtype=torch.float64)[:, None])
    f = independent(128, 20_000, 0.05, 1)
    found = read_out_interference(W, f)
    # A variance from 20 000 rows of near-normal sums has a standard error of 1 to 1.5 %.
    torch.testing.assert_close(found.measured_variance, found.predicted_variance, rtol=0.08, atol=0)
    torch.testing.assert_close(found.measured_mean, found.predicted_mean, rtol=1e-9, atol=1e-12)
    ratio, size, clear = found.measurements
    assert ratio.low < 1 < ratio.high
    assert ratio.high - ratio.low < 0.05
    assert (ratio.name, size.name, clear.name) == (
        "interference_ratio",
        "interference_variance",
        "read_out_signal_to_noise",
    )
    # Uniform magnitudes: the mean square of an active feature is 1/3.
    torch.testing.assert_close(found.signal, torch.full_like(found.signal, 1 / 3), rtol=0.15, atol=0)
    torch.testing.assert_close(found.signal_to_noise, found.signal / found.measured_variance)


def test_interference_is_what_the_definition_says() -> None:
    W, f = random(12, 5, 2), independent(12, 40, 0.4, 3)
    found = read_out_interference(W, f)
    read = W.compose(f) @ W.W / W.atoms.square().sum(1)
    error = read - f
    torch.testing.assert_close(found.measured_mean, error.mean(0))
    torch.testing.assert_close(found.measured_variance, error.var(0, correction=0))
    gram = W.atoms @ W.W / W.atoms.square().sum(1)[:, None]
    gram.fill_diagonal_(0)
    torch.testing.assert_close(found.predicted_mean, gram @ f.mean(0))
    torch.testing.assert_close(found.predicted_variance, gram.square() @ f.var(0, correction=0))
    sparse = read_out_interference(W, SparseCode.from_dense(f))
    torch.testing.assert_close(sparse.measured_variance, found.measured_variance)


def test_co_activation_shows_in_the_ratio() -> None:
    # Each feature fires with the one it overlaps with (ratio above 1), or only when that one does not (below).
    pairs = torch.eye(8, dtype=torch.float64).repeat_interleave(2, 0)
    pairs[1::2] = 0.6 * pairs[1::2] + 0.8 * pairs[1::2].roll(3, 1)
    W = Dictionary(pairs)
    generator = torch.Generator().manual_seed(4)
    on = (torch.rand(4000, 16, generator=generator) < 0.2).double()
    together = on.clone()
    # Atom 2i overlaps 2i+1 by 0.6, and the latter overlaps another pair's first atom by 0.8.
    together[:, 1::2] = on[:, 0::2] * 0.75 + on[:, 1::2] * 0.25
    independent_ratio = read_out_interference(W, on).measurements[0]
    assert independent_ratio.low < 1 < independent_ratio.high
    third = on.clone()
    third[:, 1::2] = on[:, 0::2].roll(3, 1)
    mixed = read_out_interference(W, third)
    assert bool((mixed.ratio[mixed.predicted_variance > 0] > 0).all())
    # Every even atom hears 2i+1 (0.6) and another pair's odd atom (0.8); firing together adds their covariance.
    assert read_out_interference(W, torch.cat([on[:, ::2].repeat_interleave(2, 1)])).measurements[0].value > 1.0


def test_orthogonal_features_do_not_interfere() -> None:
    found = read_out_interference(Dictionary(2 * torch.eye(6, dtype=torch.float64)), independent(6, 50, 0.5, 5))
    assert float(found.measured_variance.max()) < 1e-30
    assert found.measurements[0].value is None
    assert "overlap" in found.measurements[0].caution
    assert found.measurements[2].value is None


def test_large_means_do_not_swallow_the_variance() -> None:
    W, f = random(10, 4, 6).unit(), independent(10, 300, 0.5, 7)
    near, far = read_out_interference(W, f), read_out_interference(W, f + 1e6)
    torch.testing.assert_close(far.measured_variance, near.measured_variance, rtol=1e-5, atol=0)


def test_interference_refuses() -> None:
    W = random(10, 4, 8)
    with pytest.raises(ShapeError, match="f has 11 features but W has 10 atoms"):
        read_out_interference(W, torch.ones(5, 11))
    with pytest.raises(ShapeError, match="transposed"):
        read_out_interference(W, torch.ones(10, 5))
    with pytest.raises(ValueError, match="at least two rows"):
        read_out_interference(W, torch.ones(1, 10))
    with pytest.raises(ValueError, match="zero everywhere"):
        read_out_interference(W, torch.zeros(5, 10))
    with pytest.raises(ValueError, match="f has a NaN or infinite entry"):
        read_out_interference(W, torch.full((5, 10), float("nan")))
    with pytest.raises(TypeError):
        read_out_interference(W, torch.ones(5, 10, dtype=torch.long))
    holes = Dictionary(torch.cat([W.atoms, torch.zeros(1, 4, dtype=torch.float64)]))
    found = read_out_interference(holes, independent(11, 60, 0.5, 9))
    assert bool(found.measured_variance[10].isnan())
    assert all("1 zero atom left out" in m.caution for m in found.measurements)


# --- isometry ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [2, 3, 4])
def test_isometry_finds_the_exact_constant_of_small_frames(seed: int, k: int) -> None:
    W = random(12, 6, seed)
    unit = W.unit().atoms
    exact = max(
        float(max(values[-1] - 1, 1 - values[0]))
        for values in (
            torch.linalg.eigvalsh(unit[list(s)] @ unit[list(s)].T) for s in itertools.combinations(range(12), k)
        )
    )
    found = isometry(W, k)
    assert found.lower == pytest.approx(exact, abs=1e-9)
    assert found.upper >= exact - 1e-9
    chosen = unit[found.support]
    values = torch.linalg.eigvalsh(chosen @ chosen.T)
    assert float(max(values[-1] - 1, 1 - values[0])) == pytest.approx(found.lower)
    assert len(found.support.unique()) == k


def test_isometry_at_two_is_the_coherence_and_never_falls() -> None:
    W = random(200, 50, 10)
    found = [isometry(W, k, starts=16) for k in (2, 4, 8, 16)]
    mu = coherence(W).value
    assert found[0].lower == pytest.approx(mu)
    assert found[0].upper == pytest.approx(mu)
    lower = [f.lower for f in found]
    assert lower == sorted(lower)
    for f in found:
        assert f.typical < f.lower <= f.upper
        assert f.lower >= welch(200, 50)
    # Sampling alone reaches about half of what exchange finds.
    assert found[2].lower > 1.5 * found[2].typical


@pytest.mark.parametrize(
    ("k", "typical", "search", "upper"),
    [
        (4, 0.152, 0.564, 0.760),
        (8, 0.279, 0.949, 1.57),
        (16, 0.455, 1.47, 2.96),
        (32, 0.729, 2.17, 5.43),
    ],
)
def test_isometry_of_a_random_frame(k: int, typical: float, search: float, upper: float) -> None:
    # Measured on another draw of 256 x 1024 with other code; draws differ by 5 % in either.
    found = isometry(random(1024, 256, 20), k)
    assert found.lower == pytest.approx(search, rel=0.1)
    assert found.typical == pytest.approx(typical, rel=0.12)
    assert found.upper == pytest.approx(upper, rel=0.06)
    assert found.lower > BASIS_PURSUIT_NEEDS or k < 8


def test_isometry_of_an_orthonormal_basis_is_zero() -> None:
    found = isometry(Dictionary(torch.eye(8, dtype=torch.float64)), 4)
    assert (found.lower, found.upper) == (0.0, 0.0)


def test_isometry_repeats_and_refuses() -> None:
    W = random(30, 10, 11)
    assert isometry(W, 5, seed=3).lower == isometry(W, 5, seed=3).lower
    for k in (1, 31):
        with pytest.raises(ValueError, match="k must lie between 2 and 30"):
            isometry(W, k)
    with pytest.raises(TypeError):
        isometry(W, 2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="starts must be at least 1"):
        isometry(W, 3, starts=0)


# --- axes ----------------------------------------------------------------------------------------------------------


def test_axes_of_a_basis_and_of_its_rotation() -> None:
    d = 24
    turn = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(12), dtype=torch.float64)).Q
    plain = axis_alignment(Dictionary(torch.eye(d, dtype=torch.float64)), rotations=99)
    assert plain.p == pytest.approx(0.01)
    assert plain.alignment.value == 1.0
    assert plain.aligned.value == 1.0
    assert plain.axis.tolist() == list(range(d))
    turned = axis_alignment(Dictionary(turn), rotations=99)
    assert turned.aligned.value == 0.0
    assert turned.alignment.value < 0.3


def test_p_is_uniform_without_a_privileged_basis() -> None:
    # A clustered dictionary, whose atoms are far from independent, under rotations of its own.
    base = random(40, 8, 13).atoms
    base = base[:5].repeat(8, 1) + 0.2 * base
    generator = torch.Generator().manual_seed(14)
    ps = []
    for seed in range(80):
        turn = torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64)).Q
        ps.append(axis_alignment(Dictionary(base @ turn), rotations=19, seed=seed).p)
    # Exactly uniform on {1/20, ..., 1}: mean 0.525, and P(p <= 0.1) = 0.1, within three deviations of 80 draws.
    assert np.mean(ps) == pytest.approx(0.525, abs=3 * 0.288 / 80**0.5)
    assert np.mean(np.array(ps) <= 0.1 + 1e-9) <= 0.1 + 3 * (0.09 / 80) ** 0.5


def test_a_weak_preference_is_found() -> None:
    W = random(400, 32, 15)
    leaning = Dictionary(W.atoms + 2.5 * torch.eye(32, dtype=torch.float64).repeat(13, 1)[:400])
    found = axis_alignment(leaning, rotations=99)
    assert found.p == pytest.approx(0.01)
    plain = axis_alignment(W, rotations=99)
    assert plain.alignment.chance == pytest.approx(3 / 34, rel=0.02)
    assert ("not distinguishable" in plain.alignment.caution) == (plain.p >= 0.05)


def test_single_atoms_are_called_aligned_rarely_by_chance() -> None:
    shares = [axis_alignment(random(500, 16, seed), rotations=19).aligned.value for seed in range(20, 40)]
    # Bonferroni at 5 %: one dictionary in twenty has a single false atom.
    assert np.sum(np.array(shares) > 0) <= 5
    atoms = random(500, 16, 41).atoms
    atoms[7] = torch.eye(16, dtype=torch.float64)[3] * -2
    found = axis_alignment(Dictionary(atoms), rotations=19)
    assert found.aligned.value >= 1 / 500
    assert int(found.axis[7]) == 3
    assert float(found.coordinate[7]) == 1.0


def test_axes_sample_and_refuse() -> None:
    W = random(300, 6, 42)
    found = axis_alignment(W, rotations=19, most=50)
    assert found.alignment.n == 50
    assert "50 of 300 atoms used" in found.alignment.caution
    assert len(found.coordinate) == 300
    assert axis_alignment(W, rotations=19, seed=5).p == axis_alignment(W, rotations=19, seed=5).p
    with pytest.raises(ValueError, match="rotations must be at least 19"):
        axis_alignment(W, rotations=10)
    with pytest.raises(ValueError, match="at least d = 2"):
        axis_alignment(Dictionary(torch.ones(3, 1)))
