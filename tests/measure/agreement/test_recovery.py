from __future__ import annotations

from itertools import islice

import pytest
import torch

from superscope.core import Activations, Dictionary, ShapeError, SparseCode
from superscope.measure.agreement import recovery as scoring
from superscope.recovery import NNOMP

from .conftest import Known


def _truth(batches):
    return torch.cat([batch.code.dense() for batch in batches])


def test_the_truth_scores_one_however_it_is_numbered_and_scaled(world, batches):
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    size = 0.5 + torch.rand(24, generator=torch.Generator().manual_seed(1))
    size[3] = -size[3]
    W = Dictionary(world.dictionary.atoms[order] * size[:, None])
    scores = scoring.code_scores(Known(W, _truth(batches)[:, order] / size), batches, world.dictionary)
    for score in scores:
        assert score.value == pytest.approx(1, abs=1e-6), score
        assert score.low <= score.value + 1e-9
        assert score.value <= score.high + 1e-9
    # Without the flipped atom: MMCS and the pairing at a threshold are signed.
    size = size.abs()
    for score in scoring.atom_scores(Dictionary(W.atoms * torch.sign(size)[:, None].abs()), world.dictionary):
        if score.name == "mean_matched_cosine":
            assert score.value == pytest.approx(1, abs=1e-6)


def test_atom_scores_of_the_truth_with_one_atom_missing_one_false_and_one_twice(world):
    atoms = world.dictionary.atoms
    false = torch.randn(2, 12, generator=torch.Generator().manual_seed(3))
    found = Dictionary(torch.cat([atoms[:-1], atoms[:1], false]))
    scores = scoring.atom_scores(found, world.dictionary, threshold=0.95)
    assert scores["atom_recall"].value == pytest.approx(23 / 24)
    assert scores["atom_precision"].value == pytest.approx(23 / 26)
    assert scores["atom_f1"].value == pytest.approx(2 * 23 / (24 + 26))
    assert scores["feature_nearest_cosine"].value > 23 / 24
    assert scores["feature_nearest_cosine"].low < scores["feature_nearest_cosine"].value
    assert scores["latent_nearest_cosine"].n == 26
    assert scores["atom_recall"].chance < 0.2
    assert scores["distinct_targets"].value <= 25 / 26


def test_pairing_at_a_threshold_is_the_largest_possible_not_the_greedy_one():
    # The second found atom is near both true ones, and nearest to the first, which nothing else is near to.
    angle = torch.deg2rad(torch.tensor([0.0, 20.0]))
    truth = Dictionary(torch.stack([angle.cos(), angle.sin()], 1))
    angle = torch.deg2rad(torch.tensor([9.0, 35.0]))
    found = Dictionary(torch.stack([angle.cos(), angle.sin()], 1))
    near = 0.96  # about 16.3 degrees: pairs (0, 0), (0, 1), (1, 1)
    assert scoring.atom_scores(found, truth, threshold=near, draws=0)["atom_recall"].value == 1.0


def test_chance_is_what_a_random_dictionary_gets(world):
    random = Dictionary(torch.randn(24, 12, generator=torch.Generator().manual_seed(9)))
    scores = scoring.atom_scores(random, world.dictionary, threshold=0.5, draws=20)
    for name in ("feature_nearest_cosine", "mean_matched_cosine", "atom_recall", "distinct_targets"):
        assert scores[name].value == pytest.approx(scores[name].chance, abs=0.25 * scores[name].chance + 0.05), name


