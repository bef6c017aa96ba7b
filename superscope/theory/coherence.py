"""How many active features does a small coherence guarantee, and which coherence does chance give?"""

from __future__ import annotations

import math
import sys

import numpy as np
from scipy.special import betaincinv, digamma

from .arguments import Number, Numbers, real, whole
from .rip import check_babel


def coherence_guarantee(mu: Number) -> int:
    r"""Largest k with $k < \frac{1}{2} (1 + 1/\mu)$: every k-sparse code is recovered from x = W f.

    Basis pursuit and orthogonal matching pursuit both find f, whatever its support, signs and magnitudes. It is a
    guarantee for the worst support and says almost nothing about typical ones: a random 768 x 24 576 dictionary has
    coherence 0.21, which guarantees k = 2, while basis pursuit finds nearly all codes up to k = 105.

    Args:
        mu: coherence, the largest absolute cosine of two atoms.

    Returns:
        A count, at least 1. With mu = 0 (orthogonal atoms) there is no limit but n, said as `sys.maxsize`.

    Raises:
        ValueError: if mu is outside [0, 1].

    Source:
        Donoho and Elad, "Optimally sparse representation in general dictionaries via l1 minimization", 2003.
        Tropp, "Greed is good: algorithmic results for sparse approximation", 2004, Corollary 3.6.

    Example:
        >>> coherence_guarantee(0.2133)
        2
    """
    mu = real("coherence_guarantee", "mu", mu, 0, 1)
    if mu == 0:
        return sys.maxsize
    # Division before comparison: 1/mu is exact where mu is 1/m in floats, so k = 2 at mu = 1/3 is rightly refused.
    bound = (1 + 1 / mu) / 2
    return sys.maxsize if bound >= sys.maxsize else max(1, math.ceil(bound) - 1)


def babel_guarantee(babel: Numbers) -> int:
    r"""Largest k with $\mu_1(k-1) + \mu_1(k) < 1$: every k-sparse code is recovered from x = W f.

    At least as good as `coherence_guarantee(mu_1(1))`, because $\mu_1(m) \le m \mu$.

    Args:
        babel: mu_1(1), mu_1(2), ... as far as known: entry m - 1 is the largest sum of m absolute cosines of one atom.

    Returns:
        A count, at least 1, and at most the length of `babel`: pass enough of it.

    Raises:
        ValueError: if babel is not a Babel function (rising, with mu_1(m)/m falling).

    Source:
        Tropp, "Greed is good: algorithmic results for sparse approximation", 2004.

    Example:
        >>> babel_guarantee([0.2, 0.4, 0.5, 0.6])
        3
    """
    values = check_babel("babel_guarantee", babel)
    return max(1, int(np.count_nonzero(values + np.concatenate([[0.0], values[:-1]]) < 1)))


def readout_guarantee(mu: Number, dynamic_range: Number = 1.0) -> int:
    r"""Largest k with $k < \frac12 \left(1 + \frac{f_{\min}/f_{\max}}{\mu}\right)$: one step of W^T x finds the
    support.

    The same as `coherence_guarantee` for flat magnitudes, and worse in proportion to the ratio of the largest to the
    smallest active magnitude: why one-step encoders fail on wide laws.

    Args:
        mu: coherence, in [0, 1].
        dynamic_range: f_max / f_min of the active features, at least 1.

    Returns:
        A count, at least 1 (a single active feature always has the largest score, unless another atom is parallel).

    Raises:
        ValueError: if an argument is out of range.

    Source:
        Donoho, Elad and Temlyakov, "Stable recovery of sparse overcomplete representations in the presence of noise",
        2006, section 5.

    Example:
        >>> readout_guarantee(0.0355), readout_guarantee(0.0355, dynamic_range=10)
        (14, 1)
    """
    mu = real("readout_guarantee", "mu", mu, 0, 1)
    span = real("readout_guarantee", "dynamic_range", dynamic_range, 1, math.inf, open_high=True)
    if mu == 0:
        return sys.maxsize
    bound = (1 + 1 / (mu * span)) / 2
    return sys.maxsize if bound >= sys.maxsize else max(1, math.ceil(bound) - 1)


