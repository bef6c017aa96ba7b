"""What holds of every family of worlds, and what is known of single ones."""

from __future__ import annotations

import math
import runpy
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from superscope.capture import MemorySource
from superscope.core import Dictionary
from superscope.features import FoldedNormal, Independent, Uniform
from superscope.frames import random_unit
from superscope.testing import check_source
from superscope.theory import kappa_cs, kappa_lin
from superscope.worlds import FAMILIES, HELD_OUT, Elliptical, Planted, Shuffled, Sinks, World, surrogate, truth_of

SMALL = {"n": 26, "d": 8, "l0": 1.5}
OF_A_WORLD = [name for name, family in FAMILIES.items() if not family.null]


def small(name: str, **settings):
    """A member of each family that is drawn in no time."""
    own = {"toy_networks": {"steps": 300}, "planted": {"plants": 3}}
    given = dict(SMALL) if name in {*OF_A_WORLD, "surrogate", "shuffled"} else {"d": 8}
    return FAMILIES[name](**{**given, **own.get(name, {}), **settings})


def rows(source, count: int = 40_000, seed: int = 0):
    return next(source.batches(count, seed=seed))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_keeps_the_laws_of_sources(name):
    check_source(small(name))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_rows_of_its_own_for_each_seed(name):
    if name == "gaussian":
        return  # one world: its rows are all that a seed changes
    one, other = (rows(small(name, seed=seed), 5).x for seed in (0, 1))
    assert not torch.equal(one, other)
    assert torch.equal(rows(small(name), 5).x, one)


def test_held_out_families_are_families_and_say_so():
    assert {family.name for family in FAMILIES.values() if family.held_out} == set(HELD_OUT)
    assert len(HELD_OUT) == 4


@pytest.mark.parametrize("name", OF_A_WORLD)
def test_the_truth_is_what_the_rows_show(name):
    source = small(name)
    truth, code = source.truth, rows(source).code
    on = code.dense() != 0
    if truth.rows is not None:
        on = on[:, truth.rows]
    assert on.shape[1] == truth.dictionary.n
    # A component is active where any of its atoms is, and then they all are.
    either = torch.zeros(len(on), truth.n).index_add_(1, truth.component, on.float())
    assert bool(((either == 0) | (either == truth.dimensions)).all())
    measured = (either > 0).double().mean(0)
    error = (truth.density * (1 - truth.density) / len(on)).sqrt()
    # Gates of a forest whose siblings exclude each other are closed form, too; sinks take a thousandth.
    share = 0.999 if name == "sinks" else 1.0
    assert bool(((measured - share * truth.density).abs() < 5 * error + 5 / len(on)).all())
    assert float(code.l0.double().mean()) == pytest.approx(truth.l0, rel=0.05)
    if name not in ("planted", "toy_networks"):
        assert truth.l0 == pytest.approx(SMALL["l0"], rel=1e-3)
    assert truth.n == {"planted": 29}.get(name, 26) or name == "toy_networks"
    assert truth.count(2.0) == 0
    assert truth.count() == truth.n
    assert truth.count(float(truth.density.median())) >= truth.n / 2


