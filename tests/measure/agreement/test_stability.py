from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError

from superscope.core import Activations, ActivationSource, Dictionary, ShapeError, SparseCode
from superscope.dictionaries import TopK, train
from superscope.measure import (
    evaluate,
    feature_nearest_cosine,
    latent_nearest_cosine,
    moments,
    random_atoms,
    recurring_features,
)
from superscope.measure.agreement.stability import cluster_directions


class World(ActivationSource):
    """n features, k active; n = 0 is Gaussian noise of the same d."""

    def __init__(self, n, d, k):
        atoms = torch.randn(max(n, 1), d, generator=torch.Generator().manual_seed(0))
        self.W, self.n, self.d, self.k = Dictionary(atoms / atoms.norm(dim=1, keepdim=True)), n, d, k

    def batches(self, size, *, seed):
        generator = torch.Generator().manual_seed(seed)
        while True:
            if not self.n:
                yield Activations(torch.randn(size, self.d, generator=generator))
                continue
            indices = torch.rand(size, self.n, generator=generator).topk(self.k, dim=1).indices
            yield Activations(
                self.W.compose(SparseCode(torch.rand(size, self.k, generator=generator) + 0.5, indices, self.n))
            )


def learn(world, seeds, *, steps=400):
    saes = [TopK(world.d, 128, 3, seed=seed) for seed in range(seeds)]
    for seed, sae in enumerate(saes):
        for _ in train(sae, world, steps=steps, batch=256, lr=0.01, seed=seed, dead_after=5000):
            pass
    return saes


@pytest.fixture(scope="module")
def sparse():
    world = World(64, 24, 3)
    return world, learn(world, 3)


def by_name(found):
    return {m.name: m for m in found}


def test_recurrence_counts_the_features_of_a_sparse_world(sparse):
    world, saes = sparse
    held = [next(world.batches(4096, seed=99))]
    alive = [evaluate(sae, held).density > 0 for sae in saes]
    covariance = moments(held).covariance
    found = recurring_features([sae.dictionary for sae in saes], alive=alive, covariance=covariance, threshold=0.9)
    count = by_name(found)["recurring_features"]
    assert abs(count.value - 64) <= 3
    assert count.chance < 1
    assert by_name(found)["recurring_per_dimension"].value == pytest.approx(count.value / 24)
    # And they are the right ones.
    recurring = Dictionary(found.directions)
    assert feature_nearest_cosine(recurring, world.W).value >= 0.95
    assert latent_nearest_cosine(recurring, world.W).value >= 0.98
    assert int((found.counts == 3).sum()) == count.value
    assert bool((found.counts[~alive[0]] == 0).all())


def test_noise_gives_chance_level_recurrence():
    world = World(0, 24, 3)
    saes = learn(world, 3, steps=100)
    held = [next(world.batches(4096, seed=99))]
    # Every latent is alive, and none of them means anything.
    assert evaluate(saes[0], held)["alive_latents"].value > 115
    found = by_name(recurring_features([sae.dictionary for sae in saes], covariance=moments(held).covariance))
    assert found["recurring_features"].value <= found["recurring_features"].chance + 2


def test_copies_recur_and_strangers_do_not(unit_rows):
    shared, d = unit_rows(10, 32, 0), 32
    dictionaries = [Dictionary(torch.cat([shared, unit_rows(20, d, seed)])) for seed in (1, 2, 3)]
    found = recurring_features(dictionaries, draws=0)
    assert by_name(found)["recurring_features"].value == 10
    assert found.histogram == (60, 0, 10)
    assert found.counts[:10].tolist() == [3] * 10
    assert found.counts[10:].tolist() == [1] * 20
    torch.testing.assert_close(found.directions.sort(0).values, shared.sort(0).values)
    assert (found.members[(found.members >= 0).all(1)] < 10).all()


