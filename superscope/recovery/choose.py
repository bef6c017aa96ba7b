"""Which solver for this W and this many active features, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..core import Dictionary
from .amp import weak_threshold
from .basis_pursuit import BasisPursuit
from .coordinate_descent import CoordinateDescent
from .matching_pursuit import NNOMP, OMP
from .problem import Atoms, RecoveryCoder, check_dictionary, check_k
from .thresholding import Thresholding


@dataclass(frozen=True)
class Choice:
    """A solver, ready to use, and the reason in a sentence or two."""

    solver: RecoveryCoder
    reason: str


@torch.no_grad()
def best_for(W: Dictionary, k: int, *, nonnegative: bool = False, noise: float = 0.0) -> Choice:
    r"""The solver to try first for codes of k nonzeros on W.

    Greedy pursuit while $2 k \ln(n/k) + \frac54 k + 1 \le d$ (half of that on a dictionary whose frame operator is far
    from flat), basis pursuit from there to the Donoho-Tanner threshold, the lasso where x is noisy, one step for k = 1.
    The limits are those of typical codes on random dictionaries, measured at 256 x 1024; your amplitudes may move them:
    equal amplitudes are the hardest for pursuit, a wide range of them the easiest.

    Args:
        W: dictionary.
        k: expected nonzeros per row.
        nonnegative: whether f >= 0, as for SAE latents.
        noise: standard deviation of noise in each coordinate of x.

    Returns:
        A solver and its reason. The reason says so where no known solver should be expected to succeed.

    Raises:
        ValueError: if k is outside [1, n] or noise is negative.

    Source:
        Chandrasekaran, Recht, Parrilo and Willsky, "The convex geometry of linear inverse problems", 2012, Proposition
        3.10. Donoho and Tanner, "Counting faces of randomly projected polytopes when the projection radically lowers
        dimension", 2009.

    Example:
        >>> W = Dictionary(torch.randn(1024, 256, generator=torch.Generator().manual_seed(0)))
        >>> type(best_for(W, 8).solver).__name__, type(best_for(W, 50).solver).__name__
        ('OMP', 'BasisPursuit')
    """
    check_dictionary("best_for", W)
    check_k("best_for", W, k, independent=False)
    if not (math.isfinite(noise) and noise >= 0):
        raise ValueError(f"best_for: noise must be a finite standard deviation, at least 0; got {noise}.")
    n, d = W.n, W.d
    law = "non-negative l1" if nonnegative else "l1"
    reach = weak_threshold(d / n, nonnegative=nonnegative)[0] * d
    flatness = _flatness(Atoms.of(W))
    greedy = max((s for s in range(1, min(n, d) + 1) if 2 * s * math.log(n / s) + 1.25 * s + 1 <= d), default=1)
    structured = flatness < 0.8
    shape = (
        f"the dictionary is far from isotropic (effective dimension {flatness:.0%} of a random one's), which halves "
        "what pursuit reaches"
        if structured
        else "the dictionary is as isotropic as a random one"
    )
    if structured:
        greedy = max(1, greedy // 2)
    if k == 1:
        return Choice(
            Thresholding(W, k=1, nonnegative=nonnegative),
            "With one active feature the best matching atom is the answer: nothing is left to iterate.",
        )
    if k > reach:
        solver = BasisPursuit(W, nonnegative=nonnegative)
        return Choice(
            solver,
            f"k = {k} is beyond the Donoho-Tanner threshold of {law} (k = {reach:.0f} at n = {n}, d = {d}): "
            "typical codes are not recovered by any solver here. Basis pursuit degrades most gracefully; check it on "
            "known codes.",
        )
    if noise > 0:
        penalty = noise * math.sqrt(2 * math.log(n))
        return Choice(
            CoordinateDescent(W, penalty=penalty, nonnegative=nonnegative),
            "x is noisy, so W f should not match it exactly: the lasso at penalty noise x sqrt(2 ln n) = "
            f"{penalty:.3g} (unit atoms) keeps noise below it out of the code; k = {k} is within the {law} threshold "
            f"of {reach:.0f}. Refit afterwards to undo its shrinkage.",
        )
    if k <= greedy:
        solver = NNOMP(W, k=k) if nonnegative else OMP(W, k=k)
        return Choice(
            solver,
            f"k = {k} is within what pursuit finds for typical codes (k = {greedy} at n = {n}, d = {d}; {shape}), at a "
            "hundredth of the cost of basis pursuit.",
        )
    return Choice(
        BasisPursuit(W, nonnegative=nonnegative),
        f"k = {k} is beyond what pursuit finds safely (k = {greedy}; {shape}) but within the {law} threshold of "
        f"{reach:.0f}, which hardly depends on the dictionary's shape.",
    )


def _flatness(atoms: Atoms) -> float:
    """Participation ratio of the frame operator of unit atoms, over that of a random frame, n d / (n + d - 1)."""
    a = atoms.unit.double()
    side = a.T @ a if atoms.n > atoms.d else a @ a.T
    potential = float(side.square().sum())
    if potential == 0:
        return 1.0
    return float(side.trace()) ** 2 / potential / (atoms.n * atoms.d / (atoms.n + atoms.d - 1))
