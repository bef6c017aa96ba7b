"""Does what Gram matrix, densities and co-activations say beforehand order what is measured behind a ReLU?"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from superscope.core import Dictionary, ShapeError
from superscope.features import Circuit, FeatureDistribution, Independent, Zipf
from superscope.intervene.side_effects import Features, RankAgreement, predicted_collateral, rank_agreement
from superscope.toys import Ensemble, Recipe, Tied, train
from superscope.worlds import FAMILIES
from superscope.worlds.families.dependent import solved


def measured(network: Callable[[Tensor], Tensor], x: Tensor, vectors: Tensor, own: Tensor) -> Tensor:
    """E of the squared change of all outputs but each vector's own."""
    y = network(x)
    result = []
    for v, i in zip(vectors, own.tolist()):
        change = (network(x + v) - y).double().square().mean(0)
        change[i] = 0.0
        result.append(change.sum())
    return torch.stack(result)


def agreement(
    law: FeatureDistribution,
    atoms: Tensor,
    reads: Tensor,
    offsets: Tensor,
    chosen: Tensor,
    network: Callable[[Tensor], Tensor],
    *,
    draws: int = 500,
) -> RankAgreement:
    """Predicted on some rows, measured on others."""
    W = Dictionary(atoms)
    seen = law.sample(20_000, generator=torch.Generator().manual_seed(1))
    x = W.compose(law.sample(4_000, generator=torch.Generator().manual_seed(2)))
    vectors = atoms[chosen]
    features = Features.of(W, seen, reads=reads, offsets=offsets)
    predicted = predicted_collateral(features, vectors, targets=chosen)
    with torch.no_grad():
        found = measured(network, x, vectors, chosen)
    controls = {"density": features.density[chosen], "norm": vectors.norm(dim=1)}
    return rank_agreement(predicted, found, controls, draws=draws)


def toy(law: FeatureDistribution, d: int, seed: int, *, steps: int = 2000) -> RankAgreement:
    """A network trained to reconstruct f from d dimensions through a ReLU; features it represents are steered."""
    ensemble = Ensemble(Tied(law.n, d), law, seeds=seed)
    for _ in train(ensemble, Recipe(steps=steps, batch=512, lr=3e-3, schedule="cosine", weight_decay=0.0), every=steps):
        pass
    W, b = ensemble.parameters["W"][0].detach(), ensemble.parameters["b"][0].detach()
    chosen = (W.norm(dim=1) >= 0.5).nonzero().flatten()
    return agreement(law, W, W, b, chosen, lambda x: torch.relu(x @ W.T + b))


def circuit(seed: int, *, n: int = 64, d: int = 24, l0: float = 2.0) -> Circuit:
    wires = Circuit(n, n // 2, 0.5, 2, seed)
    return replace(wires, p=solved(lambda p: float(wires.density_at(p).sum()), l0, "circuit", 1.0))


def compiled(law: FeatureDistribution, d: int, seed: int) -> RankAgreement:
    """Variables in random directions, read by the best linear filters behind a ReLU with a threshold."""
    world = FAMILIES["uniform"](n=law.n, d=d, seed=seed)
    atoms = world.dictionary.atoms
    f = law.sample(20_000, generator=torch.Generator().manual_seed(3)).dense()
    x = f @ atoms
    reads = torch.linalg.lstsq(x, f).solution.T
    # Open where half of the feature is read.
    offsets = torch.full((law.n,), -0.5)
    return agreement(law, atoms, reads, offsets, torch.arange(law.n), lambda x: torch.relu(x @ reads.T + offsets))


def test_a_closed_relu_swallows_and_an_open_one_lets_through():
    # Four features in two dimensions, two pairs of opposites, one active at a time and 0.5 strong.
    atoms = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    f = 0.5 * torch.eye(4)
    features = Features.of(Dictionary(atoms), f)
    # Adding 0.2 of feature 0 takes 0.2 from its opposite where that is on, a quarter of the rows; else nothing.
    predicted = predicted_collateral(features, 0.2 * atoms, targets=torch.arange(4))
    x = f @ atoms
    exact = measured(lambda x: torch.relu(x @ atoms.T), x, 0.2 * atoms, torch.arange(4))
    torch.testing.assert_close(exact, torch.full((4,), 0.04 / 4, dtype=torch.float64))
    torch.testing.assert_close(predicted[:1].expand(4), predicted)
    linear = 0.04
    assert float(predicted[0]) == pytest.approx(float(exact[0]), rel=1.0)
    assert float(predicted[0]) < linear / 2


def test_where_nothing_is_closed_the_prediction_is_the_sum_of_squared_overlaps():
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(10, 6, generator=generator, dtype=torch.float64))
    f = torch.rand(500, 10, generator=generator, dtype=torch.float64)
    features = Features.of(Dictionary(atoms.float()), f, offsets=torch.full((10,), 100.0))
    weights = torch.arange(10.0)
    predicted = predicted_collateral(features, atoms, targets=torch.arange(10), weights=weights)
    G = atoms @ atoms.T
    expected = (G.square() * weights).sum(1) - G.diagonal().square() * weights
    torch.testing.assert_close(predicted, expected, rtol=1e-5, atol=1e-6)


