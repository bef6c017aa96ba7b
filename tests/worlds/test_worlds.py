from __future__ import annotations

from itertools import islice

import pytest
import torch
from scipy.stats import multivariate_normal

from superscope.core import Dictionary, ShapeError
from superscope.features import ExactlyK, Independent
from superscope.frames import random_unit
from superscope.testing import check_source
from superscope.worlds import PRESETS, FeatureLaw, Forest, World, exactly_k, spread_apart, synth_sae_bench


def test_a_batch_is_composed_of_its_own_code():
    world = World(ExactlyK(n=40, k=3), Dictionary(random_unit(n=40, d=10).atoms, torch.arange(10.0)))
    batch = next(world.batches(50, seed=0))
    assert torch.equal(batch.x, world.dictionary.compose(batch.code))
    assert torch.equal(batch.code.l0, torch.full((50,), 3))


@pytest.mark.parametrize("name", PRESETS)
def test_starting_late_gives_the_batches_that_would_have_followed(name):
    world = PRESETS[name](**({"scale": 1 / 64} if name == "synth_sae_bench" else {}))
    first = list(islice(world.batches(33, seed=5), 4))
    again = list(islice(world.batches_from(2, 33, seed=5), 2))
    for a, b in zip(first[2:], again, strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.code.dense(), b.code.dense())
    other = next(world.batches(33, seed=6))
    assert not torch.equal(first[0].x, other.x)
    assert not torch.equal(first[0].x, first[1].x)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_keeps_the_laws_of_sources(name):
    check_source(PRESETS[name](**({"scale": 1 / 128} if name == "synth_sae_bench" else {})))


def test_noise_and_nuisance_have_the_covariance_they_say():
    nuisance = Dictionary(torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 1.0]]))
    world = World(Independent(n=4, p=0.5), random_unit(n=4, d=3), noise=0.5, nuisance=nuisance)
    batch = next(world.batches(200_000, seed=0))
    rest = (batch.x - world.dictionary.compose(batch.code)).double()
    wanted = 0.25 * torch.eye(3) + nuisance.atoms.T @ nuisance.atoms
    # Standard error of an entry is about 4 sqrt(2 / 200 000) = 0.013 at most.
    torch.testing.assert_close(torch.cov(rest.T), wanted.double(), atol=0.05, rtol=0)


def test_dtype_follows_the_dictionary():
    batch = next(World(ExactlyK(n=8, k=2), random_unit(n=8, d=4, dtype=torch.float64), noise=0.1).batches(3, seed=0))
    assert batch.x.dtype == batch.code.values.dtype == torch.float64


