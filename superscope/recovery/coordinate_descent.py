"""f by moving, each time, the one number whose move helps most: the lasso for codes with few nonzeros."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..core import Dictionary
from .problem import (
    NOISELESS_PENALTY,
    Atoms,
    Engine,
    RecoveryCoder,
    SolvedRows,
    argmax,
    check_count,
    check_dictionary,
    check_engine,
    check_positive,
    check_tolerance,
    compiled,
    joined,
    rows_within,
)
from .proximal import soft

_SLOTS = 128
"""Atoms per row that the compiled loop holds."""
_JUMP_AFTER = 6
"""Single steps between two joint solutions for the held atoms; one of those costs as much as four to six steps."""


@dataclass(frozen=True)
class CoordinateDescent(RecoveryCoder):
    r"""$f_j \leftarrow \mathrm{soft}_\lambda(f_j + \langle w_j, r \rangle)$ for the j that moves most.

    Greedy coordinate descent. Minimises $\frac12 \lVert x - W f \rVert^2 + \lambda \lVert f \rVert_1$, many rows at
    once; the objective never rises. Takes 2 to 4 steps per nonzero, each of them one row of the Gram matrix (or one O(n
    d) product without it), which makes it the fastest lasso here for codes as sparse as an SAE's. Dense codes (more
    than n / 20 nonzeros): `FISTA`.

    Args:
        dictionary: W, of any norm: the penalty falls on f as it multiplies the atoms given.
        penalty: lambda, in units of x times the norm of an atom. At max |W^T x| the code is 0.
        steps: at most, per row.
        tolerance: a row is converged where no single move, in units of x, exceeds this share of max |W^T x|.
        nonnegative: restricts to f >= 0.
        gram: whether to build the Gram matrix; None decides by size and number of rows.
        engine: with the Gram matrix on a CPU, "numba" compiles the single moves; "auto" does so for large work where it
            is installed. The same optimum.

    Raises:
        ValueError: if penalty <= 0, steps < 1 or tolerance is outside [0, 1).

    Source:
        Wu and Lange, "Coordinate descent algorithms for lasso penalized regression", 2008 (greedy form).
        Nutini, Schmidt, Laradji, Friedlander and Koepke, "Coordinate descent converges faster with the Gauss-Southwell
        rule than random selection", 2015.
        Lee, Battle, Raina and Ng, "Efficient sparse coding algorithms", 2006 (the joint step).

    Example:
        >>> CoordinateDescent(Dictionary(torch.eye(2)), penalty=0.5).encode(torch.tensor([2.0, 0.25])).dense()
        tensor([1.5000, 0.0000])
    """

    dictionary: Dictionary
    penalty: float
    steps: int = 2000
    tolerance: float = 1e-4
    nonnegative: bool = False
    gram: bool | None = None
    engine: Engine = "auto"

    @classmethod
    def noiseless(cls) -> dict[str, Any]:
        return {"penalty": NOISELESS_PENALTY}

    def __post_init__(self) -> None:
        check_engine("CoordinateDescent", self.engine)
        check_dictionary("CoordinateDescent", self.dictionary)
        check_positive("CoordinateDescent", "penalty", self.penalty)
        check_count("CoordinateDescent", "steps", self.steps)
        check_tolerance("CoordinateDescent", self.tolerance)

    def _chunk(self, atoms: Atoms) -> int:
        return 32 * rows_within(atoms, 4 * atoms.n)

    def _rows(self, x: Float[Tensor, "rows d"], atoms: Atoms, total: int) -> SolvedRows:
        by_gram = atoms.gram_pays(total, 64) if self.gram is None else self.gram
        fast = compiled(x.device, self.engine, total * 64 * atoms.n) if by_gram else None
        if fast is None:
            return joined([self._batched(part, atoms, by_gram) for part in x.split(rows_within(atoms, 4 * atoms.n))])
        values, indices, finished, made = fast.lasso(
            x,
            atoms.unit,
            atoms.gram,
            self.penalty / atoms.norms,
            self.tolerance,
            self.nonnegative,
            self.steps,
            min(atoms.n, _SLOTS),
        )
        # Slots are filled from the left; drop those that no row has reached.
        used = (values != 0).any(0).nonzero()
        width = int(used[-1]) + 1 if len(used) else 1
        values, indices = values[:, :width], indices[:, :width]
        answer = SolvedRows(values / atoms.norms[indices], indices, finished, made)
        rest = (~finished).nonzero()[:, 0]
        if not len(rest) or made >= self.steps:
            return answer
        # Rows that took too many single moves or atoms, or stand still above the optimum: joint steps suit them.
        slow = [self._batched(part, atoms, by_gram) for part in x[rest].split(rows_within(atoms, 4 * atoms.n))]
        both = joined([answer, *slow])
        values, indices, converged, steps = both
        for field in (values, indices, converged):
            field[rest] = field[len(x) :].clone()
        return SolvedRows(values[: len(x)], indices[: len(x)], converged[: len(x)], steps)

    def _batched(self, x: Float[Tensor, "rows d"], atoms: Atoms, by_gram: bool) -> SolvedRows:
        unit, rows, nonnegative = atoms.unit, len(x), self.nonnegative
        # In unit atoms the lasso has one penalty per atom: lambda |f_i| = (lambda / |w_i|) | |w_i| f_i |.
        penalties = self.penalty / atoms.norms
        equal = bool((penalties == penalties[0]).all())
        state = _State(x, unit, self.tolerance)
        finished, since = torch.zeros(rows, dtype=torch.bool, device=x.device), 0
        converged = finished.clone()
        answers: list[tuple[Tensor, Tensor, Tensor]] = []
        scores = torch.empty_like(state.correlation)
        made = 0
        while True:
            # A new atom would move by its |correlation| less the penalty. For a held one that is at most its true move,
            # which the slots below give: so taking the larger of the two misses nothing.
            if nonnegative:
                scores.copy_(state.correlation)
            else:
                torch.abs(state.correlation, out=scores)
            if not equal:
                scores -= penalties
            fresh = argmax(scores)
            at = state.correlation.gather(1, fresh[:, None])[:, 0]
            start = soft(at, penalties[fresh], nonnegative=nonnegative)
            gain = (at if nonnegative else at.abs()) - penalties[fresh]
            weights = penalties[state.indices]
            moves = soft(state.values + state.slopes, weights, nonnegative=nonnegative) - state.values
            moves.masked_fill_(~state.in_use, 0)
            largest, slot = moves.abs().max(1)
            # In exact arithmetic the second clause follows from the first; rounding must not open an atom twice.
            inside = (largest >= gain) | ((state.indices == fresh[:, None]) & state.in_use).any(1)
            finished |= torch.maximum(largest, gain) <= state.goal
            # A value whose best move is to 0, but by less than the tolerance, goes there: rounding is not a feature.
            state.values.masked_fill_(finished[:, None] & (moves == -state.values), 0)
            if made >= self.steps or bool(finished.all()):
                answers.append((state.going, state.indices, state.values))
                converged[state.going] = finished
                break
            made += 1
            since += 1
            if int(finished.sum()) * 3 > len(finished):
                answers.append((state.going[finished], state.indices[finished], state.values[finished]))
                converged[state.going[finished]] = True
                rest = (~finished).nonzero()[:, 0]
                state.keep(rest)
                finished, scores = finished[rest], torch.empty_like(state.correlation)
                since = _JUMP_AFTER
                continue
            if since >= _JUMP_AFTER and int((inside | finished).sum()) * 2 >= len(inside):
                # Most rows only move atoms they hold: solve for those together instead of one after the other.
                state.jump(unit, penalties, finished)
                since = 0
                continue
            slot = torch.where(inside, slot, state.used)[:, None]
            step = torch.where(inside, moves.gather(1, slot.clamp(max=moves.shape[1] - 1))[:, 0], start)
            step = torch.where(finished, 0, step)
            chosen = state.take(slot, fresh, step, ~inside & ~finished)
            row = atoms.gram.index_select(0, chosen) if by_gram else unit.index_select(0, chosen) @ unit.T
            state.correlation.addcmul_(step[:, None], row, value=-1)
        width = max(part[1].shape[1] for part in answers)
        all_values = x.new_zeros(rows, width)
        all_indices = torch.zeros(rows, width, dtype=torch.int64, device=x.device)
        for where, some_indices, some_values in answers:
            all_indices[where, : some_indices.shape[1]] = some_indices
            all_values[where, : some_values.shape[1]] = some_values
        return SolvedRows(all_values / atoms.norms[all_indices], all_indices, converged, made)


class _State:
    """The rows still going: their codes in slots (an atom never has two), and W^T r for every atom."""

    def __init__(self, x: Float[Tensor, "rows d"], unit: Float[Tensor, "n d"], tolerance: float) -> None:
        self.x = x
        self.correlation = x @ unit.T
        self.goal = tolerance * self.correlation.abs().amax(1)
        self.going = torch.arange(len(x), device=x.device)
        self.indices = torch.zeros(len(x), 16, dtype=torch.int64, device=x.device)
        self.values = x.new_zeros(len(x), 16)
        self.used = torch.zeros(len(x), dtype=torch.int64, device=x.device)

    @property
    def slopes(self) -> Float[Tensor, "rows slots"]:
        return self.correlation.gather(1, self.indices)

    @property
    def in_use(self) -> Bool[Tensor, "rows slots"]:
        return torch.arange(self.values.shape[1], device=self.values.device) < self.used[:, None]

    def keep(self, rest: Int[Tensor, "rest"]) -> None:
        for name, tensor in vars(self).items():
            setattr(self, name, tensor[rest])

    def take(
        self,
        slot: Int[Tensor, "rows 1"],
        fresh: Int[Tensor, "rows"],
        step: Float[Tensor, "rows"],
        opening: Bool[Tensor, "rows"],
    ) -> Int[Tensor, "rows"]:
        """Moves the value in `slot`, opening it for `fresh` where told; returns the atom that moved."""
        if int(self.used.max()) == self.values.shape[1]:
            self.indices = torch.cat([self.indices, torch.zeros_like(self.indices)], 1)
            self.values = torch.cat([self.values, torch.zeros_like(self.values)], 1)
        # A finished row moves by 0, and its slot may then lie just past the last.
        slot = slot.clamp(max=self.values.shape[1] - 1)
        chosen = torch.where(opening, fresh, self.indices.gather(1, slot)[:, 0])
        self.indices.scatter_(1, slot, chosen[:, None])
        self.values.scatter_add_(1, slot, step[:, None])
        self.used += opening
        return chosen

    def jump(self, unit: Float[Tensor, "n d"], penalties: Float[Tensor, "n"], still: Bool[Tensor, "rows"]) -> None:
        """Goes to the minimum over the held values with their signs, or towards it until a value reaches 0.

        The objective is quadratic as long as no sign changes, so it falls all the way.
        """
        width = int(self.used.max())
        if not width:
            return
        values, indices = self.values[:, :width], self.indices[:, :width]
        held = values != 0
        chosen = unit[indices] * held[:, :, None]
        slope = torch.where(held, self.slopes[:, :width] - penalties[indices] * values.sign(), 0)
        # A hair of ridge: where held atoms are dependent it sends the step along what they have in common.
        ridge = 64 * width * torch.finfo(values.dtype).eps
        matrix = chosen @ chosen.mT + torch.diag_embed(torch.where(held, ridge, 1.0).to(values.dtype))
        factor, failed = torch.linalg.cholesky_ex(matrix)
        trial = values + torch.cholesky_solve(slope[:, :, None], factor)[:, :, 0]
        trial = torch.where((failed == 0)[:, None], trial, values)
        crossing = held & (trial * values.sign() <= 0)
        share = torch.where(crossing, values / (values - trial), torch.inf).amin(1, keepdim=True).clamp(max=1)
        moved = values + share * (trial - values)
        moved = torch.where(crossing & (moved * values.sign() <= 0), 0, moved)
        self.values[:, :width] = torch.where(still[:, None], values, moved)
        # From scratch: this also clears the rounding that single steps have left.
        residual = self.x - torch.bmm(self.values[:, None, :width], chosen)[:, 0]
        torch.mm(residual, unit.T, out=self.correlation)
