"""What loss does a toy model have, exactly? Closed forms for features that are 0, or uniform on [0, 1] with
probability p.

The model is $x' = \\mathrm{ReLU}(G x + b)$ with $G = W^\\top W$ and the loss $L = \\mathbb E \\sum_i I_i (x_i -
x_i')^2$, summed over features: the published notebook averages over features instead, which divides every number here
by n. `density` is p = P(feature active), the 1 - S of the paper.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsFloat, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.signal import fftconvolve

from .arguments import Number, real, whole

Array: TypeAlias = NDArray[Any]
Numbers: TypeAlias = SupportsFloat | Sequence[Any] | NDArray[Any]
"""One number, or a list or array of them."""

PHASES_2_1 = ("first only", "second only", "antipodal")
"""What two features do with one dimension, in the order `phase_2_1` counts them."""
PHASES_3_2 = ("third ignored", "first ignored", "third shares", "others share")
"""What three features do with two dimensions; the third has importance `ratio`."""


def feature_variance(density: Number) -> float:
    r"""$v(p) = p/3 - p^2/4$: the variance of one feature, and the loss of ignoring it at the best bias p/2.

    Args:
        density: p, in (0, 1].

    Returns:
        A number in (0, 1/9]: the largest value is at p = 2/3.

    Raises:
        ValueError: if density is outside (0, 1].

    Source:
        Elhage et al., "Toy models of superposition", 2022 (setup); elementary.

    Example:
        >>> feature_variance(1.0)
        0.0833...
    """
    p = real("feature_variance", "density", density, 0, 1, open_low=True)
    return p / 3 - p * p / 4


def linear_loss(importance: Numbers, density: Numbers, d: int) -> float:
    r"""$L^* = \sum_{i > d} I_i v(p_i)$ with the products $I_i v(p_i)$ sorted downwards: the best a linear model can do.

    Independent features; the bias is free. Sparsity only scales it, so a linear model never uses superposition.

    Args:
        importance: I_i >= 0, one per feature.
        density: p, one for all features or one each.
        d: hidden dimensions, at least 1.

    Returns:
        A loss >= 0; 0 for n <= d.

    Raises:
        ValueError: if an argument is out of range, or density has another length than importance.

    Source:
        Elhage et al., "Toy models of superposition", 2022, section "Mathematical understanding"; with bias, derived
        here.

    Example:
        >>> linear_loss([1.0, 0.5, 0.25], 1.0, d=2)
        0.0208...
    """
    I, p = _importance("linear_loss", importance), _densities("linear_loss", density)
    if p.size not in (1, I.size):
        raise ValueError(
            f"linear_loss: density has {p.size} entries for {I.size} features. Give one, or one per feature."
        )
    return float(np.sort(I * (p / 3 - p * p / 4))[::-1][whole("linear_loss", "d", d, 1) :].sum())


def kept(a: Numbers, b: Numbers) -> Array:
    r"""$S(a, b) = \mathbb E (U - \mathrm{ReLU}(a U + b))^2$, U uniform on [0, 1]: an output's error on its own feature.

    Args:
        a: response $G_{ii}$ of the output to its feature.
        b: bias.

    Returns:
        A squared error >= 0, of the broadcast shape.

    Source:
        Elhage et al., "Toy models of superposition", 2022, the term L_1; closed form derived here.

    Example:
        >>> kept(1.0, 0.0)
        array(0.)
    """
    a, b = (np.asarray(side) for side in np.broadcast_arrays(np.asarray(a, float), np.asarray(b, float)))
    cross = _mean_of_first(a, b)
    return np.asarray(np.maximum(1 / 3 - 2 * cross + leaked(a, b), 0.0))


def leaked(g: Numbers, b: Numbers) -> Array:
    r"""$M(g, b) = \mathbb E\, \mathrm{ReLU}(g U + b)^2 = \frac{R_3(g+b) - R_3(b)}{3g}$: an output's error on another
    feature.

    $R_q(t) = \max(t, 0)^q$. Nonpositive interference is free: M = 0 for g, b <= 0.

    Args:
        g: response $G_{ji}$ of output j to feature i.
        b: bias of output j.

    Returns:
        A squared error >= 0, of the broadcast shape.

    Source:
        Elhage et al., "Toy models of superposition", 2022, the term L_1; closed form derived here.

    Example:
        >>> leaked(1.0, 0.0)
        array(0.33333333)
    """
    g, b = np.broadcast_arrays(np.asarray(g, float), np.asarray(b, float))
    small = np.abs(g) < 1e-5
    safe = np.where(small, 1.0, g)
    exact = (_ramp(safe + b, 3) - _ramp(b, 3)) / (3 * safe)
    # Below 1e-5 the quotient loses digits; the mean over two Gauss nodes is exact to g^2.
    near = (_ramp(b + g * _GAUSS[0], 2) + _ramp(b + g * _GAUSS[1], 2)) / 2
    return np.asarray(np.where(small, near, exact))


_GAUSS = (0.5 - math.sqrt(3) / 6, 0.5 + math.sqrt(3) / 6)


def _ramp(t: Numbers, q: int) -> Array:
    return np.asarray(np.maximum(np.asarray(t, float), 0.0) ** q)


def _mean_of_first(a: Array, b: Array) -> Array:
    # E U ReLU(a U + b)
    small = np.abs(a) < 1e-4
    safe = np.where(small, 1.0, a)
    exact = _ramp(safe + b, 2) / (2 * safe) - (_ramp(safe + b, 3) - _ramp(b, 3)) / (6 * safe**2)
    near = sum(node * _ramp(a * node + b, 1) for node in _GAUSS) / 2
    return np.asarray(np.where(small, near, exact))


def zero_active_loss(b: Numbers, importance: Numbers = 1.0) -> float:
    r"""$L_0 = \sum_i I_i \mathrm{ReLU}(b_i)^2$: the loss on an input of zeros.

    Source:
        Elhage et al., "Toy models of superposition", 2022, section "Mathematical understanding".

    Example:
        >>> zero_active_loss([0.5, -1.0])
        0.25
    """
    return float((np.asarray(importance, float) * _ramp(b, 2)).sum())


def one_active_loss(G: Numbers, b: Numbers, importance: Numbers = 1.0) -> float:
    r"""$L_1 = \frac1n \sum_i \left[ I_i S(G_{ii}, b_i) + \sum_{j \ne i} I_j M(G_{ji}, b_j) \right]$: one feature
    active, each as often.

    A generalised Thomson problem: any $\|W_i\| = 1$, b = 0 with all overlaps nonpositive has L_1 = 0.

    Args:
        G: n x n responses, row j the output, column i the feature.
        b: n biases.
        importance: one number, or one per feature.

    Returns:
        A loss >= 0.

    Raises:
        ValueError: if G is not square or b does not fit it.

    Source:
        Elhage et al., "Toy models of superposition", 2022, section "Mathematical understanding".

    Example:
        >>> one_active_loss([[1.0, -1.0], [-1.0, 1.0]], [0.0, 0.0])      # a digon
        0.0
    """
    G, b, I = _model("one_active_loss", G, b, importance)
    n = len(b)
    other = leaked(G, b[:, None])
    np.fill_diagonal(other, kept(np.diag(G), b))
    return float((I[:, None] * other).sum() / n)


def expected_loss(G: Numbers, b: Numbers, density: Numbers, importance: Numbers = 1.0) -> float:
    r"""$L = \sum_A P(A) \sum_i I_i\, \mathbb E[(x_i - \mathrm{ReLU}(G x + b)_i)^2 \mid A]$, over all sets A of active
    features.

    For an active set of size k and an offset c,
    $\int R_q(a \cdot x + c)\,dx = \frac{q!}{(k+q)!} \prod_i a_i^{-1} \sum_{v \in \{0,1\}^k} (-1)^{k-|v|} R_{k+q}(a
    \cdot v + c)$. Independent features. A referee in extended precision, slow on purpose: $O(n 3^n)$ in Python. The
    batched version that trains models is `superscope.toys.exact_loss`.

    Args:
        G: n x n responses.
        b: n biases.
        density: p, one for all features or one each.
        importance: one number, or one per feature.

    Returns:
        A loss >= 0.

    Raises:
        ValueError: if shapes disagree, a density is outside (0, 1], or n > 8.

    Source:
        Derived here; checked against Monte Carlo.

    Example:
        >>> expected_loss([[1.0, -1.0], [-1.0, 1.0]], [0.0, 0.0], 0.5)       # p^2 / 3
        0.0833...
    """
    G, b, I = _model("expected_loss", G, b, importance)
    n = len(b)
    if n > 8:
        raise ValueError(f"expected_loss: n must be at most 8, for the sum has n 3^n terms; got {n}. Sample instead.")
    p = _densities("expected_loss", density)
    if p.size not in (1, n):
        raise ValueError(f"expected_loss: density has {p.size} entries for {n} features. Give one, or one per feature.")
    p = np.broadcast_to(p, n)
    total = 0.0
    for i in range(n):
        others = [j for j in range(n) if j != i]
        for size in range(n):
            for active in itertools.combinations(others, size):
                weight = math.prod(p[j] if j in active else 1 - p[j] for j in others)
                if weight == 0:
                    continue
                a = [float(G[i, j]) for j in active]
                quiet = _ramp_moment(a, float(b[i]), 2)
                loud = (
                    1 / 3
                    - 2 * _cross_moment(float(G[i, i]), a, float(b[i]))
                    + _ramp_moment([float(G[i, i]), *a], float(b[i]), 2)
                )
                total += float(I[i] * weight) * ((1 - float(p[i])) * quiet + float(p[i]) * loud)
    return total


def _ramp_moment(a: Sequence[float], c: float, q: int) -> float:
    # Coefficients too small to divide by are averaged over two Gauss nodes, which is exact to their square.
    least = 1e-4 if len(a) < 4 else 3e-3
    for place, coefficient in enumerate(a):
        if abs(coefficient) < least:
            rest = [*a[:place], *a[place + 1 :]]
            return sum(_ramp_moment(rest, c + coefficient * node, q) for node in _GAUSS) / 2
    points = np.zeros(1, np.longdouble)
    signs = np.ones(1, np.longdouble)
    for coefficient in a:
        points = np.concatenate([points, points + np.longdouble(coefficient)])
        signs = np.concatenate([-signs, signs])
    k = len(a)
    total = (signs * np.maximum(points + np.longdouble(c), 0) ** (k + q)).sum()
    return float(total / np.longdouble(math.prod(a)) * math.factorial(q) / math.factorial(k + q))


def _cross_moment(own: float, a: Sequence[float], c: float) -> float:
    # E x R_1(own x + a . y + c), by parts in x.
    if abs(own) < 1e-4:
        return sum(node * _ramp_moment(a, c + own * node, 1) for node in _GAUSS) / 2
    upper = _ramp_moment(a, c + own, 2)
    return upper / (2 * own) - (_ramp_moment(a, c + own, 3) - _ramp_moment(a, c, 3)) / (6 * own * own)


# Two features, one dimension; three features, two dimensions.


def phase_2_1(density: Number, ratio: Number) -> tuple[str, Mapping[str, float]]:
    r"""n = 2, d = 1: the least of $r\,v(p)$ (first only), $v(p)$ (second only), $(1+r)\,p^2/6$ (antipodal).

    The first feature has importance 1, the second r. Sharing beats ignoring the second iff $p < \frac{4r}{2+5r}$, and
    ignoring the first iff $p < \frac{4}{5+2r}$; all three meet at r = 1, p = 4/7. These three candidates are what the
    paper draws as theory. The true optimum (`optimum_2_1`) moves continuously and is up to 13 % lower.

    Args:
        density: p, in (0, 1].
        ratio: r, relative importance of the second feature, above 0.

    Returns:
        The best candidate's name (of `PHASES_2_1`), and the loss of each.

    Raises:
        ValueError: if an argument is out of range.

    Source:
        Elhage et al., "Toy models of superposition", 2022, section "Superposition as a phase change"; boundaries
        derived here.

    Example:
        >>> phase_2_1(density=0.1, ratio=1.0)[0]
        'antipodal'
    """
    p = real("phase_2_1", "density", density, 0, 1, open_low=True)
    r = real("phase_2_1", "ratio", ratio, 0, math.inf, open_low=True, open_high=True)
    v = feature_variance(p)
    losses: dict[str, float] = dict(zip(PHASES_2_1, (r * v, v, (1 + r) * p * p / 6), strict=True))
    return min(losses, key=losses.__getitem__), losses


def phase_3_2(density: Number, ratio: Number) -> tuple[str, Mapping[str, float]]:
    r"""n = 3, d = 2: the least of $r\,v$, $v$, $(1+r)p^2/6$ (third and another share), $p^2/3$ (the other two share).

    The third feature has importance r, the others 1. For r < 1 sharing begins at $p = \frac{4r}{2+5r}$; for r > 1 the
    other two share below the horizontal line p = 4/7.

    Args:
        density: p, in (0, 1].
        ratio: r, above 0.

    Returns:
        The best candidate's name (of `PHASES_3_2`), and the loss of each.

    Raises:
        ValueError: if an argument is out of range.

    Source:
        Elhage et al., "Toy models of superposition", 2022, section "Superposition as a phase change"; boundaries
        derived here.

    Example:
        >>> phase_3_2(density=0.5, ratio=4.0)[0]
        'others share'
    """
    p = real("phase_3_2", "density", density, 0, 1, open_low=True)
    r = real("phase_3_2", "ratio", ratio, 0, math.inf, open_low=True, open_high=True)
    v = feature_variance(p)
    losses: dict[str, float] = dict(zip(PHASES_3_2, (r * v, v, (1 + r) * p * p / 6, p * p / 3), strict=True))
    return min(losses, key=losses.__getitem__), losses


def phase_boundary(ratio: Number) -> tuple[float, float]:
    r"""Densities $\left(\frac{4r}{2+5r}, \frac{4}{5+2r}\right)$ below which sharing beats ignoring the second, and
    ignoring the first.

    Example:
        >>> phase_boundary(1.0)
        (0.571..., 0.571...)
    """
    r = real("phase_boundary", "ratio", ratio, 0, math.inf, open_low=True, open_high=True)
    return 4 * r / (2 + 5 * r), 4 / (5 + 2 * r)


def pair_loss(w: Sequence[Number], b: Sequence[Number], density: Number, ratio: Number) -> float:
    r"""The loss of n = 2, d = 1 at weights $(w_1, w_2)$ and biases $(b_1, b_2)$, importances (1, r): `expected_loss`
    of $G = w w^\top$.

    Example:
        >>> pair_loss((1, -1), (0, 0), density=0.3, ratio=1.0)       # p^2 / 3
        0.0299...
    """
    vector = np.asarray([float(x) for x in w])
    return expected_loss(np.outer(vector, vector), [float(x) for x in b], float(density), [1.0, float(ratio)])


def optimum_2_1(density: Number, ratio: Number) -> tuple[str, float, tuple[float, float, float, float]]:
    r"""$\min_{w, b} L$ for n = 2, d = 1, over all weights and biases: what a trainer can reach and never beat.

    Nelder-Mead from the three candidates of `phase_2_1`, two softened mixtures and the same-sign solution. The region
    of antipodal solutions is wider than the three candidates say: up to p = 0.79 at r = 1.

    Args:
        density: p, in (0, 1].
        ratio: r, above 0.

    Returns:
        The name of the phase (sharing if both |w| > 1/2 of the larger, else the dedicated one), the loss, and (w1,
        w2, b1, b2).

    Raises:
        ValueError: if an argument is out of range.

    Source:
        Derived here; the candidates are those of Elhage et al., "Toy models of superposition", 2022.

    Example:
        >>> optimum_2_1(0.25, 1.0)[1] < phase_2_1(0.25, 1.0)[1]["antipodal"]
        True
    """
    p = real("optimum_2_1", "density", density, 0, 1, open_low=True)
    r = real("optimum_2_1", "ratio", ratio, 0, math.inf, open_low=True, open_high=True)

    def loss(theta: Sequence[float] | Array) -> float:
        w1, w2, b1, b2 = (float(x) for x in theta)
        return pair_loss((w1, w2), (b1, b2), p, r)

    starts = [
        (1.0, 0.01, 0.0, p / 2),
        (0.01, 1.0, p / 2, 0.0),
        (1.0, -1.0, 0.0, 0.0),
        (0.95, -0.6, 0.1, 0.2),
        (0.6, -0.95, 0.2, 0.1),
        (0.7, 0.7, 0.0, 0.0),
    ]
    options = {"xatol": 1e-9, "fatol": 1e-13, "maxiter": 4000, "maxfev": 4000}
    # Only the three best starts are worth polishing.
    best = min(
        (minimize(loss, start, method="Nelder-Mead", options=options) for start in sorted(starts, key=loss)[:4]),
        key=lambda found: found.fun,
    )
    w1, w2, b1, b2 = (float(x) for x in best.x)
    return phase_of_pair(w1, w2), float(best.fun), (w1, w2, b1, b2)


def phase_of_pair(w1: Number, w2: Number) -> str:
    """Which of `PHASES_2_1` two scalar weights are: the smaller magnitude above half the larger is sharing."""
    first, second = abs(float(w1)), abs(float(w2))
    if min(first, second) > max(first, second) / 2:
        return PHASES_2_1[2]
    return PHASES_2_1[0] if first >= second else PHASES_2_1[1]


# Regular polygons and other clusters of equal features.


def polygon_loss(k: int, length: Number, bias: Number) -> float:
    r"""$S(l^2, b) + \sum_{j=1}^{k-1} M(l^2 \cos \tfrac{2 \pi j}{k}, b)$: one-active loss per feature of k equal
    vectors in the plane.

    Args:
        k: vectors, at least 2.
        length: their norm l.
        bias: their common bias.

    Source:
        Chen et al., "Dynamical versus Bayesian phase transitions in a toy model of superposition", 2023.

    Example:
        >>> polygon_loss(4, 1.0, 0.0) < 1e-30
        True
    """
    k = whole("polygon_loss", "k", k, 2)
    square, b = float(length) ** 2, float(bias)
    angles = 2 * np.pi * np.arange(1, k) / k
    return float(kept(square, b) + leaked(square * np.cos(angles), b).sum())


def polygon_optimum(k: int) -> tuple[float, float, float]:
    r"""$(l^*, b^*, L^*) = \arg\min_{l, b}$ `polygon_loss`: the best regular k-gon when one feature is active at a time.

    Example:
        >>> polygon_optimum(5)
        (1.1704..., -0.282..., 0.0158...)
    """
    k = whole("polygon_optimum", "k", k, 2)
    if k <= 4:
        return 1.0, 0.0, 0.0
    found = minimize(
        lambda t: polygon_loss(k, t[0], t[1]),
        (1.0 + 0.15 * (k - 4), -0.3 * (k - 4)),
        method="Nelder-Mead",
        options={"xatol": 1e-10, "fatol": 1e-15, "maxiter": 4000},
    )
    return float(found.x[0]), float(found.x[1]), float(found.fun)


def polygon_levels(c: int) -> Mapping[str, float]:
    r"""Losses of k-gons with c - k dead features, $\frac{k}{c} L_k + \sum_{dead} u$, one feature active at a time.

    A dead feature costs $u = \frac{1}{3c}$ with a bias <= 0 ("-") and $\frac{1}{3c} - \frac{1}{4c^2}$ at its best
    bias 1/(2c) ("+"). These are the plateaus at which training lingers.

    Args:
        c: features, at least 2.

    Returns:
        Loss by name, such as "6", "5+", "5-", "4++", "4+-", lowest first.

    Source:
        Chen et al., "Dynamical versus Bayesian phase transitions in a toy model of superposition", 2023, table of
        critical points.

    Example:
        >>> next(iter(polygon_levels(6).items()))
        ('6', 0.048...)
    """
    c = whole("polygon_levels", "c", c, 2)
    levels: dict[str, float] = {}
    for k in range(min(c, 4), c + 1):
        loss = polygon_optimum(k)[2] * k / c
        for raised in range(c - k, -1, -1):
            lowered = c - k - raised
            levels[f"{k}{'+' * raised}{'-' * lowered}"] = (
                loss + raised * (1 / (3 * c) - 1 / (4 * c * c)) + lowered / (3 * c)
            )
    return dict(sorted(levels.items(), key=lambda level: level[1]))


@dataclass(frozen=True)
class Cluster:
    """k equal features in d dimensions, each seeing the others at the same set of cosines.

    Args:
        name: what it is called.
        d: dimensions it fills.
        cosines: (value, how many) of one vector with every other.
    """

    name: str
    d: int
    cosines: tuple[tuple[float, int], ...]

    @property
    def k(self) -> int:
        """Features in the cluster."""
        return 1 + sum(count for _, count in self.cosines)


def _simplex(name: str, d: int) -> Cluster:
    return Cluster(name, d, ((-1 / d, d),))


def _antiprism() -> Cluster:
    # The tight square antiprism: cos^2 of the polar angle is 1/3, so that the frame operator is a multiple of identity.
    up, out = 1 / 3, 2 / 3
    near, far = out * math.cos(math.pi / 4) - up, out * math.cos(3 * math.pi / 4) - up
    return Cluster("square antiprism", 3, ((up, 2), (up - out, 1), (near, 2), (far, 2)))


CLUSTERS: tuple[Cluster, ...] = (
    Cluster("dedicated", 1, ()),
    _simplex("digon", 1),
    _simplex("triangle", 2),
    Cluster("pentagon", 2, ((math.cos(2 * math.pi / 5), 2), (math.cos(4 * math.pi / 5), 2))),
    Cluster("hexagon", 2, ((0.5, 2), (-0.5, 2), (-1.0, 1))),
    _simplex("tetrahedron", 3),
    _antiprism(),
    Cluster("icosahedron", 3, ((1 / math.sqrt(5), 5), (-1 / math.sqrt(5), 5), (-1.0, 1))),
    _simplex("5-cell", 4),
)
"""Candidates for a tegum product's factors; the octahedron is three digons and is not listed apart."""


