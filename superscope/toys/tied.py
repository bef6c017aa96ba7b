"""The toy model of the paper: one matrix, read and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..features import Magnitude
from .family import Family, Parameters, check_sizes, without_superposition
from .product import product


@dataclass(frozen=True)
class Tied(Family):
    r"""$f' = \mathrm{ReLU}(W^\top W f + b)$, or its linear twin $W^\top W f + b$.

    W is stored as n rows of R^d (`atoms`). There is one matrix, not two that share memory: an optimiser that steps both
    halves of an aliased pair is a different optimiser.

    Args:
        n: features.
        d: hidden dimensions.
        activation: of the output.

    Raises:
        ValueError: if a size is below 1.

    Source:
        Elhage et al., "Toy models of superposition", 2022, section "Demonstrating superposition".
    """

    n: int
    d: int
    activation: Literal["relu", "linear"] = "relu"

    name = "tied"
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {"linear": {"activation": "linear"}}

    def __post_init__(self) -> None:
        check_sizes("Tied", n=self.n, d=self.d)

    def best_known(self, importance: Sequence[float], density: float, magnitude: Magnitude) -> tuple[float | None, str]:
        best, reached_by = without_superposition(importance, density, self.d, magnitude)
        return best, "exact optimum" if reached_by and self.activation == "linear" else reached_by

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"W": (self.n, self.d), "b": (self.n,)}

    def hidden(self, parameters: Parameters, f: Float[Tensor, "e rows n"]) -> Float[Tensor, "e rows d"]:
        return product(f, parameters["W"])

    def output(self, parameters: Parameters, h: Float[Tensor, "e rows d"]) -> Float[Tensor, "e rows outputs"]:
        z = product(h, parameters["W"].mT, parameters["b"])
        return torch.relu(z) if self.activation == "relu" else z

    def atoms(self, parameters: Parameters) -> Float[Tensor, "e n d"]:
        return parameters["W"]

    def loss_gradient(
        self,
        parameters: Parameters,
        f: Float[Tensor, "e rows n"],
        importance: Float[Tensor, "e outputs"] | None,
        l1: float = 0.0,
        f_seen: Float[Tensor, "e rows n"] | None = None,
    ) -> tuple[Float[Tensor, "e"], dict[str, Tensor]]:
        if l1:
            return super().loss_gradient(parameters, f, importance, l1, f_seen)
        seen, W = f if f_seen is None else f_seen, parameters["W"]
        h = product(seen, W)
        out = product(h, W.mT, parameters["b"])
        if self.activation == "relu":
            out.relu_()
        error, loss = weighted_error(out, f, importance)
        if self.activation == "relu":
            # d ReLU: the error survives where the output is positive.
            torch.ops.aten.threshold_backward.grad_input(error, out, 0, grad_input=error)
        scale = 2 / f.shape[1]
        dW = product(error.mT, h).add_(product(seen.mT, product(error, W))).mul_(scale)
        return loss, {"W": dW, "b": error.sum(1).mul_(scale)}

    def responses(self, parameters: Parameters) -> tuple[tuple[float, Float[Tensor, "e n n"]], ...]:
        W = parameters["W"]
        return ((1.0, product(W, W.mT)),)

    def reads_linearly(self) -> bool:
        return True

    def activation_is_relu(self) -> bool:
        return self.activation == "relu"


def weighted_error(
    out: Float[Tensor, "e rows n"], target: Float[Tensor, "e rows n"], importance: Float[Tensor, "e n"] | None
) -> tuple[Float[Tensor, "e rows n"], Float[Tensor, "e"]]:
    """I (out - target), and the loss per model: the dot product of that with out - target, over rows."""
    error = out - target
    if importance is None:
        return error, _squares(error) / out.shape[1]
    weighted = error * importance[:, None]
    return weighted, (weighted * error).flatten(1).sum(1) / out.shape[1]


def _squares(error: Float[Tensor, "e rows n"]) -> Float[Tensor, "e"]:
    # A single large model is the hot case, and a dot product makes no copy.
    if len(error) == 1:
        flat = error.flatten()
        return torch.dot(flat, flat)[None]
    return error.flatten(1).square().sum(1)
