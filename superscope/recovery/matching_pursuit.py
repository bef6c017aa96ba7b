"""f one atom at a time: the atom that best matches what is left of x, then the next."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core import Dictionary
from .problem import (
    Atoms,
    Engine,
    RecoveryCoder,
    SolvedRows,
    argmax,
    check_count,
    check_dictionary,
    check_engine,
    check_k,
    check_tolerance,
    compiled,
    joined,
    rows_within,
)
from .support import non_negative_on_support

_FLOOR = 32
"""In units of rounding: a correlation below 32 eps |x| is rounding of the updates, not structure."""
_PIVOT = 64
"""In the same units: an atom whose squared part outside the chosen ones is below this is dependent on them."""


@dataclass(frozen=True)
class MatchingPursuit(RecoveryCoder):
    r"""$j = \arg\max |c_j|$, $f_j \mathrel{+}= c_j$, $r \mathrel{-}= c_j \hat w_j$ with $c = \hat W^\top r$.

    Matching pursuit, without refitting: amplitudes stay biased by the overlaps (relative error 0.11 at k = 10 in a
    random 256 x 1024 dictionary, against rounding for OMP). This is the inference of an MP-SAE. Atoms of any norm: the
    best *direction* is chosen and the value is in units of the atom as given. Costs one n x n Gram row per step, or O(n
    d) without it.

    Args:
        dictionary: W.
        k: atoms at most; an atom may be chosen again, which takes a step but no slot.
        steps: None takes k steps.
        tolerance: a row stops when its residual is at most this share of |x|.
        nonnegative: chooses positive matches only, so that f >= 0.
        gram: whether to build the Gram matrix; None decides by size.

    Raises:
        ValueError: if k is outside [1, n], or steps or tolerance is out of range.

    Source:
        Mallat and Zhang, "Matching pursuits with time-frequency dictionaries", 1993.

    Example:
        >>> W = Dictionary(torch.eye(3))
        >>> MatchingPursuit(W, k=2).encode(torch.tensor([0.0, -3.0, 2.0])).dense()
        tensor([ 0., -3.,  2.])
    """

    dictionary: Dictionary
    k: int
    steps: int | None = None
    tolerance: float = 0.0
    nonnegative: bool = False
    gram: bool | None = None

    def __post_init__(self) -> None:
        check_dictionary("MatchingPursuit", self.dictionary)
        check_k("MatchingPursuit", self.dictionary, self.k, independent=False)
        if self.steps is not None:
            check_count("MatchingPursuit", "steps", self.steps, least=self.k)
        check_tolerance("MatchingPursuit", self.tolerance)

    def _rows(self, x: Float[Tensor, "rows d"], atoms: Atoms, total: int) -> SolvedRows:
        steps = self.k if self.steps is None else self.steps
        by_gram = atoms.gram_pays(total, steps) if self.gram is None else self.gram
        correlation = x @ atoms.unit.T
        energy = x.square().sum(1)
        floor = _FLOOR * torch.finfo(x.dtype).eps * energy.sqrt()
        values = x.new_zeros(len(x), self.k)
        indices = torch.full((len(x), self.k), -1, dtype=torch.int64, device=x.device)
        used = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        left, residual = energy.clone(), None if by_gram else x.clone()
        active = torch.ones(len(x), dtype=torch.bool, device=x.device)
        met = torch.zeros_like(active)
        made = 0
        for _ in range(steps):
            # Rounding alone brings `left` to 0 while a residual of sqrt(eps) |x| is there to be explained.
            if self.tolerance:
                met |= left <= self.tolerance**2 * energy
            active &= ~met
            if not bool(active.any()):
                break
            chosen = argmax(correlation if self.nonnegative else correlation.abs())
            step = correlation.gather(1, chosen[:, None])[:, 0]
            nothing = (step if self.nonnegative else step.abs()) <= floor
            met |= active & nothing
            active &= ~nothing
            # The slot that already holds this atom, else the next free one; a row out of slots stops.
            same = indices == chosen[:, None]
            known = same.any(1)
            slot = torch.where(known, same.to(torch.int8).argmax(1), used)
            full = slot >= self.k
            met |= active & full
            active &= ~full
            step = torch.where(active, step, 0)
            slot = slot.clamp(max=self.k - 1)[:, None]
            indices.scatter_(1, slot, torch.where(active[:, None], chosen[:, None], indices.gather(1, slot)))
            values.scatter_add_(1, slot, step[:, None])
            used += active & ~known
            left = (left - step.square()).clamp(min=0)
            if residual is None:
                correlation.addcmul_(step[:, None], atoms.gram.index_select(0, chosen), value=-1)
            else:
                residual.addcmul_(step[:, None], atoms.unit.index_select(0, chosen), value=-1)
                torch.mm(residual, atoms.unit.T, out=correlation)
            made += 1
        indices = indices.clamp(min=0)
        return SolvedRows(values / atoms.norms[indices], indices, met | (used == self.k) | active, made)


@dataclass(frozen=True)
class OMP(RecoveryCoder):
    r"""Orthogonal pursuit: $j = \arg\max |\langle \hat w_j, r \rangle|$, then least squares on all chosen atoms.

    Finds every f with k below `theory.coherence_guarantee(coherence)`, and typical ones far beyond: on a random
    256 x 1024 dictionary half of all supports at k = 35 (amplitudes +-1) or 83 (Gaussian), so say which amplitudes.
    Atoms of any norm. With the Gram matrix the correlations with an orthonormal basis of the chosen atoms are kept, k
    rows of n numbers; without it that basis itself, k rows of d, and one O(n d) product per step.

    Args:
        dictionary: W.
        k: atoms at most, at most d.
        tolerance: a row stops when its residual is at most this share of |x|. In float32 below 1e-3 it is no longer
            resolved; a row also stops when no correlation is above rounding.
        gram: whether to build the Gram matrix; None decides by size and number of rows.
        engine: with the Gram matrix on a CPU, "numba" compiles the loop; "auto" does so for large work where it is
            installed. Same answers.

    Raises:
        ValueError: if k is outside [1, min(n, d)] or tolerance outside [0, 1).

    Source:
        Pati, Rezaiifar and Krishnaprasad, "Orthogonal matching pursuit: recursive function approximation with
        applications to wavelet decomposition", 1993. Tropp, "Greed is good", 2004, Theorem 3.1 (the guarantee).

    Example:
        >>> W = Dictionary(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]))
        >>> OMP(W, k=2).encode(torch.tensor([1.6, 0.8])).dense()
        tensor([1.0000, 1.0000, 0.0000])
    """

    dictionary: Dictionary
    k: int
    tolerance: float = 0.0
    gram: bool | None = None
    engine: Engine = "auto"

    label = "matching pursuit"

    def __post_init__(self) -> None:
        check_engine("OMP", self.engine)
        check_dictionary("OMP", self.dictionary)
        check_k("OMP", self.dictionary, self.k, independent=True)
        check_tolerance("OMP", self.tolerance)

    def _chunk(self, atoms: Atoms) -> int:
        # Several blocks of `_omp_by_gram`, so that they share one workspace.
        return 32 * rows_within(atoms, atoms.n * (self.k + 4))

    def _rows(self, x: Float[Tensor, "rows d"], atoms: Atoms, total: int) -> SolvedRows:
        by_gram = atoms.gram_pays(total, self.k) if self.gram is None else self.gram
        fast = compiled(x.device, self.engine, total * self.k**2 * atoms.n) if by_gram else None
        if fast is not None:
            eps = torch.finfo(x.dtype).eps
            values, indices, fine, steps = fast.omp(
                x, atoms.unit, atoms.gram, self.k, self.tolerance, _FLOOR * eps, _PIVOT * eps
            )
            return SolvedRows(values / atoms.norms[indices], indices, fine, steps)
        size = 2 * rows_within(atoms, atoms.n * (self.k + 4))
        if not by_gram:
            return joined([_omp_by_residual(part, atoms, self.k, self.tolerance) for part in x.split(size)])
        workspace = x.new_empty(min(size, len(x)), self.k, atoms.n)
        return joined([_omp_by_gram(part, atoms, self.k, self.tolerance, workspace) for part in x.split(size)])


class _Progress:
    """The factor W_S = Q R and the projections z = Q^T x of each row, one column per step; then f = R^{-1} z.

    A row that is done takes part in the arithmetic of the others with pivot 1 and projection 0.
    """

    def __init__(self, x: Float[Tensor, "rows d"], k: int, tolerance: float) -> None:
        rows, eps = len(x), torch.finfo(x.dtype).eps
        self.energy = x.square().sum(1)
        self.left = self.energy.clone()
        self.floor = _FLOOR * eps * self.energy.sqrt()
        self.least_pivot = _PIVOT * eps
        self.tolerance = tolerance
        self.R = x.new_zeros(rows, k, k)
        self.z = x.new_zeros(rows, k)
        self.indices = torch.zeros(rows, k, dtype=torch.int64, device=x.device)
        self.met = torch.zeros(rows, dtype=torch.bool, device=x.device)
        self.stuck = torch.zeros_like(self.met)
        self.made = 0

    @property
    def done(self) -> Bool[Tensor, "rows"]:
        return self.met | self.stuck

    def choose(self, scores: Float[Tensor, "rows n"]) -> tuple[Int[Tensor, "rows"], Float[Tensor, "rows"]]:
        """The atom each row takes next and its |correlation|; marks rows that have nothing left to take."""
        chosen = argmax(scores)
        score = scores.gather(1, chosen[:, None])[:, 0]
        self.met |= score <= self.floor
        if self.tolerance:
            self.met |= self.left <= self.tolerance**2 * self.energy
        return chosen, score

    def take(
        self, chosen: Int[Tensor, "rows"], overlap: Float[Tensor, "rows step"], correlation: Float[Tensor, "rows"]
    ) -> tuple[Float[Tensor, "rows"], Float[Tensor, "rows"]]:
        """Appends a column; returns 1 / pivot (0 for a done row) and the projection of x on the new direction."""
        t = self.made
        pivot = 1 - overlap.square().sum(1)
        dependent = pivot <= self.least_pivot
        self.stuck |= dependent & ~self.met
        going = ~self.done
        inverse = torch.where(going, pivot.clamp(min=self.least_pivot).rsqrt(), 0)
        projection = correlation * inverse
        torch.mul(overlap, going[:, None], out=self.R[:, t, :t])
        self.R[:, t, t] = torch.where(going, pivot.clamp(min=self.least_pivot).sqrt(), 1)
        self.z[:, t] = projection
        self.indices[:, t] = torch.where(going, chosen, self.indices[:, 0])
        if self.tolerance:
            self.left = (self.left - projection.square()).clamp(min=0)
        self.made += 1
        return inverse, projection

    def finish(self, atoms: Atoms) -> SolvedRows:
        t = max(self.made, 1)
        # R is kept with one atom per row: R^T f = z.
        f = torch.linalg.solve_triangular(self.R[:, :t, :t].mT, self.z[:, :t, None], upper=True)[:, :, 0]
        if not self.made:
            f = torch.zeros_like(self.z[:, :1])
        indices = self.indices[:, :t]
        return SolvedRows(f / atoms.norms[indices], indices, ~self.stuck, self.made)


def _omp_by_gram(
    x: Float[Tensor, "rows d"], atoms: Atoms, k: int, tolerance: float, workspace: Float[Tensor, "size k n"]
) -> SolvedRows:
    correlation = x @ atoms.unit.T
    progress = _Progress(x, k, tolerance)
    # basis[b, s] = W^T v_s: what every atom has in common with the s-th direction of row b, orthogonal to those before.
    # The directions are left unnormalised and their norms kept apart: it saves a pass over n numbers per step.
    basis = workspace[: len(x)]
    inverses = x.new_empty(len(x), k)
    scores = torch.empty_like(correlation)
    for t in range(k):
        torch.abs(correlation, out=scores)
        chosen, _ = progress.choose(scores)
        if bool(progress.done.all()):
            break
        overlap = basis[:, :t].gather(2, chosen[:, None, None].expand(-1, t, 1))[:, :, 0] * inverses[:, :t]
        inverse, projection = progress.take(chosen, overlap, correlation.gather(1, chosen[:, None])[:, 0])
        inverses[:, t] = inverse
        row = atoms.gram.index_select(0, chosen)
        if t:
            shared = torch.bmm((overlap * inverses[:, :t])[:, None], basis[:, :t])[:, 0]
            torch.sub(row, shared, out=basis[:, t])
        else:
            basis[:, 0] = row
        correlation.addcmul_((projection * inverse)[:, None], basis[:, t], value=-1)
        # Exactly 0 in exact arithmetic; written so that rounding never brings an atom back.
        correlation.scatter_(1, chosen[:, None], 0.0)
    return progress.finish(atoms)


def _omp_by_residual(x: Float[Tensor, "rows d"], atoms: Atoms, k: int, tolerance: float) -> SolvedRows:
    progress = _Progress(x, k, tolerance)
    residual = x.clone()
    basis = x.new_empty(len(x), k, atoms.d)
    scores = x.new_empty(len(x), atoms.n)
    for t in range(k):
        torch.mm(residual, atoms.unit.T, out=scores)
        scores.abs_()
        # The residual is orthogonal to the chosen atoms up to rounding; never choose one twice.
        if t:
            scores.scatter_(1, progress.indices[:, :t], 0.0)
        chosen, _ = progress.choose(scores)
        if bool(progress.done.all()):
            break
        atom = atoms.unit.index_select(0, chosen)
        overlap = torch.bmm(basis[:, :t], atom[:, :, None])[:, :, 0]
        inverse, projection = progress.take(chosen, overlap, (atom * residual).sum(1))
        direction = (atom - torch.bmm(overlap[:, None], basis[:, :t])[:, 0]) * inverse[:, None]
        basis[:, t] = direction
        residual.addcmul_(projection[:, None], direction, value=-1)
    return progress.finish(atoms)


@dataclass(frozen=True)
class NNOMP(RecoveryCoder):
    r"""Non-negative OMP: $j = \arg\max \langle \hat w_j, r \rangle$, then $\min_{f_S \ge 0} \lVert x - W_S f_S \rVert$.

    The coder for SAE decoders, whose latents are non-negative. The refit is true non-negative least squares on the
    chosen atoms, not least squares with a non-negative choice: an atom whose value becomes 0 keeps its slot and may
    come back. Stops early where no atom points towards the residual, which is then the optimum over f >= 0.

    Args:
        dictionary: W.
        k: atoms at most, at most d.
        tolerance: a row stops when its residual is at most this share of |x|.

    Raises:
        ValueError: if k is outside [1, min(n, d)] or tolerance outside [0, 1).

    Source:
        Bruckstein, Elad and Zibulevsky, "On the uniqueness of nonnegative sparse solutions to underdetermined systems
        of equations", 2008, section V.

    Example:
        >>> W = Dictionary(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]))
        >>> NNOMP(W, k=2).encode(torch.tensor([1.6, 0.8])).dense()
        tensor([1.0000, 1.0000, 0.0000])
    """

    dictionary: Dictionary
    k: int
    tolerance: float = 0.0

    label = "nonnegative matching pursuit"
    signed = False

    def __post_init__(self) -> None:
        check_dictionary("NNOMP", self.dictionary)
        check_k("NNOMP", self.dictionary, self.k, independent=True)
        check_tolerance("NNOMP", self.tolerance)

    def _rows(self, x: Float[Tensor, "rows d"], atoms: Atoms, total: int) -> SolvedRows:
        rows, k, eps = len(x), self.k, torch.finfo(x.dtype).eps
        scale = torch.linalg.vector_norm(x, dim=1)
        indices = torch.zeros(rows, k, dtype=torch.int64, device=x.device)
        filled = torch.zeros(rows, k, dtype=torch.bool, device=x.device)
        values = x.new_zeros(rows, k)
        support = x.new_zeros(rows, k, atoms.d)
        products, targets = x.new_zeros(rows, k, k), x.new_zeros(rows, k)
        residual, scores = x.clone(), x.new_empty(rows, atoms.n)
        converged = torch.ones(rows, dtype=torch.bool, device=x.device)
        met = torch.zeros(rows, dtype=torch.bool, device=x.device)
        made = 0
        for t in range(k):
            torch.mm(residual, atoms.unit.T, out=scores)
            if t:
                # Atoms already held cannot be taken again; those at 0 come back through the refit, not through a slot.
                scores.scatter_(1, indices[:, :t], -1.0)
            chosen = argmax(scores)
            best = scores.gather(1, chosen[:, None])[:, 0]
            met |= (best <= _FLOOR * eps * scale) | (
                torch.linalg.vector_norm(residual, dim=1) <= self.tolerance * scale
            )
            going = ~met
            if not bool(going.any()):
                break
            atom = atoms.unit.index_select(0, chosen) * going[:, None]
            support[:, t] = atom
            indices[:, t] = torch.where(going, chosen, indices[:, 0])
            filled[:, t] = going
            overlap = torch.bmm(support[:, : t + 1], atom[:, :, None])[:, :, 0]
            products[:, t, : t + 1] = overlap
            products[:, : t + 1, t] = overlap
            targets[:, t] = (atom * x).sum(1)
            active = slice(0, t + 1)
            fit, fine = non_negative_on_support(
                products[:, active, active], targets[:, active], filled[:, active], start=values[:, active]
            )
            values[:, active] = torch.where(going[:, None], fit, values[:, active])
            converged &= fine | met
            residual = x - torch.bmm(values[:, None, active], support[:, active])[:, 0]
            made += 1
        return SolvedRows(values / atoms.norms[indices], indices, converged, made)
