from __future__ import annotations

import sys

import pytest
import torch

from superscope.core import Activations, ActivationSource, Dictionary, ShapeError
from superscope.dictionaries import classical
from superscope.dictionaries.classical import CLASSICAL, ICA, KSVD, NMF, KMeans, OnlineDictionary
from superscope.features import ExactlyK, Independent
from superscope.features.magnitudes import Fixed, Uniform
from superscope.frames import random_unit
from superscope.measure import atom_scores, evaluate, match
from superscope.worlds import World, exactly_k

ARGUMENTS = {
    KMeans: {},
    NMF: {"passes": 5},
    ICA: {"n": 4},
    OnlineDictionary: {"passes": 1},
    KSVD: {"k": 2, "sweeps": 3},
}
"""The least each needs, beside n = 6 atoms."""


def _x(rows=400, seed=0):
    """Nonnegative, so that every learner takes it."""
    return (
        World(Independent(n=8, p=0.3), Dictionary(random_unit(n=8, d=5).atoms.abs()))
        .draw(rows, generator=torch.Generator().manual_seed(seed))
        .x
    )


def _fit(kind, source, **further):
    return kind.fit(source, **({"n": 6, "seed": 1} | ARGUMENTS[kind] | further))


@pytest.fixture(scope="module")
def learned():
    return {kind: _fit(kind, _x()) for kind in CLASSICAL}


@pytest.mark.parametrize("kind", CLASSICAL, ids=lambda kind: kind.__name__)
def test_a_learner_is_a_coder_like_any_other(kind, learned):
    coder, x = learned[kind], _x(12, seed=5)
    code = coder.encode(x.view(3, 4, 5))
    assert code.values.shape[:2] == (3, 4)
    assert code.n == coder.dictionary.n
    x_hat = coder.reconstruct(x.view(3, 4, 5))
    torch.testing.assert_close(x_hat.view(12, 5), coder.dictionary.compose(coder.encode(x)), atol=1e-4, rtol=0)
    # Whatever it is, it explains more than the mean does.
    assert evaluate(coder, [Activations(_x(500, seed=6))])["fraction_variance_unexplained"].value < 0.6
    assert all(value.grad is None for value in (coder.dictionary.atoms,))


@pytest.mark.parametrize("kind", CLASSICAL, ids=lambda kind: kind.__name__)
def test_a_row_is_read_alike_alone_and_among_others(kind, learned):
    x = _x(7, seed=8)
    together = learned[kind].encode(x).dense()
    alone = torch.cat([learned[kind].encode(x[i : i + 1]).dense() for i in range(7)])
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", CLASSICAL, ids=lambda kind: kind.__name__)
def test_one_seed_gives_one_dictionary_and_touches_no_global_state(kind, learned):
    before = torch.random.get_rng_state()
    again = _fit(kind, _x())
    assert torch.equal(again.dictionary.atoms, learned[kind].dictionary.atoms)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("kind", CLASSICAL, ids=lambda kind: kind.__name__)
def test_rows_of_a_source_and_of_a_tensor_are_one_thing(kind):
    class Rows(ActivationSource):
        d = 5

        def batches(self, size, *, seed):
            for start in range(0, 400 - size + 1, size):
                yield Activations(_x()[start : start + size])

    a, b = _fit(kind, Rows(), rows=100), _fit(kind, _x()[:100])
    assert torch.equal(a.dictionary.atoms, b.dictionary.atoms)


@pytest.mark.parametrize("kind", CLASSICAL, ids=lambda kind: kind.__name__)
def test_bad_rows_are_named(kind):
    broken = _x()
    broken[3, 2] = torch.nan
    with pytest.raises(ValueError, match=rf"{kind.__name__}.fit: row 3 holds a NaN"):
        _fit(kind, broken)
    with pytest.raises(ValueError, match="rows must be at least 1"):
        _fit(kind, _x(), rows=0)
    with pytest.raises(ValueError, match=r"got shape \(2, 3, 4\)"):
        _fit(kind, torch.ones(2, 3, 4))
    with pytest.raises(ValueError, match="n must be at least 1; got 0"):
        _fit(kind, _x(), n=0)

    class Empty(ActivationSource):
        d = 5

        def batches(self, size, *, seed):
            return iter(())

    with pytest.raises(ValueError, match="no batch of 1024 rows"):
        _fit(kind, Empty())


