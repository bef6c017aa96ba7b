"""Training models of the pocket architecture: optimizer and schedule obey their formulas, and it learns."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from superscope.capture.pocket import training
from superscope.capture.pocket.weights import fresh


@pytest.mark.parametrize("shape", [(24, 24), (16, 48), (48, 16)])
def test_orthogonal_keeps_directions_and_levels_lengths(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 0.5
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    found = torch.diagonal(u.T @ training.orthogonal(matrix) @ v.T)
    large = s > 0.1 * s.max()
    assert large.sum() >= 8
    assert found[large].min() > 0.6
    assert found[large].max() < 1.3


def test_muon_steps_as_torch_does() -> None:
    generator = torch.Generator().manual_seed(0)
    start, gradients = torch.randn(32, 64, generator=generator), torch.randn(3, 32, 64, generator=generator)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    optimizers = (
        training.Muon([ours], lr=0.02, weight_decay=0.1, pool=ThreadPoolExecutor(1)),
        torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
    )
    for gradient in gradients:
        for weight, optimizer in zip((ours, theirs), optimizers):
            weight.grad = gradient.clone()
            optimizer.step()
    moved, reference = (ours - start).detach(), (theirs - start).detach()
    # Theirs rounds to bfloat16 inside, eight bits of it.
    assert torch.linalg.norm(moved - reference) < 0.02 * torch.linalg.norm(reference)


def test_the_rate_rises_stays_and_falls_to_zero() -> None:
    rates = [training.rate(step, step / 100, warmup_steps=10) for step in range(101)]
    assert rates[:10] == pytest.approx([i / 10 for i in range(1, 11)])
    assert set(rates[10:51]) == {1.0}
    assert rates[75] == pytest.approx(0.5)
    assert rates[100] == 0


def test_it_learns_what_follows_what_and_nothing_of_noise() -> None:
    config = training.architecture(vocabulary=8, context=16, d=16, layers=1, heads=2)
    random = torch.Generator().manual_seed(0)
    noise = torch.randint(8, (512, 16), generator=random)
    # Each token is the one before it plus one, from a first one at random.
    turning = (noise[:, :1] + torch.arange(16)) % 8
    losses = {}
    for name, ids in (("noise", noise), ("turning", turning)):
        model = fresh(config, seed=0)
        *_, (step, steps, losses[name]) = training.train(model, ids, torch.ones_like(ids).bool(), passes=3, rows=16)
        assert (step, steps) == (96, 96)
        assert not model.training
    assert losses["turning"] < 0.5 * math.log(8)
    assert losses["noise"] == pytest.approx(math.log(8), abs=0.1)


def test_tokens_that_are_no_targets_teach_nothing() -> None:
    config = training.architecture(vocabulary=8, context=6, d=8, layers=1, heads=1)
    ids = torch.randint(8, (4, 6), generator=torch.Generator().manual_seed(1))
    targets = torch.zeros_like(ids).bool()
    targets[:, 2] = True
    other = ids.clone()
    other[:, 3:] = 0
    models = [fresh(config, seed=0) for _ in range(2)]
    for model, given in zip(models, (ids, other), strict=True):
        list(training.train(model, given, targets, rows=2))
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(ValueError, match="no window of text"):
        next(training.train(models[0], ids[:0], targets[:0]))
