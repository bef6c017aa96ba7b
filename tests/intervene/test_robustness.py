"""Moves are what they are called, and what they do is counted where it can be seen."""

from __future__ import annotations

import pytest
import torch

from superscope.capture import Capture, Corpus, Subject, as_corpus, blocks
from superscope.frames import random_unit
from superscope.intervene.fisher import pullback_fisher
from superscope.intervene.robustness import (
    along,
    at_random,
    between,
    damage,
    interference_gain,
    last_logits,
    through_interference,
)


def test_moves_have_length_one_and_lie_where_they_should() -> None:
    atoms = 3 * random_unit(n=200, d=32, seed=0).atoms
    some = torch.arange(0, 200, 5)
    for moves in (along(atoms, some), between(atoms, some), through_interference(atoms, some), at_random(9, 32)):
        assert torch.allclose(moves.norm(dim=1), torch.ones(len(moves)), atol=1e-5)
    halves = (between(atoms, some) * along(atoms, some)).sum(1)
    assert torch.allclose(halves, torch.full_like(halves, 0.5**0.5), atol=0.04)


def test_through_interference_is_what_other_features_do_to_x() -> None:
    atoms = random_unit(n=50, d=8, seed=0).atoms
    G = atoms @ atoms.T - torch.eye(50)
    f = torch.nn.functional.normalize(G[7], dim=0)
    assert f[7].abs() < 1e-6
    x = f @ atoms
    (move,) = through_interference(atoms, torch.tensor([7]))
    assert torch.allclose(torch.nn.functional.normalize(x, dim=0), move, atol=1e-5)
    (gain,) = interference_gain(atoms, torch.tensor([7]))
    assert float(x @ atoms[7]) == pytest.approx(float(gain), rel=1e-5)
    # No other change of that length moves the read-out more.
    others = at_random(200, 50, seed=3)
    others[:, 7] = 0
    assert float((others / others.norm(dim=1, keepdim=True) @ atoms @ atoms[7]).max()) < float(gain)


def test_without_overlap_nothing_goes_through_interference() -> None:
    assert not through_interference(torch.eye(4), torch.arange(4)).any()
    assert not interference_gain(torch.eye(4), torch.arange(4)).any()
    with pytest.raises(ValueError, match="1 feature; a move between two wants at least 2"):
        between(torch.eye(3), torch.arange(1))
    # No two at a right angle: the nearest to it.
    atoms = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
    assert torch.allclose(between(atoms, torch.arange(3))[0], torch.tensor([2.0, 1.0]) / 5**0.5)


def test_damage_is_counted_from_the_token_on(model_of, tokenizer, corpus) -> None:
    model = model_of("llama")
    subject, site = Subject(model, tokenizer, "tiny", "causal"), blocks(model)[0]
    text = corpus.take(torch.arange(3))
    last = text.length - 1
    moves = torch.stack([torch.zeros(16), 5 * at_random(1, 16)[0]])
    found = damage(subject, site, text, last, moves)
    assert torch.equal(found[0], torch.zeros(3, dtype=torch.float64))
    for i, place in enumerate(last.tolist()):
        ids = text.ids[i, : place + 1]
        network = last_logits(subject, site, ids)
        with torch.no_grad():
            clean = model(ids[None]).logits[0, -1]
        with Capture(model, [site]) as capture:
            x = next(iter(capture(input_ids=ids[None]).values()))[0, -1]
        same, moved = network(torch.stack([x, x + moves[1]]))
        assert torch.allclose(same, clean, atol=1e-5)
        p, q = clean.double().log_softmax(0), moved.double().log_softmax(0)
        assert float(found[1, i]) == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-3)
    early = damage(subject, site, text, torch.zeros(3, dtype=torch.long), moves)
    assert bool((early[1] > 0).all())
    with pytest.raises(ValueError, match="one position inside each of the 3 windows"):
        damage(subject, site, text, text.length, moves)


def test_half_the_square_by_the_fisher_is_the_damage_of_a_small_move(model_of, tokenizer, corpus) -> None:
    model = model_of("gpt2")
    subject = Subject(model, tokenizer, "tiny", "causal")
    site = blocks(model)[0]
    text = corpus.ids[:4, :8]
    F = pullback_fisher(subject, site, text, at="one", draws=300).matrix
    moves = at_random(3, len(F), seed=1)
    windows = as_corpus(text, tokenizer=tokenizer)
    assert isinstance(windows, Corpus)
    measured = torch.stack(
        [damage(subject, site, windows, torch.full((4,), place), 0.02 * moves).mean(1) for place in range(8)]
    ).mean(0)
    predicted = 0.5 * 0.02**2 * ((moves.double() @ F) * moves.double()).sum(1)
    assert torch.allclose(predicted, measured, rtol=0.15)
