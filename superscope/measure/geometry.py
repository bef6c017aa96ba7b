"""How much do the atoms of W overlap, beside what n directions in d dimensions must and what random ones do?

Cosines are between normalised atoms unless a function says otherwise; atoms that are exactly zero have no direction,
are left out and counted in the caution. Quantities of pairs (coherence, nearest atom, Babel function, histograms) take
one blocked pass over the pairs, O(n^2 d) time and O(block^2) memory; sums over pairs go through the d x d frame
operator and cost O(n d^2). The n x n Gram matrix is never held.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.stats
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core import Dictionary, Measurement, Table
from ..theory import welch
from .metric import metric

_SCREEN_SLACK = 4e-3
"""Room for the rounding of a bfloat16 cosine: 7.7e-4 at most was measured on 24 576 x 768."""


class Nearest(NamedTuple):
    """For each atom, the other atom it overlaps most with; NaN and -1 for a zero atom.

    Args:
        magnitude: largest absolute cosine, in [0, 1].
        partner: the atom that has it (the first found, where several have).
        cosine: the same cosine with its sign; negative means nearly opposite.
    """

    magnitude: Float[Tensor, "n"]
    partner: Int[Tensor, "n"]
    cosine: Float[Tensor, "n"]


class Pairs(NamedTuple):
    """Pairs of atoms, largest absolute cosine first.

    Args:
        cosine: with its sign.
        first, second: the atoms, first < second.
    """

    cosine: Float[Tensor, "pairs"]
    first: Int[Tensor, "pairs"]
    second: Int[Tensor, "pairs"]


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of W beside the counts expected of a random frame of the same n and d.

    Args:
        edges: bin edges, one more than counts.
        count: of W.
        chance: expected of independent uniform directions.
        chance_low, chance_high: central 95 % of each bin's count under chance.
        of: what is counted ("pairs", "atoms").
    """

    edges: Float[Tensor, "edges"]
    count: Int[Tensor, "bins"]
    chance: Float[Tensor, "bins"]
    chance_low: Float[Tensor, "bins"]
    chance_high: Float[Tensor, "bins"]
    of: str

    def table(self) -> Table:
        """Columns series, low, high, count: the rows of W first, then those of the random frame."""
        low, high = self.edges[:-1].tolist(), self.edges[1:].tolist()
        return {
            "series": ["dictionary"] * len(low) + ["random frame"] * len(low),
            "low": low * 2,
            "high": high * 2,
            "count": [float(c) for c in self.count.tolist()] + self.chance.tolist(),
        }


