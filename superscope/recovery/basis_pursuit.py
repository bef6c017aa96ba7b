"""f as the explanation of x with the smallest l1 norm: what can be recovered at all by convex means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.optimize
import torch
from jaxtyping import Float
from torch import Tensor

from ..core import Dictionary
from .problem import (
    Atoms,
    RecoveryCoder,
    SolvedRows,
    check_count,
    check_dictionary,
    check_tolerance,
    pack,
    rows_within,
)
from .proximal import soft
from .support import on_support

_POLISH_EVERY = 25
_RELAXATION = 1.7
"""Between 1.5 and 1.8 is customary; on 256 x 1024 at k = 60 it takes a third fewer steps than 1."""


@dataclass(frozen=True)
class BasisPursuit(RecoveryCoder):
    r"""Basis pursuit: $\min \lVert f \rVert_1$ subject to $W f = x$, by ADMM in batches.

    The reference for phase diagrams: noiseless success follows the Donoho-Tanner curve (half of all codes at k = 68 of
    d = 256, n = 1024; at 93 with f >= 0), whatever the amplitudes, and depends on W through its kernel only. There is
    no noise term: with noise it explains the noise too, so use `CoordinateDescent` there. Each check tries the exact
    solution on the current support, so a row that is solved is solved to rounding.

    Args:
        dictionary: W, of any norm: the l1 norm counts f as it multiplies the atoms given.
        steps: at most.
        tolerance: a row is converged where constraint and optimality hold to this, relative to x and f.
        nonnegative: restricts to f >= 0.

    Raises:
        ValueError: if steps < 1 or tolerance is outside [0, 1).

    Source:
        Chen, Donoho and Saunders, "Atomic decomposition by basis pursuit", 1998.
        Boyd, Parikh, Chu, Peleato and Eckstein, "Distributed optimization and statistical learning via the alternating
        direction method of multipliers", 2011, section 6.2.

    Example:
        >>> W = Dictionary(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]))
        >>> BasisPursuit(W).encode(torch.tensor([1.2, 1.6])).dense()
        tensor([0., 2., 0.])
    """

    dictionary: Dictionary
    steps: int = 2000
    tolerance: float = 1e-5
    nonnegative: bool = False

    label = "basis pursuit (l1)"

    def __post_init__(self) -> None:
        check_dictionary("BasisPursuit", self.dictionary)
        check_count("BasisPursuit", "steps", self.steps)
        check_tolerance("BasisPursuit", self.tolerance)

    def _chunk(self, atoms: Atoms) -> int:
        return rows_within(atoms, 6 * atoms.n)

    def _rows(self, x: Float[Tensor, "rows d"], atoms: Atoms, total: int) -> SolvedRows:
        a = atoms.given
        # f -> f - W^+ (W f - x) projects on the solutions of W f = x; the d x n pseudo-inverse is made once, in
        # float64.
        inverse = self._inverse(atoms)
        answer = x.new_zeros(len(x), atoms.n)
        converged = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        going = torch.arange(len(x), device=x.device)
        least = x @ inverse.T
        # Outside the span of the atoms nothing solves W f = x: the nearest point is explained, and said not to
        # converge.
        size = torch.linalg.vector_norm(x, dim=1)
        solvable = torch.linalg.vector_norm(x - least @ a, dim=1) <= max(self.tolerance, 1e-5) * size
        # Rows in units of their own minimum-norm solution, so that one threshold suits them all.
        unit = least.abs().amax(1, keepdim=True)
        unit = torch.where(unit > 0, unit, 1)
        target, least = x / unit, least / unit
        f, u = least.clone(), torch.zeros_like(least)
        # The threshold 1/rho: near the amplitudes' own size steps are large; a third of the largest was quickest.
        threshold = torch.full_like(unit, 0.3)
        made = 0
        while made < self.steps:
            point = f - u
            point = point - (point @ a) @ inverse.T + least
            relaxed = _RELAXATION * point + (1 - _RELAXATION) * f
            previous = f
            f = soft(relaxed + u, threshold, nonnegative=self.nonnegative)
            u += relaxed - f
            made += 1
            if made % _POLISH_EVERY and made != self.steps:
                continue
            scale = torch.linalg.vector_norm(f, dim=1).clamp(min=torch.finfo(x.dtype).tiny)
            off = torch.linalg.vector_norm(point - f, dim=1)
            moved = torch.linalg.vector_norm(f - previous, dim=1)
            polished, exact = self._polish(f, u / threshold, target, a)
            finished = exact | ((off <= self.tolerance * scale) & (moved <= self.tolerance * scale))
            f_out = torch.where(exact[:, None], polished, f)
            last = made == self.steps or bool(finished.all())
            leaving = torch.ones_like(finished) if last else finished
            if bool(leaving.any()):
                rows = going[leaving]
                answer[rows] = f_out[leaving] * unit[leaving]
                converged[rows] = finished[leaving] & solvable[leaving]
            if last:
                break
            rest = ~finished
            # Residual balancing: a threshold too small moves much and fits little, and the other way round.
            grow = torch.where(off > 4 * moved, 0.6, torch.where(moved > 4 * off, 1 / 0.6, 1.0))[:, None]
            threshold, u = threshold * grow, u * grow
            going, f, u, target, least, unit, threshold, solvable = (
                t[rest] for t in (going, f, u, target, least, unit, threshold, solvable)
            )
        return SolvedRows(*pack(answer), converged, made)

    def _inverse(self, atoms: Atoms) -> Float[Tensor, "n d"]:
        kept = self.__dict__.get("_pseudo_inverse")
        if kept is None or kept[0] != atoms.version:
            kept = (atoms.version, torch.linalg.pinv(atoms.given.double().T, rtol=1e-10).to(atoms.given.dtype))
            object.__setattr__(self, "_pseudo_inverse", kept)
        return kept[1]

    def _polish(
        self,
        f: Float[Tensor, "rows n"],
        sign: Float[Tensor, "rows n"],
        x: Float[Tensor, "rows d"],
        a: Float[Tensor, "n d"],
    ) -> tuple[Float[Tensor, "rows n"], Tensor]:
        """The least-squares solution on the support of f, and where it provably is the answer.

        It is where it explains x, keeps the signs, and some y has W^T y = sign(f) on the support and |W^T y| < 1 off
        it: the dual certificate. y is the least-squares one on the support (Fuchs), else the multiplier of the ADMM.
        """
        counts = (f != 0).sum(1)
        exact = torch.zeros(len(f), dtype=torch.bool, device=f.device)
        out = f
        few = ((counts > 0) & (counts <= a.shape[1])).nonzero()[:, 0]
        if not len(few):
            return out, exact | (x == 0).all(1)
        k = int(counts[few].max())
        held_values, indices = f[few].abs().topk(k, dim=1)
        held = held_values > 0
        polished = torch.zeros_like(f[few])
        good = torch.zeros(len(few), dtype=torch.bool, device=f.device)
        eps = torch.finfo(f.dtype).eps
        step = max(1, 2**24 // (k * (a.shape[1] + 3 * k)))
        for start in range(0, len(few), step):
            part = slice(start, start + step)
            chosen = a[indices[part]] * held[part, :, None]
            products = chosen @ chosen.mT
            target = x[few[part]]
            values = on_support(products, (chosen @ target[:, :, None])[:, :, 0], held[part])
            residual = torch.linalg.vector_norm(target - torch.bmm(values[:, None], chosen)[:, 0], dim=1)
            fits = residual <= 256 * eps * torch.linalg.vector_norm(target, dim=1)
            signs = f[few[part]].sign().gather(1, indices[part]) * held[part]
            fits &= ((values * signs > 0) | ~held[part]).all(1)
            # Fuchs: y = W_S (W_S^T W_S)^-1 sign(f_S).
            y = torch.bmm(on_support(products, signs, held[part])[:, None], chosen)[:, 0]
            slope = y @ a.T
            slope.scatter_(1, indices[part], torch.where(held[part], 0, slope.gather(1, indices[part])))
            certified = (slope if self.nonnegative else slope.abs()).amax(1) < 1 - 16 * eps
            good[part] = fits & certified
            polished[part] = torch.zeros_like(slope).scatter_add_(1, indices[part], values)
        out = f.clone()
        out[few] = polished
        exact[few] = good
        return out, exact | (x == 0).all(1)


@dataclass(frozen=True)
class LinearProgram(RecoveryCoder):
    r"""Basis pursuit as a linear programme: $\min \mathbf 1^\top (p + q)$, $W(p - q) = x$, $p, q \ge 0$, by HiGHS.

    The referee of `BasisPursuit`: exact, float64, one row at a time on the CPU, seconds per row beyond n = 1000. A row
    is converged where the programme was solved to optimality; x outside the span of the atoms is infeasible and gives
    0.

    Args:
        dictionary: W.
        nonnegative: restricts to f >= 0.

    Source:
        Chen, Donoho and Saunders, "Atomic decomposition by basis pursuit", 1998, section 3.1.

    Example:
        >>> W = Dictionary(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]))
        >>> LinearProgram(W).encode(torch.tensor([1.2, 1.6])).dense().round(decimals=4)
        tensor([0., 2., 0.])
    """

    dictionary: Dictionary
    nonnegative: bool = False

    def __post_init__(self) -> None:
        check_dictionary("LinearProgram", self.dictionary)

    def _rows(self, x: Float[Tensor, "rows d"], atoms: Atoms, total: int) -> SolvedRows:
        matrix = atoms.given.double().T.cpu().numpy()
        both = matrix if self.nonnegative else np.hstack([matrix, -matrix])
        f = torch.zeros(len(x), atoms.n, dtype=torch.float64)
        solved, steps = torch.zeros(len(x), dtype=torch.bool), 0
        for row, target in enumerate(x.double().cpu().numpy()):
            # In units of x, since the tolerances of the solver are absolute.
            size = float(np.abs(target).max()) or 1.0
            found = scipy.optimize.linprog(np.ones(both.shape[1]), A_eq=both, b_eq=target / size, method="highs")
            steps = max(steps, int(found.nit))
            if found.status == 0:
                solved[row] = True
                parts = torch.from_numpy(found.x) * size
                f[row] = parts if self.nonnegative else parts[: atoms.n] - parts[atoms.n :]
        values, indices = pack(f.to(x.device, x.dtype))
        return SolvedRows(values, indices, solved.to(x.device), steps)
