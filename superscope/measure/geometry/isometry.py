"""How far can W stretch or shrink a k-sparse code? An interval, since the exact answer is NP-hard."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core import Dictionary, Measurement
from .blocks import Directions, block_size, largest_overlaps, partners, whole
from .overlap import babel


@dataclass(frozen=True, eq=False)
class Isometry:
    """Where the restricted isometry constant lies.

    Args:
        lower: a support with this deviation was found.
        upper: no support deviates more (Gershgorin: the Babel function at k - 1).
        support: the atoms of that support.
        typical: mean deviation of random supports: what codes meet in practice.
        measurement: the lower bound with the upper one as reference and `typical` as chance.
    """

    lower: float
    upper: float
    support: Int[Tensor, "k"]
    typical: float
    measurement: Measurement


@torch.no_grad()
def isometry(W: Dictionary, k: int, *, starts: int = 64, sweeps: int = 40, seed: int = 0) -> Isometry:
    r"""Bounds on $\delta_k = \max_{|S| = k} \max(\lambda_{\max}(G_S) - 1, 1 - \lambda_{\min}(G_S))$.

    G_S is the Gram matrix of the unit atoms in S. The lower bound is searched for: from random supports and from the
    closest pairs, atoms are exchanged as long as the extreme eigenvalue grows. Sampling supports alone finds about half
    as much, so never call a Monte Carlo value "the RIP constant". For teaching, not for capacity: a random 256 x 1024
    dictionary has $\delta_8 \ge 0.95$, which certifies nothing beyond k = 2 or 3 where basis pursuit recovers k = 68.

    Args:
        W: dictionary of n >= 2 atoms. Norms do not matter.
        k: size of supports, from 2 to the number of nonzero atoms.
        starts: supports that the search begins with.
        sweeps: exchanges per start, at most.
        seed: of the random supports.

    Returns:
        Lower and upper bound, exact and equal to the coherence for k = 2.

    Raises:
        ValueError: if k, starts or sweeps is out of range, or fewer than two atoms are nonzero.

    Source:
        Candes and Tao, "Decoding by linear programming", 2005, definition 1.1. Bandeira, Dobriban, Mixon and Sawin,
        "Certifying the restricted isometry property is hard", 2013.

    Example:
        >>> found = isometry(Dictionary(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])), k=2)
        >>> round(found.lower, 6), round(found.upper, 6), found.support.tolist()
        (0.8, 0.8, [1, 2])
    """
    directions = Directions.of(W, "isometry")
    unit, index = directions.unit, directions.index
    n = len(unit)
    if whole("isometry", "k", k, 0) not in range(2, n + 1):
        raise ValueError(f"isometry: k must lie between 2 and {n}, the number of nonzero atoms; got {k}.")
    for name, count in (("starts", starts), ("sweeps", sweeps)):
        whole("isometry", name, count, 1)
    generator = torch.Generator().manual_seed(seed)
    random = torch.stack([torch.randperm(n, generator=generator)[:k] for _ in range(starts)]).to(unit.device)
    eigenvalues = torch.linalg.eigvalsh(_gram(unit, random))
    typical = float(torch.maximum(eigenvalues[:, -1] - 1, 1 - eigenvalues[:, 0]).mean())
    begin = torch.cat([random, _around_close_pairs(unit, k, starts)])
    best, support = -1.0, begin[0]
    for largest in (True, False):
        value, where = _exchange(unit, begin, largest, sweeps)
        if value > best:
            best, support = value, where
    # Scored again in float64: this is a bound, and rounding must not lift it.
    eigenvalues = torch.linalg.eigvalsh(_gram(torch.nn.functional.normalize(directions.atoms[support].double(), dim=1)))
    lower = float(torch.maximum(eigenvalues[-1] - 1, 1 - eigenvalues[0]).clamp(min=0))
    upper = max(float(babel(W, most=k - 1).largest[-1]), lower)
    return Isometry(
        lower=lower,
        upper=upper,
        support=index[support].sort().values,
        typical=typical,
        measurement=Measurement(
            name="restricted_isometry_lower_bound",
            value=lower,
            unit="relative squared length",
            n=n,
            of="atoms",
            how=f"largest found by exchange from {len(begin)} supports; the constant is at least this",
            reference=upper,
            reference_is="certified upper bound (Babel function)",
            chance=typical,
            chance_is=f"mean over {starts} random supports of this dictionary",
            at={"k": k},
            caution=directions.caution,
        ),
    )


def _gram(unit: Float[Tensor, "..."], supports: Int[Tensor, "s k"] | None = None) -> Float[Tensor, "..."]:
    chosen = unit if supports is None else unit[supports]
    return chosen @ chosen.mT


def _around_close_pairs(unit: Float[Tensor, "n d"], k: int, count: int) -> Int[Tensor, "s k"]:
    """Supports that hold one of the closest pairs and the neighbours of its first atom."""
    size = block_size(unit, None)
    best, where = largest_overlaps(unit, size)
    rows = best.topk(min(count, len(unit))).indices
    nearest_of_row = partners(unit, rows, where[rows], size)
    overlap = (unit[rows] @ unit.T).abs_()
    spots = torch.arange(len(rows), device=unit.device)
    # The atom and its partner first, in any case, then whatever is nearest.
    overlap[spots, rows] = 3.0
    overlap[spots, nearest_of_row] = 2.0
    return overlap.topk(k, dim=1).indices


def _exchange(
    unit: Float[Tensor, "n d"], supports: Int[Tensor, "s k"], largest: bool, sweeps: int
) -> tuple[float, Int[Tensor, "k"]]:
    """Local search: the atom least in the extreme eigenvector makes room for the one that fits it best."""
    supports = supports.clone()

    def score(some: Tensor) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(_gram(unit, some))
        return (values[:, -1] - 1, vectors[:, :, -1]) if largest else (1 - values[:, 0], vectors[:, :, 0])

    current, vector = score(supports)
    going = torch.arange(len(supports), device=unit.device)
    for _ in range(sweeps):
        held = supports[going]
        weakest = vector[going].abs().argmin(1, keepdim=True)
        rest = vector[going].scatter(1, weakest, 0.0)
        # For the largest eigenvalue an atom along the sum lengthens it; for the smallest one against it cancels it.
        fit = (torch.bmm(rest[:, None], unit[held])[:, 0] @ unit.T).abs_()
        fit.scatter_(1, held, -1.0)
        trial = held.scatter(1, weakest, fit.argmax(1, keepdim=True))
        value, new = score(trial)
        better = value > current[going] + 1e-6
        going, trial = going[better], trial[better]
        if not len(going):
            break
        supports[going], current[going], vector[going] = trial, value[better], new[better]
    top = int(current.argmax())
    return float(current[top]), supports[top]
