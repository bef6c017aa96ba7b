"""The one training loop: a generator of Steps, so that the loop belongs to the caller."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """What one step of descent found.

    Args:
        index: steps done, this one included.
        loss: the objective on this step's batch, before the step.
        numbers: anything else the objective reported, by name.
    """

    index: int
    loss: float
    numbers: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class Optimizer(Protocol):
    """What torch's optimisers are, as far as descending needs it."""

    param_groups: list[dict[str, Any]]

    def zero_grad(self, set_to_none: bool = True) -> None: ...

    def step(self) -> object: ...


def descend(
    objective: Callable[[], tuple[Tensor, Mapping[str, float]]],
    optimizer: Optimizer,
    *,
    steps: int,
    start: int = 0,
    schedule: Callable[[int], float] = lambda index: 1.0,
    before: Callable[[], None] = lambda: None,
    after: Callable[[], None] = lambda: None,
) -> Iterator[Step]:
    """theta <- theta - eta_t * direction(grad objective), yielding a Step after each.

    Args:
        objective: draws its own batch; returns a scalar loss and further numbers to report.
        optimizer: its learning rates at entry are the peak; `schedule` scales them.
        steps: the index of the last step.
        start: steps already done (a resumed run).
        schedule: factor on the learning rates at a step index.
        before: called between the backward pass and the step (gradient projections, clipping).
        after: called after the step (constraints on the weights).

    Raises:
        ValueError: if steps is negative.
        FloatingPointError: if the loss is not finite; parameters are then those before the step.
    """
    if steps < 0:
        raise ValueError(f"descend: steps must be at least 0; got {steps}.")
    peaks = [group["lr"] for group in optimizer.param_groups]
    for index in range(start, steps):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * schedule(index)
        optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            loss, numbers = objective()
            value = float(loss.detach())
            if not torch.isfinite(loss.detach()):
                raise FloatingPointError(
                    f"loss became {value} at step {index + 1}. Lower the learning rate or look at the data."
                )
            loss.backward()
        before()
        optimizer.step()
        after()
        yield Step(index + 1, value, numbers)