@pytest.mark.parametrize("name", OF_A_WORLD)
def test_rows_are_composed_of_their_codes(name):
    source = small(name)
    batch = rows(source, 2000)
    world = source if isinstance(source, World) else source.source
    if name == "planted":
        x = source.truth.dictionary.compose(batch.code)
    else:
        x = world.dictionary.compose(batch.code)
    if name in ("noise", "outlier_coordinates", "sinks"):
        rest = (batch.x - x).abs()
        assert 0 < float((rest < 1e-4).float().mean()) < 1 or name == "noise"
    else:
        torch.testing.assert_close(batch.x, x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_truth_says_both_kappas_and_what_follows(name):
    source = small(name)
    text, truth = str(source), source.truth
    if FAMILIES[name].null:
        assert truth.n == truth.count() == 0
        assert truth.kappa_cs == truth.kappa_lin == 0
        assert text.endswith("nothing to be found in d = 8: a null")
        assert len(truth.interference) == len(truth.dimensions) == 0
    else:
        assert truth.kappa_cs == pytest.approx(kappa_cs(truth.dictionary.n, 8, truth.l0))
        assert truth.kappa_lin == pytest.approx(kappa_lin(truth.dictionary.n, 8, truth.l0))
        assert f"kappa_cs = {truth.kappa_cs:.2f}, kappa_lin = {truth.kappa_lin:.2f}" in text
        assert f"{truth.n} components" in text


@pytest.mark.parametrize(
    ("l0", "verdict"),
    [(0.5, "even a linear read-out"), (3.0, "a linear read-out cannot"), (12.0, "nobody can read them back")],
)
def test_what_a_truth_concludes_from_the_kappas(l0, verdict):
    assert verdict in str(FAMILIES["uniform"](n=128, d=32, l0=l0))


@given(st.integers(1, 40), st.integers(2, 12), st.floats(0.05, 0.9), st.integers(0, 3))
def test_any_size_makes_a_uniform_world(n, d, share, seed):
    world = FAMILIES["uniform"](n=n, d=d, l0=share * n, seed=seed)
    assert world.truth.n == n
    assert world.truth.l0 == pytest.approx(share * n)
    assert rows(world, 3).x.shape == (3, d)


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 5))
def test_interference_is_that_of_pairs_in_other_components(blocks, size, seed):
    atoms = random_unit(n=blocks * size, d=5, seed=seed).atoms * 2
    component = torch.arange(blocks).repeat(size)  # not neighbours in number
    world = World(Independent(blocks * size, 0.1), Dictionary(atoms), component=component)
    squares = (world.dictionary.unit().atoms.double() @ world.dictionary.unit().atoms.double().T).square()
    wanted = torch.where(component[:, None] == component, 0.0, squares).sum(1)
    torch.testing.assert_close(world.truth.interference, wanted, atol=1e-6, rtol=1e-6)
    assert world.truth.dimensions.tolist() == [size] * blocks


def test_atoms_of_no_component_are_not_to_be_found():
    W = random_unit(n=5, d=3)
    world = World(Independent(5, (0.5, 0.1, 0.2, 0.3, 0.4)), W, component=torch.tensor([7, -1, 3, 7, -1]))
    truth = world.truth
    assert truth.rows.tolist() == [0, 2, 3]
    assert truth.component.tolist() == [1, 0, 1]
    assert truth.density.tolist() == pytest.approx([0.2, 0.5])
    assert truth.l0 == pytest.approx(1.0)
    assert torch.equal(truth.dictionary.atoms, W.atoms[[0, 2, 3]])


def test_a_law_that_says_no_density_is_measured():
    class Law:
        n, l0 = 4, 0.8

        def sample(self, count, *, generator=None):
            return Independent(4, 0.2).sample(count, generator=generator)

    truth = World(Law(), random_unit(n=4, d=3)).truth
    assert truth.density.tolist() == pytest.approx([0.2] * 4, abs=0.01)


def test_a_ring_is_round_and_its_radius_what_was_asked():
    world = FAMILIES["rings"](n=5, d=12, l0=2.0, magnitude=Uniform(0.9, 1.1))
    f = rows(world).code.dense().view(-1, 5, 2)
    radius = f.norm(dim=2)
    assert float(radius[radius > 0].min()) >= 0.9 - 1e-5
    assert float(radius.max()) <= 1.1 + 1e-5
    on = f[:, 0][radius[:, 0] > 0]
    # Evenly round: the first four harmonics of the angle vanish.
    angle = torch.atan2(on[:, 1], on[:, 0]).double()
    for harmonic in range(1, 5):
        assert abs(complex(torch.exp(1j * harmonic * angle).mean())) < 5 / len(on) ** 0.5
    # The basis is orthonormal, so the ring is one in x, too.
    basis = world.dictionary.atoms.view(5, 2, 12)
    torch.testing.assert_close(basis @ basis.mT, torch.eye(2).expand(5, 2, 2), atol=1e-5, rtol=0)


