"""Gradient, projection, Adam and norm of one atom at a time while its numbers are in the first cache."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ..bags.composed import Plan
from ..loops import compiled, in_threads


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
    """As the reference."""
    first, second = betas
    # Rounded as a product with a float32 tensor would round them.
    scalars = np.array(
        [first, 1 - first, second, 1 - second, lr / (1 - first**step), 1 / (1 - second**step), eps], np.float32
    )
    table, weights, picks = rows.contiguous().numpy(), values.contiguous().numpy(), plan.rows.numpy()
    order, starts = plan.order.numpy(), plan.starts.numpy()
    more = parameter[:0] if gradient is None else gradient.contiguous()

    def work(part: slice) -> None:
        whole = (parameter[part].numpy(), mean[part].numpy(), square[part].numpy())
        given = more[part].numpy() if gradient is not None else more.numpy()
        _step(*whole, given, starts[part.start : part.stop + 1], picks, order, weights, table, scalars, unit)

    in_threads(work, len(parameter))


@compiled
def _step(
    parameter: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    more: np.ndarray,
    starts: np.ndarray,
    picks: np.ndarray,
    order: np.ndarray,
    weights: np.ndarray,
    table: np.ndarray,
    scalars: np.ndarray,
    unit: bool,
) -> None:
    n, d = parameter.shape
    g = np.empty(d, np.float32)
    first, less_first, second, less_second = scalars[0], scalars[1], scalars[2], scalars[3]
    lr, correction, eps = scalars[4], scalars[5], scalars[6]
    for i in range(n):
        w, m, s = parameter[i], mean[i], square[i]
        if more.shape[0]:
            for j in range(d):
                g[j] = more[i, j]
        else:
            for j in range(d):
                g[j] = 0
        for use in range(starts[i], starts[i + 1]):
            weight, row = weights[order[use]], table[picks[use]]
            for j in range(d):
                g[j] += weight * row[j]
        if unit:
            along = np.float32(0)
            for j in range(d):
                along += g[j] * w[j]
            for j in range(d):
                g[j] -= along * w[j]
        length = np.float32(0)
        for j in range(d):
            m[j] = first * m[j] + less_first * g[j]
            s[j] = second * s[j] + less_second * g[j] * g[j]
            w[j] -= lr * m[j] / (np.sqrt(s[j] * correction) + eps)
            length += w[j] * w[j]
        if unit and length > 0:
            length = np.float32(1) / np.sqrt(length)
            for j in range(d):
                w[j] *= length
