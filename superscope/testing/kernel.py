"""A kernel against the slow one: values, and gradients through every output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .law import LawBroken, require, same


def check_kernel(
    kernel: Callable[..., Any],
    reference: Callable[..., Any],
    *cases: Sequence[Any],
    tolerance: float = 1e-5,
    seed: int = 0,
) -> int:
    """Holds a kernel to its reference: every output's value, and its gradient to every floating-point input.

    Outputs are taken one at a time, each with a random direction to descend from, so that one whose gradient is lost
    cannot hide behind the others. Inputs must be left as they were.

    Args:
        kernel: what is judged.
        reference: what judges it, differentiable.
        cases: argument lists: ragged and empty rows, k = 1, k = n, ties, zeros, every dtype.
        tolerance: share of the largest entry of the reference's value or gradient.
        seed: of the directions.

    Returns:
        The number of comparisons made.

    Raises:
        LawBroken: naming the case, the output and the argument.
    """
    made = 0
    for number, case in enumerate(cases):
        try:
            made += _check_case(kernel, reference, case, tolerance, seed)
        except LawBroken as broken:
            name = getattr(kernel, "__name__", repr(kernel))
            raise LawBroken(f"{name} departs from its reference in case {number}: {broken}") from broken
    return made


def _outputs(found: Any) -> list[Tensor]:
    return [found] if isinstance(found, Tensor) else [part for part in found if isinstance(part, Tensor)]


def _check_case(
    kernel: Callable[..., Any], reference: Callable[..., Any], case: Sequence[Any], tolerance: float, seed: int
) -> int:
    def run(function: Callable[..., Any]) -> tuple[list[Any], list[Tensor]]:
        given = [a.detach().clone() if isinstance(a, Tensor) else a for a in case]
        for a in given:
            if isinstance(a, Tensor) and a.is_floating_point():
                a.requires_grad_()
        found = _outputs(function(*given))
        for index, (now, then) in enumerate(zip(given, case, strict=True)):
            if isinstance(then, Tensor):
                same(now.detach(), then, f"argument {index}, which is not to be changed,")
        return given, found

    inputs, found = run(kernel)
    right_inputs, right = run(reference)
    require(len(found) == len(right), f"it has {len(found)} outputs, the reference {len(right)}.")
    generator = torch.Generator().manual_seed(seed)
    made = 0
    for index, (mine, wanted) in enumerate(zip(found, right, strict=True)):
        require(mine.dtype == wanted.dtype, f"output {index} is {mine.dtype}, the reference's {wanted.dtype}.")
        same(mine, wanted, f"output {index}", tolerance=tolerance if wanted.is_floating_point() else 0.0)
        made += 1
        if not wanted.requires_grad:
            continue
        require(mine.requires_grad, f"output {index} carries no gradient, the reference's does.")
        direction = torch.randn(wanted.shape, generator=generator).to(wanted)
        places = [p for p, a in enumerate(right_inputs) if isinstance(a, Tensor) and a.requires_grad]
        grads = [
            torch.autograd.grad(out, [given[p] for p in places], direction, retain_graph=True, allow_unused=True)
            for out, given in ((mine, inputs), (wanted, right_inputs))
        ]
        for place, ours, theirs in zip(places, *grads, strict=True):
            zero = torch.zeros_like(right_inputs[place])
            same(
                zero if ours is None else ours,
                zero if theirs is None else theirs,
                f"the gradient of output {index} to argument {place}",
                tolerance=tolerance,
            )
            made += 1
    return made
