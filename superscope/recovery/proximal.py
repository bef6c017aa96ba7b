"""f by gradient steps on x - W f and soft thresholding: the lasso for codes that are not very sparse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import Dictionary
from .problem import (
    NOISELESS_PENALTY,
    Atoms,
    RecoveryCoder,
    SolvedRows,
    check_count,
    check_dictionary,
    check_positive,
    check_tolerance,
    pack,
    rows_within,
)

_CHECK_EVERY = 10
"""Steps between two looks at the duality gap; a look costs as much as a step."""


def soft(v: Tensor, threshold: Tensor | float, *, nonnegative: bool) -> Tensor:
    r"""$\mathrm{sign}(v) \max(|v| - t, 0)$, or $\max(v - t, 0)$: the proximal map of the l1 norm."""
    if nonnegative:
        return (v - threshold).clamp_(min=0)
    # v less its part in [-t, t]: one pass fewer than sign and magnitude apart.
    return v - torch.clamp(v, -threshold, threshold)  # pyright: ignore[reportCallIssue, reportArgumentType]


def lasso_objective(
    W: Dictionary, x: Float[Tensor, "*batch d"], f: Float[Tensor, "*batch n"], penalty: float
) -> Float[Tensor, "*batch"]:
    r"""$\frac12 \lVert x - W f \rVert^2 + \lambda \lVert f \rVert_1$ per row: sums, not means, over dimensions."""
    return (x - W.compose(f)).square().sum(-1) / 2 + penalty * f.abs().sum(-1)


@dataclass(frozen=True)
class _GradientSteps(RecoveryCoder):
    """What ISTA and FISTA share: all but the momentum."""

    dictionary: Dictionary
    penalty: float
    steps: int = 1000
    tolerance: float = 1e-4
    nonnegative: bool = False

    momentum: ClassVar[bool]

    @classmethod
    def noiseless(cls) -> dict[str, Any]:
        return {"penalty": NOISELESS_PENALTY}

    def __post_init__(self) -> None:
        caller = type(self).__name__
        check_dictionary(caller, self.dictionary)
        check_positive(caller, "penalty", self.penalty)
        check_count(caller, "steps", self.steps)
        check_tolerance(caller, self.tolerance)

    def _chunk(self, atoms: Atoms) -> int:
        return rows_within(atoms, 6 * atoms.n)

    def _rows(self, x: Float[Tensor, "rows d"], atoms: Atoms, total: int) -> SolvedRows:
        return _descend(x, atoms, self.penalty, self.steps, self.tolerance, self.nonnegative, momentum=self.momentum)


@dataclass(frozen=True)
class ISTA(_GradientSteps):
    r"""Iterative soft thresholding: $f \leftarrow \mathrm{soft}_{\lambda/L}(f + W^\top (x - W f) / L)$.

    L is the largest eigenvalue of $W W^\top$. Minimises $\frac12 \lVert x - W f \rVert^2 + \lambda \lVert f \rVert_1$.
    The objective never rises; it falls as 1/steps, so `FISTA` or `CoordinateDescent` is the one to use. Here because it
    is the one that people unroll into encoders.

    Args:
        dictionary: W, of any norm: the penalty falls on f as it multiplies the atoms given.
        penalty: lambda, in units of x times the norm of an atom. At max |W^T x| the code is 0.
        steps: at most.
        tolerance: a row is converged where its duality gap is at most this share of |x|^2 / 2.
        nonnegative: restricts to f >= 0.

    Raises:
        ValueError: if penalty <= 0, steps < 1 or tolerance is outside [0, 1).

    Source:
        Daubechies, Defrise and De Mol, "An iterative thresholding algorithm for linear inverse problems with a sparsity
        constraint", 2004.

    Example:
        >>> ISTA(Dictionary(torch.eye(2)), penalty=0.5).encode(torch.tensor([2.0, 0.25])).dense()
        tensor([1.5000, 0.0000])
    """

    momentum: ClassVar[bool] = False


@dataclass(frozen=True)
class FISTA(_GradientSteps):
    r"""ISTA with momentum: the same step from $f_t + \beta_t (f_t - f_{t-1})$, restarted where momentum points uphill.

    Minimises $\frac12 \lVert x - W f \rVert^2 + \lambda \lVert f \rVert_1$ at rate 1/steps^2 and, with restarts,
    linearly near the solution. The objective may rise for a few steps. For codes with fewer than n / 20 nonzeros
    `CoordinateDescent` is faster.

    Args:
        dictionary: W, of any norm: the penalty falls on f as it multiplies the atoms given.
        penalty: lambda, in units of x times the norm of an atom. At max |W^T x| the code is 0.
        steps: at most.
        tolerance: a row is converged where its duality gap is at most this share of |x|^2 / 2.
        nonnegative: restricts to f >= 0.

    Raises:
        ValueError: if penalty <= 0, steps < 1 or tolerance is outside [0, 1).

    Source:
        Beck and Teboulle, "A fast iterative shrinkage-thresholding algorithm for linear inverse problems", 2009.
        O'Donoghue and Candes, "Adaptive restart for accelerated gradient schemes", 2015 (gradient scheme).

    Example:
        >>> FISTA(Dictionary(torch.eye(2)), penalty=0.5).encode(torch.tensor([2.0, 0.25])).dense()
        tensor([1.5000, 0.0000])
    """

    momentum: ClassVar[bool] = True


def duality_gap(
    x: Float[Tensor, "rows d"],
    residual: Float[Tensor, "rows d"],
    correlation: Float[Tensor, "rows n"],
    mass: Float[Tensor, "rows"],
    penalty: float,
    *,
    nonnegative: bool,
) -> Float[Tensor, "rows"]:
    """Objective minus the value of the residual scaled into the dual's feasible set: no code is better by more."""
    peak = (correlation if nonnegative else correlation.abs()).amax(1)
    dual = residual * (penalty / peak.clamp(min=penalty))[:, None]
    primal = residual.square().sum(1) / 2 + penalty * mass
    return primal - (x.square().sum(1) - (x - dual).square().sum(1)) / 2


