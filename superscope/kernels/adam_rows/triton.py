"""Gradient, projection, Adam and norm of one atom in one program: no gradient reaches memory.

A dense step writes and reads n x d gradients besides the 24 bytes per number that parameters and moments cost, and
passes over the dictionary again to project and to normalise.
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from ..bags.composed import Plan
from ..bags.triton import wide


@triton.jit
@no_type_check
def _step(
    parameter,
    mean,
    square,
    weights,
    picks,
    order,
    starts,
    rows,
    more,
    scalars,
    d,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    UNIT: tl.constexpr,
    MORE: tl.constexpr,
):
    atom = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    here = at < d
    g = tl.zeros((BLOCK,), WIDE)
    for use in range(tl.load(starts + atom), tl.load(starts + atom + 1)):
        weight = tl.load(weights + tl.load(order + use)).to(WIDE)
        pick = tl.load(picks + use).to(tl.int64)
        g += weight * tl.load(rows + pick * d + at, mask=here, other=0.0).to(WIDE)
    at += atom * d
    if MORE:
        g += tl.load(more + at, mask=here, other=0.0).to(WIDE)
    w = tl.load(parameter + at, mask=here, other=0.0).to(WIDE)
    if UNIT:
        g -= tl.sum(g * w, 0) * w
    first, second = tl.load(scalars), tl.load(scalars + 1)
    m = first * tl.load(mean + at, mask=here, other=0.0).to(WIDE)
    m += tl.load(scalars + 2) * g
    s = second * tl.load(square + at, mask=here, other=0.0).to(WIDE)
    s += tl.load(scalars + 3) * g * g
    w -= tl.load(scalars + 4) * m / (tl.sqrt(s * tl.load(scalars + 5)) + tl.load(scalars + 6))
    if UNIT:
        norm = tl.sqrt(tl.sum(w * w, 0))
        w = w / tl.where(norm > 0, norm, 1.0)
    tl.store(parameter + at, w.to(parameter.dtype.element_ty), mask=here)
    tl.store(mean + at, m.to(mean.dtype.element_ty), mask=here)
    tl.store(square + at, s.to(square.dtype.element_ty), mask=here)


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
    """As the reference. An atom's numbers are held in registers at once, so d is at most a few thousand."""
    n, d = parameter.shape
    first, second = betas
    # A tensor, since Triton would compile anew for each step's numbers or round them to float32.
    scalars = square.new_tensor(
        [first, second, 1 - first, 1 - second, lr / (1 - first**step), 1 / (1 - second**step), eps]
    )
    if n and d:
        _step[(n,)](
            parameter,
            mean,
            square,
            values.contiguous(),
            plan.rows,
            plan.order,
            plan.starts,
            rows.contiguous(),
            parameter if gradient is None else gradient.contiguous(),
            scalars,
            d,
            WIDE=wide(parameter.dtype),
            BLOCK=triton.next_power_of_2(max(d, 16)),
            UNIT=unit,
            MORE=gradient is not None,
        )