def cluster_loss(cluster: Cluster, square: Number, bias: Number, density: Number) -> float:
    r"""$\mathbb E (x - \mathrm{ReLU}(s\,(x + \sum_j c_j x_j) + b))^2$: loss per feature of a cluster, by quadrature.

    The law of the overlap sum is convolved on a grid of step 1/2048, the own feature integrated in closed form; the
    result is good to about 1e-6 for every cluster and density, where the vertex formula of `expected_loss` loses all
    digits at twelve.

    Args:
        cluster: its cosines.
        square: $s = l^2$, at least 0.
        bias: b.
        density: p, in (0, 1].

    Returns:
        A loss >= 0, per feature.

    Source:
        Derived here. The one-active limit is Chen et al., 2023.

    Example:
        >>> cluster_loss(CLUSTERS[1], 1.0, 0.0, 0.5) / 0.5**2       # a digon costs p^2 / 6 per feature
        0.1666...
    """
    s = real("cluster_loss", "square", square, 0, math.inf, open_high=True)
    p = real("cluster_loss", "density", density, 0, 1, open_low=True)
    points, mass = _overlap_law(cluster.cosines, p)
    offset = s * points + float(bias)
    # Given the overlap, the own feature is integrated in closed form.
    return float(mass @ ((1 - p) * _ramp(offset, 2) + p * kept(s, offset)))


