"""Evaluations on dictionaries whose answer is known, and on ones that have nothing to say."""

from __future__ import annotations

import pytest
import torch

from superscope.core import Activations, Dictionary, ShapeError, SparseCode
from superscope.measure.evaluations.contrast import contrast
from superscope.measure.evaluations.interchange import interchange
from superscope.measure.evaluations.probing import probe_absorption, sparse_probing
from superscope.measure.evaluations.recovered import divergence_recovered
from superscope.measure.manifolds.captured import captured
from superscope.recovery import NNOMP
from superscope.worlds import FAMILIES


def _named(measurements, name):
    return next(m for m in measurements if m.name == name)


def _rows(rows: int = 400, n: int = 60):
    random = torch.Generator().manual_seed(0)
    f = torch.rand(rows, n, generator=random) * (torch.rand(rows, n, generator=random) < 0.2)
    labels = torch.rand(rows, generator=random) < 0.5
    return f, labels, random


def test_a_latent_that_is_the_concept_is_found() -> None:
    f, labels, _ = _rows()
    f[:, 7] = labels * 1.0
    made = sparse_probing(SparseCode.from_dense(f), f[:, :20], labels, ks=(1, 3), shuffles=2)
    assert [m.value for m in made] == [1.0, 1.0]
    assert all(abs((m.chance or 0) - 0.5) < 0.08 for m in made)


def test_no_latent_is_found_where_there_is_none() -> None:
    # Chosen on all rows, the best of 3 000 latents would seem to know something.
    f, labels, _ = _rows(rows=120, n=3000)
    (made,) = sparse_probing(SparseCode.from_dense(f), f[:, :5], labels, ks=(5,), shuffles=2)
    assert abs((made.value or 0) - 0.5) < 0.12


def test_documents_do_not_stand_on_both_sides() -> None:
    # What tells documents apart tells their labels in known documents, and nothing in new ones.
    document = torch.arange(200) // 10
    labels = (document * 7 % 20) % 2 == 0
    code = SparseCode.from_dense(torch.nn.functional.one_hot(document, 20).double())
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    alone, together = (
        sparse_probing(code, x, labels, groups=groups, ks=(20,), shuffles=1)[0].value or 0
        for groups in (None, document)
    )
    assert alone > 0.95
    assert together < 0.7
    with pytest.raises(ValueError, match="folds need as many groups"):
        sparse_probing(code, x, labels, groups=torch.zeros(200, dtype=torch.long))
    with pytest.raises(ValueError, match="Give more rows"):
        sparse_probing(code, x, torch.zeros(200, dtype=torch.bool))


def test_absorption_is_what_was_made() -> None:
    random = torch.Generator().manual_seed(1)
    rows = 800
    labels = torch.rand(rows, generator=random) < 0.4
    special = labels & (torch.rand(rows, generator=random) < 0.25)
    W = Dictionary(torch.eye(6))
    x = 0.02 * torch.randn(rows, 6, generator=random)
    x[:, 0] += labels * 1.0
    x[:, 1] += special * 1.0
    both = Dictionary(torch.cat([torch.eye(6), torch.tensor([[1.0, 1.0, 0, 0, 0, 0]])]))
    f = torch.zeros(rows, 7)
    f[:, 0] = labels & ~special
    f[:, 6] = special * 1.0
    absorbed = probe_absorption(SparseCode.from_dense(f), x, labels, both)
    assert absorbed.value == pytest.approx(0.25, abs=0.06)
    assert (absorbed.chance or 0) < (absorbed.low or 0)
    whole = torch.stack([labels, special, *[torch.zeros_like(labels)] * 4], 1) * 1.0
    assert probe_absorption(SparseCode.from_dense(whole), x, labels, W).value == 0
    blind = probe_absorption(SparseCode.from_dense(whole), x, labels[torch.randperm(rows, generator=random)], W)
    assert blind.value is None
    assert "x itself shows it" in blind.caution