def test_three_quarters_of_four():
    eye = torch.eye(6)
    dictionaries = [Dictionary(eye[:4]), Dictionary(eye[:3]), Dictionary(eye[1:4]), Dictionary(eye[2:6])]
    found = by_name(recurring_features(dictionaries, draws=0))
    assert found["recurring_features"].value == 1
    assert found["recurring_features_most"].value == 3


@pytest.mark.parametrize("change", ["permutation", "scale", "rotation"])
def test_what_must_not_matter(change, unit_rows):
    base = unit_rows(12, 8, 0)
    noisy = [base + 0.15 * torch.randn(12, 8, generator=torch.Generator().manual_seed(s)) for s in range(3)]
    reference = recurring_features([Dictionary(a) for a in noisy], draws=0).histogram
    generator = torch.Generator().manual_seed(9)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    changed = {
        "permutation": [a[torch.randperm(12, generator=generator)] for a in noisy],
        "scale": [a * (i + 1) for i, a in enumerate(noisy)],
        "rotation": [a @ rotation for a in noisy],
    }[change]
    assert recurring_features([Dictionary(a) for a in changed], draws=0).histogram == reference


def test_an_antipode_is_another_direction():
    W = torch.eye(3)
    assert by_name(recurring_features([Dictionary(W), Dictionary(-W)], draws=0))["recurring_features"].value == 0


def test_a_duplicate_does_not_stand_in_for_another_seed():
    once, twice = torch.eye(2), torch.eye(2)[[0, 0]]
    found = recurring_features([Dictionary(once), Dictionary(twice), Dictionary(once[1:])], draws=0)
    assert by_name(found)["recurring_features"].value == 0
    members = cluster_directions([once, twice], 0.7)
    assert members.tolist() == [[0, 0], [1, -1], [-1, 1]]


def test_greedy_takes_the_closest_pairs_first():
    angle = torch.tensor([0.0, 0.3])
    first = torch.stack([angle.cos(), angle.sin()], 1)
    second = torch.tensor([[torch.tensor(0.25).cos(), torch.tensor(0.25).sin()]])
    assert cluster_directions([first, second], 0.7).tolist() == [[0, -1], [1, 0]]


def test_chance_follows_the_covariance():
    """Where two directions carry nearly all the variance, random draws agree by the dozen; uniform ones do not."""
    covariance = torch.diag(torch.tensor([1.0, 1.0] + [1e-4] * 30))
    generator = torch.Generator().manual_seed(0)
    dictionaries = [Dictionary(random_atoms(40, 32, generator, covariance)) for _ in range(3)]
    matched = by_name(recurring_features(dictionaries, covariance=covariance))["recurring_features"]
    uniform = by_name(recurring_features(dictionaries))["recurring_features"]
    assert matched.value > 25
    assert matched.chance == pytest.approx(matched.value, rel=0.25)
    assert uniform.chance == 0


def test_seeded_chance(unit_rows):
    dictionaries = [Dictionary(unit_rows(60, 4, seed)) for seed in (0, 1)]
    first, again = (recurring_features(dictionaries, seed=5).measurements for _ in range(2))
    assert first == again


def test_bad_arguments(unit_rows):
    one = Dictionary(unit_rows(4, 3))
    with pytest.raises(ValueError, match="at least 2 dictionaries"):
        recurring_features([one])
    for threshold in (0.0, 1.0, -0.5):
        with pytest.raises(ValueError, match="threshold must be in"):
            recurring_features([one, one], threshold=threshold)
    with pytest.raises(ShapeError, match=r"got d = \[3, 2\]"):
        recurring_features([one, Dictionary(unit_rows(4, 2))])
    with pytest.raises(ShapeError, match="alive needs one mask"):
        recurring_features([one, one], alive=[torch.ones(4, dtype=torch.bool)])
    with pytest.raises((ShapeError, TypeCheckError)):
        recurring_features([one, one], covariance=torch.eye(4))