@functools.lru_cache(maxsize=256)
def _overlap_law(cosines: tuple[tuple[float, int], ...], p: float) -> tuple[Array, Array]:
    # The law of sum_j c_j x_j on a grid. Each c U is laid on the two nodes around it in proportion, which keeps its
    # mean and raises its variance by h^2 / 6: about 1e-7 of a loss at this h.
    h = 1 / 2048
    mass, start = np.ones(1), 0
    for value, count in cosines:
        span = abs(value) / h
        edges = np.arange(math.ceil(span) + 2)
        # Mass at node m is the mean of the hat function around m over [0, span].
        area = _hat_area(span - edges) - _hat_area(-edges)
        law = p * area / span
        law[0] += 1 - p
        first = 0
        if value < 0:
            law, first = law[::-1], -(len(law) - 1)
        for _ in range(count):
            mass, start = fftconvolve(mass, law), start + first
    mass = np.maximum(mass, 0)
    return (start + np.arange(len(mass))) * h, mass / mass.sum()


def _hat_area(t: Array) -> Array:
    # Integral of max(1 - |u|, 0) from minus infinity to t.
    t = np.clip(t, -1, 1)
    return np.where(t < 0, (1 + t) ** 2 / 2, 1 - (1 - t) ** 2 / 2)


def gain_per_dimension(cluster: Cluster, density: Number) -> tuple[float, float, float]:
    r"""$g(p) = \frac{1}{d} \left[ k\,v(p) - \min_{s, b} k\,L(s, b) \right]$: loss saved per dimension that a cluster
    fills.

    With many uniform features a tegum product's loss is a sum over its factors, so the best model packs the factor of
    largest g: a sequence of polytopes predicted without training. Each is a model one can build, hence the loss
    $n\,v(p) - d\,g(p)$ is an upper bound on the optimum.

    Args:
        cluster: k features in d dimensions.
        density: p, in (0, 1].

    Returns:
        (g, s, b): the gain, and the squared norm and bias that reach it.

    Raises:
        ValueError: if density is outside (0, 1].

    Source:
        Derived here, after the tegum products of Elhage et al., "Toy models of superposition", 2022.

    Example:
        >>> round(gain_per_dimension(CLUSTERS[1], 0.45)[0] / 0.45, 3)        # digon
        0.301
    """
    p = real("gain_per_dimension", "density", density, 0, 1, open_low=True)
    if cluster.k == 1:
        return feature_variance(p), 1.0, 0.0

    def best_bias(s: float) -> tuple[float, float]:
        found = minimize_scalar(
            lambda b: cluster_loss(cluster, s, b, p), bounds=(-1.5, 0.6), method="bounded", options={"xatol": 1e-6}
        )
        return float(found.fun), float(found.x)

    outer = minimize_scalar(lambda s: best_bias(s)[0], bounds=(0.05, 2.5), method="bounded", options={"xatol": 1e-6})
    loss, b = best_bias(float(outer.x))
    return cluster.k * (feature_variance(p) - loss) / cluster.d, float(outer.x), b


