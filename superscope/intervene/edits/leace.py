"""What if no linear reader could tell the label from x, at the least change?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from .erasure import Erasure, covariance, roots, rows_and_labels, span_of


@dataclass(frozen=True, eq=False)
class Leace(Erasure):
    r"""$x \leftarrow x - s\, W^+ U U^\top W\,(x - \mu)$, $W = \Sigma_{xx}^{-1/2}$, U a basis of $W\Sigma_{xz}$.

    For one label it reads with $\Sigma^{-1} \sigma_{xz}$ (linear discriminant) and writes $\sigma_{xz}$ (difference of
    means). At s = 1, Cov(x, z) = 0 on the rows it was fitted to.

    Source:
        Belrose et al., "LEACE: perfect linear concept erasure in closed form", 2023. Equal to `concept-erasure` 0.2.4
        with shrinkage, tolerance and trace constraint off.
    """

    reads: ClassVar[str] = "linear discriminants of the label"

    @classmethod
    def fit(cls, x: Float[Tensor, "rows d"], z: Tensor, *, strength: float = 1.0) -> Leace:
        """From rows and their labels: numbers, or a column for each class.

        Raises:
            ShapeError, ValueError: if there is not one finite label to a row.
        """
        rows, labels = rows_and_labels("Leace.fit", x, z)
        whiten, back = roots(covariance(rows, rows))
        u = span_of(whiten @ covariance(rows, labels))
        return cls(back @ u, u.T @ whiten, rows.mean(0), strength=strength)

    def change(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        return self.erased(x)