def test_clusters_lie_evenly_on_their_circle():
    world = FAMILIES["ring_clusters"](n=3, d=8, l0=1.0, clusters=7, spread=0.05)
    f = rows(world).code.dense().view(-1, 3, 2)[:, 1]
    on = f[f.norm(dim=1) > 0].double()
    turns = torch.atan2(on[:, 1], on[:, 0]) / (2 * math.pi) * 7
    assert float((turns - turns.round()).abs().max()) < 6 * 0.05
    counts = torch.bincount(turns.round().long() % 7, minlength=7).double()
    assert float(((counts - len(on) / 7) / (len(on) / 7) ** 0.5).abs().max()) < 5


@pytest.mark.parametrize(("name", "size"), [("group_sparse", 2), ("basis_ambiguous", 3), ("rings", 2)])
def test_covariance_of_blocks_is_the_closed_form(name, size):
    world = FAMILIES[name](n=4, d=8, l0=2.0, magnitude=FoldedNormal(0.5, 0.3))
    f = rows(world, 200_000).code.dense().double()
    assert f.shape[1] == 4 * size
    torch.testing.assert_close(torch.cov(f.T), world.features.covariance, atol=0.01, rtol=0)


def test_no_basis_of_an_ambiguous_subspace_is_better_than_another():
    world = FAMILIES["basis_ambiguous"](n=2, d=8, l0=3.0, size=3)
    f = rows(world, 200_000).code.dense().view(-1, 2, 3)[:, 0].double()
    on = f[f.norm(dim=1) > 0]
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    for axes in (on, on @ turn):
        fourth = (axes**4).mean(0) / (axes**2).mean(0) ** 2
        assert float(fourth.max() - fourth.min()) < 0.15


def test_gates_of_the_copula_have_the_chances_of_the_double_normal():
    from scipy.stats import multivariate_normal, norm

    world = FAMILIES["copula"](n=12, d=6, l0=2.4, correlation=0.9, rank=1)
    law, on = world.features, rows(world, 200_000).code.dense() != 0
    joint = law.gates()
    share = on.double().T @ on.double() / len(on)
    torch.testing.assert_close(share, joint, atol=5 / len(on) ** 0.5, rtol=0)
    r = float(law.loadings[0] @ law.loadings[1])
    bar = -norm.ppf(float(law.p[0]))
    exact = multivariate_normal([0, 0], [[1, r], [r, 1]]).cdf([-bar, -bar])
    assert float(joint[0, 1]) == pytest.approx(exact, abs=1e-6)
    assert torch.allclose(joint.diagonal(), law.density)


@pytest.mark.parametrize("cosine", [0.0, 0.3, 0.7])
def test_pairs_of_a_coherent_frame_have_the_cosine_planted(cosine):
    atoms = FAMILIES["coherent"](n=31, d=12, l0=1.5, cosine=cosine).dictionary.atoms.double()
    torch.testing.assert_close(atoms.norm(dim=1), torch.ones(31, dtype=torch.float64), atol=1e-6, rtol=0)
    overlaps = atoms @ atoms.T
    torch.testing.assert_close(
        overlaps[range(0, 30, 2), range(1, 31, 2)], torch.full((15,), cosine).double(), atol=1e-6, rtol=0
    )


def test_without_planted_cosines_the_frame_is_less_coherent_than_a_random_one():
    ours, random = FAMILIES["coherent"](n=64, d=16, cosine=0.0).dictionary, random_unit(n=64, d=16)

    def power(W):
        return float((W.atoms @ W.atoms.T).square().sum() / 64 - 1)

    # (n - d) / d = 3 is the least there is.
    assert 3 <= power(ours) + 1e-3 < 3 + 0.7 * (power(random) - 3)


@pytest.mark.parametrize("layout", ["circle", "figure8", "sphere"])
def test_features_laid_out_together_come_together(layout):
    world = FAMILIES["bows"](n=24, d=16, l0=4.0, layout=layout)
    atoms, joint = world.dictionary.atoms.double(), world.features.gates()
    torch.testing.assert_close(atoms.norm(dim=1), torch.ones(24, dtype=torch.float64), atol=1e-6, rtol=0)
    p = world.features.density
    lift = (joint / torch.outer(p, p))[:12, :12]
    pairs = torch.triu_indices(12, 12, 1)
    together = torch.corrcoef(torch.stack([(atoms @ atoms.T)[:12, :12][*pairs], lift[*pairs]]))[0, 1]
    assert float(together) > 0.5
    # Groups know nothing of each other.
    torch.testing.assert_close(joint[:12, 12:], torch.outer(p, p)[:12, 12:], atol=1e-9, rtol=0)