def best_cluster(density: Number) -> tuple[Cluster, float]:
    """The cluster of `CLUSTERS` with the largest `gain_per_dimension` at a density, and that gain.

    Example:
        >>> best_cluster(0.4)[0].name
        'digon'
    """
    gains = [(gain_per_dimension(cluster, density)[0], cluster) for cluster in CLUSTERS]
    gain, cluster = max(gains, key=lambda found: found[0])
    return cluster, gain


# Sets of correlated features.


def correlated_pairs_loss(density: Number, *, antipodal: str) -> float:
    r"""Two sets of two features that are active together with probability p, in d = 2, at unit norms and zero bias.

    Opposite features from different sets cost $2p^2/3$ in all; opposite features of one set, always active together,
    cost $2p/3$. So correlated features sit at right angles.

    Args:
        density: p of a set, in (0, 1].
        antipodal: "across" sets or "within" a set.

    Source:
        Setup: Elhage et al., "Toy models of superposition", 2022, section "Correlated features"; values derived here.

    Example:
        >>> correlated_pairs_loss(0.3, antipodal="across")
        0.06
    """
    p = real("correlated_pairs_loss", "density", density, 0, 1, open_low=True)
    return 2 * p * p / 3 if _arrangement("correlated_pairs_loss", antipodal) == "across" else 2 * p / 3


