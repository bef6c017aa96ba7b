"""What is the least that else must move when a read-out moves? The best edit, and how far another is from it."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ..core import ShapeError
from .gates import check_direction

_RIDGE = 1e-10
"""Of the metric's mean eigenvalue, added where it is singular, which directions that cost nothing make it."""


def minimal(read: Float[Tensor, "d"], metric: Float[Tensor, "d d"], *, effect: float = 1.0) -> Float64[Tensor, "d"]:
    r"""$\delta^* = t\, K^{-1} g / (g^\top K^{-1} g)$: moves g by t at the least $\delta^\top K \delta$.

    Args:
        read: g, the read-out that is to move.
        metric: K, symmetric and positive semidefinite: what is collateral.
        effect: t.

    Raises:
        ShapeError: if g and K do not fit.
        ValueError: if K is not symmetric and positive, or something is NaN, infinite or zero.

    Source:
        Lagrange; the second moment as K is that of "Minimum-collateral steering" (2605.01167), the pullback Fisher
        that of FishBack (2605.17231).

    Example:
        >>> minimal(torch.tensor([1.0, 1.0]), torch.tensor([[1.0, 0.0], [0.0, 3.0]])).tolist()
        [0.75, 0.25]
    """
    g, K = _sound(read, metric)
    solved = torch.linalg.solve(K, g)
    return effect * solved / (g @ solved)


def rho(
    direction: Float[Tensor, "d"],
    read: Float[Tensor, "d"],
    metric: Float[Tensor, "d d"],
    *,
    least: Float[Tensor, "d"] | None = None,
) -> float:
    r"""$\rho(v) = (v^\top K v)(g^\top K^{-1} g) / (g \cdot v)^2 \ge 1$: collateral of v over the least at equal effect.

    Infinite where v does not move the read-out.

    Args:
        direction: v, at any length.
        read: g.
        metric: K.
        least: what v is compared with in place of the best edit by K, at any length. Where K is a mean of few draws the
            best edit by it goes where they happen to be small and seems to cost next to nothing; one chosen by other
            draws does not, and $\rho$ is then at least as large as told, in expectation.

    Raises:
        ShapeError, ValueError: as for `minimal`.

    Source:
        Cauchy and Schwarz; for v = g Kantorovich bounds it by (c + 1)^2 / 4c, c the condition of K.

    Example:
        >>> rho(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 1.0]), torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
        1.3333333333333333
    """
    check_direction("rho", direction)
    if len(direction) != len(read):
        raise ShapeError(
            f"rho: the direction has {len(direction)} numbers and the read-out {len(read)}; both are of x."
        )
    return rho_of_changes(direction[None], read, metric, least=least)


def rho_of_changes(
    change: Float[Tensor, "rows d"],
    read: Float[Tensor, "d"],
    metric: Float[Tensor, "d d"],
    *,
    least: Float[Tensor, "d"] | None = None,
) -> float:
    r"""$\mathrm{E}[\delta^\top K \delta]\,(g^\top K^{-1} g) / (g \cdot \mathrm{E}\delta)^2 \ge 1$.

    `rho` of an edit of rows. An edit that changes each row in its own way costs what its mean change costs and its
    spread besides, so that the least constant vector of the same mean effect bounds it too. Infinite where the read-out
    does not move on average.

    Args:
        change: delta of each row.
        read: g.
        metric: K.
        least: as for `rho`.

    Raises:
        ShapeError, ValueError: as for `minimal`.
    """
    g, K = _sound(read, metric)
    delta = change.double().cpu()
    if delta.shape[1] != len(g):
        raise ShapeError(
            f"rho_of_changes: changes of {delta.shape[1]} numbers and a read-out of {len(g)}; both are of x."
        )
    moved = float(g @ delta.mean(0))
    if moved == 0:
        return float("inf")
    cost = float(((delta @ K) * delta).sum(1).mean())
    best = torch.linalg.solve(K, g) if least is None else least.double().cpu()
    return cost / moved**2 / float(best @ K @ best) * float(g @ best) ** 2


def second_moment(x: Float[Tensor, "rows d"], *, centred: bool = False) -> Float64[Tensor, "d d"]:
    r"""$K = \mathrm{E}[x x^\top]$, or the covariance: collateral where the network reads features by matched filters.

    With x = W f and uncorrelated f of mean 0 it is $\sum_j \mathrm{E}[f_j^2]\, w_j w_j^\top$: what `interference` makes
    of the atoms as read-outs.

    Raises:
        ValueError: if there are fewer rows than dimensions.
    """
    if len(x) < x.shape[1]:
        raise ValueError(f"second_moment: {len(x)} rows cannot tell {x.shape[1]} dimensions; give more rows.")
    rows = x.double()
    rows = rows - rows.mean(0) if centred else rows
    return (rows.T @ rows / len(rows)).cpu()


def interference(
    reads: Float[Tensor, "n d"], weights: Float[Tensor, "n"], *, leave_out: int | None = None, ridge: float = 0.0
) -> Float64[Tensor, "d d"]:
    r"""$K = \sum_{j \ne i} w_j\, g_j g_j^\top + \lambda I$: what the other read-outs see of an edit.

    Args:
        reads: g_j, one a row: what the network reads (next layer's weights, gradients, an encoder). Which these are
            decides what is best; assumed ones can be worse than no metric.
        weights: w_j, at least 0: frequency, importance, or alike.
        leave_out: i, the read-out that is meant to move.
        ridge: lambda.

    Raises:
        ShapeError: if there is not one weight for each read-out.
        ValueError: if a weight is negative, NaN or infinite.
    """
    if weights.shape != reads.shape[:1]:
        raise ShapeError(f"interference: {tuple(weights.shape)} weights for {len(reads)} read-outs; give one to each.")
    w, g = weights.double().cpu().clone(), reads.double().cpu()
    if not bool(torch.isfinite(w).all()) or bool((w < 0).any()):
        raise ValueError("interference: a weight is negative, NaN or infinite; weights are at least 0.")
    if leave_out is not None:
        w[leave_out] = 0.0
    return (g.T * w) @ g + ridge * torch.eye(g.shape[1], dtype=torch.float64)


def _sound(read: Tensor, metric: Tensor) -> tuple[Float64[Tensor, "d"], Float64[Tensor, "d d"]]:
    check_direction("collateral", read)
    g, K = read.double().cpu(), metric.double().cpu()
    if K.shape != (len(g), len(g)):
        raise ShapeError(f"collateral: the metric has shape {tuple(K.shape)} and the read-out {len(g)} numbers.")
    if not bool(torch.isfinite(K).all()):
        raise ValueError("collateral: the metric has a NaN or infinite entry; estimate it again on sound rows.")
    size = float(K.diagonal().mean())
    if not torch.allclose(K, K.T, atol=1e-6 * abs(size), rtol=1e-6) or size <= 0:
        raise ValueError("collateral: the metric is not symmetric with a positive trace, so it is no cost.")
    K = (K + K.T) / 2
    least = float(torch.linalg.eigvalsh(K)[0])
    if least < -1e-6 * size:
        raise ValueError("collateral: the metric has a negative eigenvalue, so that damage would be a gain; mend it.")
    return g, K if least > _RIDGE * size else K + _RIDGE * size * torch.eye(len(g), dtype=torch.float64)
