"""Compressed computation beside a residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..features import Magnitude, Uniform
from .family import Family, Parameters, check_sizes
from .product import product


@dataclass(frozen=True)
class ResidualMLP(Family):
    r"""$r = E f$, $y' = E^\top (r + W_{out} \mathrm{ReLU}(W_{in} r))$, target $y_i = f_i + \mathrm{ReLU}(f_i)$; E
    fixed, unit rows.

    With E the identity (width = n) the residual stream carries f exactly and only the ReLUs must be shared. Whether
    this is computation in superposition is disputed: noise between features (E not orthogonal) explains much of the
    gain.

    Args:
        n: features, in [-1, 1].
        d: neurons.
        width: of the residual stream; None for n with E the identity.
        embedding_seed: E's random rows, if width is given.

    Raises:
        ValueError: if a size is below 1.

    Source:
        Braun et al., "Interpretability in parameter space", 2025.
        Bhagat et al., "Compressed computation is (probably) not computation in superposition", 2025.
    """

    n: int
    d: int
    width: int | None = None
    embedding_seed: int = 0

    name = "residual-mlp"
    magnitude = Uniform(-1.0, 1.0)

    def __post_init__(self) -> None:
        check_sizes("ResidualMLP", n=self.n, d=self.d, width=1 if self.width is None else self.width)

    @property
    def stream(self) -> int:
        """Width of the residual stream."""
        return self.n if self.width is None else self.width

    def embedding(self) -> Float[Tensor, "n width"]:
        """E, one unit row per feature; not trained."""
        if self.width is None:
            return torch.eye(self.n)
        rows = torch.randn(self.n, self.width, generator=torch.Generator().manual_seed(self.embedding_seed))
        return rows / rows.norm(dim=1, keepdim=True)

    def best_known(self, importance: Sequence[float], density: float, magnitude: Magnitude) -> tuple[float | None, str]:
        """As `theory.toy_loss.naive_computation_loss`, with importance; known where E is the identity."""
        if magnitude != self.magnitude or self.width is not None:
            return None, ""
        # E ReLU(f)^2 = p / 6 for f uniform on [-1, 1].
        return sum(sorted(importance, reverse=True)[self.d :]) * density / 6, "one neuron for each ReLU kept"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"W_in": (self.stream, self.d), "W_out": (self.d, self.stream)}

    def hidden(self, parameters: Parameters, f: Float[Tensor, "e rows n"]) -> Float[Tensor, "e rows d"]:
        return torch.relu(product(self._embedded(f), parameters["W_in"]))

    def output(self, parameters: Parameters, h: Float[Tensor, "e rows d"]) -> Float[Tensor, "e rows outputs"]:
        return self._read(product(h, parameters["W_out"]))

    def forward(self, parameters: Parameters, f: Float[Tensor, "e rows n"]) -> Float[Tensor, "e rows outputs"]:
        return self._read(self._embedded(f)) + super().forward(parameters, f)

    def _embedded(self, f: Float[Tensor, "e rows n"]) -> Float[Tensor, "e rows width"]:
        return product(f, self.embedding().to(f).expand(len(f), -1, -1))

    def _read(self, r: Float[Tensor, "e rows width"]) -> Float[Tensor, "e rows n"]:
        return product(r, self.embedding().to(r).T.expand(len(r), -1, -1))

    def target(self, f: Float[Tensor, "e rows n"]) -> Float[Tensor, "e rows outputs"]:
        return f + torch.relu(f)

    def atoms(self, parameters: Parameters) -> Float[Tensor, "e n d"]:
        return self.embedding().to(parameters["W_in"]) @ parameters["W_in"]

    def activation_is_relu(self) -> bool:
        return False