def test_a_child_comes_only_with_its_parent():
    for name in ("hierarchy", "gated"):
        law = small(name).features
        on = rows(small(name)).code.dense() != 0
        for child, parent in enumerate(torch.as_tensor(law.parents).tolist()):
            assert parent < 0 or not bool((on[:, child] & ~on[:, parent]).any())


def test_the_constant_is_as_long_as_was_asked():
    world = FAMILIES["bias"](n=26, d=8, l0=1.5, times=3.0)
    x = rows(world, 100_000).x.double() - world.dictionary.bias
    spread = (x - x.mean(0)).square().sum(1).mean().sqrt()
    assert float(world.dictionary.bias.double().norm() / spread) == pytest.approx(3, rel=0.02)


def test_noise_has_its_share_of_the_variance():
    world = FAMILIES["noise"](n=26, d=8, l0=1.5, share=0.25)
    batch = rows(world, 100_000)
    own = world.dictionary.compose(batch.code).double()
    rest = batch.x.double() - own
    assert float(rest.var(0).sum() / own.var(0).sum()) == pytest.approx(0.25, rel=0.03)


def test_rows_differ_in_strength_and_nothing_else():
    plain, scaled = FAMILIES["uniform"](**SMALL), FAMILIES["token_norms"](**SMALL, spread=0.7)
    one, other = rows(plain, 5000), rows(scaled, 5000)
    assert torch.equal(one.code.indices, other.code.indices)
    several = one.code.l0 > 1
    factor = (other.x.norm(dim=1) / one.x.norm(dim=1))[several].double()
    assert float(factor.log().std()) == pytest.approx(0.7, rel=0.05)
    torch.testing.assert_close(other.x[several], one.x[several] * factor[:, None].float(), atol=1e-4, rtol=1e-4)


def test_sinks_are_as_many_and_as_long_as_real_ones():
    source = FAMILIES["sinks"](n=64, d=32, l0=4.0)
    batch, plain = rows(source, 200_000), rows(source.source, 200_000)
    changed = (batch.x != plain.x).any(1)
    assert float(changed.double().mean()) == pytest.approx(0.001, abs=5 * (0.001 / 200_000) ** 0.5)
    norms = batch.x.norm(dim=1)
    assert float(norms[changed].median() / norms.median()) == pytest.approx(70, rel=0.05)
    assert bool((batch.code.l0[changed] == 0).all())
    assert torch.equal(batch.code.l0[~changed], plain.code.l0[~changed])
    mass = batch.x[changed].square().mean(0).sort(descending=True).values
    assert float(mass[:2].sum() / mass.sum()) > 0.999


def test_outlier_coordinates_have_ten_times_the_deviation():
    x = rows(FAMILIES["outlier_coordinates"](n=128, d=32, l0=4.0, coordinates=3), 100_000).x
    deviation, centre = x.std(0).sort().values, x.mean(0).abs().sort().values
    assert float(deviation[-3:].mean() / deviation[:-3].square().mean().sqrt()) == pytest.approx(10, rel=0.1)
    assert float(deviation[-4]) < 3 * float(deviation[0])
    assert float(centre[-3]) > 5 * float(deviation[:-3].mean())


def test_a_toy_network_represents_what_it_can_and_the_rest_is_not_to_be_found():
    sparse = FAMILIES["toy_networks"](n=10, d=5, l0=0.5, steps=500)
    assert sparse.dictionary.norms.tolist() == pytest.approx([1] * 10, abs=0.1)
    assert sparse.truth.n == 10
    batch = rows(sparse, 4000)
    # What it was trained for: its outputs are the features, most of their variance at least.
    f = batch.code.dense()
    assert float((sparse.network(batch.x) - f).square().sum() / f.square().sum()) < 0.1
    # Opposite pairs: the layout that a network of twice as many features as dimensions finds.
    overlaps = sparse.dictionary.unit().atoms @ sparse.dictionary.unit().atoms.T
    assert overlaps.min(1).values.tolist() == pytest.approx([-1] * 10, abs=0.25)
    dense = FAMILIES["toy_networks"](n=10, d=5, l0=9.0, steps=500)
    represented = dense.dictionary.norms >= 0.5
    assert dense.truth.n == int(represented.sum()) < 10
    assert torch.equal(dense.truth.rows, represented.nonzero()[:, 0])