@pytest.mark.parametrize("kind", [kind for kind in CLASSICAL if kind is not KSVD], ids=lambda kind: kind.__name__)
def test_without_scikit_learn_the_error_says_what_to_install(kind, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError, match=rf"{kind.__name__} needs scikit-learn; .*superscope\[classical\]"):
        _fit(kind, _x())


def test_kmeans_finds_clusters_and_a_row_goes_to_the_nearest():
    centres = torch.tensor([[5.0, 0.0], [0.0, 5.0], [-5.0, -5.0]])
    x = centres.repeat(100, 1) + 0.1 * torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    coder = KMeans.fit(x, n=3)
    found = coder.dictionary.atoms + coder.dictionary.bias
    assert float(torch.cdist(centres, found).amin(1).max()) < 0.05
    distance = torch.cdist(x, found)
    assert torch.equal(coder.encode(x).indices[:, 0], distance.argmin(1))
    with pytest.raises(ValueError, match="3 centres need at least as many rows; there are 2"):
        KMeans.fit(x[:2], n=3)


def test_nmf_finds_parts_and_refuses_what_does_not_add_up():
    # Each part has coordinates of its own, which makes the factorisation unique; two coordinates they share.
    parts = torch.zeros(5, 12)
    for part in range(5):
        parts[part, 2 * part : 2 * part + 2] = torch.tensor([1.0, 0.5])
    parts[:, 10:] = 0.2
    law = Independent(n=5, p=0.3, magnitude=Uniform(0.5, 1.5))
    x = World(law, Dictionary(parts)).draw(2000, generator=torch.Generator().manual_seed(0)).x
    coder = NMF.fit(x, n=5)
    assert float(coder.dictionary.atoms.min()) >= 0
    assert float(coder.encode(x[:50]).values.min()) >= 0
    assert atom_scores(coder.dictionary, Dictionary(parts), draws=0)["mean_matched_cosine"].value > 0.99
    assert evaluate(coder, [Activations(x)])["fraction_variance_unexplained"].value < 0.01
    x[7, 3] = -0.25
    with pytest.raises(ValueError, match="row 7 has the negative entry -0.25 in coordinate 3"):
        NMF.fit(x, n=5)


def test_ica_finds_independent_directions_and_no_more_than_there_are_dimensions():
    W = random_unit(n=6, d=6, seed=3)
    law = Independent(n=6, p=0.1, magnitude=Uniform(0.5, 1.5))
    x = World(law, W).draw(8000, generator=torch.Generator().manual_seed(0)).x
    coder = ICA.fit(x)
    assert coder.converged
    assert float(match(coder.dictionary, W).cosines.min()) > 0.99
    torch.testing.assert_close(coder.reconstruct(x), x, atol=1e-4, rtol=0)
    assert not ICA.fit(x, steps=1).converged
    with pytest.raises(ValueError, match="span 6 dimensions. Ask for n <= 6"):
        ICA.fit(x, n=7)
    with pytest.raises(ShapeError, match="one row per atom"):
        ICA(W, torch.zeros(5, 6))


def test_online_learning_finds_the_atoms_of_a_small_world():
    world = exactly_k(n=20, d=12, k=2)
    coder = OnlineDictionary.fit(world, n=20, rows=6000, passes=5)
    scores = atom_scores(coder.dictionary, world.dictionary)
    assert scores["feature_nearest_cosine"].value > 0.94 > 0.7 > scores["feature_nearest_cosine"].chance
    scaled = next(world.batches(2000, seed=3)).x
    again = OnlineDictionary.fit(100 * scaled, n=20, rows=2000, passes=1)
    once = OnlineDictionary.fit(scaled, n=20, rows=2000, passes=1)
    assert again.penalty == pytest.approx(100 * once.penalty, rel=1e-4)
    torch.testing.assert_close(again.dictionary.atoms, once.dictionary.atoms, atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="the rows are constant"):
        OnlineDictionary.fit(torch.ones(50, 4), n=3)


