"""Kinds of latents: each built on purpose, and found to be what it was built as."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from superscope.core import Activations, Dictionary, ShapeError, SparseCode
from superscope.measure import latent_kinds
from superscope.worlds import exactly_k

from .conftest import Known

N, D, ROWS = 48, 32, 2000


@dataclass(frozen=True)
class Families:
    """Features 0, 1, 2 ... are parents of 24, 25, ...; a child is on in a third of its parent's rows."""

    parents = torch.cat([torch.full((24,), -1), torch.arange(24)])

    def rows(self) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        on = torch.rand(ROWS, 24, generator=generator) < 0.15
        child = on & (torch.rand(ROWS, 24, generator=generator) < 1 / 3)
        return torch.cat([on, child], 1).float()


@pytest.fixture(scope="module")
def truth():
    # Apart from each other, so that no three atoms are one by accident.
    return Dictionary(torch.linalg.qr(torch.randn(64, N, generator=torch.Generator().manual_seed(1))).Q.T)


@pytest.fixture(scope="module")
def f():
    return Families().rows()


def judged(truth, f, atoms, z, **options):
    batches = [Activations(truth.compose(f), code=SparseCode.from_dense(f))]
    return latent_kinds(Known(Dictionary(atoms), z), batches, truth, **options)


def test_the_truth_is_all_features(truth, f):
    kinds = judged(truth, f, truth.atoms, f, parents=Families.parents)
    assert set(kinds.kind) == {"feature"}
    for name in ("dead_latents", "duplicate_latents", "composite_latents", "hedged_latents", "other_latents"):
        assert kinds[name].value == 0, name
    assert kinds["absorption_rate"].value == kinds["absorbed_children"].value == 0
    assert not kinds.absorbs.any()


def test_dead_duplicate_composite_and_other_are_told_apart(truth, f):
    b, pad = truth.atoms, torch.zeros(ROWS, 1)
    junk = torch.randn(1, 64, generator=torch.Generator().manual_seed(3))
    junk = junk - (junk @ b.T) @ b
    extra = torch.stack([b[0], b[1] + 0.05 * b[2], b[3] + b[4], 2 * b[5] - b[6]])
    atoms = torch.cat([b, extra, junk])
    # A dead one, a duplicate, two mixtures, and one that is orthogonal to all there is.
    z = torch.cat([f, pad, f[:, 1:2], f[:, 3:4], f[:, 5:6], f[:, :1]], 1)
    kinds = judged(truth, f, atoms, z)
    assert kinds.kind[N:] == ("dead", "duplicate", "composite", "composite", "other")
    assert set(kinds.kind[:N]) == {"feature"}
    assert kinds.halves[N + 2 :].tolist() in ([[3, 4], [5, 6], [-1, -1]], [[4, 3], [5, 6], [-1, -1]])
    for name, value in (("dead", 1), ("duplicate", 1), ("composite", 2), ("other", 1)):
        score = kinds[f"{name}_latents"]
        assert score.value == value / (N + 5)
        assert score.low < score.value < score.high
    assert f"unseen on {ROWS}" in kinds["dead_latents"].caution
    assert kinds["absorption_rate"].value is None
    assert "no parents" in kinds["absorption_rate"].caution


def test_a_child_that_took_its_parents_place_is_absorbed(truth, f):
    b = truth.atoms
    atoms, z = b.clone(), f.clone()
    # Ten children's latents write their parent too, whose own latent is silent then.
    taken = range(24, 34)
    for child in taken:
        atoms[child] = b[child] + b[child - 24]
        z[:, child - 24] *= 1 - f[:, child]
    kinds = judged(truth, f, atoms, z, parents=Families.parents)
    assert kinds["absorbed_children"].value == pytest.approx(10 / 24)
    assert kinds["absorbed_children"].chance == 0
    events = f[:, 24:].sum()
    assert kinds["absorption_rate"].value == pytest.approx(float(f[:, 24:34].sum() / events))
    assert kinds["absorption_rate"].low < kinds["absorption_rate"].value < kinds["absorption_rate"].high
    assert kinds["absorption_rate"].chance == 0
    assert kinds.absorbs.nonzero()[:, 0].tolist() == list(taken)
    assert [kinds.kind[child] for child in taken] == ["composite"] * 10