def test_difficulty_is_that_of_the_counting_argument():
    world = exactly_k(n=256, d=64, k=4)
    assert world.kappa_cs == pytest.approx(2 * 4 * torch.tensor(64.0).log().item() / 64)
    assert World(Independent(n=4, p=1.0), random_unit(n=4, d=2)).kappa_cs == float("inf")


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: World(ExactlyK(n=5, k=1), random_unit(n=6, d=3)), ShapeError, "5 features and the dictionary 6 atoms"),
        (lambda: World(ExactlyK(n=6, k=1), random_unit(n=6, d=3), noise=-1.0), ValueError, "at least 0; got -1.0"),
        (
            lambda: World(ExactlyK(n=6, k=1), random_unit(n=6, d=3), nuisance=random_unit(n=1, d=4)),
            ShapeError,
            "d = 4 and the dictionary in d = 3",
        ),
        (lambda: exactly_k().batches(0, seed=0), ValueError, "size must be at least 1; got 0"),
        (lambda: exactly_k().batches(1, seed=-1), ValueError, "seed must be at least 0"),
        (lambda: exactly_k().batches_from(-1, 1, seed=0), ValueError, "start must be at least 0"),
        (lambda: exactly_k().draw(0, generator=torch.Generator()), ValueError, "at least 1 row"),
        (lambda: synth_sae_bench(1 / 256), ValueError, "at least 1/128"),
        (lambda: Forest(n=84, roots=1), ValueError, "hold 85 features, and n is 84"),
        (lambda: Forest(n=85, roots=0), ValueError, "roots must be at least 1; got 0"),
        (lambda: Forest(n=85, roots=1, p_min=0.5), ValueError, "p_min <= p_max"),
        (lambda: Forest(n=85, roots=1, correlation=0.3), ValueError, "below 1"),
        (lambda: Forest(n=85, roots=1, magnitudes=(1.0, 0.0)), ValueError, "magnitudes must be positive"),
        (lambda: Forest(n=85, roots=1).sample(0), ValueError, "count must be at least 1"),
    ],
)
def test_bad_input_is_a_sentence(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make()


def _family(law):
    """Parent of each feature as a list, from the definition: breadth first."""
    parents, level = [-1] * law.n, list(range(law.roots))
    after = law.roots
    for _ in range(law.depth):
        next_level = []
        for parent in level:
            for _ in range(law.branching):
                parents[after] = parent
                next_level.append(after)
                after += 1
        level = next_level
    return parents


@pytest.fixture(scope="module")
def forest():
    law = Forest(n=100, roots=3, branching=3, depth=2, p_min=0.05, alpha=0.3, correlation=0.0, seed=3)
    return law, law.sample(200_000, generator=torch.Generator().manual_seed(0)).dense()


def test_trees_are_numbered_breadth_first(forest):
    law, _ = forest
    assert law.parents.tolist() == _family(law)
    assert law.trees == 3 * (1 + 3 + 9)


def test_a_child_is_off_where_its_parent_is_and_alone_among_its_siblings(forest):
    law, f = forest
    on = f != 0
    for child, parent in enumerate(_family(law)):
        if parent >= 0:
            assert not bool((on[:, child] & ~on[:, parent]).any())
    for parent in set(_family(law)) - {-1}:
        children = [c for c, p in enumerate(_family(law)) if p == parent]
        assert int(on[:, children].sum(1).max()) == 1


def test_densities_are_the_closed_form_without_correlation(forest):
    law, f = forest
    measured, expected = (f != 0).double().mean(0), law.density
    error = (expected * (1 - expected) / len(f)).sqrt()
    assert float(((measured - expected) / error).abs().max()) < 4.5
    assert law.l0 == pytest.approx(float(measured.sum()), rel=0.01)


def test_children_scale_with_their_parents_and_can_be_told_not_to(forest):
    law, f = forest
    child = law.roots
    both = f[:, child] > 0
    ratio = f[both, child] / (f[both, 0] / law.means[0])
    assert float(torch.corrcoef(torch.stack([ratio, f[both, 0]]))[0, 1]) == pytest.approx(0, abs=0.03)
    assert float(ratio.mean()) == pytest.approx(float(law.means[child]), rel=0.02)
    plain = Forest(n=100, roots=3, branching=3, depth=2, p_min=0.05, alpha=0.3, correlation=0.0, scaled=False, seed=3)
    g = plain.sample(200_000, generator=torch.Generator().manual_seed(0)).dense()
    both = g[:, child] > 0
    assert float(torch.corrcoef(g[both][:, [0, child]].T)[0, 1]) == pytest.approx(0, abs=0.03)


def test_correlated_gates_have_the_correlation_of_the_copula():
    law = Forest(n=40, roots=40, branching=2, depth=0, p_max=0.5, p_min=0.3, rank=2, correlation=0.4, seed=1)
    on = (law.sample(200_000, generator=torch.Generator().manual_seed(0)).dense() != 0).double()
    a, _, threshold = law._copula
    rho = (a @ a.T).fill_diagonal_(0)
    for extreme in (rho.argmax(), rho.argmin()):
        i, j = divmod(int(extreme), law.n)
        r = float(rho[i, j])
        assert abs(r) > 0.3
        below = [-float(threshold[i]), -float(threshold[j])]
        both = multivariate_normal([0, 0], [[1, r], [r, 1]]).cdf(below)
        # Four standard errors of a share at 200 000 rows; magnitudes are positive but for 1 row in 10^5 or so.
        assert float((on[:, i] * on[:, j]).mean()) == pytest.approx(both, abs=0.005)
    torch.testing.assert_close(on.mean(0), law.density, atol=0.005, rtol=0)


def test_the_full_size_law_has_the_published_number_of_active_features():
    # The paper gives about 34 active features of 16 384, 25 of them among the 4 096 most frequent.
    law = Forest(n=16_384, roots=128, seed=42)
    assert law.trees == 10_880
    assert law.l0 == pytest.approx(34, abs=1)
    assert float(law.density[:4096].sum()) == pytest.approx(25, abs=0.5)
    drawn = law.sample(2000, generator=torch.Generator().manual_seed(0))
    assert float(drawn.l0.double().mean()) == pytest.approx(law.l0, rel=0.03)


def test_the_replica_keeps_the_shape_of_the_world():
    world = synth_sae_bench(1 / 64)
    assert (world.n, world.d, world.features.roots) == (256, 96, 2)
    assert float(world.dictionary.bias.norm()) == pytest.approx(0.5)
    torch.testing.assert_close(world.dictionary.norms, torch.ones(256))
    assert isinstance(world.features, FeatureLaw)


def test_spreading_apart_lowers_the_overlaps():
    W = random_unit(n=64, d=16, seed=0)
    apart = spread_apart(W, steps=50, lr=3e-3)

    def energy(D):
        return float(((D.atoms @ D.atoms.T).square().sum() - D.n) / D.n)

    assert energy(apart) < 0.97 * energy(W)
    assert energy(apart) > 64 / 16 - 1
    torch.testing.assert_close(apart.norms, torch.ones(64))
