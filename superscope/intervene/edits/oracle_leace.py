"""What would erasing a label cost if every row's label were known? The floor of every erasure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import ShapeError
from ..gates import fitting
from .edit import Edit
from .erasure import covariance, rows_and_labels


@dataclass(frozen=True, eq=False)
class OracleLeace(Edit):
    r"""$x \leftarrow x - s\, \Sigma_{xz} \Sigma_{zz}^+ (z - \mu_z)$: takes what the label explains, row by row.

    It needs the labels of the very rows that are edited, so it is a yardstick and no tool: no affine edit that makes
    Cov(x, z) = 0 changes x less.

    Args:
        write: $\Sigma_{xz} \Sigma_{zz}^+$.
        mean: $\mu_z$.
        labels: z of the rows that are edited, in their order; `of` gives those of others.

    Raises:
        ShapeError: if they do not fit; when called, if there are not as many rows as labels.

    Source:
        Belrose et al., "LEACE", 2023 (oracle concept erasure).
    """

    reads: ClassVar[str] = "nothing of x; it is given the label of each row"

    write: Float[Tensor, "d k"]
    mean: Float[Tensor, "k"]
    labels: Float[Tensor, "rows k"]

    def check(self) -> None:
        if self.write.shape[1:] != self.mean.shape or self.labels.shape[1:] != self.mean.shape:
            raise ShapeError(
                f"OracleLeace: write {tuple(self.write.shape)}, mean {tuple(self.mean.shape)} and labels "
                f"{tuple(self.labels.shape)} do not fit; they are [d, k], [k] and [rows, k]."
            )

    @classmethod
    def fit(cls, x: Float[Tensor, "rows d"], z: Tensor, *, strength: float = 1.0) -> OracleLeace:
        """From rows and their labels; it edits the same rows.

        Raises:
            ShapeError, ValueError: if there is not one finite label to a row.
        """
        rows, labels = rows_and_labels("OracleLeace.fit", x, z)
        write = covariance(rows, labels) @ torch.linalg.pinv(covariance(labels, labels), hermitian=True)
        return cls(write, labels.mean(0), labels, strength=strength)

    def of(self, labels: Tensor) -> OracleLeace:
        """The same for rows of other labels."""
        return dataclasses.replace(self, labels=labels.reshape(len(labels), -1).double())

    @property
    def d(self) -> int:
        return len(self.write)

    def change(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        if len(x) != len(self.labels):
            raise ShapeError(
                f"OracleLeace: {len(x)} rows and {len(self.labels)} labels; it needs the label of each row: use "
                "edit.of(labels)."
            )
        return -fitting(self.labels - self.mean, x) @ fitting(self.write, x).T


def least_change(change: Float[Tensor, "rows d"], z: Tensor) -> float:
    r"""$\mathrm{tr}(\Sigma_{\delta z} \Sigma_{zz}^+ \Sigma_{z \delta})$: the least E|delta|^2 that does as much.

    What the oracle takes to move Cov(x, z) as far: no change of rows, affine or not, is below.

    Args:
        change: delta of each row.
        z: its label, a number or a column for each class.

    Raises:
        ShapeError, ValueError: if there is not one finite label to a row.
    """
    rows, labels = rows_and_labels("least_change", change, z)
    moved = covariance(rows, labels)
    inverse = torch.linalg.pinv(covariance(labels, labels), hermitian=True)
    return float((moved @ inverse * moved).sum()) * (len(rows) - 1) / len(rows)


def over_floor(change: Float[Tensor, "rows d"], z: Tensor) -> float | None:
    r"""$E|\delta|^2$ over the least that does as much to Cov(x, z), at least 1; None of what does nothing to it.

    Args:
        change: delta of each row, float64 where a constant one is to be seen to be constant.
        z: its label, a number or a column for each class.

    Raises:
        ShapeError, ValueError: if there is not one finite label to a row.
    """
    cost, least = float(change.double().square().sum(1).mean()), least_change(change, z)
    return cost / least if least > 1e-12 * cost else None
