"""The training loop belongs to the caller."""

from __future__ import annotations

import pytest
import torch

from superscope.core import descend


def quadratic(start: float = 4.0) -> tuple[torch.Tensor, torch.optim.Optimizer]:
    theta = torch.tensor(start, requires_grad=True)
    return theta, torch.optim.SGD([theta], lr=0.25)


def test_gradient_descent_on_a_parabola_has_its_closed_form() -> None:
    theta, optimizer = quadratic()
    steps = list(descend(lambda: (theta**2, {"twice": float(2 * theta.detach())}), optimizer, steps=5))
    assert [step.index for step in steps] == [1, 2, 3, 4, 5]
    assert steps[0].loss == 16.0
    assert steps[1].numbers["twice"] == 4.0
    assert theta.item() == 4.0 * 0.5**5


def test_schedule_scales_the_peak_and_start_resumes() -> None:
    theta, optimizer = quadratic()
    list(descend(lambda: (theta**2, {}), optimizer, steps=4, start=2, schedule=lambda index: float(index == 3)))
    assert theta.item() == 2.0


def test_a_loss_that_is_not_finite_stops_before_the_step() -> None:
    theta, optimizer = quadratic()
    loop = descend(lambda: (theta * float("nan"), {}), optimizer, steps=3)
    with pytest.raises(FloatingPointError, match="loss became nan at step 1. Lower the learning rate"):
        next(loop)
    assert theta.item() == 4.0


def test_negative_steps() -> None:
    theta, optimizer = quadratic()
    with pytest.raises(ValueError, match="steps must be at least 0; got -1"):
        next(descend(lambda: (theta**2, {}), optimizer, steps=-1))
