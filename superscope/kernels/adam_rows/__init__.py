"""Adam on the atoms that a batch used, straight from the uses; those it did not use move by their moments, as ever."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..bags import composed
from ..bags.composed import Plan
from ..choice import compiles, on_gpu

# Bytes of a block of atoms: its numbers, moments and gradient stay in the second cache from the first pass to the last.
_CPU_BYTES = 2**18


@torch.no_grad()
def adam_rows(
    parameter: Float[Tensor, "n d"],
    mean: Float[Tensor, "n d"],
    square: Float[Tensor, "n d"],
    values: Float[Tensor, "m"] | None,
    rows: Float[Tensor, "b d"] | None,
    plan: Plan | None,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    unit: bool = False,
    gradient: Float[Tensor, "n d"] | None = None,
    engine: ModuleType | None = None,
) -> None:
    r"""One Adam step with $g_i = \sum_m v_m x_{row(m)}$ over the uses m of atom i; all three change in place.

    To rounding the step that Adam makes with the dense gradient `bags.atom_sum(values, ..., rows)`: rows without uses
    have gradient 0 and are still moved by their momentum.

    Args:
        parameter: the encoder or the dictionary, contiguous, a row per atom.
        mean: Adam's first moment, contiguous.
        square: Adam's second, contiguous.
        values: v of each use, in order of row; None with rows and plan where no use is to be summed.
        rows: x (less its bias) for the encoder, the reconstruction's gradient for the dictionary.
        plan: the uses in order of atom.
        step: steps done, this one included: 1 at first.
        lr: learning rate.
        betas: of the moments.
        eps: added to the root.
        unit: rows of norm 1: the gradient's part along the row is taken out before, the norm restored after.
        gradient: what else is in g, dense; None is nothing.
        engine: the module whose version runs; None chooses by device, by size and by what is installed.

    Raises:
        ValueError: if parameter or a moment is not contiguous, or step is smaller than 1.

    Source:
        Kingma and Ba, "Adam: a method for stochastic optimization", 2015 (algorithm 1).
    """
    if step < 1:
        raise ValueError(f"adam_rows: step counts from 1; got {step}.")
    for name, tensor in (("parameter", parameter), ("mean", mean), ("square", square)):
        if not tensor.is_contiguous():
            raise ValueError(f"adam_rows: {name} must be contiguous, since it is changed in place row by row.")
    settings: dict[str, Any] = {"step": step, "lr": lr, "betas": betas, "eps": eps, "unit": unit}
    uses = None if values is None or rows is None or plan is None else (values, rows, plan)
    chosen: Any = version(parameter) if engine is None and uses is not None else engine
    if chosen is not None and uses is not None:
        chosen.adam_rows(parameter, mean, square, *uses, **settings, gradient=gradient)
        # Who keeps something made of the parameter goes by torch's count of changes, which saw none of this.
        parameter[:0].zero_()
        return
    size = len(parameter) if parameter.is_cuda else max(_CPU_BYTES // max(parameter[:1].nbytes, 1), 1)
    starts = [] if uses is None else [*uses[2].starts[:-1:size].tolist(), len(uses[2].order)]
    for number, first in enumerate(range(0, len(parameter), size)):
        past = min(first + size, len(parameter))
        g = None if gradient is None else gradient[first:past]
        if uses is not None:
            part = composed.atom_sum(*uses[:2], uses[2].part(first, past, starts[number], starts[number + 1]))
            g = part if g is None else part.add_(g)
        elif g is None:
            g = torch.zeros_like(parameter[first:past])
        else:
            g = g.clone()
        _dense(parameter[first:past], mean[first:past], square[first:past], g, **settings)


def version(parameter: Float[Tensor, "n d"]) -> ModuleType | None:
    """The module whose version is the one for a parameter, or for the spans of rows that it is stepped in."""
    found: Any = None
    if on_gpu(parameter):
        from . import triton as found
    elif compiles(parameter):
        from . import compiled as found
    return found


def _dense(
    parameter: Tensor,
    mean: Tensor,
    square: Tensor,
    g: Tensor,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    unit: bool,
) -> None:
    """The step from a gradient that may be overwritten."""
    if unit:
        g.addcmul_(parameter, torch.linalg.vecdot(g, parameter)[:, None], value=-1)
    first, second = betas
    mean.lerp_(g, 1 - first)
    square.mul_(second).addcmul_(g, g, value=1 - second)
    # The gradient's own memory takes the denominator.
    torch.mul(square, 1 / (1 - second**step), out=g).sqrt_().add_(eps)
    parameter.addcdiv_(mean, g, value=-lr / (1 - first**step))
    if unit:
        norms = torch.linalg.vector_norm(parameter, dim=1, keepdim=True)
        parameter.div_(norms.where(norms > 0, 1.0))


__all__ = ["adam_rows", "version"]