@pytest.mark.parametrize("nonnegative", [True, False])
def test_ksvd_finds_the_atoms_of_a_small_world(nonnegative):
    magnitude = Uniform(0.5, 1.5) if nonnegative else Uniform(-1.5, 1.5)
    world = World(ExactlyK(n=24, k=2, magnitude=magnitude), random_unit(n=24, d=16, seed=4))
    # From some starts alternation ends with two atoms sharing two features; these starts do not.
    coder = KSVD.fit(world, n=24, k=2, rows=4000, sweeps=60, nonnegative=nonnegative, seed=3 if nonnegative else 2)
    assert float(match(coder.dictionary, world.dictionary).cosines.min()) > 0.99
    torch.testing.assert_close(coder.dictionary.norms, torch.ones(24))
    if nonnegative:
        assert float(coder.encode(next(world.batches(100, seed=9)).x).values.min()) >= 0
    assert min(coder.errors) < 0.05 * coder.errors[0]


def test_a_sweep_of_ksvd_is_the_definition():
    x = next(exactly_k(n=6, d=4, k=2).batches(80, seed=1)).x.double()
    atoms = random_unit(n=6, d=4, seed=8, dtype=torch.float64).atoms
    code = classical.ksvd._coder(Dictionary(atoms), 2, False).encode(x)
    wanted, f = atoms.clone(), code.dense()
    for j in range(6):
        rows = f[:, j] != 0
        e = x[rows] - f[rows] @ wanted + torch.outer(f[rows, j], wanted[j])
        wanted[j] = e.T @ f[rows, j]
        wanted[j] /= wanted[j].norm()
        f[rows, j] = e @ wanted[j]
    got, values = atoms.clone(), code.values.clone()
    residual = x - Dictionary(atoms).compose(code)
    classical.ksvd._renew(got, values, code.indices, residual, False)
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(residual, x - f @ wanted)


def test_idle_atoms_and_twins_are_replaced_by_the_worst_rows():
    atoms = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1e-3, 0.0], [0.0, 0.0, 1.0]])
    values, indices = torch.tensor([[1.0], [1.0], [1.0]]), torch.tensor([[0], [1], [2]])
    residual = torch.tensor([[0.0, 0.0, 0.0], [0.0, 2.0, 0.0], [3.0, 0.0, 4.0]])
    classical.ksvd._replace(atoms, values, indices, residual)
    # The twin of the first and the idle last one, in their order, by the longest residuals.
    torch.testing.assert_close(atoms[2], torch.tensor([0.6, 0.0, 0.8]))
    torch.testing.assert_close(atoms[3], torch.tensor([0.0, 1.0, 0.0]))
    torch.testing.assert_close(atoms[0], torch.tensor([1.0, 0.0, 0.0]))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"k": 6}, "k = 6 atoms of n = 6 in d = 5"),
        ({"k": 0}, "k must be at least 1"),
        ({"rows": 5}, "6 atoms need at least as many rows; there are 5"),
        ({"sweeps": 0}, "sweeps must be at least 1"),
    ],
)
def test_ksvd_says_what_it_cannot_do(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        _fit(KSVD, _x(), **arguments)
    with pytest.raises(ValueError, match="the rows are constant"):
        _fit(KSVD, torch.ones(50, 4))


def test_ksvd_of_fewer_different_rows_than_atoms_stays_finite():
    x = torch.eye(3).repeat(10, 1)
    coder = KSVD.fit(x, n=8, k=1)
    assert bool(torch.isfinite(coder.dictionary.atoms).all())
    torch.testing.assert_close(coder.reconstruct(x), x, atol=1e-4, rtol=0)


def test_fixed_magnitudes_and_one_active_feature_are_clusters():
    # The world in which k-means is right: every row is one atom.
    world = World(ExactlyK(n=10, k=1, magnitude=Fixed(1.0)), random_unit(n=10, d=6))
    coder = KMeans.fit(world, n=10, rows=2000)
    x = next(world.batches(100, seed=4)).x
    torch.testing.assert_close(coder.reconstruct(x), x, atol=1e-4, rtol=0)
