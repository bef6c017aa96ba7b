"""How much do the atoms of W overlap, beside what n directions in d dimensions must and what random ones do?

Cosines are between normalised atoms unless a function says otherwise; atoms that are exactly zero have no direction,
are left out and counted in the caution. Quantities of pairs (coherence, nearest atom, Babel function, histograms) take
one blocked pass over the pairs, O(n^2 d) time and O(block^2) memory; sums over pairs go through the d x d frame
operator and cost O(n d^2). The n x n Gram matrix is never held.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.stats
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core import Dictionary, Measurement, Table
from ...kernels.choice import multiplies_bfloat16
from ...theory import random_babel, welch
from ..metric import metric
from .blocks import (
    Directions,
    block_size,
    cosine_blocks,
    exact_cosines,
    gram_of_smaller_side,
    largest_overlaps,
    pairs_above,
    partners,
    whole,
)
from .random_frame import cosine_cdf, random_largest, random_max_cdf, random_nearest_mean

_SCREEN_SLACK = 1.6e-2
"""Twice what rounding can do to a bfloat16 cosine: 2^-9 from each factor and, near 1, 2^-8 from the result."""


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
    directions = Directions.of(W, "coherence")
    best, where = largest_overlaps(directions.unit, block_size(directions.unit, block))
    # Everything within rounding of the largest is scored again; a frame with equal cosines has many, a few suffice.
    rows = (best >= best.max() - 1e-5).nonzero()[:, 0][:1024]
    partner = partners(directions.unit, rows, where[rows], block_size(directions.unit, block))
    cosine = exact_cosines(directions.atoms, rows, partner).abs()
    top = int(cosine.argmax())
    pair = sorted((int(directions.index[rows[top]]), int(directions.index[partner[top]])))
    n, d = directions.unit.shape
    low, middle, high = random_largest(n * (n - 1) // 2, d, np.array([0.05, 0.5, 0.95])).tolist()
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
    directions = Directions.of(W, "nearest")
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
    directions = Directions.of(W, "mean_max_cosine")
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
        chance=random_nearest_mean(n, d),
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
    directions = Directions.of(W, "interference_energy")
    n, d = directions.unit.shape
    potential = float(gram_of_smaller_side(directions.unit).square().sum())
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
    directions = Directions.of(W, "frame_potential")
    n, d = directions.unit.shape
    bound = max(float(n), n * n / d)
    return Measurement(
        name="frame_potential",
        value=max(float(gram_of_smaller_side(directions.unit).square().sum()), bound),
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
    directions = Directions.of(W, "nearest_histogram")
    n, d = directions.unit.shape
    edges = np.linspace(0, 1, whole("nearest_histogram", "bins", bins, 1) + 1)
    values = _nearest(directions, W.n, block).magnitude[directions.index].clamp(max=1.0)
    count = torch.histogram(values.cpu(), torch.from_numpy(edges)).hist.to(torch.int64)
    share = np.diff(random_max_cdf(edges, n - 1, d))
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
    directions = Directions.of(W, "cosine_histogram")
    n, d = directions.unit.shape
    bins = whole("cosine_histogram", "bins", bins, 1)
    count = torch.zeros(bins, dtype=torch.float64)
    for first, second, cosines in cosine_blocks(directions.unit, block_size(directions.unit, block)):
        cosines.clamp_(-1, 1)
        if first == second:
            # histc ignores what lies outside its range: each pair is counted once, an atom never with itself.
            cosines.masked_fill_(torch.ones_like(cosines, dtype=torch.bool).tril_(), 2.0)
        # histc counts in the dtype of its input; a block of 4096^2 float32 is still below 2^24.
        count += torch.histc(cosines, bins, -1.0, 1.0).double().cpu()
    edges = np.linspace(-1, 1, bins + 1)
    return _with_chance(edges, count.to(torch.int64), np.diff(cosine_cdf(edges, d)), n * (n - 1) // 2, "pairs")


@torch.no_grad()
def coherent_pairs(W: Dictionary, *, most: int = 20, block: int | None = None, screen: bool | None = None) -> Pairs:
    r"""The pairs with the largest $|\langle \hat w_i, \hat w_j \rangle|$: duplicates, opposites, near synonyms.

    Exact: where the hardware multiplies bfloat16 faster than float32, pairs are screened in bfloat16 with room for
    its rounding, and scored again in float64. Among pairs that are equal to rounding, any may be listed. Blocked search
    of all pairs is also the fast way: on 24 576 random atoms in R^768 approximate neighbour search took longer and
    found a quarter of the true pairs.

    Args:
        W: dictionary of n >= 2 atoms. Norms do not matter.
        most: pairs wanted; fewer come back where there are fewer.
        block: atoms per block; None chooses for the device.
        screen: whether to screen in bfloat16; None does so where the device is built for it.

    Returns:
        Cosines with sign, float64, largest magnitude first, and both atoms of each pair.

    Raises:
        ValueError: if fewer than two atoms are nonzero, or most < 1.

    Example:
        >>> found = coherent_pairs(Dictionary(torch.tensor([[1.0, 0.0], [0.6, -0.8], [0.0, 1.0]])), most=2)
        >>> [(i, j, round(c, 6)) for c, i, j in zip(*(t.tolist() for t in found))]
        [(1, 2, -0.8), (0, 1, 0.6)]
    """
    directions = Directions.of(W, "coherent_pairs")
    most = min(whole("coherent_pairs", "most", most, 1), len(directions.unit) * (len(directions.unit) - 1) // 2)
    size = block_size(directions.unit, block)
    screened = multiplies_bfloat16(directions.unit.device) if screen is None else screen
    found = pairs_above(directions.unit.bfloat16(), most, size, _SCREEN_SLACK) if screened else None
    if found is None:
        found = pairs_above(directions.unit, most, size, 0.0)
    assert found is not None
    first, second = found
    cosine = exact_cosines(directions.atoms, first, second)
    order = cosine.abs().argsort(descending=True, stable=True)[:most]
    return Pairs(cosine[order], directions.index[first[order]], directions.index[second[order]])


@dataclass(frozen=True, eq=False)
class Babel:
    """The cumulative coherence of W for 1, 2, ... neighbours.

    Args:
        largest: mu_1(m), the largest over atoms: what guarantees speak of.
        median: the median over atoms: what is typical.
        chance: a typical atom's in a random frame.
        guarantee: largest k with mu_1(k-1) + mu_1(k) < 1, as far as it was computed.
    """

    largest: Float[Tensor, "m"]
    median: Float[Tensor, "m"]
    chance: Float[Tensor, "m"]
    guarantee: int


@torch.no_grad()
def babel(W: Dictionary, *, most: int = 32, block: int | None = None) -> Babel:
    r"""$\mu_1(m) = \max_i \max_{|J| = m, i \notin J} \sum_{j \in J} |\langle \hat w_i, \hat w_j \rangle|$.

    One close pair sets the coherence; the Babel function asks how many such neighbours an atom has. $\mu_1(1)$ is the
    coherence, and $\mu_1(m) \le m \mu$. Each atom's own curve is concave, their maximum need not be. Every k-sparse
    code with $\mu_1(k-1) + \mu_1(k) < 1$ is recovered: like all worst-case guarantees this says little (k = 2 for a
    random 256 x 1024 dictionary, where 68 are recovered).

    Args:
        W: dictionary of n >= 2 atoms. Norms do not matter.
        most: largest m; at most n - 1 is used. Memory O(n most).
        block: atoms per block; None chooses for the device.

    Returns:
        Float64 curves for m = 1, 2, ..., `most`.

    Raises:
        ValueError: if fewer than two atoms are nonzero, or most < 1.

    Source:
        Tropp, "Greed is good: algorithmic results for sparse approximation", 2004, section 2.3 and Theorem 3.5.

    Example:
        >>> triangle = torch.tensor([[1.0, 0.0], [-0.5, 3**0.5 / 2], [-0.5, -(3**0.5) / 2]])
        >>> [round(v, 6) for v in babel(Dictionary(triangle)).largest.tolist()]
        [0.5, 1.0]
    """
    directions = Directions.of(W, "babel")
    n, d = directions.unit.shape
    most = min(whole("babel", "most", most, 1), n - 1)
    top = directions.unit.new_full((n, most), -1.0)

    def update(start: int, cosines: Tensor) -> None:
        stretch = slice(start, start + len(cosines))
        best = cosines.topk(min(most, cosines.shape[1]), dim=1).values
        top[stretch] = torch.cat([top[stretch], best], 1).topk(most, dim=1).values

    for first, second, cosines in cosine_blocks(directions.unit, block_size(directions.unit, block)):
        cosines.abs_()
        if first == second:
            cosines.fill_diagonal_(-1.0)
        update(first, cosines)
        if first != second:
            update(second, cosines.T.contiguous())
    sums = top.double().clamp(max=1.0).cumsum(1)
    largest = sums.amax(0)
    chance = [random_babel(n, d, m) if d > 1 else float(m) for m in range(1, most + 1)]
    return Babel(
        largest=largest,
        median=sums.median(0).values,
        chance=torch.tensor(chance, dtype=torch.float64, device=sums.device),
        # mu_1 never falls, so those k that pass are the first ones. k = 1 always does.
        guarantee=max(1, int((largest + torch.cat([largest.new_zeros(1), largest[:-1]]) < 1).sum())),
    )


def _nearest(directions: Directions, n: int, block: int | None) -> Nearest:
    unit, index = directions.unit, directions.index
    size = block_size(unit, block)
    _, where = largest_overlaps(unit, size)
    rows = torch.arange(len(unit), device=unit.device)
    partner = partners(unit, rows, where, size)
    cosine = torch.full((n,), math.nan, dtype=torch.float64, device=unit.device)
    cosine[index] = exact_cosines(directions.atoms, rows, partner)
    found = torch.full((n,), -1, dtype=torch.int64, device=unit.device)
    found[index] = index[partner]
    return Nearest(cosine.abs(), found, cosine)


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
