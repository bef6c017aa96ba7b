"""Which subspace do directions span? An orthonormal basis, or the sentence that says why there is none."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from ...core import ShapeError


def basis(owner: str, directions: Tensor) -> Float64[Tensor, "m d"]:
    """Orthonormal rows that span one direction or the rows of several.

    Raises:
        ShapeError: if they are neither a vector nor a matrix.
        ValueError: if they are NaN or infinite somewhere, or all zero.
    """
    if directions.ndim not in (1, 2):
        raise ShapeError(f"{owner}: give one direction or a matrix of them; got shape {tuple(directions.shape)}.")
    if not bool(torch.isfinite(directions).all()):
        raise ValueError(f"{owner}: a direction has a NaN or infinite entry; find it again on sound rows.")
    rows = directions.reshape(-1, directions.shape[-1]).double()
    _, sizes, right = torch.linalg.svd(rows, full_matrices=False)
    kept = right[sizes > sizes.max().clamp(min=0) * 1e-10] if len(sizes) else right
    if not len(kept):
        raise ValueError(f"{owner}: every direction is zero, so they point nowhere; give others.")
    return kept