@metric(range=(0.0, 1.0), unit="cosine", invariant=("rotation", "permutation", "scale", "sign"))
def coherence(W: Dictionary, *, block: int | None = None) -> Measurement:
    r"""Largest overlap of two atoms: $\mu = \max_{i \ne j} |\langle \hat w_i, \hat w_j \rangle|$.

    One duplicated atom sets it to 1, so read it with `mean_max_cosine`. Zero atoms are left out. Costs O(n^2 d) time
    and O(block^2) memory; the attaining pair is scored again in float64.

    Args:
        W: dictionary of n >= 2 atoms. Norms do not matter.
        block: atoms per block; None chooses for the device.

    Returns:
        A cosine in [0, 1], with the Welch bound for (n, d) as reference: no dictionary is below it. Chance is the
        median over random frames. `at` names the pair: `atom` and `other`.

    Raises:
        ValueError: if fewer than two atoms are nonzero.

    Source:
        Donoho and Huo, "Uncertainty principles and ideal atomic decomposition", 2001.
        Welch, "Lower bounds on the maximum cross correlation of signals", 1974.

    Example:
        >>> square = Dictionary(torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, -2.0]]))
        >>> mu = coherence(square)
        >>> round(mu.value, 6), mu.at["atom"], mu.at["other"], round(mu.reference, 6)
        (0.8, 1, 2, 0.5)
    """
    directions = _Directions.of(W, "coherence")
    best, where = _largest_overlaps(directions.unit, _block(directions.unit, block))
    # Everything within rounding of the largest is scored again; a frame with equal cosines has many, a few suffice.
    rows = (best >= best.max() - 1e-5).nonzero()[:, 0][:1024]
    partner = _partners(directions.unit, rows, where[rows], _block(directions.unit, block))
    cosine = _exact_cosines(directions.atoms, rows, partner).abs()
    top = int(cosine.argmax())
    pair = sorted((int(directions.index[rows[top]]), int(directions.index[partner[top]])))
    n, d = directions.unit.shape
    low, middle, high = (random_max_cosine(n * (n - 1) // 2, d, quantile=q) for q in (0.05, 0.5, 0.95))
    return Measurement(
        name="coherence",
        value=min(float(cosine[top]), 1.0),
        unit="cosine",
        n=n,
        of="atoms",
        how="exact: every pair was compared",
        reference=welch(n, d),
        reference_is="Welch bound",
        chance=middle,
        chance_is=f"random frame (median; 5 to 95 %: {low:.4g} to {high:.4g})",
        at={"atom": pair[0], "other": pair[1]},
        caution=directions.caution,
    )


@torch.no_grad()
def nearest(W: Dictionary, *, block: int | None = None) -> Nearest:
    r"""For each atom the other one with the largest $|\langle \hat w_i, \hat w_j \rangle|$.

    Two atoms may share one partner, and being nearest need not be mutual.

    Args:
        W: dictionary of n >= 2 atoms. Norms do not matter.
        block: atoms per block; None chooses for the device.

    Returns:
        Magnitude, partner and signed cosine per atom, float64; a zero atom has NaN and partner -1.

    Raises:
        ValueError: if fewer than two atoms are nonzero.

    Example:
        >>> found = nearest(Dictionary(torch.tensor([[1.0, 0.0], [0.6, -0.8], [0.0, 1.0]])))
        >>> found.partner.tolist(), [round(c, 6) for c in found.cosine.tolist()]
        ([1, 2, 1], [0.6, -0.8, -0.8])
    """
    directions = _Directions.of(W, "nearest")
    return _nearest(directions, W.n, block)


@metric(range=(0.0, 1.0), unit="cosine", invariant=("rotation", "permutation", "scale", "sign"))
def mean_max_cosine(W: Dictionary, *, block: int | None = None) -> Measurement:
    r"""Mean nearest cosine: $\frac{1}{n} \sum_i \max_{j \ne i} |\langle \hat w_i, \hat w_j \rangle|$.

    In SAE work "MMCS" also names the mean over the atoms of one dictionary of the best cosine in *another* one; this is
    within one dictionary.

    Args:
        W: dictionary of n >= 2 atoms. Norms do not matter.
        block: atoms per block; None chooses for the device.

    Returns:
        A cosine in [0, 1]; the Welch bound is the reference (all nearest cosines equal it on an equiangular tight
        frame), chance the exact expectation for independent uniform directions.

    Raises:
        ValueError: if fewer than two atoms are nonzero.

    Example:
        >>> triangle = torch.tensor([[1.0, 0.0], [-0.5, 3**0.5 / 2], [-0.5, -(3**0.5) / 2]])
        >>> round(mean_max_cosine(Dictionary(triangle)).value, 6)
        0.5
    """
    directions = _Directions.of(W, "mean_max_cosine")
    found = _nearest(directions, W.n, block)
    n, d = directions.unit.shape
    return Measurement(
        name="mean_max_cosine",
        value=min(float(found.magnitude[directions.index].mean()), 1.0),
        unit="cosine",
        n=n,
        of="atoms",
        how="exact: every pair was compared",
        reference=welch(n, d),
        reference_is="Welch bound",
        chance=random_max_cosine(n - 1, d),
        chance_is="random frame (expectation)",
        caution=directions.caution,
    )


@metric(range=(0.0, math.inf), unit="squared cosine", invariant=("rotation", "permutation", "scale", "sign"))
def interference_energy(W: Dictionary) -> Measurement:
    r"""Mean squared overlap with all others: $\frac1n \sum_i \sum_{j \ne i} \langle \hat w_i, \hat w_j \rangle^2$.

    It is what a linear read-out of one unit feature suffers from the others: with independent features of variance v
    the variance of the error is v times this. Equal to (frame potential - n) / n. Through the d x d frame operator
    S = sum_i w_i w_i^T it costs O(n d^2), no pass over pairs.

    At n >> d it can hardly tell a learned dictionary from chance: the best possible frame has n/d - 1, a random one
    (n - 1)/d, less than one unit more. Tails (coherence, nearest cosines) and co-activation can.

    Args:
        W: dictionary of n >= 2 atoms. Norms do not matter.

    Returns:
        A number in [0, n - 1], with the tight frame's n/d - 1 (0 for n <= d) as reference and the expectation over
        random frames as chance.

    Raises:
        ValueError: if fewer than two atoms are nonzero.

    Source:
        Benedetto and Fickus, "Finite normalized tight frames", 2003, Theorem 6.2 (the frame potential).

    Example:
        >>> triangle = torch.tensor([[1.0, 0.0], [-0.5, 3**0.5 / 2], [-0.5, -(3**0.5) / 2]])
        >>> energy = interference_energy(Dictionary(triangle))
        >>> round(energy.value, 6), energy.reference, energy.chance
        (0.5, 0.5, 1.0)
    """
    directions = _Directions.of(W, "interference_energy")
    n, d = directions.unit.shape
    potential = float(_gram_of_smaller_side(directions.unit).square().sum())
    return Measurement(
        name="interference_energy",
        # Rounding can leave an orthonormal basis a hair below its bound.
        value=max((potential - n) / n, max(n / d - 1, 0.0)),
        unit="squared cosine",
        n=n,
        of="atoms",
        how="exact: through the frame operator",
        reference=max(n / d - 1, 0.0),
        reference_is="tight frame",
        chance=(n - 1) / d,
        chance_is="random frame (expectation)",
        caution=directions.caution,
    )


@metric(range=(1.0, math.inf), unit="squared cosine", invariant=("rotation", "permutation", "scale", "sign"))
def frame_potential(W: Dictionary) -> Measurement:
    r"""$FP = \sum_{i,j} \langle \hat w_i, \hat w_j \rangle^2 = \lVert \hat W \hat W^\top \rVert_F^2$.

    Sums over all ordered pairs, i = j included; at least max(n, n^2/d). Equality with n^2/d means a tight frame.
    n^2 / FP is the participation ratio of the frame operator: the two are one number.

    Args:
        W: dictionary of n >= 2 atoms. Norms do not matter.

    Returns:
        A sum of squared cosines; the reference is max(n, n^2/d), chance n + n(n-1)/d.

    Raises:
        ValueError: if fewer than two atoms are nonzero.

    Source:
        Benedetto and Fickus, "Finite normalized tight frames", 2003, Theorem 6.2.

    Example:
        >>> round(frame_potential(Dictionary(torch.eye(3))).value, 6)
        3.0
    """
    directions = _Directions.of(W, "frame_potential")
    n, d = directions.unit.shape
    bound = max(float(n), n * n / d)
    return Measurement(
        name="frame_potential",
        value=max(float(_gram_of_smaller_side(directions.unit).square().sum()), bound),
        unit="squared cosine",
        n=n,
        of="atoms",
        how="exact: through the frame operator",
        reference=bound,
        reference_is="tight frame",
        chance=n + n * (n - 1) / d,
        chance_is="random frame (expectation)",
        caution=directions.caution,
    )


@torch.no_grad()
def nearest_histogram(W: Dictionary, *, bins: int = 50, block: int | None = None) -> Histogram:
    r"""Atoms by their largest $|\langle \hat w_i, \hat w_j \rangle|$, beside a random frame.

    Under chance the count of a bin is taken as binomial with doubled variance: the largest cosine of a pair is often
    the nearest of *both* its atoms, which at worst makes counts move in twos.

    Args:
        W: dictionary of n >= 2 atoms. Norms do not matter.
        bins: equal bins of [0, 1].
        block: atoms per block; None chooses for the device.

    Returns:
        A histogram of atoms.

    Raises:
        ValueError: if fewer than two atoms are nonzero, or bins < 1.
    """
    directions = _Directions.of(W, "nearest_histogram")
    n, d = directions.unit.shape
    edges = np.linspace(0, 1, _whole("nearest_histogram", "bins", bins, 1) + 1)
    values = _nearest(directions, W.n, block).magnitude[directions.index].clamp(max=1.0)
    count = torch.histogram(values.cpu(), torch.from_numpy(edges)).hist.to(torch.int64)
    share = np.diff(_random_max_cdf(edges, n - 1, d))
    return _with_chance(edges, count, share, n, "atoms", variance_factor=2)


@torch.no_grad()
def cosine_histogram(W: Dictionary, *, bins: int = 200, block: int | None = None) -> Histogram:
    r"""All $n(n-1)/2$ signed cosines $\langle \hat w_i, \hat w_j \rangle$, beside a random frame.

    For independent uniform directions cos^2 follows Beta(1/2, (d-1)/2), and different pairs are pairwise independent,
    so the binomial variance of each count is exact.

    Args:
        W: dictionary of n >= 2 atoms. Norms do not matter.
        bins: equal bins of [-1, 1].
        block: atoms per block; None chooses for the device.

    Returns:
        A histogram of pairs. Signed, so that nearly opposite atoms can be seen.

    Raises:
        ValueError: if fewer than two atoms are nonzero, or bins < 1.
    """
    directions = _Directions.of(W, "cosine_histogram")
    n, d = directions.unit.shape
    bins = _whole("cosine_histogram", "bins", bins, 1)
    count = torch.zeros(bins, dtype=torch.float64)
    for first, second, cosines in _blocks(directions.unit, _block(directions.unit, block)):
        cosines.clamp_(-1, 1)
        if first == second:
            # histc ignores what lies outside its range: each pair is counted once, an atom never with itself.
            cosines.masked_fill_(torch.ones_like(cosines, dtype=torch.bool).tril_(), 2.0)
        # histc counts in the dtype of its input; a block of 4096^2 float32 is still below 2^24.
        count += torch.histc(cosines, bins, -1.0, 1.0).double().cpu()
    edges = np.linspace(-1, 1, bins + 1)
    return _with_chance(edges, count.to(torch.int64), np.diff(_cosine_cdf(edges, d)), n * (n - 1) // 2, "pairs")


def random_max_cosine(count: int, d: int, *, quantile: float | None = None) -> float:
    r"""Largest absolute cosine among `count` independent pairs of uniform directions in d dimensions.

    $P(\max \le e) = (1 - P(e))^{\text{count}}$ with $P(e) = I_{1-e^2}(\frac{d-1}{2}, \frac12)$. With count = n - 1 it
    is the law of one atom's nearest neighbour in a random frame (exact), with n(n-1)/2 that of its coherence (pairs are
    pairwise independent, not jointly: an excellent approximation at any size that matters). The usual
    $\sqrt{4 \ln n / d}$ is 5 to 11 % too large.

    Args:
        count: pairs, at least 1.
        d: dimension, at least 1.
        quantile: in (0, 1); None gives the expectation.

    Returns:
        A cosine in [0, 1].

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> round(random_max_cosine(24576 * 24575 // 2, 768, quantile=0.5), 4)
        0.2133
    """
    count, d = _whole("random_max_cosine", "count", count, 1), _whole("random_max_cosine", "d", d, 1)
    if quantile is not None and not 0 < quantile < 1:
        raise ValueError(
            f"random_max_cosine: quantile must lie in (0, 1); got {quantile}. Pass None for the expectation."
        )
    if d == 1:
        return 1.0
    # The mean over the midpoints of 4096 equal quantiles is good to 1e-6: the law has no heavy tail.
    levels = np.array([quantile]) if quantile is not None else (np.arange(4096) + 0.5) / 4096
    tail = -np.expm1(np.log(levels) / count)
    return float(np.sqrt(scipy.stats.beta.isf(tail, 0.5, (d - 1) / 2)).mean())


# --- directions and blocks -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Directions:
    """The nonzero atoms, as given and normalised, and where they stood."""

    atoms: Float[Tensor, "m d"]
    unit: Float[Tensor, "m d"]
    index: Int[Tensor, "m"]
    caution: str

    @classmethod
    def of(cls, W: Dictionary, caller: str, least: int = 2) -> _Directions:
        atoms = _working(W, caller)
        # Scaled by the largest entry first, so that norms of tiny or huge atoms neither underflow nor overflow.
        peak = torch.linalg.vector_norm(atoms, ord=math.inf, dim=1)
        index = peak.nonzero()[:, 0]
        zeros = W.n - len(index)
        if len(index) < least:
            raise ValueError(
                f"{caller}: W must have at least {least} nonzero atoms; it has {len(index)} of {W.n}. "
                "An overlap needs two directions."
            )
        if zeros:
            atoms, peak = atoms[index], peak[index]
        unit = atoms / peak[:, None]
        unit /= torch.linalg.vector_norm(unit, dim=1, keepdim=True)
        caution = f"{zeros} zero atom{'s' if zeros > 1 else ''} left out" if zeros else ""
        return cls(atoms, unit, index, caution)


def _working(W: Dictionary, caller: str) -> Float[Tensor, "n d"]:
    """The atoms in float32 or float64."""
    if not isinstance(W, Dictionary):
        shape = f" of shape {tuple(W.shape)}" if isinstance(W, Tensor) else ""
        raise TypeError(
            f"{caller}: W must be a Dictionary; got {type(W).__name__}{shape}. "
            "Write Dictionary(matrix) with one atom per row: n x d, not the formula's d x n."
        )
    atoms = W.atoms.detach()
    return atoms if atoms.dtype in (torch.float32, torch.float64) else atoms.float()


def _whole(caller: str, name: str, value: int, least: int) -> int:
    if value < least:
        raise ValueError(f"{caller}: {name} must be at least {least}; got {value}.")
    return int(value)


def _block(unit: Tensor, block: int | None) -> int:
    if block is not None:
        return _whole("geometry", "block", block, 1)
    # 2048: a float32 block (16 MB) still mostly in cache, and GEMM at its peak; GPUs need larger tiles to fill up.
    return 2048 if unit.device.type == "cpu" else 8192


def _blocks(unit: Float[Tensor, "n d"], block: int) -> Iterator[tuple[int, int, Float[Tensor, "rows columns"]]]:
    """(first row, first column, cosines) over the upper triangle of blocks. The tensor is reused."""
    n = len(unit)
    buffer = unit.new_empty(min(block, n) ** 2)
    for first in range(0, n, block):
        rows = unit[first : first + block]
        for second in range(first, n, block):
            columns = unit[second : second + block]
            cosines = buffer[: len(rows) * len(columns)].view(len(rows), len(columns))
            torch.mm(rows, columns.T, out=cosines)
            yield first, second, cosines


def _largest_overlaps(unit: Float[Tensor, "n d"], block: int) -> tuple[Float[Tensor, "n"], Int[Tensor, "n"]]:
    """Per atom the largest |cosine| and the first atom of the block that holds its partner.

    Only values are reduced here: a maximum with its index costs 7 (rows) to 35 ms (columns) per 2048^2 block where the
    bare maximum costs 1 and 2.5, beside 48 for the product itself. `_partners` then looks in one block per atom.
    """
    best = unit.new_full((len(unit),), -1.0)
    where = torch.zeros(len(unit), dtype=torch.int64, device=unit.device)

    def update(start: int, values: Tensor, held_by: int) -> None:
        stretch = slice(start, start + len(values))
        where[stretch] = torch.where(values > best[stretch], held_by, where[stretch])
        best[stretch] = torch.maximum(best[stretch], values)

    for first, second, cosines in _blocks(unit, block):
        cosines.abs_()
        if first == second:
            cosines.fill_diagonal_(-1.0)
        update(first, cosines.amax(1), second)
        if first != second:
            update(second, cosines.amax(0), first)
    return best, where


def _partners(
    unit: Float[Tensor, "n d"], rows: Int[Tensor, "m"], where: Int[Tensor, "m"], block: int
) -> Int[Tensor, "m"]:
    """For each of `rows`, the atom in the block starting at `where` with the largest |cosine|, itself excepted."""
    partner = torch.empty_like(rows)
    for start in where.unique().tolist():
        for part in (where == start).nonzero()[:, 0].split(block):
            cosines = (unit[rows[part]] @ unit[start : start + block].T).abs_()
            own = rows[part] - start
            inside = ((own >= 0) & (own < cosines.shape[1])).nonzero()[:, 0]
            cosines[inside, own[inside]] = -1.0
            partner[part] = cosines.argmax(1) + start
    return partner


def _exact_cosines(
    atoms: Float[Tensor, "n d"], first: Int[Tensor, "pairs"], second: Int[Tensor, "pairs"]
) -> Float[Tensor, "pairs"]:
    """Cosines of listed pairs in float64, from the atoms as given."""
    cosines = []
    for i, j in zip(first.split(4096), second.split(4096)):
        a, b = atoms[i].double(), atoms[j].double()
        a /= torch.linalg.vector_norm(a, ord=math.inf, dim=1, keepdim=True)
        b /= torch.linalg.vector_norm(b, ord=math.inf, dim=1, keepdim=True)
        cosines.append((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)))
    return torch.cat(cosines).clamp_(-1, 1)


def _nearest(directions: _Directions, n: int, block: int | None) -> Nearest:
    unit, index = directions.unit, directions.index
    size = _block(unit, block)
    _, where = _largest_overlaps(unit, size)
    rows = torch.arange(len(unit), device=unit.device)
    partner = _partners(unit, rows, where, size)
    cosine = torch.full((n,), math.nan, dtype=torch.float64, device=unit.device)
    cosine[index] = _exact_cosines(directions.atoms, rows, partner)
    partners = torch.full((n,), -1, dtype=torch.int64, device=unit.device)
    partners[index] = index[partner]
    return Nearest(cosine.abs(), partners, cosine)


def _gram_of_smaller_side(rows: Float[Tensor, "n d"]) -> Float[Tensor, "m m"]:
    """A matrix with the nonzero eigenvalues of W W^T: d x d, or n x n where n < d. Summed in float64 over chunks."""
    n, d = rows.shape
    matrix = torch.zeros(min(n, d), min(n, d), dtype=torch.float64, device=rows.device)
    if n <= d:
        for part in rows.T.split(8192):
            matrix += (part.T @ part).double()
    else:
        for part in rows.split(8192):
            matrix += (part.T @ part).double()
    return matrix


# --- the random frame ----------------------------------------------------------------------------------------------


def _cosine_cdf(cosine: np.ndarray, d: int) -> np.ndarray:
    """P(<u, v> <= cosine) for independent uniform directions."""
    if d == 1:
        return np.where(cosine >= 1, 1.0, np.where(cosine >= -1, 0.5, 0.0))
    # (1 + cos) / 2 follows Beta((d-1)/2, (d-1)/2).
    return scipy.stats.beta.cdf((1 + cosine) / 2, (d - 1) / 2, (d - 1) / 2)


def _random_max_cdf(cosine: np.ndarray, count: int, d: int) -> np.ndarray:
    """P(the largest of `count` independent |<u, v>| <= cosine)."""
    if d == 1:
        return np.where(cosine >= 1, 1.0, 0.0)
    tail = scipy.stats.beta.sf(cosine**2, 0.5, (d - 1) / 2)
    return np.exp(count * np.log1p(-np.minimum(tail, 1 - 2.0**-53)))


def _with_chance(
    edges: np.ndarray, count: Tensor, share: np.ndarray, total: int, of: str, variance_factor: int = 1
) -> Histogram:
    # Twice the variance: half as many independent things, each counted twice.
    things = max(total // variance_factor, 1)
    low, high = (variance_factor * scipy.stats.binom.ppf(q, things, np.clip(share, 0, 1)) for q in (0.025, 0.975))
    return Histogram(
        edges=torch.from_numpy(edges),
        count=count,
        chance=torch.from_numpy(total * share),
        chance_low=torch.from_numpy(low),
        chance_high=torch.from_numpy(high),
        of=of,
    )
