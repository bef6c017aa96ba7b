"""PCA of the inputs, as SliceGPT slices them: directions go in which inputs hardly vary."""

from __future__ import annotations

from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor

from .method import Method
from .projection import projection


@final
class PCA(Method):
    r"""$W' = W P$, P the orthogonal projector on the r leading eigenvectors of $H = \mathbb E[x x^\top]$.

    It keeps what is loud, whether or not W reads it; SVD-LLM is never worse at the matrix.

    Source:
        Ashkboos et al., "SliceGPT: compress large language models by deleting rows and columns", 2024
        (arXiv 2401.15024), which turns the residual stream into this basis and deletes the tail.
    """

    name: ClassVar[str] = "pca"
    kind: ClassVar = "low-rank"

    def change(
        self, W: Float[Tensor, "outputs inputs"], H: Float[Tensor, "inputs inputs"], amount: float | int
    ) -> Float[Tensor, "outputs inputs"]:
        return W @ projection(H, int(amount)).matrix
