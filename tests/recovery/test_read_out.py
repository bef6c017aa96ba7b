"""One feature out of an activation, and the choice of a solver."""

from __future__ import annotations

import math

import pytest
import torch

from superscope.core import Dictionary, ShapeError, SparseCode
from superscope.recovery import NNOMP, OMP, BasisPursuit, CoordinateDescent, Thresholding, best_for, read_out


def frame(n: int, d: int, seed: int) -> Dictionary:
    return Dictionary(torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).unit()


def independent(n: int, rows: int, density: float, seed: int) -> torch.Tensor:
    """Uniform [0, 1] magnitudes where active."""
    generator = torch.Generator().manual_seed(seed)
    f = torch.rand(rows, n, generator=generator, dtype=torch.float64)
    return f * (torch.rand(rows, n, generator=generator, dtype=torch.float64) < density)


def test_alignment_times_magnitude() -> None:
    W = Dictionary(frame(20, 8, 0).atoms * 3.0, torch.ones(8, dtype=torch.float64))
    x = torch.randn(5, 4, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = read_out(W, x, 7)
    centred = x - 1
    torch.testing.assert_close(found.alignment, torch.cosine_similarity(centred, W.atoms[7], dim=-1))
    torch.testing.assert_close(found.magnitude, centred.norm(dim=-1))
    torch.testing.assert_close(found.value, found.alignment * found.magnitude / 3.0)
    assert found.bias == 0.0
    assert bool((found.low < found.value).all())
    assert bool((found.value < found.high).all())


@pytest.mark.parametrize("direction", ["matched", "least variance"])
def test_the_error_bar_is_the_error(direction: str) -> None:
    # 64 of 256 dimensions-to-features, density 0.2: tens of features overlap, so their sum is nearly normal.
    n, d, rows, density = 256, 64, 20_000, 0.2
    W = Dictionary(frame(n, d, 2).atoms * torch.linspace(0.5, 2, n, dtype=torch.float64)[:, None])
    f = independent(n, rows, density, 3)
    mean, variance = torch.full((n,), density / 2).double(), torch.full((n,), density / 3 - density**2 / 4).double()
    for feature in (0, 100, 255):
        found = read_out(W, W.compose(f), feature, mean=mean, variance=variance, direction=direction)  # type: ignore[arg-type]
        error = found.value - f[:, feature]
        # 20 000 rows: the standard error of a standard deviation is 0.5 %, of a mean 0.7 % of it, of a share 0.15 %.
        assert float(error.std()) == pytest.approx(float(found.error[0]), rel=0.025)
        assert abs(float(error.mean())) < 0.03 * float(found.error[0])
        covered = ((found.low <= f[:, feature]) & (f[:, feature] <= found.high)).double().mean()
        assert float(covered) == pytest.approx(0.95, abs=0.01)


def test_the_least_variance_direction_has_less() -> None:
    n, d = 128, 64
    W = frame(n, d, 4)
    variance = torch.logspace(-3, 0, n, dtype=torch.float64)
    mean = variance.sqrt()
    x = W.compose(independent(n, 10, 0.1, 5))
    for feature in (0, 60, 127):
        matched, least = (
            read_out(W, x, feature, mean=mean, variance=variance, direction=way)  # type: ignore[arg-type]
            for way in ("matched", "least variance")
        )
        assert float(least.error[0]) < 0.9 * float(matched.error[0])


def test_orthogonal_atoms_do_not_interfere() -> None:
    W = Dictionary(torch.eye(6, dtype=torch.float64) * 2)
    f = independent(6, 50, 0.5, 6)
    for direction in ("matched", "least variance"):
        found = read_out(W, W.compose(f), 3, mean=f.mean(0), variance=f.var(0), direction=direction)  # type: ignore[arg-type]
        torch.testing.assert_close(found.value, f[:, 3])
        assert float(found.error.max()) == 0.0


def test_without_statistics_the_row_itself_gives_the_size() -> None:
    # A random frame of independent features is isotropic enough: the guessed size is right on average.
    n, d = 512, 128
    W, f = frame(n, d, 7), independent(512, 4000, 0.05, 8)
    f = f * (torch.randint(0, 2, f.shape, generator=torch.Generator().manual_seed(9)) * 2 - 1)
    errors, guesses = [], []
    for feature in range(0, n, 32):
        found = read_out(W, W.compose(f), feature)
        errors.append((found.value - f[:, feature]).square().mean())
        guesses.append(found.error.square().mean())
    assert float(torch.stack(errors).mean().sqrt()) == pytest.approx(
        float(torch.stack(guesses).mean().sqrt()), rel=0.05
    )


def test_labels_and_hostile_input() -> None:
    W = Dictionary(torch.eye(3, dtype=torch.float64), labels=("sea", "sky", "sand"))
    x = torch.tensor([0.0, 2.0, 0.0], dtype=torch.float64)
    assert float(read_out(W, x, "sky").value) == 2.0
    with pytest.raises(KeyError, match="Did you mean"):
        read_out(W, x, "skyy")
    with pytest.raises(ValueError, match=r"feature must be an atom in \[0, 3\); got 3"):
        read_out(W, x, 3)
    with pytest.raises(ValueError, match="both mean and variance"):
        read_out(W, x, 0, mean=torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ValueError, match="needs mean and variance"):
        read_out(W, x, 0, direction="least variance")
    with pytest.raises(ShapeError, match="mean must have n = 3 entries"):
        read_out(W, x, 0, mean=torch.zeros(4).double(), variance=torch.zeros(4).double())
    with pytest.raises(ValueError, match="not negative"):
        read_out(W, x, 0, mean=torch.zeros(3).double(), variance=-torch.ones(3).double())
    with pytest.raises(ValueError, match=r"level must lie in \(0, 1\)"):
        read_out(W, x, 0, level=1.0)
    with pytest.raises(ValueError, match="atom 1 is zero"):
        read_out(Dictionary(torch.tensor([[1.0, 0.0], [0.0, 0.0]])), torch.ones(2), 1)


def test_the_choice_of_a_solver() -> None:
    W = frame(1024, 256, 10)
    assert isinstance(best_for(W, 1).solver, Thresholding)
    assert isinstance(best_for(W, 10).solver, OMP)
    assert isinstance(best_for(W, 10, nonnegative=True).solver, NNOMP)
    assert isinstance(best_for(W, 50).solver, BasisPursuit)
    assert best_for(W, 50, nonnegative=True).solver == BasisPursuit(W, nonnegative=True)
    noisy = best_for(W, 10, noise=0.01)
    assert isinstance(noisy.solver, CoordinateDescent)
    assert noisy.solver.penalty == pytest.approx(0.01 * math.sqrt(2 * math.log(1024)))
    # Donoho-Tanner: 68 signed, 93 non-negative.
    assert "beyond the Donoho-Tanner threshold" in best_for(W, 69).reason
    assert "beyond the Donoho-Tanner threshold" not in best_for(W, 69, nonnegative=True).reason
    common = Dictionary(W.atoms + 0.5 * W.atoms[0])
    assert "far from isotropic" in best_for(common, 25).reason
    assert isinstance(best_for(common, 25).solver, BasisPursuit)
    for choice in (best_for(W, k) for k in (1, 10, 50, 200)):
        assert choice.reason.endswith(".")
    with pytest.raises(ValueError, match="noise must be"):
        best_for(W, 3, noise=-1.0)
    with pytest.raises(ValueError, match="k must be at most n = 1024"):
        best_for(W, 2000)


def test_the_chosen_solver_recovers_what_it_promises() -> None:
    W = frame(256, 64, 11)
    for k, nonnegative in ((1, False), (5, False), (5, True), (13, False), (18, True)):
        generator = torch.Generator().manual_seed(k)
        indices = torch.rand(60, 256, generator=generator).topk(k, dim=1).indices
        values = torch.rand(60, k, generator=generator, dtype=torch.float64) + 0.5
        if not nonnegative:
            values = values * (torch.randint(0, 2, values.shape, generator=generator) * 2 - 1)
        f = SparseCode(values, indices, 256)
        found = best_for(W, k, nonnegative=nonnegative).solver.encode(W.compose(f)).dense()
        exact = ((found - f.dense()).norm(dim=1) < 1e-2 * f.dense().norm(dim=1)).double().mean()
        assert float(exact) > 0.8, (k, nonnegative)
