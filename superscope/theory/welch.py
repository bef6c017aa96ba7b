"""How small can the largest overlap of n directions in d dimensions be? Bounds by averaging over all pairs."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from .arguments import whole


def welch(n: int, d: int, order: int = 1, *, field: Literal["real", "complex"] = "real") -> float:
    r"""Welch bound: $\mu^{2m} \ge \frac{n c_m - 1}{n - 1}$, at order m = 1 $\mu \ge \sqrt{\frac{n - d}{d (n - 1)}}$.

    No n unit vectors in d dimensions have all absolute cosines below it. Here $c_m$ is the mean of
    $\langle u, v \rangle^{2m}$ over independent uniform u, v: $\frac{1 \cdot 3 \cdots (2m-1)}{d (d+2) \cdots (d+2m-2)}$
    for real vectors (Sidelnikov's constant, larger than Welch's own), $1 / \binom{d+m-1}{m}$ for complex ones.
    Order 1 is best while $n \le d(d+1)/2$ or so; higher orders only help beyond. `best_lower_bound` takes the best.

    Args:
        n: number of directions, at least 2.
        d: dimension, at least 1.
        order: the m of the formula, at least 1.
        field: the scalars; networks are real.

    Returns:
        A cosine in [0, 1]; 0 where the formula says nothing, such as n <= d at order 1.

    Raises:
        ValueError: if n < 2, d < 1, order < 1 or the field is unknown.

    Source:
        Welch, "Lower bounds on the maximum cross correlation of signals", 1974.
        Sidelnikov, "New estimates for the closest packing of spheres in n-dimensional Euclidean space", 1974.

    Example:
        >>> welch(n=4, d=3)             # the tetrahedron
        0.333...
        >>> welch(n=120, d=8, order=3)  # the 120 lines of E8 have 0.5
        0.440...
    """
    n, d, order = whole("welch", "n", n, 2), whole("welch", "d", d, 1), whole("welch", "order", order, 1)
    _check_field("welch", field)
    if order == 1:
        return math.sqrt(max(n - d, 0) / (d * (n - 1)))
    # Logarithms, because c_m is far below the smallest float long before the bound is.
    log_mean = _log_mean_power(d, order, field)
    excess = math.expm1(math.log(n) + log_mean)
    if excess <= 0:
        return 0.0
    return min(1.0, (excess / (n - 1)) ** (1 / (2 * order)))


def mean_power(d: int, order: int, *, field: Literal["real", "complex"] = "real") -> float:
    r"""Mean overlap of independent uniform u, v: $\mathbb E \langle u, v \rangle^{2m} = \prod_{j<m} \frac{2j+1}{d+2j}$.

    No frame has a smaller mean of $|\langle w_i, w_j \rangle|^{2m}$ over all n^2 ordered pairs, i = j included;
    equality means a projective m-design, and at m = 1 a tight frame (frame potential n^2 / d).

    Args:
        d: dimension, at least 1.
        order: the m of the formula, at least 1.
        field: the scalars; complex gives $1 / \binom{d+m-1}{m}$.

    Returns:
        A number in (0, 1].

    Raises:
        ValueError: if d < 1, order < 1 or the field is unknown.

    Source:
        Sidelnikov, "New estimates for the closest packing of spheres in n-dimensional Euclidean space", 1974.

    Example:
        >>> mean_power(d=8, order=2)
        0.0375
    """
    d, order = whole("mean_power", "d", d, 1), whole("mean_power", "order", order, 1)
    _check_field("mean_power", field)
    if field == "real":
        return math.prod((2 * j + 1) / (d + 2 * j) for j in range(order))
    return 1 / math.comb(d + order - 1, order)


def _check_field(caller: str, field: str) -> None:
    if field not in ("real", "complex"):
        raise ValueError(f"{caller}: field must be 'real' or 'complex'; got {field!r}.")


def _log_mean_power(d: int, order: int, field: str) -> float:
    if field == "real":
        return sum(math.log(2 * j + 1) - math.log(d + 2 * j) for j in range(order))
    return -(math.lgamma(d + order) - math.lgamma(order + 1) - math.lgamma(d))


def orthoplex(n: int, d: int) -> float:
    r"""Orthoplex bound: $\mu \ge 1/\sqrt d$ as soon as $n > d(d+1)/2$.

    The projections $w w^\top - I/d$ live in a space of D = d(d+1)/2 - 1 dimensions; more than D + 1 of them cannot all
    be at obtuse angles, and an angle that is not obtuse is a cosine of at least $1/\sqrt d$. Reached by mutually
    unbiased bases.

    Args:
        n: number of directions, at least 2.
        d: dimension, at least 1.

    Returns:
        $1/\sqrt d$, or 0 where n is too small for the bound to speak.

    Raises:
        ValueError: if n < 2 or d < 1.

    Source:
        Conway, Hardin and Sloane, "Packing lines, planes, etc.: packings in Grassmannian spaces", 1996
        (after Rankin 1955).

    Example:
        >>> orthoplex(n=12, d=4)        # three mutually unbiased bases
        0.5
    """
    n, d = whole("orthoplex", "n", n, 2), whole("orthoplex", "d", d, 1)
    return 1 / math.sqrt(d) if n > d * (d + 1) // 2 else 0.0


def bukh_cox(n: int, d: int) -> float:
    r"""Bukh-Cox bound: with k = n - d and N = k(k+1)/2, $\mu \ge \frac{N}{n (1 + (k-1) \sqrt{k+2} / 2) - N}$.

    Better than Welch while n is only slightly above d (for instance 9 lines in 7 dimensions: 0.2 against 0.189).
    It speaks of the n - d dimensions of the kernel: a Gram matrix of rank d has a kernel projection $\langle u_i, u_j
    \rangle$, and $\sum_{i \ne j} |\langle u_i, u_j \rangle|$ is largest when the $u_i$ repeat N equiangular lines.
    The formula falls again for large n; since n directions contain every smaller number of them, the best value up to
    n is returned.

    Args:
        n: number of directions, at least 2.
        d: dimension, at least 1.

    Returns:
        A cosine in [0, 1]; 0 for n <= d.

    Raises:
        ValueError: if n < 2 or d < 1.

    Source:
        Bukh and Cox, "Nearly orthogonal vectors and small antipodal spherical codes", 2018 (real case).
        Magsino, Mixon and Parshall, "A Delsarte-style proof of the Bukh-Cox bound", 2019.

    Example:
        >>> bukh_cox(n=9, d=7)          # reached
        0.2
    """
    n, d = whole("bukh_cox", "n", n, 2), whole("bukh_cox", "d", d, 1)
    if n <= d:
        return 0.0
    # The formula behaves as sqrt(k) / (d + k) for large k, so its peak is near k = d: beyond 2d + 8 it only falls.
    k = np.arange(1.0, min(n - d, 2 * d + 8) + 1)
    equiangular = k * (k + 1) / 2
    return float(np.max(equiangular / ((d + k) * (1 + (k - 1) * np.sqrt(k + 2) / 2) - equiangular)))


def rankin(n: int, d: int) -> float:
    r"""Rankin bound on the largest *signed* cosine: $-1/(n-1)$ for $n \le d+1$, 0 for n > d + 1.

    Reached by the simplex (n <= d + 1) and by parts of the cross-polytope (d + 1 < n <= 2d). It is a weaker demand than
    the other bounds of this file: opposite directions count as far apart, as they are behind a ReLU.

    Args:
        n: number of directions, at least 2.
        d: dimension, at least 1.

    Returns:
        A cosine in [-1, 0].

    Raises:
        ValueError: if n < 2 or d < 1.

    Source:
        Rankin, "The closest packing of spherical caps in n dimensions", 1955.

    Example:
        >>> rankin(n=3, d=2)            # the triangle
        -0.5
    """
    n, d = whole("rankin", "n", n, 2), whole("rankin", "d", d, 1)
    return -1 / (n - 1) if n <= d + 1 else 0.0