def spark_bound(mu: Number) -> int:
    r"""Least number of dependent atoms: spark $\ge \lceil 1 + 1/\mu \rceil$.

    Computing the spark is NP-hard; this is what coherence certifies. Codes with k < spark/2 are unique: no other
    code as sparse gives the same x, whatever the algorithm.

    Args:
        mu: coherence, in (0, 1].

    Returns:
        A count, at least 2. (In d dimensions the spark is at most d + 1.)

    Raises:
        ValueError: if mu is outside (0, 1].

    Source:
        Donoho and Elad, "Optimally sparse representation in general dictionaries via l1 minimization", 2003.

    Example:
        >>> spark_bound(0.25)       # identity beside Hadamard in 16 dimensions, whose spark is 8
        5
    """
    mu = real("spark_bound", "mu", mu, 0, 1, open_low=True)
    bound = 1 + 1 / mu
    return sys.maxsize if bound >= sys.maxsize else math.ceil(bound * (1 - 1e-15))


def random_coherence(n: int, d: int, quantile: Number = 0.5) -> float:
    r"""Coherence of n random directions: $\binom n2 P(|\cos| > \mu) = -\ln q$.

    The null model of a dictionary: $\cos^2$ is Beta(1/2, (d-1)/2), and close pairs are nearly independent. The textbook
    $\sqrt{4 \ln n / d}$ overshoots by 5 to 11 %.

    Args:
        n: number of directions, at least 2.
        d: dimension, at least 2.
        quantile: q, in (0, 1); 0.05 and 0.95 give an interval.

    Returns:
        The cosine that the largest of all pairs stays below with chance q.

    Raises:
        ValueError: if an argument is out of range.

    Source:
        Cai, Fan and Jiang, "Distributions of angles in random packing on spheres", 2013.

    Example:
        >>> round(random_coherence(24576, 768), 4)
        0.2133
    """
    n = whole("random_coherence", "n", n, 2)
    return _largest_of(n * (n - 1) / 2, "random_coherence", d, quantile)


def random_nearest(n: int, d: int, quantile: Number = 0.5) -> float:
    r"""Largest absolute cosine of one random direction with n - 1 others: $1 - P(|\cos| > m) = q^{1/(n-1)}$.

    Args:
        n: number of directions, at least 2.
        d: dimension, at least 2.
        quantile: q, in (0, 1).

    Returns:
        The cosine that the nearest neighbour of an atom stays below with chance q. Exact.

    Raises:
        ValueError: if an argument is out of range.

    Source:
        That of `random_coherence`.

    Example:
        >>> round(random_nearest(24576, 768), 4)
        0.1504
    """
    n = whole("random_nearest", "n", n, 2)
    return _largest_of(float(n - 1), "random_nearest", d, quantile)


def random_babel(n: int, d: int, m: int) -> float:
    r"""Sum of the m largest of n - 1 random absolute cosines: $\sum_{j=1}^{m} c_j$,
    $\ln P(|\cos| > c_j) = \psi(j) - \psi(n)$.

    What the Babel function of a typical atom is in a random dictionary; its maximum over atoms is somewhat larger.

    Args:
        n: number of directions, at least 2.
        d: dimension, at least 2.
        m: number of neighbours, from 1 to n - 1.

    Returns:
        A sum of cosines.

    Raises:
        ValueError: if an argument is out of range.

    Source:
        That of `random_coherence`; order statistics of uniform variables at their mean logarithms.

    Example:
        >>> round(random_babel(24576, 768, 16), 2)
        2.11
    """
    n, d = whole("random_babel", "n", n, 2), whole("random_babel", "d", d, 2)
    m = whole("random_babel", "m", m, 1)
    if m > n - 1:
        raise ValueError(f"random_babel: m = {m} neighbours out of n - 1 = {n - 1}. Choose m below n.")
    # Mean logarithms, not means j/n: cosines are nearly linear in the square root of ln P, far less so in P.
    tails = np.exp(digamma(np.arange(1, m + 1)) - digamma(n))
    return float(np.sum(_cosine_at(tails, d)))


def _largest_of(pairs: float, caller: str, d: int, quantile: Number) -> float:
    d = whole(caller, "d", d, 2)
    quantile = real(caller, "quantile", quantile, 0, 1, open_low=True, open_high=True)
    return float(_cosine_at(np.array([-math.expm1(math.log(quantile) / pairs)]), d)[0])


def _cosine_at(tail: np.ndarray, d: int) -> np.ndarray:
    """The c with P(|cos| > c) = tail: 1 - c^2 is Beta((d-1)/2, 1/2)."""
    return np.sqrt(np.maximum(0.0, 1 - betaincinv((d - 1) / 2, 0.5, tail)))
