"""Magnitude pruning: small weights go."""

from __future__ import annotations

from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor

from .method import Method, without_smallest


@final
class Magnitude(Method):
    r"""Score $|W_{ij}|$, ranked within the whole matrix; it knows nothing of the inputs.

    Source:
        Han et al., "Learning both weights and connections for efficient neural networks", 2015.
    """

    name: ClassVar[str] = "magnitude"
    kind: ClassVar = "sparse"

    def change(
        self, W: Float[Tensor, "outputs inputs"], H: Float[Tensor, "inputs inputs"], amount: float | int
    ) -> Float[Tensor, "outputs inputs"]:
        return without_smallest(W, W.abs().reshape(1, -1), amount)