def test_a_circuit_can_be_compressed_by_training():
    world = FAMILIES["circuits"](n=12, d=8, l0=1.0, compression="learned", steps=300)
    assert world.features.l0 == pytest.approx(1.0, rel=1e-6)
    assert world.d == 8
    assert float(world.dictionary.norms.max()) > 0.5


def fourth_cumulant(x, directions: int = 50):
    """Standardised, largest over random directions; its standard error at N Gaussian rows is (24 / N)^1/2."""
    white = (x - x.mean(0)).double()
    values, axes = torch.linalg.eigh(torch.cov(white.T))
    white = white @ axes / values.sqrt()
    g = torch.randn(x.shape[1], directions, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = white @ (g / g.norm(dim=0))
    return float(((y**4).mean(0) - 3).abs().max())


@pytest.mark.parametrize("name", ["gaussian", "coloured", "surrogate"])
def test_fourth_cumulants_of_gaussian_nulls_vanish(name):
    x = rows(small(name), 100_000).x
    assert fourth_cumulant(x) < 5 * (24 / 100_000) ** 0.5


def test_a_world_and_an_elliptical_null_have_fourth_cumulants():
    for source in (small("uniform"), small("elliptical"), small("surrogate", keep_radii=True)):
        assert fourth_cumulant(rows(source, 100_000).x) > 10 * (24 / 100_000) ** 0.5


def test_an_elliptical_null_is_gaussian_once_its_rows_are_made_alike():
    null = small("elliptical", spread=0.8)
    x = rows(null, 100_000).x.double() @ torch.linalg.inv(null.root.double())
    alike = x / x.norm(dim=1, keepdim=True)
    # Uniform on the sphere: E u_i^2 = 1 / d, E u_i^4 = 3 / (d (d + 2)).
    assert (alike**2).mean(0).tolist() == pytest.approx([1 / 8] * 8, rel=0.02)
    assert (alike**4).mean(0).tolist() == pytest.approx([3 / 80] * 8, rel=0.04)


def test_memory_is_the_correlation_with_the_row_before():
    null = small("autoregressive", memory=0.8)
    x = rows(null, 40_000).x.double()
    for lag in (1, 2, 3):
        a, b = x[:-lag].flatten(), x[lag:].flatten()
        assert float(torch.corrcoef(torch.stack([a, b]))[0, 1]) == pytest.approx(0.8**lag, abs=0.04)
    torch.testing.assert_close(torch.cov(x.T), (null.root.T @ null.root).double(), atol=0.25, rtol=0.15)
    first = torch.cat([next(null.batches_from(i, 3, seed=0)).x[:1] for i in range(3000)]).double()
    torch.testing.assert_close(torch.cov(first.T), (null.root.T @ null.root).double(), atol=0.2, rtol=0.15)


@pytest.mark.parametrize("keep_radii", [False, True])
def test_a_surrogate_has_the_moments_of_its_source_and_none_of_its_directions(keep_radii):
    source = FAMILIES["outlier_coordinates"](**SMALL)
    x = rows(source, 60_000, seed=3).x.double()
    y = rows(surrogate(source, keep_radii=keep_radii), 60_000).x.double()
    scale = x.std(0)
    torch.testing.assert_close(y.mean(0) / scale, x.mean(0) / scale, atol=0.05, rtol=0)
    torch.testing.assert_close(torch.corrcoef(y.T), torch.corrcoef(x.T), atol=0.05, rtol=0)
    torch.testing.assert_close(y.std(0), scale, atol=0, rtol=0.05)


def test_a_surrogate_of_flat_rows_stays_flat():
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0)) @ torch.randn(2, 4)
    for keep_radii in (False, True):
        y = rows(surrogate(MemorySource(x), keep_radii=keep_radii), 200).x
        assert int(torch.linalg.matrix_rank(y - y.mean(0), atol=1e-3 * float(y.norm()))) == 2
        assert float(y.norm(dim=1).median() / x.norm(dim=1).median()) == pytest.approx(1, rel=0.3)