def test_code_scores_follow_their_definitions(world, batches):
    generator = torch.Generator().manual_seed(5)
    f = _truth(batches)
    # Latents for 20 of the features and 6 of no feature; wrong in 5 % of places.
    W = Dictionary(torch.cat([world.dictionary.atoms[:20], torch.randn(6, 12, generator=generator)]))
    z = torch.cat([f[:, :20], torch.zeros(len(f), 6)], 1)
    flip = torch.rand(z.shape, generator=generator) < 0.05
    z = torch.where(flip, torch.where(z == 0, torch.ones(()), torch.zeros(())), 0.8 * z)
    scores = scoring.code_scores(Known(W, z), batches, world.dictionary, seed=2)
    pairs = scoring.match(W, world.dictionary)
    paired = torch.zeros_like(f)
    length = W.norms[pairs.first] * torch.sign(
        (W.unit().atoms[pairs.first] * world.dictionary.atoms[pairs.second]).sum(1)
    )
    paired[:, pairs.second] = z[:, pairs.first] * length
    hits = float(((paired != 0) & (f != 0)).sum())
    assert scores["support_precision"].value == pytest.approx(hits / float((z != 0).sum()))
    assert scores["support_recall"].value == pytest.approx(hits / float((f != 0).sum()))
    assert scores["support_f1"].value == pytest.approx(2 * hits / float((z != 0).sum() + (f != 0).sum()))
    unexplained = (f - paired).double().square().sum() / (f - f.mean(0)).double().square().sum()
    assert scores["feature_value_r2"].value == pytest.approx(1 - float(unexplained), rel=1e-5)
    target = (W.unit().atoms @ world.dictionary.atoms.T).abs().argmax(1)
    precision, recall, f1 = [], [], []
    for latent in range(26):
        on, is_on = z[:, latent] != 0, f[:, target[latent]] != 0
        both = float((on & is_on).sum())
        p, r = both / max(float(on.sum()), 1), both / max(float(is_on.sum()), 1)
        precision.append(p)
        recall.append(r)
        f1.append(2 * p * r / (p + r) if p + r else 0.0)
    for name, values in (("latent_precision", precision), ("latent_recall", recall), ("latent_f1", f1)):
        assert scores[name].value == pytest.approx(sum(values) / 26), name
        assert scores[name].low < scores[name].value < scores[name].high
    assert scores["support_f1"].low < scores["support_f1"].value < scores["support_f1"].high


def test_latents_that_know_nothing_score_their_chance(world):
    batches = list(islice(world.batches(2048, seed=1), 4))
    f = _truth(batches)
    shuffled = f[torch.randperm(len(f), generator=torch.Generator().manual_seed(0))]
    scores = scoring.code_scores(Known(world.dictionary, shuffled), batches, world.dictionary)
    for score in scores:
        if score.name != "feature_value_r2":
            assert score.value == pytest.approx(score.chance, abs=0.01), score
    assert scores["feature_value_r2"].value < 0


def test_silent_latents_have_defined_scores(world, batches):
    scores = scoring.code_scores(Known(world.dictionary, 0 * _truth(batches)), batches, world.dictionary)
    assert scores["support_precision"].value == 0
    assert scores["latent_f1"].value == 0
    assert scores["feature_value_r2"].value < 0.01


def test_features_that_never_vary_have_no_r2(world):
    still = Activations(torch.ones(64, 12), code=SparseCode.from_dense(torch.ones(64, 24)))
    score = scoring.code_scores(Known(world.dictionary, torch.ones(64, 24)), [still], world.dictionary)
    assert score["feature_value_r2"].value is None


def test_everything_together_and_by_name(world):
    scores = scoring.recovery_scores(NNOMP(world.dictionary, k=3), world, world.dictionary, batches=1, size=128)
    assert len({score.name for score in scores}) == 17
    assert "support_f1" in str(scores)
    with pytest.raises(KeyError, match="no measurement 'mcc'"):
        scores["mcc"]


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda w, b: scoring.atom_scores(w.dictionary, w.dictionary, threshold=1.0), ValueError, "got 1.0"),
        (
            lambda w, b: scoring.code_scores(NNOMP(w.dictionary, k=3), [Activations(b[0].x)], w.dictionary),
            ValueError,
            "do not carry their true code",
        ),
        (
            lambda w, b: scoring.code_scores(NNOMP(w.dictionary, k=3), b, Dictionary(w.dictionary.atoms[:5])),
            ShapeError,
            "24 features and the truth 5 atoms",
        ),
    ],
)
def test_bad_input_is_a_sentence(world, batches, call, error, sentence):
    with pytest.raises(error, match=sentence):
        call(world, batches)


