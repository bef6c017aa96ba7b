"""A truth kept in a file, and SAELens's interface from both sides."""

from __future__ import annotations

import pytest
import torch

from superscope.core import Activations, Dictionary, FormatError, ShapeError, files
from superscope.features import Hierarchical
from superscope.frames import random_unit
from superscope.testing import check_source
from superscope.worlds import (
    FAMILIES,
    AnswerKey,
    AsGenerator,
    Planted,
    Sinks,
    World,
    exactly_k,
    from_saelens,
    on_random_directions,
    synth_sae_bench,
)


@pytest.fixture(scope="module")
def family():
    return on_random_directions(Hierarchical(parents=(-1, 0, 0, -1), p=0.5), d=6, noise=0.1)


def test_a_world_knows_its_parents(family):
    assert AnswerKey.of(family, rows=32).parents.tolist() == [-1, 0, 0, -1]
    assert AnswerKey.of(synth_sae_bench(1 / 128), rows=32).parents[:16].tolist() == [
        -1,
        *[0] * 4,
        *[1] * 4,
        *[2] * 4,
        3,
        3,
        3,
    ]
    assert AnswerKey.of(exactly_k(), rows=32).parents is None


def test_alterations_keep_their_worlds_parents_and_planted_features_have_none(family):
    assert AnswerKey.of(Sinks(family), rows=32).parents.tolist() == [-1, 0, 0, -1]
    planted = Planted(family, random_unit(n=2, d=6), 0.01)
    key = AnswerKey.of(planted, rows=32)
    assert key.parents is None
    assert key.dictionary.n == 6


def test_an_atom_that_is_not_to_be_found_is_no_feature(family):
    world = World(family.features, family.dictionary, component=torch.tensor([0, -1, 1, 1]))
    key = AnswerKey.of(world, rows=64, size=64)
    f = next(world.batches(64, seed=0)).code.dense()
    assert torch.equal(key.rows[0].code.dense(), f[:, [0, 2, 3]])
    assert torch.equal(key.dictionary.atoms, world.dictionary.atoms[[0, 2, 3]])
    # Feature 2's parent is 0, and 3 has none; two atoms share a component.
    assert key.parents.tolist() == [-1, 0, -1]
    assert key.shared == 2


def test_a_null_cannot_judge():
    with pytest.raises(ValueError, match="is a null"):
        AnswerKey.of(FAMILIES["gaussian"].make())


def test_what_is_kept_comes_back(family, tmp_path):
    truth = AnswerKey.of(family, rows=300, seed=5, size=128)
    truth.save(tmp_path / "truth.safetensors")
    back = AnswerKey.load(tmp_path / "truth.safetensors", size=100)
    assert torch.equal(back.dictionary.atoms, truth.dictionary.atoms)
    assert torch.equal(back.parents, truth.parents)
    assert torch.equal(back.component, truth.component)
    x, f = (torch.cat([b.x if i == 0 else b.code.dense() for b in truth.rows]) for i in range(2))
    assert torch.equal(torch.cat([b.x for b in back.rows]), x)
    assert torch.equal(torch.cat([b.code.dense() for b in back.rows]), f)
    assert [len(b) for b in back.rows] == [100, 100, 56]


def test_a_truth_written_by_others_has_atoms_x_and_a_dense_f(tmp_path):
    atoms, f = torch.eye(3), torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0]])
    files.write_tensors(tmp_path / "t.safetensors", {"atoms": atoms, "x": f @ atoms, "f": f})
    (batch,) = AnswerKey.load(tmp_path / "t.safetensors").rows
    assert torch.equal(batch.code.dense(), f)


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"atoms": torch.eye(3)}, "A truth has"),
        ({"atoms": torch.eye(3), "x": torch.zeros(2, 3), "f": torch.zeros(2, 4)}, "4 features"),
        ({"atoms": torch.eye(3), "x": torch.zeros(2, 3), "f": torch.zeros(5, 3)}, "code has 5 rows for 2"),
        ({"atoms": torch.eye(3), "x": torch.zeros(2, 4), "f": torch.zeros(2, 3)}, "rows with d = 4"),
        ({"atoms": torch.full((3, 3), torch.nan), "x": torch.zeros(2, 3), "f": torch.zeros(2, 3)}, "NaN"),
        ({"atoms": torch.eye(3), "x": torch.zeros(2, 3), "f": torch.zeros(2, 3), "g": torch.zeros(1)}, "'g'"),
    ],
)
def test_a_file_that_is_no_truth_is_a_sentence(tensors, sentence, tmp_path):
    files.write_tensors(tmp_path / "t.safetensors", tensors)
    with pytest.raises(FormatError, match=sentence):
        AnswerKey.load(tmp_path / "t.safetensors")


def test_rows_without_code_are_no_truth():
    with pytest.raises(ShapeError, match="no code"):
        AnswerKey(Dictionary(torch.eye(2)), (Activations(torch.zeros(1, 2)),))


class Generator:
    """SAELens's interface, with torch's own random state as there."""

    def sample(self, rows):
        return (torch.rand(rows, 5) < 0.3).float() * (1 + torch.rand(rows, 5))


class SparseGenerator(Generator):
    def sample(self, rows):
        return super().sample(rows).to_sparse()


class FeatureDict:
    feature_vectors = torch.nn.Parameter(random_unit(n=5, d=4, seed=0).atoms)
    bias = torch.nn.Parameter(torch.full((4,), 0.5))


@pytest.mark.parametrize("generator", [Generator, SparseGenerator])
def test_their_generator_is_a_source_of_ours(generator):
    world = from_saelens(FeatureDict(), generator(), parents=[-1, 0, 0, -1, -1])
    check_source(world)
    before = torch.get_rng_state()
    batch = next(world.batches(1000, seed=3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(batch.x, batch.code.dense() @ FeatureDict.feature_vectors + 0.5)
    assert world.features.l0 == pytest.approx(1.5, abs=0.05)
    assert AnswerKey.of(world, rows=10).parents.tolist() == [-1, 0, 0, -1, -1]
    assert not world.dictionary.atoms.requires_grad


def test_our_world_is_a_generator_of_theirs(family):
    theirs = AsGenerator(family, seed=4).eval()
    f = theirs.sample(50)
    batch = next(family.batches(50, seed=4))
    assert torch.equal(f, batch.code.dense())
    # The rows' own x, noise and all; any other f is composed.
    assert torch.equal(theirs(f), batch.x)
    assert torch.equal(theirs(f.clone()), family.dictionary.compose(f))
    following = theirs(50)
    assert torch.equal(following, next(family.batches_from(1, 50, seed=4)).code.dense())
    assert theirs.feature_vectors.shape == (4, 6)
    assert isinstance(from_saelens(theirs, theirs), World)