def test_contrast_of_the_same_text_is_chance_whatever_the_width() -> None:
    random = torch.Generator().manual_seed(2)

    def pairs(n: int, shift: float):
        made = []
        for _ in range(8):
            f = torch.rand(2, 40, n, generator=random) * (torch.rand(2, 40, n, generator=random) < 0.3)
            f[0, :, 0] += shift
            made.append((SparseCode.from_dense(f[0]), SparseCode.from_dense(f[1])))
        return made

    narrow, wide, told = (contrast(pairs(n, shift), permutations=10) for n, shift in ((8, 0), (400, 0), (400, 1)))
    assert (_named(wide, "contrast").value or 0) > 1.3 * (_named(narrow, "contrast").value or 0)
    for same in (narrow, wide):
        assert abs(_named(same, "contrast_excess").value or 0) < 0.05
    assert (_named(told, "contrast_excess").low or 0) > 0.3
    with pytest.raises(ValueError, match="at least 2 pairs"):
        contrast(pairs(8, 0)[:1])


def test_true_latents_exchange_their_feature_and_random_ones_do_not() -> None:
    world = FAMILIES["uniform"](n=12, d=24, l0=2)
    batch = next(world.batches(2000, seed=0))
    truth = world.truth.dictionary
    # Fewer features than dimensions: pursuit finds them all, and a linear read-out too.
    coder = NNOMP(truth, k=8)
    made = interchange(coder, batch, truth, torch.arange(12))
    cause, alone, moves = (
        _named(made, name) for name in ("interchange_cause", "interchange_isolation", "multi_concept_moves")
    )
    assert (cause.value or 0) > 0.8 > 0.3 > abs(cause.chance or 0)
    assert (alone.value or 0) == pytest.approx(alone.reference or 0, abs=0.1)
    assert (moves.value or 9) < 1.5
    none = interchange(coder, batch, truth, torch.full((12,), -1))
    assert _named(none, "interchange_cause").value == 0
    with pytest.raises(ShapeError, match="no code"):
        interchange(coder, Activations(batch.x), truth, torch.arange(12))


def test_divergence_recovered_is_arithmetic() -> None:
    share, nats = divergence_recovered(torch.tensor([1.0, 3.0]), torch.tensor([10.0, 10.0]), torch.tensor([4, 4]))
    assert share.value == pytest.approx(0.8)
    assert (nats.value, nats.reference) == (0.5, 2.5)
    nothing, _ = divergence_recovered(torch.zeros(2), torch.zeros(2), torch.tensor([4, 4]))
    assert nothing.value is None
    with pytest.raises(ShapeError, match="as many of each"):
        divergence_recovered(torch.zeros(2), torch.zeros(3), torch.tensor([4, 4]))


def test_the_true_axes_span_and_eight_directions_tile() -> None:
    world = FAMILIES["rings"](n=6, d=24, l0=1)
    atoms = world.truth.dictionary.atoms
    axes = captured(NNOMP(Dictionary(torch.cat([atoms, -atoms])), k=2), world, world.truth, batches=1, size=1000)
    angle = torch.arange(8) * torch.pi / 4
    tiles = torch.cat([angle[:, None].cos() * atoms[2 * c] + angle[:, None].sin() * atoms[2 * c + 1] for c in range(6)])
    tiled = captured(NNOMP(Dictionary(tiles), k=1), world, world.truth, batches=1, size=1000)
    for seen in (axes, tiled):
        assert _named(seen.measurements, "manifold_span").value == pytest.approx(1, abs=1e-3)
    widths = [_named(seen.measurements, "manifold_tiling").value or 0 for seen in (axes, tiled)]
    assert widths[0] == pytest.approx(0.5, abs=0.1)
    assert widths[1] < 0.3
    assert (_named(tiled.measurements, "manifold_dilution").value or 0) < -0.5
    plain = FAMILIES["uniform"](n=24, d=24, l0=2)
    with pytest.raises(ValueError, match="two dimensions or more"):
        captured(NNOMP(plain.truth.dictionary, k=2), plain, plain.truth)
