"""The exponent is above 2 for a network's own features, 2 for random directions, and 2 in a network without any."""

from __future__ import annotations

import pytest
import torch

from superscope.features import Independent
from superscope.measure import kl_divergence, lp_exponent
from superscope.toys import Ensemble, Recipe, Tied, train

N, D, DENSITY = 40, 16, 0.02
CHEAP = {"null": 40, "partners": 6, "draws": 200}


def trained(n: int, d: int, steps: int, rows: int):
    """A toy model that keeps n features in d dimensions: its read-out, its directions, rows to move from."""
    law = Independent(n, DENSITY)
    ensemble = Ensemble(Tied(n, d), law, seeds=0)
    for _ in train(ensemble, Recipe(steps=steps, batch=512, weight_decay=0.0), every=steps):
        pass
    W, b = ensemble.parameters["W"][0], ensemble.parameters["b"][0]
    f = law.sample(64, generator=torch.Generator().manual_seed(1)).dense()
    x = (f @ W)[f.sum(1) > 0][:rows]
    return (lambda h: torch.relu(h @ W.T + b)), W[W.norm(dim=1) > 0.5], x


@pytest.fixture(scope="module")
def toy():
    return trained(N, D, steps=1500, rows=8)


def rotated(W: torch.Tensor, degrees: float) -> torch.Tensor:
    u = torch.nn.functional.normalize(W, dim=1)
    v = torch.randn(W.shape, generator=torch.Generator().manual_seed(2))
    v = torch.nn.functional.normalize(v - (v * u).sum(1, keepdim=True) * u, dim=1)
    angle = torch.deg2rad(torch.tensor(degrees))
    return angle.cos() * u + angle.sin() * v


def test_true_directions_are_above_two_and_fall_as_they_are_turned(toy) -> None:
    network, W, x = toy
    assert len(W) > D
    found = [lp_exponent(network, x, rotated(W, degrees), **CHEAP) for degrees in (0.0, 45.0, 90.0)]
    values = [each["lp_exponent"].value for each in found]
    assert values[0] > 2.3
    assert values[0] > values[1] > values[2] - 0.1
    assert values[2] == pytest.approx(2.0, abs=0.15)
    # So few rows and partners leave most of the noise; see the slow test for those that count.
    assert float(found[0].above_two.float().mean()) > 0.2
    assert float(found[2].above_two.float().mean()) <= 0.1
    assert found[0]["lp_exponent"].chance == pytest.approx(2.0, abs=0.15)


@pytest.mark.slow
def test_most_true_directions_count_and_hardly_any_random_ones() -> None:
    network, W, x = trained(60, 20, steps=3000, rows=32)
    true = lp_exponent(network, x, W, null=100)
    assert float(true.above_two.float().mean()) >= 0.8
    assert "superposition" in true["causal_directions"].caution
    # Three draws of a hundred: in one of them 6 were above two, in the others none.
    random = torch.cat(
        [
            lp_exponent(
                network, x, torch.randn(100, 20, generator=torch.Generator().manual_seed(8 + seed)), null=100, seed=seed
            ).above_two
            for seed in (1, 2, 3)
        ]
    )
    assert float(random.float().mean()) <= 0.05


def test_a_linear_network_has_no_features_of_its_own() -> None:
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(20, 20, generator=generator)
    turn, _ = torch.linalg.qr(W)
    x = torch.randn(6, 20, generator=generator)
    found = lp_exponent(lambda h: h @ turn, x, torch.eye(20), **CHEAP)
    # Equal radii in all directions: exactly 2.
    assert found["lp_exponent"].value == pytest.approx(2.0, abs=0.01)
    assert not found.above_two.any()


@pytest.mark.parametrize("power", [3.0, 6.0])
def test_a_norm_has_its_own_exponent(power: float) -> None:
    def distance(clean: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
        return (clean - moved).abs().pow(power).sum(1)

    x = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))
    found = lp_exponent(lambda h: h, x, torch.eye(12), distance=distance, level=0.01, **CHEAP)
    assert found["lp_exponent"].value == pytest.approx(power, rel=0.02)
    assert found.above_two.all()


def test_on_the_sphere_a_network_that_normalises_has_them_too() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(4, 24, generator=generator), dim=1)

    def network(h: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(h, dim=1)

    plain = lp_exponent(network, x, torch.eye(24), on_sphere=True, level=0.05, **CHEAP)
    assert plain["lp_exponent"].value == pytest.approx(2.0, abs=0.1)
    logits = lp_exponent(lambda h: 8 * network(h), x, torch.eye(24), distance=kl_divergence, level=0.2, **CHEAP)
    assert logits["lp_exponent"].value is not None


def test_it_abstains_and_refuses_in_sentences() -> None:
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    deaf = lp_exponent(lambda h: torch.zeros_like(h) + x.sum(), x, torch.eye(6), **CHEAP)
    assert deaf["lp_exponent"].value is None
    assert "depends on x" in deaf["lp_exponent"].caution
    one = lp_exponent(lambda h: h, x, torch.ones(5, 6), **CHEAP)
    assert "0 directions have an exponent" in one["causal_directions"].caution
    with pytest.raises(ValueError, match="at least 2 to move from"):
        lp_exponent(lambda h: h, x[:1], torch.eye(6))
    with pytest.raises(ValueError, match="level must be above 0"):
        lp_exponent(lambda h: h, x, torch.eye(6), level=0.0)
    with pytest.raises(ValueError, match="2 partners, 20 random directions"):
        lp_exponent(lambda h: h, x, torch.eye(6), null=5)


def test_kl_is_that_of_the_two_distributions() -> None:
    a, b = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 3.0]]).log_softmax(1)
    q = b.exp().double()[0]
    wanted = float((0.5 * (0.5 / q).log()).sum())
    assert float(kl_divergence(a, b)) == pytest.approx(wanted)
