from __future__ import annotations

from itertools import islice

import pytest
import torch

from superscope.core import Activations, Dictionary, ShapeError, SparseCode, SparseCoder
from superscope.measure.agreement import recovery as scoring
from superscope.recovery import NNOMP, Thresholding
from superscope.worlds import exactly_k


class Known(SparseCoder):
    """Answers with given dense codes, row by row, in the order it is asked."""

    def __init__(self, dictionary: Dictionary, f: torch.Tensor) -> None:
        self.dictionary, self.f, self.at = dictionary, f, 0

    def encode(self, x):
        self.at, start = self.at + len(x), self.at
        return SparseCode.from_dense(self.f[start : self.at])


@pytest.fixture(scope="module")
def world():
    return exactly_k(n=24, d=12, k=3)


@pytest.fixture(scope="module")
def batches(world):
    return list(islice(world.batches(256, seed=1), 3))


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
    assert scores["truth_in_found"].value > 23 / 24
    assert scores["truth_in_found"].low < scores["truth_in_found"].value
    assert scores["found_in_truth"].n == 26
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
    for name in ("truth_in_found", "mean_matched_cosine", "atom_recall", "distinct_targets"):
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


def test_an_encoder_that_is_pursuit_has_no_gap_and_one_of_one_step_has(world, batches):
    none = scoring.amortisation_gap(NNOMP(world.dictionary, k=3), batches)
    assert none["amortisation_gap"].value == pytest.approx(0, abs=1e-7)
    assert none["support_overlap"].value == 1.0
    assert none["own_unexplained"].at["k"] == 3
    one_step = Thresholding(world.dictionary, k=3, nonnegative=True)
    gap = scoring.amortisation_gap(one_step, batches, k=3)
    assert gap["amortisation_gap"].low > 0.05
    x = torch.cat([batch.x for batch in batches]).double()
    error = (x - one_step.reconstruct(x.float())).square().sum()
    assert gap["own_unexplained"].value == pytest.approx(float(error / (x - x.mean(0)).square().sum()), rel=1e-5)
    assert gap["amortisation_gap"].value == pytest.approx(
        gap["own_unexplained"].value - gap["pursuit_unexplained"].value
    )
    # Refitting only chooses amplitudes: no worse than the encoder's own, on a support that is no larger.
    assert gap["refitted_unexplained"].value <= gap["own_unexplained"].value
    assert gap["refitted_l0"].value <= gap["own_l0"].value <= 3
    overlap = torch.cat([scoring.support_overlap(one_step.encode(b.x), b.code) for b in batches]).mean()
    assert gap["own_true_overlap"].value == pytest.approx(float(overlap), rel=1e-5)
    assert scoring.amortisation_gap(one_step, batches, k=3, nonnegative=False)["own_unexplained"].at["pursuit"] == "OMP"


def test_the_gap_is_resampled_by_documents_and_asks_for_no_truth(world, batches):
    plain = [
        Activations(b.x, places=torch.stack([torch.arange(len(b)), torch.zeros(len(b)).long()], 1)) for b in batches
    ]
    documents = torch.arange(max(len(b) for b in batches)) // 16
    gap = scoring.amortisation_gap(Thresholding(world.dictionary, k=3), plain, documents=documents)
    assert "documents" in gap["amortisation_gap"].how
    assert "own_true_overlap" not in {score.name for score in gap}


def test_support_overlap_of_rows():
    a = SparseCode(torch.tensor([[1.0, 2.0], [0.0, 0.0], [1.0, 0.0]]), torch.tensor([[0, 1], [0, 0], [2, 0]]), 3)
    b = SparseCode(torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 5.0]]), torch.tensor([[1, 0], [1, 1], [2, 1]]), 3)
    assert scoring.support_overlap(a, b).tolist() == [0.5, 1.0, 0.0]


def test_everything_together_and_by_name(world):
    scores = scoring.recovery_scores(NNOMP(world.dictionary, k=3), world, world.dictionary, batches=1, size=128)
    assert len({score.name for score in scores}) == 14
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
        (
            lambda w, b: scoring.amortisation_gap(Known(w.dictionary, torch.zeros(999, 24)), b),
            ValueError,
            "code is empty",
        ),
        (
            lambda w, b: scoring.amortisation_gap(NNOMP(w.dictionary, k=3), [Activations(torch.ones(80, 12))]),
            ValueError,
            "activations are constant",
        ),
    ],
)
def test_bad_input_is_a_sentence(world, batches, call, error, sentence):
    with pytest.raises(error, match=sentence):
        call(world, batches)
