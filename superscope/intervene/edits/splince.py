"""What if no linear reader could tell one label, and another stood out as it did?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from .erasure import Erasure, covariance, roots, rows_and_labels, span_of


@dataclass(frozen=True, eq=False)
class Splince(Erasure):
    r"""$P = W^+ V (U^\top V)^{-1} U^\top W$: Cov(Px, z) = 0 and Cov(Px, y) = Cov(x, y), at the least change.

    U is a basis of the complement of $\mathrm{col}(W\Sigma_{xz})$; V of $\mathrm{col}(W\Sigma_{xy})$ and of the
    complement of $\mathrm{col}(W\Sigma_{xz}, W\Sigma_{xy})$.

    Source:
        "SPLINCE", NeurIPS 2025 (2506.10703); the bases are derived from its two constraints.
    """

    reads: ClassVar[str] = "linear discriminants of the label that goes, aslant of the one that stays"

    @classmethod
    def fit(
        cls,
        x: Float[Tensor, "rows d"],
        z: Tensor,
        y: Tensor,
        *,
        least_angle: float | int = 1.0,
        strength: float = 1.0,
    ) -> Splince:
        """From rows, the label z that goes and the label y that stays.

        Args:
            x: rows.
            z: goes.
            y: stays.
            least_angle: degrees, in whitened space, below which y is not told from z.
            strength: of the edit.

        Raises:
            ShapeError, ValueError: if there is not one finite label to a row, or the two labels cannot be separated;
                the angle is named.
        """
        rows, goes = rows_and_labels("Splince.fit", x, z)
        _, stays = rows_and_labels("Splince.fit", x, y)
        whiten, back = roots(covariance(rows, rows))
        a, b = span_of(whiten @ covariance(rows, goes)), span_of(whiten @ covariance(rows, stays))
        if a.shape[1] and b.shape[1]:
            cosine = float(torch.linalg.svdvals(a.T @ b)[0])
            angle = float(torch.rad2deg(torch.acos(torch.tensor(min(cosine, 1.0)))))
            if angle < least_angle:
                raise ValueError(
                    f"Splince.fit: what goes and what stays lie {angle:.2f} degrees apart, within the {least_angle} "
                    "that tell them apart: taking one takes the other. Keep less, or use Leace."
                )
        # I - P = L R with kernel V and range a: R annihilates V, and is the identity on a. Since V = b + (a, b)^perp,
        # R reads in the span of a and b, across b.
        both = span_of(torch.cat([a, b], 1))
        inside = both.T @ b
        left = torch.linalg.svd(inside, full_matrices=True)[0][:, inside.shape[1] :]
        across = both @ left
        right = torch.linalg.solve(across.T @ a, across.T) if a.shape[1] else a.T
        return cls(back @ a, right @ whiten, rows.mean(0), strength=strength)

    def change(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        return self.erased(x)