def test_shuffled_coordinates_keep_their_values_and_lose_each_other():
    source = FAMILIES["uniform"](n=26, d=4, l0=3.0)
    x, y = rows(source, 40_000).x, rows(Shuffled(source), 40_000)
    assert y.code is None
    assert torch.equal(x.sort(0).values, y.x.sort(0).values)
    assert float(torch.corrcoef(y.x.T).fill_diagonal_(0).abs().max()) < 5 / 40_000**0.5
    assert float(torch.corrcoef(x.T).fill_diagonal_(0).abs().max()) > 10 / 40_000**0.5


def test_plants_are_what_was_added_and_the_truth_counts_them():
    W = random_unit(n=3, d=8, seed=9)
    for source in (FAMILIES["uniform"](**SMALL), small("toy_networks"), small("gaussian")):
        planted = Planted(source, W, density=(0.02, 0.01, 0.005))
        own, batch = rows(source, 3000), rows(planted, 3000)
        added = batch.x - own.x
        k = 0 if own.code is None else own.code.n
        f = batch.code.dense()
        torch.testing.assert_close(added, f[:, k:] @ W.atoms, atol=1e-5, rtol=1e-5)
        if k:
            assert torch.equal(f[:, :k], own.code.dense())
        truth = planted.truth
        assert truth.n == source.truth.n + 3
        assert truth.density[-3:].tolist() == pytest.approx([0.02, 0.01, 0.005])
        numbers = torch.arange(truth.dictionary.n) if truth.rows is None else truth.rows
        torch.testing.assert_close(truth.dictionary.atoms[-3:], W.atoms)
        assert numbers[-3:].tolist() == [k, k + 1, k + 2]
        assert planted.plants.n == 3


def test_plants_in_rows_of_unknown_make():
    x = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    planted = Planted(MemorySource(x), random_unit(n=2, d=8), density=0.05)
    check_source(planted, size=32)
    assert planted.truth is truth_of(MemorySource(x)) is None
    assert len(list(planted.batches(50, seed=0))) == 6
    assert next(planted.batches(50, seed=0)).code.n == 2
    assert str(planted) == "Planted: what is to be found in it is not known"
    sinks = Sinks(MemorySource(x), share=0.2)
    check_source(sinks, size=32)
    assert sum(int((b.x.norm(dim=1) > 50).sum()) for b in sinks.batches(50, seed=0)) in range(30, 95)


def test_plants_carry_the_share_of_variance_they_say():
    source = FAMILIES["uniform"](n=26, d=8, l0=1.5)
    planted = Planted(source, random_unit(n=4, d=8, seed=2), density=0.05)
    x, own = rows(planted, 100_000).x.double(), rows(source, 100_000).x.double()
    assert planted.share == pytest.approx(float((x - own).var(0).sum() / x.var(0).sum()), rel=0.05)


def test_plants_too_heavy_are_refused_and_told_how_light_to_be():
    source, W = FAMILIES["uniform"](**SMALL), random_unit(n=8, d=8, seed=3)
    with pytest.raises(ValueError, match=r"plants carry .*% of the variance.*make them [\d.]+ times") as refused:
        Planted(source, W, density=0.2)
    factor = float(str(refused.value).split("make them ")[1].split()[0])
    assert Planted(source, Dictionary(0.97 * factor * W.atoms), density=0.2).share == pytest.approx(0.15, rel=0.1)


def test_alterations_go_on_top_of_each_other():
    source = Sinks(Planted(small("uniform"), random_unit(n=2, d=8, seed=4), density=0.02), share=0.1)
    check_source(source)
    assert source.truth.n == 28
    first, again = list(islice(source.batches(9, seed=1), 4)), next(source.batches_from(3, 9, seed=1))
    assert torch.equal(first[3].x, again.x)


