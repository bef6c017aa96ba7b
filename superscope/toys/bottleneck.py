"""A ReLU in the hidden layer, which gives it a privileged basis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..features import Magnitude
from .family import Family, Parameters, check_sizes, without_superposition
from .product import product


@dataclass(frozen=True)
class ReLUHidden(Family):
    r"""$h = \mathrm{ReLU}(W f)$, $f' = \mathrm{ReLU}(W^\top h + b)$: neurons instead of directions.

    Args:
        n: features.
        d: neurons.
        hidden_bias: whether neurons have a bias. With one, the model makes it positive and so undoes the ReLU.

    Raises:
        ValueError: if a size is below 1.

    Source:
        Elhage et al., "Toy models of superposition", 2022, section "Superposition in a privileged basis".
    """

    n: int
    d: int
    hidden_bias: bool = False

    name = "relu-hidden"

    def __post_init__(self) -> None:
        check_sizes("ReLUHidden", n=self.n, d=self.d)

    def best_known(self, importance: Sequence[float], density: float, magnitude: Magnitude) -> tuple[float | None, str]:
        return without_superposition(importance, density, self.d, magnitude)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"W": (self.n, self.d), "b": (self.n,)} | ({"b_hidden": (self.d,)} if self.hidden_bias else {})

    def hidden(self, parameters: Parameters, f: Float[Tensor, "e rows n"]) -> Float[Tensor, "e rows d"]:
        pre = product(f, parameters["W"])
        return torch.relu(pre + parameters["b_hidden"][:, None] if self.hidden_bias else pre)

    def output(self, parameters: Parameters, h: Float[Tensor, "e rows d"]) -> Float[Tensor, "e rows outputs"]:
        return torch.relu(product(h, parameters["W"].mT, parameters["b"]))

    def atoms(self, parameters: Parameters) -> Float[Tensor, "e n d"]:
        return parameters["W"]

    def responses(self, parameters: Parameters) -> tuple[tuple[float, Float[Tensor, "e n n"]], ...]:
        if self.hidden_bias:
            return super().responses(parameters)
        # One feature x > 0: ReLU(W_i x) = x ReLU(W_i).
        W = parameters["W"]
        return ((1.0, product(W, torch.relu(W).mT)),)