def anticorrelated_pairs_loss(density: Number, *, antipodal: str) -> float:
    r"""Two sets of two features of which exactly one is active with probability p (each has density p/2), in d = 2.

    Opposite features of one set cost exactly 0; opposite features from different sets $p^2/6$.

    Args:
        density: p of a set, in (0, 1].
        antipodal: "within" a set or "across" sets.

    Source:
        Setup: Elhage et al., "Toy models of superposition", 2022, section "Correlated features"; values derived here.

    Example:
        >>> anticorrelated_pairs_loss(0.3, antipodal="within")
        0.0
    """
    p = real("anticorrelated_pairs_loss", "density", density, 0, 1, open_low=True)
    return 0.0 if _arrangement("anticorrelated_pairs_loss", antipodal) == "within" else p * p / 6


def _arrangement(caller: str, antipodal: str) -> str:
    if antipodal not in ("within", "across"):
        raise ValueError(f"{caller}: antipodal must be 'within' or 'across'; got {antipodal!r}.")
    return antipodal


def collapsed_pair_loss(density: Number) -> float:
    r"""$p/12$: two features active together and represented only by their sum, $(a+b)/\sqrt 2$.

    Source:
        Setup: Elhage et al., "Toy models of superposition", 2022, "Local almost-orthogonal bases"; value derived here.

    Example:
        >>> round(collapsed_pair_loss(0.6), 12)
        0.05
    """
    return real("collapsed_pair_loss", "density", density, 0, 1, open_low=True) / 12


