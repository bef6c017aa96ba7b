"""Which r dimensions of a stream are worth keeping? One projector: PCA, by features and Fisher are its settings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import ShapeError

_SINGULAR = 1e-10
"""Smallest over largest eigenvalue of a metric from which its inverse root is still of use in float64."""


@dataclass(frozen=True, eq=False)
class Projection:
    r"""$x \to \mu + P (x - \mu)$.

    Args:
        matrix: P, of rank r, $P^2 = P$.
        mean: mu; zero without it.
        lost: $\mathbb E\|F^{1/2} (x - P x)\|^2$ by the second moment that it was made for.
        whole: $\mathbb E\|F^{1/2} x\|^2$ by the same.
        rank: r.
    """

    matrix: Float[Tensor, "d d"]
    mean: Float[Tensor, "d"] | None
    lost: float
    whole: float
    rank: int

    def __call__(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        """What is left of rows of x."""
        P = self.matrix.to(x)
        if self.mean is None:
            return x @ P.T
        mean = self.mean.to(x)
        return mean + (x - mean) @ P.T


@torch.no_grad()
def projection(
    moment: Float[Tensor, "_ _"],
    rank: int,
    *,
    metric: Float[Tensor, "_ _"] | None = None,
    damping: float | int = 0.0,
    mean: Float[Tensor, "_"] | None = None,
) -> Projection:
    r"""$P = F^{-1/2} U_r U_r^\top F^{1/2}$, $U_r$ the r leading left singular vectors of $F^{1/2} C^{1/2}$.

    Minimises $\mathbb E\|F^{1/2} (x - P x)\|^2$ over all matrices of rank r: $F^{1/2} P C^{1/2}$ is any matrix of rank
    r, and by Eckart and Young the truncated SVD of $F^{1/2} C^{1/2}$ is the nearest. What is lost is the sum of the
    squared singular values that are cut. Three names, by F and C:

    - F = I, C of data (`intervene.collateral.second_moment`): PCA, the basis that SliceGPT slices. P is orthogonal.
    - F = I, C of features (`feature_moment`): keeps features, by the weight each is given.
    - F the pullback Fisher of what follows: keeps what the output rests on; $\tfrac12 \mathrm{lost}$ is the KL of the
      output in nats, to second order. P is oblique.

    Args:
        moment: C, symmetric, eigenvalues at least 0: of x - mean where a mean is given.
        rank: r.
        metric: F, symmetric, positive; the identity without it.
        damping: added to F's diagonal, in mean diagonal entries of F. A Fisher of few rows is singular, and so is that
            of a stream whose readers take its mean over coordinates away, as LayerNorm does.
        mean: mu, which stays as it is; the next layer's bias can hold it.

    Raises:
        ShapeError: if C is not square, or F or the mean has another size.
        ValueError: if rank is below 1 or above d, damping is negative, an entry is not finite, C has negative
            eigenvalues, or F is singular.

    Source:
        SliceGPT (arXiv 2401.15024) for F = I; the rest follows from Eckart and Young, 1936. IO-SVD (arXiv 2605.15626)
        is the same for a weight matrix.

    Example:
        >>> C = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
        >>> found = projection(C, 2)
        >>> found.matrix.diagonal().tolist(), found.lost
        ([1.0, 1.0, 0.0], 1.0)
    """
    d = len(moment)
    if moment.shape != (d, d):
        raise ShapeError(f"projection: the second moment has shape {tuple(moment.shape)}; give d rows and d columns.")
    if metric is not None and metric.shape != (d, d):
        raise ShapeError(f"projection: the metric has shape {tuple(metric.shape)} where x has {d} dimensions.")
    if mean is not None and mean.shape != (d,):
        raise ShapeError(f"projection: the mean has shape {tuple(mean.shape)} where x has {d} dimensions.")
    if not 1 <= rank <= d:
        raise ValueError(f"projection: rank must be from 1 to {d}, the dimensions there are; got {rank}.")
    if not 0 <= damping < float("inf"):
        raise ValueError(f"projection: damping must be finite and at least 0; got {damping}.")
    C = _symmetric(moment, "second moment")
    if float((values := torch.linalg.eigvalsh(C))[0]) < -1e-6 * float(values[-1].abs()):
        raise ValueError(
            f"projection: the second moment has the negative eigenvalue {float(values[0]):.3g}; give E[x x^T], or a "
            "sum of a a^T with weights that are not negative."
        )
    root, inverse = _roots(metric, d, damping, C)
    values, vectors = torch.linalg.eigh(root @ C @ root)
    U = vectors[:, d - rank :]
    matrix = inverse @ U @ U.T @ root
    return Projection(matrix, mean, float(values[: d - rank].clamp(min=0).sum()), float(values.sum()), rank)


@torch.no_grad()
def feature_moment(atoms: Float[Tensor, "n d"], weights: Float[Tensor, "_"] | None = None) -> Float[Tensor, "d d"]:
    r"""$C = \sum_j w_j a_j a_j^\top$, in float64.

    With $w_j = \mathrm{Var}(f_j)$ it is the covariance of x if features are uncorrelated and nothing else is in x; with
    equal weights of unit atoms a rare feature counts as much as a frequent one.

    Args:
        atoms: a_j, as they are written: not normalised here.
        weights: w_j, not negative; ones without it.

    Raises:
        ShapeError: if there is not one weight for each atom.
        ValueError: if a weight is negative or not finite.
    """
    w = atoms.new_ones(len(atoms)) if weights is None else weights
    if w.shape != (len(atoms),):
        raise ShapeError(f"feature_moment: {tuple(w.shape)} weights for {len(atoms)} atoms; give one each.")
    if not bool((torch.isfinite(w) & (w >= 0)).all()):
        raise ValueError("feature_moment: a weight is negative, NaN or infinite; give numbers from 0.")
    a = atoms.double()
    return (a * w.double()[:, None]).T @ a


def _symmetric(matrix: Tensor, name: str) -> Tensor:
    if not bool(torch.isfinite(matrix).all()):
        raise ValueError(f"projection: the {name} has an entry that is NaN or infinite.")
    matrix = matrix.double()
    return (matrix + matrix.T) / 2


def _roots(metric: Tensor | None, d: int, damping: float | int, like: Tensor) -> tuple[Tensor, Tensor]:
    """F^(1/2) and F^(-1/2)."""
    if metric is None:
        one = torch.eye(d).to(like)
        return one, one
    F = _symmetric(metric, "metric").to(like)
    values, vectors = torch.linalg.eigh(F + damping * float(F.diagonal().mean()) * torch.eye(d).to(F))
    if not float(values[0]) > _SINGULAR * float(values[-1]):
        rank = int((values > _SINGULAR * values[-1]).sum()) if float(values[-1]) > 0 else 0
        raise ValueError(
            f"projection: the metric has rank {rank} of {d}, so directions that it does not see have no inverse. Give "
            "it more rows, or a damping of 0.001."
        )
    return (vectors * values.sqrt()) @ vectors.T, (vectors / values.sqrt()) @ vectors.T
