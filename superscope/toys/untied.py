"""Two matrices: one writes, the other reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..features import Magnitude
from .family import Family, Parameters, check_sizes, without_superposition
from .product import product
from .tied import weighted_error


@dataclass(frozen=True)
class Untied(Family):
    r"""$f' = W_2 W_1 f + b$, or $\mathrm{ReLU}(W_2 W_1 f + b)$.

    Both matrices are stored as n rows of R^d: `W1` writes, `W2` reads.

    Args:
        n: features.
        d: hidden dimensions.
        activation: of the output.
        bias: whether the output has one.

    Raises:
        ValueError: if a size is below 1.
    """

    n: int
    d: int
    activation: Literal["relu", "linear"] = "relu"
    bias: bool = True

    name = "untied"

    def __post_init__(self) -> None:
        check_sizes("Untied", n=self.n, d=self.d)

    def best_known(self, importance: Sequence[float], density: float, magnitude: Magnitude) -> tuple[float | None, str]:
        return without_superposition(importance, density, self.d, magnitude)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"W1": (self.n, self.d), "W2": (self.n, self.d)} | ({"b": (self.n,)} if self.bias else {})

    def hidden(self, parameters: Parameters, f: Float[Tensor, "e rows n"]) -> Float[Tensor, "e rows d"]:
        return product(f, parameters["W1"])

    def output(self, parameters: Parameters, h: Float[Tensor, "e rows d"]) -> Float[Tensor, "e rows outputs"]:
        z = product(h, parameters["W2"].mT, parameters["b"] if self.bias else None)
        return torch.relu(z) if self.activation == "relu" else z

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
        if l1:
            return super().loss_gradient(parameters, f, importance, l1, f_seen)
        seen = f if f_seen is None else f_seen
        h = product(seen, parameters["W1"])
        out = self.output(parameters, h)
        error, loss = weighted_error(out, f, importance)
        if self.activation == "relu":
            error = torch.ops.aten.threshold_backward(error, out, 0)
        scale = 2 / f.shape[1]
        gradient = {
            "W1": product(seen.mT, product(error, parameters["W2"])).mul_(scale),
            "W2": product(error.mT, h).mul_(scale),
        }
        if self.bias:
            gradient["b"] = error.sum(1).mul_(scale)
        return loss, gradient

    def responses(self, parameters: Parameters) -> tuple[tuple[float, Float[Tensor, "e n n"]], ...]:
        return ((1.0, product(parameters["W2"], parameters["W1"].mT)),)

    def reads_linearly(self) -> bool:
        return True

    def activation_is_relu(self) -> bool:
        return self.activation == "relu"
