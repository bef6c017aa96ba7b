"""Oracle ceilings: of a learner with the right atoms, with the right encoder, and with neither."""

from __future__ import annotations

from itertools import islice

import pytest
import torch

from superscope.core import Activations, Dictionary, ShapeError, SparseCode
from superscope.dictionaries import TopK, Turned
from superscope.measure import code_scores, match, oracle_ceilings
from superscope.worlds import exactly_k


@pytest.fixture(scope="module")
def easy():
    return exactly_k(n=40, d=32, k=2, seed=3)


@pytest.fixture(scope="module")
def rows(easy):
    return list(islice(easy.batches(512, seed=1), 2))


def _sae(atoms: torch.Tensor, k: int = 2) -> TopK:
    n, d = atoms.shape
    sae = TopK(d=d, n=n, k=k)
    with torch.no_grad():
        sae.atoms.copy_(atoms)
        sae.encoder.copy_(atoms)
    return sae


def _turned(sae: TopK, truth: Dictionary) -> Turned:
    pairs = match(sae.dictionary, truth)
    latents = torch.full((truth.n,), -1)
    latents[pairs.second] = pairs.first
    return Turned(sae, truth, latents)


def test_wrong_atoms_are_made_up_for_by_the_truth_and_not_by_pursuit(easy, rows):
    b = easy.dictionary.atoms
    wrong = b + 1.2 * torch.nn.functional.normalize(torch.randn(40, 32, generator=torch.Generator().manual_seed(0)))
    sae = _sae(torch.nn.functional.normalize(wrong))
    truth = easy.dictionary
    own = code_scores(sae, rows, truth)["feature_f1"].value
    found = oracle_ceilings(rows, sae.dictionary, truth, turned=_turned(sae, truth))
    learned, turned, best = (
        found["feature_f1", *place].value for place in (("learned", "best"), ("true", "own"), ("true", "best"))
    )
    assert best > 0.98
    assert turned > own + 0.2
    assert turned > learned + 0.1
    assert found["feature_value_r2", "true", "best"].value > 0.95
    # Turned onto the true atoms, an encoder that reads along its atoms reads along the true ones.
    right = code_scores(_sae(b), rows, truth)["feature_f1"].value
    assert turned == pytest.approx(right)


def test_right_atoms_under_a_wrong_encoder_are_made_up_for_by_pursuit(easy, rows):
    b, truth = easy.dictionary.atoms, easy.dictionary
    sae = _sae(b)
    with torch.no_grad():
        sae.encoder += 0.4 * torch.randn(sae.encoder.shape, generator=torch.Generator().manual_seed(2))
    own = code_scores(sae, rows, truth)["feature_f1"].value
    found = oracle_ceilings(rows, sae.dictionary, truth, turned=_turned(sae, truth))
    assert found["feature_f1", "learned", "best"].value > 0.98 > own + 0.2
    # Its atoms are the true ones already, so turning changes nothing.
    assert found["feature_f1", "true", "own"].value == pytest.approx(own, abs=1e-9)


def test_pursuit_takes_as_many_atoms_as_are_active_in_the_row():
    W = Dictionary(torch.eye(4))
    f = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    found = oracle_ceilings([Activations(f, code=SparseCode.from_dense(f))], W, W)
    assert found["support_f1"].value == 1
    assert {m.at["dictionary"] for m in found} == {"learned", "true"}
    assert {m.at["inference"] for m in found} == {"best"}


def test_a_rotated_encoder_keeps_its_length_and_its_angle_to_its_atom():
    generator = torch.Generator().manual_seed(1)
    sae, truth = TopK(d=12, n=20, k=3), Dictionary(torch.randn(8, 12, generator=generator))
    with torch.no_grad():
        sae.encoder += torch.randn(20, 12, generator=generator)
        sae.encoder_bias += torch.rand(20, generator=generator)
    latents = torch.tensor([3, -1, 7, 0, 19, 5, 2, 11])
    turned = Turned(sae, truth, latents)
    used, atoms = latents[latents >= 0], truth.unit().atoms[latents >= 0]
    rows = turned.sae.encoder[used]
    torch.testing.assert_close(rows.norm(dim=1), sae.encoder[used].norm(dim=1))
    torch.testing.assert_close((rows * atoms).sum(1), (sae.encoder * sae.atoms)[used].sum(1))
    assert torch.equal(turned.sae.encoder_bias[used], sae.encoder_bias[used])
    # What is orthogonal to both atoms is read as before.
    i = 0
    aside = torch.linalg.qr(torch.stack([sae.atoms[used[i]], atoms[i]]).detach().T, mode="complete").Q[:, 2:]
    torch.testing.assert_close(rows[i] @ aside, sae.encoder[used[i]] @ aside)
    code = turned.encode(torch.randn(64, 12, generator=generator))
    assert 1 not in code.indices[code.values != 0]
    assert code.n == 8
    assert float(sae.atoms.detach().norm(dim=1).min()) > 0.99


def test_an_atom_turned_onto_its_opposite_reads_the_opposite():
    sae = TopK(d=3, n=1, k=1)
    opposite = Dictionary(-sae.atoms.detach())
    turned = Turned(sae, opposite, torch.tensor([0]))
    torch.testing.assert_close(turned.sae.encoder, -sae.encoder)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda w, r: oracle_ceilings(r, Dictionary(torch.eye(3)), w.dictionary), ShapeError, "d = 3 and d = 32"),
        (lambda w, r: oracle_ceilings([Activations(r[0].x)], w.dictionary, w.dictionary), ValueError, "true code"),
        (lambda w, r: Turned(TopK(d=3, n=4, k=1), w.dictionary, torch.arange(4)), ShapeError, "one latent for each"),
        (
            lambda w, r: Turned(TopK(d=2, n=4, k=1), Dictionary(torch.eye(2)), torch.tensor([1, 1])),
            ValueError,
            "given twice",
        ),
    ],
)
def test_bad_input_is_a_sentence(easy, rows, call, error, sentence):
    with pytest.raises(error, match=sentence):
        call(easy, rows)
