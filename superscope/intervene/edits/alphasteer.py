"""What if a behaviour were written by what x says beyond the benign, so that benign rows do not move?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import ShapeError
from ..gates import fitting
from .edit import Edit


@dataclass(frozen=True, eq=False)
class AlphaSteer(Edit):
    r"""$x \leftarrow x + s\, \Delta P x$: P projects on the null space of benign rows, Delta takes the rest to r.

    $\Delta = \arg\min |\Delta P H - R|^2 + \alpha |\Delta P|^2$, H the rows to be steered, each column of R the
    direction r.

    Args:
        matrix: Delta P.

    Source:
        "AlphaSteer", ICLR 2026 (2506.07022); the closed form is that of ridge regression.
    """

    reads: ClassVar[str] = "what benign rows have nothing of, by ridge regression on the rows to be steered"

    matrix: Float[Tensor, "d d"]

    def check(self) -> None:
        if self.matrix.ndim != 2 or self.matrix.shape[0] != self.matrix.shape[1]:
            raise ShapeError(f"AlphaSteer: the matrix is of d x d; got {tuple(self.matrix.shape)}.")

    @classmethod
    def fit(
        cls,
        benign: Float[Tensor, "a d"],
        steered: Float[Tensor, "b d"],
        direction: Float[Tensor, "d"],
        *,
        null: float = 0.4,
        ridge: float = 0.1,
        strength: float = 1.0,
    ) -> AlphaSteer:
        """From benign rows, rows to be steered and the direction that those are to be given.

        Args:
            benign: stay as they are.
            steered: receive the direction.
            direction: r.
            null: share of the dimensions, those of the smallest benign second moments, that is called their null space.
            ridge: alpha, in mean squared lengths of a steered row behind P.
            strength: of the edit.

        Raises:
            ShapeError: if they differ in d.
            ValueError: if a share is out of its range, or no dimension is left.
        """
        if not benign.shape[1:] == steered.shape[1:] == direction.shape:
            raise ShapeError(
                f"AlphaSteer.fit: rows of {benign.shape[1]} and {steered.shape[1]} numbers and a direction of "
                f"{tuple(direction.shape)}; all are of x."
            )
        d = len(direction)
        count = int(null * d)
        if not 0 < null <= 1 or count < 1 or not ridge > 0:
            raise ValueError(
                f"AlphaSteer.fit: null {null} of d = {d} dimensions must leave at least one, and ridge be above 0; got "
                f"{ridge}."
            )
        b, h = benign.double(), steered.double()
        vectors = torch.linalg.eigh(b.T @ b)[1][:, :count]
        projector = vectors @ vectors.T
        inside = h @ projector
        gram = inside.T @ inside
        alpha = ridge * gram.diagonal().sum() / count
        target = direction.double().expand(len(h), d)
        delta = torch.linalg.solve(
            gram + alpha * torch.eye(d, dtype=torch.float64, device=gram.device), inside.T @ target
        ).T
        return cls(delta @ projector, strength=strength)

    @property
    def d(self) -> int:
        return len(self.matrix)

    def change(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        return x @ fitting(self.matrix, x).T
