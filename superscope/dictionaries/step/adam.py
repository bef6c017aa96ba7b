"""Adam over an autoencoder's parameters, those with a row per latent in one pass over each row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...kernels import Plan, adam_rows, repeated
from ...kernels.adam_rows import version
from .sparse import Deferred, Part


class Adam:
    r"""$\theta \leftarrow \theta - \eta\, \hat m / (\sqrt{\hat v} + \epsilon)$, gradients summed as rows are stepped.

    To rounding torch's own. It takes the gradients that were left in `deferred`, those in `grad`, or the sum of both,
    and holds the rows of `unit` at norm 1: the gradient's part along a row is taken out before, the norm restored
    after. Rows stay in cache through all of that, where separate passes would read and write every weight, moment and
    gradient each time.

    Args:
        groups: "params", their "lr", "betas" and "eps", as torch's optimisers take them.
        unit: the parameter whose rows are held at norm 1, if there is one.
        steps: how many will be made in all: what compiling or loading a loop costs is shared among them.
        most: numbers that loops go through in a step elsewhere (`repeated`).

    Attributes:
        param_groups: the groups; a schedule changes their "lr".
        state: for each parameter that has been stepped "step", "exp_avg" and "exp_avg_sq", as torch's Adam names them.
        deferred: where `sparse.deferring` may leave the gradients of these parameters.

    Source:
        Kingma and Ba, "Adam: a method for stochastic optimization", 2015 (algorithm 1).
    """

    def __init__(
        self, groups: Sequence[dict[str, Any]], *, unit: Tensor | None = None, steps: int = 1, most: int = 0
    ) -> None:
        self.param_groups = [{"betas": (0.9, 0.999), "eps": 1e-8, **group} for group in groups]
        self.unit, self.steps, self.most = unit, steps, most
        self.state: defaultdict[nn.Parameter, dict[str, Tensor]] = defaultdict(dict)
        self.deferred = Deferred(p for group in self.param_groups for p in group["params"])

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients, those deferred too."""
        self.deferred.clear()
        for group in self.param_groups:
            for parameter in group["params"]:
                if set_to_none or parameter.grad is None:
                    parameter.grad = None
                else:
                    parameter.grad.zero_()

    @torch.no_grad()
    def step(self) -> None:
        """Steps every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parts = self.deferred.of(parameter)
                if parts or parameter.grad is not None:
                    self._step(parameter, parts or [], group)
                if parts:
                    # Their rows are of the batch's size, and not needed for the next parameter.
                    parts.clear()

    def _step(self, parameter: nn.Parameter, parts: list[Part], group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
        state["step"] += 1
        weights, mean, square = parameter.detach(), state["exp_avg"], state["exp_avg_sq"]
        gradient = parameter.grad
        if parameter.ndim != 2:
            # A parameter without latents is one row.
            weights, mean, square = (tensor.view(1, -1) for tensor in (weights, mean, square))
            gradient = None if gradient is None else gradient.reshape(1, -1)
        # The one for the whole: a span of few rows would be too small for it.
        with repeated(self.steps, self.most):
            engine = version(weights) if parts else None
        for first, past, own in _spans(parts, len(weights)):
            values, rows, plan = _joined(own, first, past)
            adam_rows(
                weights[first:past],
                mean[first:past],
                square[first:past],
                values,
                rows,
                plan,
                step=int(state["step"]),
                lr=group["lr"],
                betas=group["betas"],
                eps=group["eps"],
                unit=parameter is self.unit,
                gradient=None if gradient is None else gradient[first:past],
                engine=engine,
            )


def _spans(parts: list[Part], n: int) -> list[tuple[int, int, list[Part]]]:
    """The atoms that parts are about, a span at a time where spans follow each other; else all atoms at once."""
    by_span: dict[tuple[int, int], list[Part]] = defaultdict(list)
    for part in parts:
        by_span[part.first, part.first + part.chosen.n].append(part)
    spans = sorted(by_span)
    edges = [0, *(past for _, past in spans)]
    if [first for first, _ in spans] != edges[:-1] or edges[-1] != n:
        return [(0, n, parts)]
    return [(first, past, by_span[first, past]) for first, past in spans]


def _joined(parts: list[Part], first: int, past: int) -> tuple[Tensor, Tensor, Plan] | tuple[None, None, None]:
    """Several sums over uses of the atoms `first` to `past` as one: their rows below each other."""
    if not parts:
        return None, None, None
    if len(parts) == 1 and (parts[0].first, parts[0].chosen.n) == (first, past - first):
        return parts[0].values, parts[0].rows, parts[0].chosen.plan
    above = 0
    picks = []
    for part in parts:
        picks.append(part.chosen.rows + above)
        above += len(part.rows)
    columns = torch.cat([part.chosen.columns + (part.first - first) for part in parts])
    plan = Plan(columns, columns.new_zeros(1), past - first, rows=torch.cat(picks))
    return torch.cat([part.values for part in parts]), torch.cat([part.rows for part in parts]), plan


__all__ = ["Adam"]