def monosemantic_absolute_loss(importance: Numbers, density: Number, neurons: int) -> float:
    r"""$\sum_{i > \lfloor m/2 \rfloor} I_i v(p)$: |x| computed with two neurons per feature, the rest left at its mean.

    Features uniform on [-1, 1]; $|x|$ has the law of a feature uniform on [0, 1], so ignoring one costs v(p). With m
    odd the last neuron could serve half a feature; that is not counted.

    Args:
        importance: I_i >= 0, one per feature.
        density: p.
        neurons: m, at least 1.

    Source:
        Elhage et al., "Toy models of superposition", 2022, section "Computation in superposition"; value derived here.

    Example:
        >>> monosemantic_absolute_loss([1.0, 1.0], 1.0, neurons=2)
        0.0833...
    """
    I = np.sort(_importance("monosemantic_absolute_loss", importance))[::-1]
    return float(I[whole("monosemantic_absolute_loss", "neurons", neurons, 1) // 2 :].sum() * feature_variance(density))


def naive_computation_loss(n: int, neurons: int) -> float:
    r"""$L/p = \frac{n - m}{6}$: m of n ReLUs computed, the rest left at 0, for features uniform on [-1, 1] (summed
    over features).

    The bar a model of compressed computation must beat. Divide by n for the mean over features that is usually quoted,
    1/12 at n = 100, m = 50.

    Source:
        Braun et al., "Interpretability in parameter space", 2025 (resid-MLP task).

    Example:
        >>> naive_computation_loss(100, 50) / 100
        0.0833...
    """
    n, neurons = whole("naive_computation_loss", "n", n, 1), whole("naive_computation_loss", "neurons", neurons, 1)
    return max(n - neurons, 0) / 6


def compressed_sensing_dimensions(n: int, density: Number) -> float:
    r"""$-n p \log p$: the order of the dimensions that n features of density p need, by compressed sensing, constant
    left out.

    A scale, not a bound with a constant: it says m must grow linearly in n at fixed p, so superposition can win a
    factor of at most $O(-1/(p \log p))$.

    Source:
        Elhage et al., "Toy models of superposition", 2022, appendix on compressed sensing (after Do Ba et al., 2010).

    Example:
        >>> round(compressed_sensing_dimensions(1000, 0.01), 2)
        46.05
    """
    p = real("compressed_sensing_dimensions", "density", density, 0, 1, open_low=True)
    return -whole("compressed_sensing_dimensions", "n", n, 1) * p * math.log(p)


# Arguments shared by several formulas.


def _importance(caller: str, importance: Numbers) -> Array:
    I = np.atleast_1d(np.asarray(importance, float))
    if I.ndim != 1 or not np.isfinite(I).all() or (I < 0).any():
        raise ValueError(
            f"{caller}: importance must be a list of finite numbers >= 0; got {np.asarray(importance).tolist()}."
        )
    return I


def _densities(caller: str, density: Numbers) -> Array:
    p = np.atleast_1d(np.asarray(density, float))
    if p.ndim != 1 or not ((p > 0) & (p <= 1)).all():
        raise ValueError(f"{caller}: density must lie in (0, 1]; got {np.asarray(density).tolist()}.")
    return p


def _model(caller: str, G: Numbers, b: Numbers, importance: Numbers) -> tuple[Array, Array, Array]:
    G, b, I = np.asarray(G, float), np.asarray(b, float), _importance(caller, importance)
    if G.ndim != 2 or G.shape[0] != G.shape[1] or b.shape != (G.shape[0],):
        raise ValueError(f"{caller}: G must be n x n and b must have n entries; got shapes {G.shape} and {b.shape}.")
    if I.size not in (1, len(b)):
        raise ValueError(
            f"{caller}: importance has {I.size} entries for {len(b)} features. Give one, or one per feature."
        )
    return G, b, np.broadcast_to(I, len(b)).astype(float)
