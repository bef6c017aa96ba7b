"""The slow, obvious form that judges the others: the dense gradient, then the textbook's Adam."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ..bags.composed import Plan


def adam_rows(
    parameter: Float[Tensor, "n d"],
    mean: Float[Tensor, "n d"],
    square: Float[Tensor, "n d"],
    values: Float[Tensor, "m"],
    rows: Float[Tensor, "b d"],
    plan: Plan,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    unit: bool = False,
    gradient: Float[Tensor, "n d"] | None = None,
) -> None:
    """Changes parameter, mean and square in place. Holds (n, d) and (m, d)."""
    counts = plan.starts.diff()
    used = counts.new_tensor(range(len(counts))).repeat_interleave(counts)
    g = parameter.new_zeros(parameter.shape).index_add(0, used, values[plan.order][:, None] * rows[plan.rows])
    if gradient is not None:
        g = g + gradient
    if unit:
        g -= (g * parameter).sum(1, keepdim=True) * parameter
    first, second = betas
    mean.copy_(first * mean + (1 - first) * g)
    square.copy_(second * square + (1 - second) * g.square())
    root = (square / (1 - second**step)).sqrt()
    parameter.sub_(lr * (mean / (1 - first**step)) / (root + eps))
    if unit:
        norms = parameter.norm(dim=1, keepdim=True)
        parameter.div_(norms.where(norms > 0, 1.0))
