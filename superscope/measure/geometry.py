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

from ..core import Dictionary, Measurement, ShapeError, Table
from ..theory import random_babel, welch
from .metric import metric

_SCREEN_SLACK = 1.6e-2
"""Twice what rounding can do to a bfloat16 cosine: 2^-9 from each factor and, near 1, 2^-8 from the result."""
_CANDIDATES = 2**20


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
    low, middle, high = _random_largest(n * (n - 1) // 2, d, np.array([0.05, 0.5, 0.95])).tolist()
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
        chance=_random_nearest_mean(n, d),
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
    directions = _Directions.of(W, "coherent_pairs")
    most = min(_whole("coherent_pairs", "most", most, 1), len(directions.unit) * (len(directions.unit) - 1) // 2)
    size = _block(directions.unit, block)
    screened = _multiplies_bfloat16(directions.unit.device) if screen is None else screen
    found = _pairs_above(directions.unit.bfloat16(), most, size, _SCREEN_SLACK) if screened else None
    if found is None:
        found = _pairs_above(directions.unit, most, size, 0.0)
    assert found is not None
    first, second = found
    cosine = _exact_cosines(directions.atoms, first, second)
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
    directions = _Directions.of(W, "babel")
    n, d = directions.unit.shape
    most = min(_whole("babel", "most", most, 1), n - 1)
    top = directions.unit.new_full((n, most), -1.0)

    def update(start: int, cosines: Tensor) -> None:
        stretch = slice(start, start + len(cosines))
        best = cosines.topk(min(most, cosines.shape[1]), dim=1).values
        top[stretch] = torch.cat([top[stretch], best], 1).topk(most, dim=1).values

    for first, second, cosines in _blocks(directions.unit, _block(directions.unit, block)):
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


# --- dimensions and capacity ---------------------------------------------------------------------------------------


@torch.no_grad()
def capacities(W: Dictionary) -> Float[Tensor, "n"]:
    r"""$C_i = \lVert w_i \rVert^4 / \sum_j \langle w_i, w_j \rangle^2$: the part of a dimension that is atom i's.

    The same number as the feature dimensionality $\lVert w_i \rVert^2 / \sum_j \langle \hat w_i, w_j \rangle^2$ of toy
    models: 1 for an atom orthogonal to all others, 1/2 in an antipodal pair, 2/5 in a pentagon. Norms matter: a long
    atom takes capacity from its neighbours. A zero atom has 0. Through the frame operator, O(n d^2).

    Args:
        W: dictionary of n atoms, as trained.

    Returns:
        A share in [0, 1] per atom, float64. They sum to at most the rank of W.

    Source:
        Elhage et al., "Toy models of superposition", 2022, section "The geometry of superposition".
        Scherlis, Sachan, Jermyn, Benton and Shlegeris, "Polysemanticity and capacity in neural networks", 2022, eq. 3.

    Example:
        >>> capacities(Dictionary(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 3.0]]))).tolist()
        [0.5, 0.5, 1.0]
    """
    atoms = _working(W, "capacities").double()
    # Only ratios count, so the whole matrix may be scaled: fourth powers overflow soon.
    atoms = atoms / atoms.abs().max().clamp(min=torch.finfo(torch.float64).tiny)
    norms = atoms.square().sum(1)
    if W.n <= W.d:
        shared = (atoms @ atoms.T).square().sum(1)
    else:
        shared = ((atoms @ (atoms.T @ atoms)) * atoms).sum(1)
    return torch.where(norms > 0, norms.square() / torch.where(shared > 0, shared, 1), 0).clamp(max=1.0)


@metric(range=(0.0, 1.0), unit="share of d", invariant=("rotation", "permutation", "sign"))
def capacity_used(W: Dictionary) -> Measurement:
    r"""Capacity that the atoms have, per dimension: $\frac1d \sum_i C_i$.

    1 for every tight frame of unit atoms, and n / (n + d - 1) for random ones: at n >> d both are nearly 1, so a value
    near 1 is no sign of learning. Low values mean atoms crowded into few directions.

    Args:
        W: dictionary of n atoms, as trained: norms matter.

    Returns:
        A share in [0, 1], with rank / d as reference and random unit atoms as chance.

    Source:
        That of `capacities`.

    Example:
        >>> round(capacity_used(Dictionary(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))).value, 6)
        0.5
    """
    each = capacities(W)
    rank = int(torch.linalg.matrix_rank(_gram_of_smaller_side(_working(W, "capacity_used").double()), hermitian=True))
    zeros = int((each == 0).sum())
    return Measurement(
        name="capacity_used",
        value=float(each.sum()) / W.d,
        unit="share of d",
        n=W.n,
        of="atoms",
        how="exact: through the frame operator",
        reference=rank / W.d,
        reference_is="rank / d",
        chance=W.n / (W.n + W.d - 1),
        chance_is="random unit atoms (expectation)",
        caution=f"{zeros} zero atoms have no capacity" if zeros else "",
    )


@metric(range=(0.0, math.inf), unit="dimensions per feature", invariant=("rotation", "permutation", "sign"))
def dimensions_per_feature(W: Dictionary) -> Measurement:
    r"""$D^* = d / \lVert W \rVert_F^2$: dimensions for each feature that is represented with norm near 1.

    For toy models, whose norms say how far a feature is represented at all; a dictionary of unit atoms has d / n by
    construction.

    Args:
        W: dictionary of n atoms, as trained: norms are the point.

    Returns:
        A positive number; below 1 means more features than dimensions. Undefined for W = 0.

    Source:
        Elhage et al., "Toy models of superposition", 2022, section "The geometry of superposition".

    Example:
        >>> dimensions_per_feature(Dictionary(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]))).value
        1.0
    """
    mass = float(_working(W, "dimensions_per_feature").double().square().sum())
    return Measurement(
        name="dimensions_per_feature",
        value=W.d / mass if mass else None,
        unit="dimensions per feature",
        n=W.n,
        of="atoms",
        how="exact",
        caution="" if mass else "every atom is zero",
    )


@torch.no_grad()
def effective_dimensions(W: Dictionary, *, weights: Float[Tensor, "n"] | None = None) -> tuple[Measurement, ...]:
    r"""Rank, $e^{H}$, $1 / \sum p_i^2$ and $1 / \max p_i$ of the spectrum $p_i = \lambda_i / \sum \lambda$.

    How many dimensions the atoms fill. H is the entropy of p in nats. $\lambda$ are the *eigenvalues* of the frame
    operator $\sum_i v_i \hat w_i \hat w_i^\top$ (squared singular values of W); the effective rank of Roy and Vetterli
    takes the singular values instead and is larger. Unweighted, each direction counts once; with $v_i = E[f_i^2] \lVert
    w_i \rVert^2$ it is the spectrum of what the features actually write, if they are uncorrelated.

    Args:
        W: dictionary of n >= 2 atoms. Norms do not matter; put them into the weights.
        weights: at least 0, one per atom; None weighs all nonzero atoms the same.

    Returns:
        `frame_rank`, `frame_entropy_dimensions`, `frame_participation_ratio`, `frame_stable_rank`: in this order never
        increasing, each in [1, min(n, d)]. The participation ratio's chance is that of a random frame.

    Raises:
        ValueError: if fewer than two atoms are nonzero, or weights are negative or all zero.

    Source:
        Roy and Vetterli, "The effective rank: a measure of effective dimensionality", 2007 (the entropy form).

    Example:
        >>> [m.value for m in effective_dimensions(Dictionary(torch.eye(4)))]
        [4.0, 4.0, 4.0, 4.0]
    """
    directions = _Directions.of(W, "effective_dimensions")
    unit = directions.unit.double()
    if weights is not None:
        each = _per_atom(W, weights, "effective_dimensions", "weights")[directions.index]
        unit = unit * (each / each.max()).sqrt()[:, None]
    n, d = unit.shape
    spectrum = torch.linalg.eigvalsh(_gram_of_smaller_side(unit)).clamp(min=0)
    share = spectrum / spectrum.sum()
    # Eigenvalues are known to rounding of the largest: a smaller one is zero as far as anyone can tell.
    present = share[share > share.max() * max(n, d) * torch.finfo(directions.unit.dtype).eps]
    limit = float(min(n, d))
    values = {
        "frame_rank": float(len(present)),
        "frame_entropy_dimensions": float(torch.exp(-(present * present.log()).sum())),
        "frame_participation_ratio": float(1 / present.square().sum()),
        "frame_stable_rank": float(1 / present.max()),
    }
    chance = n * d / (n + d - 1) if weights is None else None
    return tuple(
        Measurement(
            name=name,
            value=round(min(value, limit), 9),
            unit="dimensions",
            n=n,
            of="atoms",
            how="exact: eigenvalues of the frame operator",
            reference=limit,
            reference_is="min(n, d)",
            chance=chance if name == "frame_participation_ratio" else None,
            chance_is="random frame" if name == "frame_participation_ratio" and chance else "",
            caution=directions.caution,
        )
        for name, value in values.items()
    )


@torch.no_grad()
def weighted_interference_energy(W: Dictionary, density: Float[Tensor, "n"]) -> Measurement:
    r"""$\sum_{i \ne j} p_i p_j \langle \hat w_i, \hat w_j \rangle^2 / \sum_i p_i$: what an active feature meets.

    `interference_energy` counts every pair the same; here a pair counts as often as it fires, so that overlaps among
    dead or rare latents cost nothing. It is the expected squared overlap with the other active features, seen from an
    active one, if features fire independently.

    Args:
        W: dictionary of n >= 2 atoms. Norms do not matter.
        density: p_i = P(f_i != 0), in [0, 1].

    Returns:
        A number in squared cosines per active feature. The reference $\max(0, (\sum p)^2 / d - \sum p^2) / \sum p$ is
        attained where the weighted frame is tight; chance has the same densities on random directions.

    Raises:
        ValueError: if a density is outside [0, 1], all are zero, or fewer than two atoms are nonzero.
        ShapeError: if density does not have n entries.

    Source:
        Benedetto and Fickus, "Finite normalized tight frames", 2003 (the frame potential, here weighted).

    Example:
        >>> W = Dictionary(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]))
        >>> round(weighted_interference_energy(W, torch.tensor([0.5, 0.5, 0.0])).value, 6)
        0.18
    """
    directions = _Directions.of(W, "weighted_interference_energy")
    p = _per_atom(W, density, "weighted_interference_energy", "density")[directions.index]
    if bool((p > 1).any()):
        raise ValueError(f"weighted_interference_energy: density must lie in [0, 1]; got {float(p.max()):g}.")
    potential = float(_gram_of_smaller_side(directions.unit.double() * p.sqrt()[:, None]).square().sum())
    d, total, squares = W.d, float(p.sum()), float(p.square().sum())
    bound = max(total**2 / d - squares, 0.0) / total
    return Measurement(
        name="weighted_interference_energy",
        value=max((potential - squares) / total, bound),
        unit="squared cosine",
        n=len(p),
        of="atoms",
        how="exact: through the weighted frame operator",
        reference=bound,
        reference_is="tight frame of these densities",
        chance=(total**2 - squares) / d / total,
        chance_is="random directions of these densities (expectation)",
        caution=directions.caution,
    )


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


def _per_atom(W: Dictionary, given: Tensor, caller: str, name: str) -> Float[Tensor, "n"]:
    if given.shape != (W.n,):
        raise ShapeError(f"{caller}: {name} must have n = {W.n} entries, one per atom; got shape {tuple(given.shape)}.")
    given = given.detach().to(W.atoms.device).double()
    if not bool(torch.isfinite(given).all()) or bool((given < 0).any()):
        raise ValueError(f"{caller}: {name} must be finite and at least 0.")
    if not bool((given * (W.atoms.detach() != 0).any(1)).any()):
        raise ValueError(f"{caller}: {name} must not be 0 for every nonzero atom.")
    return given


def _whole(caller: str, name: str, value: int, least: int) -> int:
    if not hasattr(value, "__index__"):
        raise TypeError(f"{caller}: {name} must be a whole number; got {value!r}. Pass an int.")
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


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products are done in hardware; elsewhere they are five times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def _pairs_above(
    unit: Float[Tensor, "n d"], most: int, block: int, slack: float
) -> tuple[Int[Tensor, "pairs"], Int[Tensor, "pairs"]] | None:
    """Every pair within `slack` of the `most`-th largest |cosine|; None where that is too many to keep.

    A block's entries are looked at only where the block's row maxima exceed what has been found.
    """
    values = unit.new_zeros(0)
    first = torch.zeros(0, dtype=torch.int64, device=unit.device)
    second = first.clone()
    bar = -math.inf
    for start, other, cosines in _blocks(unit, block):
        cosines.abs_()
        if start == other:
            # Each pair once, an atom never with itself.
            cosines.masked_fill_(torch.ones_like(cosines, dtype=torch.bool).tril_(), -1.0)
        # At slack 0 strictly above: a frame whose cosines are all equal would otherwise keep every pair.
        rows = (cosines.amax(1) > max(bar - slack, -0.5)).nonzero()[:, 0]
        if not len(rows):
            continue
        some = cosines[rows]
        if math.isinf(bar):
            # Nothing to compare with yet: the block's own `most`-th sets the bar.
            best = some.flatten().topk(min(most, some.numel())).values
            level = float(best[-1]) - slack if len(best) == most else -0.5
            where = (some >= max(level, -0.5)).nonzero()
            if slack == 0.0 and len(where) > most:
                where = where[some[where[:, 0], where[:, 1]].argsort(descending=True)[:most]]
        else:
            where = (some > bar - slack).nonzero()
        values = torch.cat([values, some[where[:, 0], where[:, 1]]])
        first = torch.cat([first, rows[where[:, 0]] + start])
        second = torch.cat([second, where[:, 1] + other])
        if len(values) >= most:
            order = values.argsort(descending=True)
            bar = float(values[order[most - 1]])
            order = order[:most] if slack == 0.0 else order[values[order] >= bar - slack]
            values, first, second = values[order], first[order], second[order]
        if len(values) > _CANDIDATES + most:
            return None
    return first, second


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


def _random_largest(count: int, d: int, levels: np.ndarray) -> np.ndarray:
    """Quantiles of the largest of `count` independent |<u, v>|: `theory.random_coherence` for many levels at once."""
    if d == 1:
        return np.ones_like(levels)
    return np.sqrt(scipy.stats.beta.isf(-np.expm1(np.log(levels) / count), 0.5, (d - 1) / 2))


def _random_nearest_mean(n: int, d: int) -> float:
    """Expectation of an atom's nearest |cosine| in a random frame."""
    # The mean over the midpoints of 4096 equal quantiles is good to 1e-6: the law has no heavy tail.
    return float(_random_largest(n - 1, d, (np.arange(4096) + 0.5) / 4096).mean())


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
