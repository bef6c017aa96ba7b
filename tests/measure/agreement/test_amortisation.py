from __future__ import annotations

import pytest
import torch

from superscope.core import Activations, SparseCode
from superscope.measure.agreement.amortisation import amortisation_gap, support_overlap
from superscope.recovery import NNOMP, Thresholding

from .conftest import Known


def test_an_encoder_that_is_pursuit_has_no_gap_and_one_of_one_step_has(world, batches):
    none = amortisation_gap(NNOMP(world.dictionary, k=3), batches)
    assert none["amortisation_gap"].value == pytest.approx(0, abs=1e-7)
    assert none["support_overlap"].value == 1.0
    assert none["own_unexplained"].at["k"] == 3
    one_step = Thresholding(world.dictionary, k=3, nonnegative=True)
    gap = amortisation_gap(one_step, batches, k=3)
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
    overlap = torch.cat([support_overlap(one_step.encode(b.x), b.code) for b in batches]).mean()
    assert gap["own_true_overlap"].value == pytest.approx(float(overlap), rel=1e-5)
    assert amortisation_gap(one_step, batches, k=3, nonnegative=False)["own_unexplained"].at["pursuit"] == "OMP"


def test_the_gap_is_resampled_by_documents_and_asks_for_no_truth(world, batches):
    plain = [
        Activations(b.x, places=torch.stack([torch.arange(len(b)), torch.zeros(len(b)).long()], 1)) for b in batches
    ]
    documents = torch.arange(max(len(b) for b in batches)) // 16
    gap = amortisation_gap(Thresholding(world.dictionary, k=3), plain, documents=documents)
    assert "documents" in gap["amortisation_gap"].how
    assert "own_true_overlap" not in {score.name for score in gap}


def test_support_overlap_of_rows():
    a = SparseCode(torch.tensor([[1.0, 2.0], [0.0, 0.0], [1.0, 0.0]]), torch.tensor([[0, 1], [0, 0], [2, 0]]), 3)
    b = SparseCode(torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 5.0]]), torch.tensor([[1, 0], [1, 1], [2, 1]]), 3)
    assert support_overlap(a, b).tolist() == [0.5, 1.0, 0.0]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda w, b: amortisation_gap(Known(w.dictionary, torch.zeros(999, 24)), b), "code is empty"),
        (lambda w, b: amortisation_gap(NNOMP(w.dictionary, k=3), [Activations(torch.ones(80, 12))]), "are constant"),
    ],
)
def test_bad_input_is_a_sentence(world, batches, call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(world, batches)