def test_a_dictionary_of_duplicates_has_one_target_among_all_its_atoms(world):
    """Taken after a one-to-one matching, this would be 1 whatever was learned."""
    copies = Dictionary(world.dictionary.atoms[:1].expand(24, 12) * torch.arange(1.0, 25.0)[:, None])
    score = scoring.atom_scores(copies, world.dictionary)["distinct_targets"]
    assert score.value == pytest.approx(1 / 24)
    assert score.chance > 0.4


def test_the_matched_cosine_above_chance_is_zero_for_chance_and_one_for_the_truth(world):
    scores = scoring.atom_scores(world.dictionary, world.dictionary)
    assert scores["matched_cosine_above_chance"].value == pytest.approx(1)
    random = Dictionary(torch.randn(96, 12, generator=torch.Generator().manual_seed(4)))
    scores = scoring.atom_scores(random, world.dictionary, draws=20)
    matched, above = scores["mean_matched_cosine"], scores["matched_cosine_above_chance"]
    # A wide dictionary of few dimensions looks good, and is not.
    assert matched.value > 0.6
    assert above.value == pytest.approx((matched.value - matched.chance) / (1 - matched.chance))
    assert abs(above.value) < 0.1
    assert above.low < above.value < above.high
    assert above.chance == 0
    names = {score.name for score in scoring.atom_scores(random, world.dictionary, draws=0)}
    assert "matched_cosine_above_chance" not in names


def test_on_a_line_there_is_nothing_above_chance():
    line = Dictionary(torch.tensor([[1.0], [-2.0]]))
    assert scoring.atom_scores(line, line)["matched_cosine_above_chance"].value is None


def test_missed_features_cost_the_features_scores_and_not_the_latents(world, batches):
    f = _truth(batches)
    scores = scoring.code_scores(Known(Dictionary(world.dictionary.atoms[:18]), f[:, :18]), batches, world.dictionary)
    assert scores["latent_f1"].value == pytest.approx(1)
    for name in ("feature_f1", "feature_recall"):
        assert scores[name].value == pytest.approx(18 / 24)
        assert scores[name].reference == pytest.approx(18 / 24)
        assert scores[name].low <= scores[name].value <= scores[name].high
        assert scores[name].chance < 0.2
    assert scores.features["latent"] == [*range(18), *[None] * 6]
    assert scores.features["f1"] == [1.0] * 18 + [0.0] * 6
    assert scores.latents["feature"] == list(range(18))
    assert scores.features["density"] == pytest.approx((f != 0).double().mean(0).tolist())


def test_a_feature_counts_with_one_latent_alone(world, batches):
    """Two latents that share a feature's rows: the latents' recall is half, and so is the feature's."""
    f = _truth(batches)
    first = torch.rand(len(f), generator=torch.Generator().manual_seed(0)) < 0.5
    z = torch.cat([f * first[:, None], f * ~first[:, None]], 1)
    W = Dictionary(torch.cat([world.dictionary.atoms] * 2))
    scores = scoring.code_scores(Known(W, z), batches, world.dictionary)
    assert scores["latent_precision"].value == pytest.approx(1)
    assert scores["latent_recall"].value == pytest.approx(0.5, abs=0.02)
    assert scores["feature_recall"].value == pytest.approx(0.5, abs=0.03)
    assert scores["feature_f1"].value == pytest.approx(2 / 3, abs=0.03)


def test_a_feature_that_never_occurs_is_left_out(world, batches):
    f = _truth(batches)
    f[:, 5] = 0
    rows = [Activations(world.dictionary.compose(f), code=SparseCode.from_dense(f))]
    scores = scoring.code_scores(Known(world.dictionary, f), rows, world.dictionary)
    assert scores["feature_f1"].value == pytest.approx(1)
    assert scores["feature_f1"].n == 23
    assert "1 features were active on none" in scores["feature_f1"].caution
    nothing = [Activations(torch.randn(64, 12), code=SparseCode.from_dense(torch.zeros(64, 24)))]
    silent = scoring.code_scores(Known(world.dictionary, torch.zeros(64, 24)), nothing, world.dictionary)
    assert silent["feature_f1"].value is None