def test_sizes_that_no_default_has():
    for name in OF_A_WORLD:
        own = {"planted": {"plants": 1}}.get(name, {})
        assert FAMILIES[name](n=5 if name not in ("hierarchy", "circuits") else 16, d=8, l0=0.4, **own).truth.n, name
    assert FAMILIES["coherent"](n=3, d=1, l0=1.0).d == 1
    assert FAMILIES["uniform"](n=4, d=64, l0=4.0).kappa_cs == math.inf
    assert rows(FAMILIES["uniform"](n=4, d=1, l0=0.5), 3).x.shape == (3, 1)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        *((lambda name=name: FAMILIES[name](n=8, l0=9.0 * 3), rf"{name}: .*l0|l0") for name in OF_A_WORLD),
        *((lambda name=name: FAMILIES[name](l0=0.0), "got l0 = 0.0|got 0.0|active > 0") for name in OF_A_WORLD),
        *((lambda name=name: FAMILIES[name](d=0), "at least 1|d is 0|d = 0") for name in FAMILIES),
        (lambda: FAMILIES["log_uniform"](ratio=0.5), "at least 1; got 0.5"),
        (lambda: FAMILIES["log_uniform"](n=8, l0=4.0), "need a density of 1"),
        (lambda: FAMILIES["zipf"](n=8, l0=7.0), "Lower active"),
        (lambda: FAMILIES["coherent"](cosine=1.0), r"in \[0, 1\); got 1.0"),
        (lambda: FAMILIES["copula"](correlation=1.0), r"got 1.0 and 4"),
        (lambda: FAMILIES["copula"](rank=0), "rank at least 1"),
        (lambda: FAMILIES["hierarchy"](n=26, l0=25.0), "at most .* features can be active"),
        (lambda: FAMILIES["gated"](l0=200.0), "Lower l0, or raise p_child"),
        (lambda: FAMILIES["gated"](p_child=0.0), "Lower l0, or raise p_child"),
        (lambda: FAMILIES["bows"](d=3, layout="sphere"), "too few"),
        (lambda: FAMILIES["bows"](plane=1.0), "plane and correlation"),
        (lambda: FAMILIES["noise"](share=-1.0), "at least 0; got -1.0"),
        (lambda: FAMILIES["sinks"](share=1.0), r"share in \[0, 1\)"),
        (lambda: FAMILIES["outlier_coordinates"](d=4, coordinates=5), "1 to d = 4 coordinates"),
        (lambda: FAMILIES["rings"](d=1), "2 dimensions does not fit into d = 1"),
        (lambda: FAMILIES["group_sparse"](size=0), "does not fit"),
        (lambda: FAMILIES["ring_clusters"](clusters=1), "At least 2 clusters|at least 2 clusters"),
        (lambda: FAMILIES["autoregressive"](memory=1.0), r"in \(-1, 1\); got 1.0"),
        (lambda: FAMILIES["circuits"](n=4, l0=1.0, depth=1), "variables that can be told apart"),
        (lambda: Planted(FAMILIES["uniform"](**SMALL), random_unit(n=2, d=9), 0.1), "d = 9 cannot be planted in"),
        (lambda: Elliptical(torch.eye(3), memory=-1.0), "got -1.0"),
        (lambda: Elliptical(torch.eye(3), torch.zeros(2)), r"\(3, 3\) and \(2,\)"),
        (lambda: next(Elliptical(torch.eye(3)).batches(0, seed=0)), "size must be at least 1"),
        (lambda: surrogate(MemorySource(torch.zeros(1, 3))), "at least 2 rows; the source gave 1"),
        (lambda: Sinks(small("uniform"), coordinates=9), "1 to d = 8 coordinates"),
    ],
)
def test_bad_input_is_a_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_the_page_has_a_line_for_every_family():
    root = Path(__file__).parents[2]
    table = runpy.run_path(str(root / "scripts/families.py"))["table_of_worlds"]()
    page = (root / "docs/worlds.md").read_text(encoding="utf-8")
    assert table in page, "docs/worlds.md: put what `python scripts/families.py worlds` prints in place of its table"
    assert table.count("\n") == len(FAMILIES) + 1
    assert sum("` * |" in line for line in table.splitlines()) == len(HELD_OUT)