def _descend(
    x: Float[Tensor, "rows d"],
    atoms: Atoms,
    penalty: float,
    steps: int,
    tolerance: float,
    nonnegative: bool,
    *,
    momentum: bool,
) -> SolvedRows:
    a, rate = atoms.given, 1 / max(atoms.lipschitz, torch.finfo(torch.float64).tiny)
    answer = x.new_zeros(len(x), atoms.n)
    converged = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    going = torch.arange(len(x), device=x.device)
    energy = x.square().sum(1) / 2
    f = torch.zeros_like(answer)
    ahead, age = f, x.new_ones(len(x), 1)
    made = 0
    while made < steps:
        gradient = (x - ahead @ a) @ a.T
        new = soft(ahead + rate * gradient, rate * penalty, nonnegative=nonnegative)
        if momentum:
            # Where the step just made opposes the momentum, momentum is dropped.
            uphill = ((ahead - new) * (new - f)).sum(1, keepdim=True) > 0
            older = torch.where(uphill, 1.0, age)
            age = (1 + (1 + 4 * older.square()).sqrt()) / 2
            ahead = new + torch.where(uphill, 0.0, (older - 1) / age) * (new - f)
        else:
            ahead = new
        f = new
        made += 1
        if made % _CHECK_EVERY and made != steps:
            continue
        residual = x - f @ a
        gap = duality_gap(x, residual, residual @ a.T, f.abs().sum(1), penalty, nonnegative=nonnegative)
        finished = gap <= tolerance * energy
        if made == steps or bool(finished.all()):
            answer[going], converged[going] = f, finished
            break
        if bool(finished.any()):
            answer[going[finished]], converged[going[finished]] = f[finished], True
            rest = ~finished
            going, x, f, ahead, age, energy = (t[rest] for t in (going, x, f, ahead, age, energy))
    return SolvedRows(*pack(answer), converged, made)
