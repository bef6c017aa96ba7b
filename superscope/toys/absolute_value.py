"""Computation in superposition: absolute values of many features with few neurons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..features import Magnitude, Uniform
from ..theory import toy_loss
from .family import Family, Parameters, check_sizes
from .product import product
from .tied import weighted_error


@dataclass(frozen=True)
class AbsoluteValue(Family):
    r"""$h = \mathrm{ReLU}(W_1 f)$, $y' = \mathrm{ReLU}(W_2 h + b)$, target $y_i = |f_i|$, features in [-1, 1].

    `W1` and `W2` are stored as n rows of R^d, d the number of neurons.

    Args:
        n: features.
        d: neurons; 2 n of them compute every |f_i| exactly.

    Raises:
        ValueError: if a size is below 1.

    Source:
        Elhage et al., "Toy models of superposition", 2022, section "Computation in superposition".
    """

    n: int
    d: int

    name = "absolute-value"
    magnitude = Uniform(-1.0, 1.0)

    def __post_init__(self) -> None:
        check_sizes("AbsoluteValue", n=self.n, d=self.d)

    def best_known(self, importance: Sequence[float], density: float, magnitude: Magnitude) -> tuple[float | None, str]:
        if magnitude != self.magnitude:
            return None, ""
        best = toy_loss.monosemantic_absolute_loss(importance, density, self.d)
        return best, "two neurons for each feature kept"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"W1": (self.n, self.d), "W2": (self.n, self.d), "b": (self.n,)}

    def hidden(self, parameters: Parameters, f: Float[Tensor, "e rows n"]) -> Float[Tensor, "e rows d"]:
        return torch.relu(product(f, parameters["W1"]))

    def output(self, parameters: Parameters, h: Float[Tensor, "e rows d"]) -> Float[Tensor, "e rows outputs"]:
        return torch.relu(product(h, parameters["W2"].mT, parameters["b"]))

    def target(self, f: Float[Tensor, "e rows n"]) -> Float[Tensor, "e rows outputs"]:
        return f.abs()

    def atoms(self, parameters: Parameters) -> Float[Tensor, "e n d"]:
        return parameters["W1"]

    def loss_gradient(
        self,
        parameters: Parameters,
        f: Float[Tensor, "e rows n"],
        importance: Float[Tensor, "e outputs"] | None,
        l1: float = 0.0,
        f_seen: Float[Tensor, "e rows n"] | None = None,
    ) -> tuple[Float[Tensor, "e"], dict[str, Tensor]]:
        seen = f if f_seen is None else f_seen
        h = product(seen, parameters["W1"]).relu_()
        out = product(h, parameters["W2"].mT, parameters["b"]).relu_()
        error, loss = weighted_error(out, f.abs(), importance)
        error = torch.ops.aten.threshold_backward(error, out, 0)
        scale = 2 / f.shape[1]
        back = product(error, parameters["W2"]).mul_(scale)
        if l1:
            back += l1 / f.shape[1]
            loss = loss + l1 * h.flatten(1).sum(1) / f.shape[1]
        back = torch.ops.aten.threshold_backward(back, h, 0)
        return loss, {
            "W1": product(seen.mT, back),
            "W2": product(error.mT, h).mul_(scale),
            "b": error.sum(1).mul_(scale),
        }

    def responses(self, parameters: Parameters) -> tuple[tuple[float, Float[Tensor, "e n n"]], ...]:
        # |f_i| is uniform on [0, 1] on either side of 0, and each side has its own neurons.
        W1, W2 = parameters["W1"], parameters["W2"]
        return (0.5, product(W2, torch.relu(W1).mT)), (0.5, product(W2, torch.relu(-W1).mT))
