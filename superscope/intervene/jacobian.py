"""How far do a network's outputs move with x? The metric that squared changes of its outputs put on x."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Float64
from torch import Tensor


def pullback_metric(
    network: Callable[[Tensor], Tensor], x: Float[Tensor, "rows d"], *, draws: int = 8, seed: int = 0
) -> Float64[Tensor, "d d"]:
    r"""$F = \mathbb E[J^\top J]$, J the Jacobian of the outputs: their Fisher where they are means of Gaussians.

    $\delta^\top F \delta$ is the squared change of the outputs, to first order. Made of $J^\top \epsilon$ with
    $\epsilon$ normal, each draw one pass backward.

    Args:
        network: from rows of x to rows of outputs.
        x: rows to average over.
        draws: of epsilon.
        seed: of epsilon.

    Raises:
        ValueError: if there is no row, or the outputs do not depend on x.
    """
    if not len(x):
        raise ValueError("pullback_metric: there are no rows; give at least one.")
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        out = network(x)
        for draw in range(draws):
            noise = torch.randn(out.shape, generator=generator).to(out)
            (s,) = torch.autograd.grad((out * noise).sum(), x, retain_graph=draw + 1 < draws, allow_unused=True)
            if s is not None:
                total += (s.double().T @ s.double()).cpu()
    if not float(total.diagonal().sum()) > 0:
        raise ValueError("pullback_metric: the outputs do not depend on x; give another network or other rows.")
    return total / (len(x) * draws)