def test_a_parent_that_is_silent_for_no_reason_is_chance_not_absorption(truth, f):
    b = truth.atoms
    atoms = b.clone()
    atoms[24:] = b[24:] + b[:24]
    z = f.clone()
    z[:, :24] *= torch.rand(ROWS, 24, generator=torch.Generator().manual_seed(5)) < 0.3
    kinds = judged(truth, f, atoms, z, parents=Families.parents)
    rate = kinds["absorption_rate"]
    assert rate.value == pytest.approx(0.7, abs=0.03)
    assert rate.chance == pytest.approx(rate.value, abs=0.03)
    assert kinds["absorbed_children"].value == 0


def test_leaning_without_silence_and_silence_without_leaning_are_not_absorption(truth, f):
    b = truth.atoms
    leaning = b.clone()
    leaning[24:] = b[24:] + b[:24]
    silent = f.clone()
    silent[:, :24] *= 1 - f[:, 24:]
    for atoms, z in ((leaning, f), (b, silent)):
        kinds = judged(truth, f, atoms, z, parents=Families.parents)
        assert kinds["absorption_rate"].value == kinds["absorbed_children"].value == 0


def test_a_parent_without_a_latent_cannot_be_absorbed(truth, f):
    kinds = judged(truth, f, truth.atoms[24:], f[:, 24:], parents=Families.parents)
    assert kinds["absorption_rate"].value is None
    assert "no parent has a latent of its own" in kinds["absorption_rate"].caution


def test_a_latent_that_covers_for_a_missed_feature_that_goes_with_its_own_hedges(truth, f):
    b = truth.atoms
    # Children 24 to 33 are missed; the latents of ten parents lean towards them, five as far away from them, and five
    # towards a child of another.
    atoms = torch.cat([b[:24], b[34:]])
    atoms[:10] += 0.4 * b[24:34]
    atoms[10:15] -= 0.4 * b[24:29]
    atoms[15:20] += 0.4 * b[24:29]
    z = torch.cat([f[:, :24], f[:, 34:]], 1)
    kinds = judged(truth, f, atoms, z)
    assert kinds.hedges.nonzero()[:, 0].tolist() == list(range(10))
    assert kinds["hedged_latents"].value == pytest.approx(10 / 38)
    assert kinds["hedged_latents"].chance == 0
    away = judged(truth, f, torch.cat([b[:24] - 0.4 * b[24:], b[34:]]), z)
    assert away["hedged_latents"].value == 0
    assert away["hedged_latents"].chance == pytest.approx(10 / 38)


def test_random_directions_are_composite_as_often_as_chance_says():
    world = exactly_k(n=24, d=6, k=2)
    batches = [next(world.batches(512, seed=1))]
    generator = torch.Generator().manual_seed(11)
    W = Dictionary(torch.randn(300, 6, generator=generator))
    kinds = latent_kinds(Known(W, torch.ones(512, 300)), batches, world.dictionary, draws=10)
    composite, chance = kinds["composite_latents"], kinds["composite_latents"].chance
    assert 0.05 < chance < 0.95
    # Of each kind the first that fits: a duplicate counts there, so the share can only be a little below.
    duplicates = kinds["duplicate_latents"].value
    assert chance - duplicates - 0.08 < composite.value < chance + 0.08


def test_a_dictionary_without_a_living_latent(truth, f):
    kinds = judged(truth, f, truth.atoms, 0 * f, parents=Families.parents)
    assert set(kinds.kind) == {"dead"}
    assert kinds["dead_latents"].value == 1
    assert kinds["absorption_rate"].value == 0


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"threshold": 1.0}, ValueError, "threshold must be in"),
        ({"lean": 0.0}, ValueError, "lean must be in"),
        ({"parents": torch.zeros(3, dtype=torch.int64)}, ShapeError, "got 3 numbers"),
        ({"parents": torch.full((N,), N)}, ShapeError, f"up to {N}"),
        ({"parents": torch.arange(N)}, ShapeError, "another of the"),
    ],
)
def test_bad_input_is_a_sentence(truth, f, options, error, sentence):
    with pytest.raises(error, match=sentence):
        judged(truth, f, truth.atoms, f, **options)


def test_rows_without_their_code_are_refused(truth, f):
    with pytest.raises(ValueError, match="do not carry their true code"):
        latent_kinds(Known(truth, f), [Activations(truth.compose(f))], truth)
