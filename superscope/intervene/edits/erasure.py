"""What do affine erasures share? Moments of x, and a projector of low rank that is applied about the mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ...core import ShapeError
from ..gates import fitting
from .edit import Edit

_RANK = 1e-9
"""Singular values below this share of the largest are no direction: one-hot labels add up to 1, so one is always 0."""


@dataclass(frozen=True, eq=False)
class Erasure(Edit):
    r"""Abstract: $x \leftarrow x - s\, L R\,(x - \mu)$, so that $I - L R$ is the projector.

    Args:
        left: L, what is written.
        right: R, what is read.
        mean: mu.

    Raises:
        ShapeError: if they do not fit.
        ValueError: if an entry is NaN or infinite.
    """

    left: Float[Tensor, "d m"]
    right: Float[Tensor, "m d"]
    mean: Float[Tensor, "d"]

    def check(self) -> None:
        name, d = type(self).__name__, len(self.mean)
        if self.left.shape != (d, len(self.right)) or self.right.shape[1] != d:
            raise ShapeError(
                f"{name}: left {tuple(self.left.shape)}, right {tuple(self.right.shape)} and mean {d} do not fit; they "
                "are [d, m], [m, d] and [d]."
            )
        if not all(bool(torch.isfinite(one).all()) for one in (self.left, self.right, self.mean)):
            raise ValueError(f"{name}: an entry is NaN or infinite; fit it again on sound rows.")

    @property
    def d(self) -> int:
        return len(self.mean)

    @property
    def projector(self) -> Float[Tensor, "d d"]:
        """P = I - L R."""
        return torch.eye(self.d, dtype=self.left.dtype, device=self.left.device) - self.left @ self.right

    def erased(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        """What takes out what the right side reads."""
        return -((x - fitting(self.mean, x)) @ fitting(self.right, x).T) @ fitting(self.left, x).T


def rows_and_labels(
    owner: str, x: Float[Tensor, "rows d"], z: Tensor
) -> tuple[Float64[Tensor, "rows d"], Float64[Tensor, "rows k"]]:
    """x and labels, one column each, in float64.

    Raises:
        ShapeError: if there is not one label to a row.
        ValueError: if something is NaN or infinite, or rows are fewer than two.
    """
    if len(x) != len(z):
        raise ShapeError(f"{owner}: {len(z)} labels for {len(x)} rows; give one to each.")
    if len(x) < 2:
        raise ValueError(f"{owner}: {len(x)} rows have no covariance; give more.")
    rows, labels = x.double(), z.reshape(len(z), -1).double()
    if not (bool(torch.isfinite(rows).all()) and bool(torch.isfinite(labels).all())):
        raise ValueError(f"{owner}: a row or a label is NaN or infinite; leave it out.")
    return rows, labels


def covariance(a: Float64[Tensor, "rows p"], b: Float64[Tensor, "rows q"]) -> Float64[Tensor, "p q"]:
    """Cov(a, b), unbiased."""
    return (a - a.mean(0)).T @ (b - b.mean(0)) / (len(a) - 1)


def roots(sigma: Float64[Tensor, "d d"]) -> tuple[Float64[Tensor, "d d"], Float64[Tensor, "d d"]]:
    r"""$\Sigma^{-1/2}$ (the pseudoinverse's) and $\Sigma^{1/2}$."""
    values, vectors = torch.linalg.eigh((sigma + sigma.T) / 2)
    real = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    root = values.clamp(min=0).sqrt()
    whiten = vectors * torch.where(real, 1 / root, 0.0) @ vectors.T
    return whiten, vectors * torch.where(real, root, 0.0) @ vectors.T


def span_of(matrix: Float64[Tensor, "d k"]) -> Float64[Tensor, "d m"]:
    """Orthonormal columns that span those of a matrix."""
    u, sizes, _ = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, sizes > sizes.max() * _RANK] if sizes.numel() and float(sizes.max()) > 0 else u[:, :0]
