"""Universal AND: every pair of sparse booleans, with fewer neurons than pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..features import Fixed, Magnitude
from .family import Family, Parameters, check_sizes
from .product import product


@dataclass(frozen=True)
class And(Family):
    r"""$h = \mathrm{ReLU}(W_1 f + b_1)$, $y' = W_2 h + b_2$, target $y_{ij} = f_i f_j$ for i < j, features 0 or 1.

    Args:
        n: booleans, at least 2; there are n(n-1)/2 outputs.
        d: neurons.

    Raises:
        ValueError: if n < 2 or d < 1.

    Source:
        Haenni et al., "Mathematical models of computation in superposition", 2024.
        Newgas, "Superposition and the universal AND problem", 2025 (the learned form).
    """

    n: int
    d: int

    name = "and"
    magnitude = Fixed(1.0)

    def __post_init__(self) -> None:
        check_sizes("And", d=self.d)
        if self.n < 2:
            raise ValueError(f"And: n must be at least 2, for a pair needs two; got {self.n}.")

    def best_known(self, importance: Sequence[float], density: float, magnitude: Magnitude) -> tuple[float | None, str]:
        r"""$\sum_{j > d} I_j p^2 (1 - p^2)$: a neuron ReLU(f_i + f_k - 1) for each pair kept, others at their mean."""
        if magnitude != self.magnitude:
            return None, ""
        both = density**2
        return sum(sorted(importance, reverse=True)[self.d :]) * both * (1 - both), "one neuron for each pair kept"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"W1": (self.n, self.d), "b1": (self.d,), "W2": (self.outputs, self.d), "b2": (self.outputs,)}

    @property
    def outputs(self) -> int:
        return self.n * (self.n - 1) // 2

    def hidden(self, parameters: Parameters, f: Float[Tensor, "e rows n"]) -> Float[Tensor, "e rows d"]:
        return torch.relu(product(f, parameters["W1"], parameters["b1"]))

    def output(self, parameters: Parameters, h: Float[Tensor, "e rows d"]) -> Float[Tensor, "e rows outputs"]:
        return product(h, parameters["W2"].mT, parameters["b2"])

    def target(self, f: Float[Tensor, "e rows n"]) -> Float[Tensor, "e rows outputs"]:
        i, j = torch.triu_indices(self.n, self.n, 1)
        return f[..., i] * f[..., j]

    def atoms(self, parameters: Parameters) -> Float[Tensor, "e n d"]:
        return parameters["W1"]

    def activation_is_relu(self) -> bool:
        return False
