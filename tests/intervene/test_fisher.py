"""The pullback Fisher is the second derivative of the KL, and is 0 where the output does not look."""

from __future__ import annotations

import pytest
import torch

from superscope.capture import Subject, as_corpus, blocks
from superscope.intervene.fisher import pullback_fisher, pullback_metric
from superscope.intervene.robustness import at_random, damage


def test_half_its_square_is_the_kl_of_a_small_move(model_of, tokenizer, corpus) -> None:
    model = model_of("gpt2")
    subject = Subject(model, tokenizer, "tiny", "causal")
    site = blocks(model)[0]
    text = corpus.ids[:4, :8]
    F = pullback_fisher(subject, site, text, draws=300)
    moves = at_random(3, len(F), seed=1)
    windows = as_corpus(text, tokenizer=tokenizer)
    measured = torch.stack(
        [damage(subject, site, windows, torch.full((4,), place), 0.02 * moves).mean(1) for place in range(8)]
    ).mean(0)
    predicted = 0.5 * 0.02**2 * ((moves.double() @ F) * moves.double()).sum(1)
    assert torch.allclose(predicted, measured, rtol=0.15)


def test_layer_norm_takes_the_mean_away(model_of, tokenizer, corpus) -> None:
    model = model_of("gpt2")
    F = pullback_fisher(Subject(model, tokenizer, "tiny", "causal"), blocks(model)[0], corpus)
    ones = torch.ones(len(F), dtype=torch.float64)
    assert float(ones @ F @ ones) < 1e-9 * float(F.trace())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_of_a_linear_network_it_is_its_gram_matrix() -> None:
    A = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    F = pullback_metric(lambda x: x @ A.T, torch.randn(400, 3), draws=30)
    assert torch.allclose(F.float(), A.T @ A, rtol=0.1, atol=0.1)


def test_refusals(model_of, tokenizer, corpus) -> None:
    model = model_of("gpt2")
    with pytest.raises(TypeError, match="is an encoder and predicts no next token"):
        pullback_fisher(Subject(model, tokenizer, "tiny", "encoder"), blocks(model)[0], corpus)
    with pytest.raises(ValueError, match="do not depend on x"):
        pullback_metric(lambda x: torch.ones(len(x), 2, requires_grad=True), torch.ones(3, 2))
    with pytest.raises(ValueError, match="no rows"):
        pullback_metric(lambda x: x, torch.ones(0, 2))
