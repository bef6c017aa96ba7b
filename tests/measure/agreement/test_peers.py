"""SAELens's synthetic evaluation and ours on the same rows: the same numbers to 1e-6 where both define them.

Not in the default suite, since SAELens lives in an environment of its own: `scripts/peers` makes it and runs this.
"""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from superscope.core import Dictionary
from superscope.dictionaries import formats, train
from superscope.dictionaries.sae import AbsTopK, BatchTopK, JumpReLU, TopK
from superscope.measure import atom_scores, code_scores, evaluate, latent_kinds
from superscope.worlds import AnswerKey, AsGenerator, exactly_k, from_saelens, synth_sae_bench

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

TOLERANCE = 1e-6
ROWS, SIZE = 8192, 2048


@pytest.fixture(scope="module")
def easy():
    return exactly_k(n=64, d=32, k=3, noise=0.05)


@pytest.fixture(scope="module")
def forest():
    return synth_sae_bench(1 / 64)


def _theirs(sae, world, folder):
    """What SAELens makes of our SAE on our world: its own SAE class, its own evaluation."""
    from sae_lens import SAE
    from sae_lens.synthetic import eval_sae_on_synthetic_data

    formats.write(sae, folder, "saelens")
    both = AsGenerator(world, seed=9)
    return eval_sae_on_synthetic_data(SAE.load_from_disk(folder), both, both, num_samples=ROWS, batch_size=SIZE)


@pytest.mark.parametrize("world", ["easy", "forest"])
@pytest.mark.parametrize("architecture", [TopK, BatchTopK, JumpReLU, AbsTopK])
def test_the_same_numbers_on_the_same_rows(architecture, world, request, tmp_path):
    world = request.getfixturevalue(world)
    sae = architecture(d=world.d, n=48, k=3, seed=0)
    for _ in train(sae, world, steps=60, batch=512, lr=1e-2):
        pass
    theirs = _theirs(sae, world, tmp_path / "sae")
    rows = list(islice(world.batches(SIZE, seed=9), ROWS // SIZE))
    atoms = atom_scores(sae.dictionary, world.dictionary, draws=0)
    codes = code_scores(sae, rows, world.dictionary)
    ours = evaluate(sae, rows)
    kinds = latent_kinds(sae, rows, world.dictionary, draws=0)
    pairs = {
        "mcc": (theirs.mcc, atoms["mean_matched_cosine"].value),
        "uniqueness": (theirs.uniqueness, atoms["distinct_targets"].value),
        "precision": (theirs.classification.precision, codes["latent_precision"].value),
        "recall": (theirs.classification.recall, codes["latent_recall"].value),
        "f1": (theirs.classification.f1_score, codes["latent_f1"].value),
        "l0": (theirs.sae_l0, ours["l0"].value),
        "true_l0": (theirs.true_l0, float(torch.cat([b.code.l0 for b in rows]).double().mean())),
        "explained_variance": (theirs.explained_variance, 1 - ours["fraction_variance_unexplained"].value),
        "dead": (theirs.dead_latents / sae.n, kinds["dead_latents"].value),
    }
    assert {name: pair for name, pair in pairs.items() if pair[0] != pytest.approx(pair[1], abs=TOLERANCE)} == {}
    assert 0 < theirs.classification.f1_score < 1


def test_a_dictionary_of_duplicates_is_one_nth_for_both(easy):
    from sae_lens.synthetic import feature_uniqueness

    copies = easy.dictionary.atoms[:1].expand(16, -1)
    assert feature_uniqueness(copies, easy.dictionary.atoms) == pytest.approx(1 / 16)
    assert atom_scores(Dictionary(copies), easy.dictionary, draws=0)["distinct_targets"].value == pytest.approx(1 / 16)


def test_their_generator_with_a_hierarchy_is_a_world_of_ours():
    from sae_lens.synthetic import ActivationGenerator, FeatureDictionary, HierarchyNode, hierarchy_modifier

    children = [HierarchyNode(feature_index=1), HierarchyNode(feature_index=2)]
    tree = hierarchy_modifier([HierarchyNode(feature_index=0, children=children)])
    generator = ActivationGenerator(
        num_features=8, firing_probabilities=0.4, std_firing_magnitudes=0.2, modify_activations=tree
    )
    world = from_saelens(FeatureDictionary(8, 16, bias=0.5, seed=0), generator, parents=[-1, 0, 0, *[-1] * 5])
    truth = AnswerKey.of(world, rows=4000, seed=3)
    again = AnswerKey.of(world, rows=4000, seed=3)
    assert torch.equal(truth.rows[0].x, again.rows[0].x)
    f = torch.cat([batch.code.dense() for batch in truth.rows])
    assert not bool(((f[:, 1] != 0) & (f[:, 0] == 0)).any())
    assert float((f[:, 1] != 0).double().mean()) == pytest.approx(0.16, abs=0.03)
    sae = TopK(d=16, n=8, k=2)
    for _ in train(sae, world, steps=100, batch=256, lr=1e-2):
        pass
    assert latent_kinds(sae, truth.rows, truth.dictionary, parents=truth.parents)["absorption_rate"].of


def test_their_trainer_learns_from_a_world_of_ours(easy):
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.synthetic import eval_sae_on_synthetic_data, train_toy_sae

    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=32, d_sae=64, k=3))
    both = AsGenerator(easy, seed=2)
    before = eval_sae_on_synthetic_data(sae, both, both, num_samples=SIZE).explained_variance
    train_toy_sae(sae, both, both, training_samples=60_000, batch_size=512, lr=3e-3)
    after = eval_sae_on_synthetic_data(sae, both, both, num_samples=SIZE)
    assert after.explained_variance > max(before, 0.5)
