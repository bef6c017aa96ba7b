"""Wanda: weights go that are small for the inputs they see."""

from __future__ import annotations

from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor

from .method import Method, without_smallest


@final
class Wanda(Method):
    r"""Score $|W_{ij}| \, \|X_j\|_2$, ranked within each output row: $\|X_j\|_2 \propto \sqrt{H_{jj}}$.

    Within a row this is what the output loses, $\mathbb E[(W_{ij} x_j)^2]$, if inputs are uncorrelated.

    Source:
        Sun et al., "A simple and effective pruning approach for large language models", 2023 (arXiv 2306.11695).
    """

    name: ClassVar[str] = "wanda"
    kind: ClassVar = "sparse"

    def change(
        self, W: Float[Tensor, "outputs inputs"], H: Float[Tensor, "inputs inputs"], amount: float | int
    ) -> Float[Tensor, "outputs inputs"]:
        return without_smallest(W, W.abs() * H.diagonal().clamp(min=0).sqrt(), amount)