def test_a_level_is_jumped_over():
    # One feature on half of the time; its read-out must exceed 0.8 to count. What is drawn is what is predicted of.
    generator = torch.Generator().manual_seed(0)
    u = 1.0 + 0.3 * torch.randn(200_000, 1, generator=generator, dtype=torch.float64)
    features = Features.of(Dictionary(torch.eye(1)), u.float(), levels=torch.tensor([0.8]))
    for shift in (-0.5, 0.1, 0.7):
        v = torch.tensor([[shift]])
        exact = ((u + shift) * (u + shift > 0.8) - u * (u > 0.8)).square().mean()
        assert float(predicted_collateral(features, v)) == pytest.approx(float(exact), rel=0.02)


def test_prediction_orders_a_toy_network_beyond_density_and_norm():
    found = toy(Independent(24, 1 / 24), 6, 0, steps=600)
    assert found.correlation >= 0.8
    assert all(low > 0 for _, low, _ in found.gain.values())


def test_rank_agreement_of_known_orders():
    generator = torch.Generator().manual_seed(0)
    x, noise, other = torch.randn(3, 300, generator=generator, dtype=torch.float64)
    found = rank_agreement(x, x.exp(), {"other": other, "same for all": 1 + 1e-9 * x}, draws=100)
    assert (found.correlation, found.partial) == (pytest.approx(1.0), pytest.approx(1.0))
    assert found.gain["same for all"][0] == pytest.approx(1.0)
    # What only repeats a control is worth nothing once the control is known.
    copied = rank_agreement(other, other + 0.5 * noise, {"other": other}, draws=100)
    assert copied.correlation > 0.8
    assert abs(copied.partial) < 0.1
    assert copied.gain["other"][0] == pytest.approx(0.0)
    assert copied.low < copied.correlation < copied.high
    with pytest.raises(ValueError, match="at least 4"):
        rank_agreement(x[:3], x[:3], {})
    with pytest.raises(ValueError, match="NaN"):
        rank_agreement(x, x * float("nan"), {})
    with pytest.raises(ShapeError, match="do not fit a dictionary"):
        Features.of(Dictionary(torch.eye(3)), torch.ones(4, 2))
    with pytest.raises(ShapeError, match="vectors"):
        predicted_collateral(Features.of(Dictionary(torch.eye(3)), torch.ones(4, 3)), torch.ones(1, 2))


@pytest.mark.slow
def test_prediction_on_worlds_behind_a_network():
    """The table of docs/concepts.md: printed, and held to what it says."""
    cases: dict[str, Callable[[int], RankAgreement]] = {
        "toy, uniform, n = 64, d = 16": lambda s: toy(Independent(64, 1 / 64), 16, s),
        "toy, uniform, denser": lambda s: toy(Independent(64, 3 / 64), 16, s),
        "toy, Zipf": lambda s: toy(Zipf(64, 1.0, 1.0), 16, s),
        "toy on a circuit, d = 24": lambda s: toy(circuit(s), 24, s),
        "circuit compiled into d = 24": lambda s: compiled(circuit(s), 24, s),
        "circuit compiled into d = 40": lambda s: compiled(circuit(s), 40, s),
        "Zipf compiled into d = 24": lambda s: compiled(Zipf(64, 1.0, 2.0), 24, s),
    }
    everything = []
    for name, case in cases.items():
        found = [case(seed) for seed in range(3)]
        everything += found
        print(f"{name}:")
        for one in found:
            gains = ", ".join(f"over {k} {v:+.2f} [{low:+.2f}, {high:+.2f}]" for k, (v, low, high) in one.gain.items())
            print(
                f"  n = {one.n}: {one.correlation:.3f} [{one.low:.2f}, {one.high:.2f}], partial {one.partial:.3f} "
                f"[{one.partial_low:.2f}, {one.partial_high:.2f}], {gains}"
            )
    assert statistics.median(one.correlation for one in everything) >= 0.8
    assert all(one.gain[name][1] > 0 for one in everything for name in one.gain)
