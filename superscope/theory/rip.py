r"""What can be said of the restricted isometry constant $\delta_k$:
$(1-\delta_k) \|f\|^2 \le \|W f\|^2 \le (1+\delta_k) \|f\|^2$?

Computing it for a given W is NP-hard, and so is approximating it well: `delta_k` of a real dictionary is an interval,
from a search below (it needs W and lives in `measure`) to the bounds here above. What it is good for: proofs. What
it is not good for: capacity. A random 256 x 1 024 dictionary already has delta_8 >= 0.95, so the theorems below
promise k = 2 or 3 where basis pursuit works to k = 68; and no dictionary with n >> d can do better than k of order
d/4 (`rip_ceiling`). All atoms have norm 1.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import gammaln

from .arguments import Number, Numbers, real, whole
from .welch import welch

BASIS_PURSUIT_NEEDS = 1 / math.sqrt(2)
"""delta_2k below this makes basis pursuit find every k-sparse f, and no larger constant does (Cai and Zhang 2014)."""


def rip_upper(k: int, mu: Number) -> float:
    r"""Certified: $\delta_k \le (k-1) \mu$.

    Gershgorin's circles around the Gram matrix of k atoms. Exact at k = 2, where delta_2 = mu.

    Args:
        k: number of atoms at once, at least 1.
        mu: coherence, in [0, 1].

    Returns:
        An upper bound; at 1 and above it says nothing.

    Raises:
        ValueError: if k < 1 or mu is outside [0, 1].

    Source:
        Donoho and Elad, "Optimally sparse representation in general dictionaries via l1 minimization", 2003.

    Example:
        >>> rip_upper(k=4, mu=0.25)
        0.75
    """
    return (whole("rip_upper", "k", k, 1) - 1) * real("rip_upper", "mu", mu, 0, 1)


def rip_upper_from_babel(k: int, babel: Numbers) -> float:
    r"""Certified and sharper: $\delta_k \le \mu_1(k-1)$, the Babel function.

    Args:
        k: number of atoms at once, at least 1.
        babel: mu_1(1), mu_1(2), ... : entry m - 1 is the largest sum of m absolute cosines of one atom with others.

    Returns:
        An upper bound; at 1 and above it says nothing.

    Raises:
        ValueError: if k < 1, or babel is too short or not a Babel function (rising, with mu_1(m)/m falling).

    Source:
        Tropp, "Greed is good: algorithmic results for sparse approximation", 2004.

    Example:
        >>> rip_upper_from_babel(k=3, babel=[0.3, 0.5, 0.6])
        0.5
    """
    k = whole("rip_upper_from_babel", "k", k, 1)
    values = check_babel("rip_upper_from_babel", babel)
    if k - 1 > len(values):
        raise ValueError(f"rip_upper_from_babel: k = {k} needs mu_1({k - 1}), but babel has {len(values)} entries.")
    return float(values[k - 2]) if k > 1 else 0.0


def rip_floor(n: int, d: int, k: int) -> float:
    r"""No dictionary is below: $\delta_k \ge \sqrt{k-1} \cdot \text{Welch}(n, d)$.

    The mean of $\|W_S^\top W_S - I\|_F^2$ over supports is k(k-1) times the mean squared cosine, at least Welch
    squared; a matrix of k eigenvalues has one at least as large as their root mean square. So $\delta_k$ grows as
    sqrt(k/d) however good W is.

    Args:
        n: number of atoms, at least 2.
        d: dimension, at least 1.
        k: number of atoms at once, from 1 to n.

    Returns:
        A lower bound on delta_k.

    Raises:
        ValueError: if n, d or k is out of range.

    Source:
        Derived in this docstring from Welch, "Lower bounds on the maximum cross correlation of signals", 1974.

    Example:
        >>> rip_floor(n=1024, d=256, k=2) == welch(1024, 256)
        True
    """
    k = whole("rip_floor", "k", k, 1)
    if k > whole("rip_floor", "n", n, 2):
        raise ValueError(f"rip_floor: k = {k} atoms out of n = {n}. Choose k at most n.")
    return math.sqrt(k - 1) * welch(n, d)


def rip_ceiling(n: int, d: int) -> int:
    r"""Largest k that the condition $\delta_{2k} < 1/\sqrt2$ can certify for any W:
    $2k - 1 < \frac{1}{2\,\text{Welch}^2}$.

    About d/4 for n >> d. It is what is left to RIP even for the best dictionary that could exist; known W and known
    certificates stay near sqrt(d).

    Args:
        n: number of atoms, more than d.
        d: dimension, at least 1.

    Returns:
        A count, at least 0.

    Raises:
        ValueError: if d < 1 or n <= d.

    Source:
        `rip_floor` with Cai and Zhang, "Sparse representation of a signal by restricted isometry", 2014.

    Example:
        >>> rip_ceiling(n=24576, d=768)
        198
    """
    d = whole("rip_ceiling", "d", d, 1)
    n = whole("rip_ceiling", "n", n, d + 1)
    # (1/2 / welch^2 + 1) / 2 in whole numbers, strictly below.
    return max(0, -(-(d * (n - 1) + 2 * (n - d)) // (4 * (n - d))) - 1)


def rip_guarantee(mu: Number) -> int:
    r"""Largest k that coherence certifies through RIP: $(2k - 1) \mu < 1/\sqrt2$.

    Never better than `coherence_guarantee`, which it is shown beside: going through RIP loses a factor sqrt(2).

    Args:
        mu: coherence, in (0, 1].

    Returns:
        A count, at least 0.

    Raises:
        ValueError: if mu is outside (0, 1].

    Source:
        Cai and Zhang, "Sparse representation of a signal by restricted isometry", 2014.

    Example:
        >>> rip_guarantee(0.0355)
        10
    """
    mu = real("rip_guarantee", "mu", mu, 0, 1, open_low=True)
    return max(0, math.ceil((BASIS_PURSUIT_NEEDS / mu + 1) / 2) - 1)


def matching_pursuit_needs(k: int) -> float:
    r"""$\delta_{k+1} < 1/\sqrt{k+1}$ makes orthogonal matching pursuit find every k-sparse f; no larger constant does.

    Args:
        k: active features, at least 1.

    Returns:
        The constant that delta_{k+1} must stay below.

    Raises:
        ValueError: if k < 1.

    Source:
        Mo, "A sharp restricted isometry constant bound of orthogonal matching pursuit", 2015.

    Example:
        >>> matching_pursuit_needs(3)
        0.5
    """
    return 1 / math.sqrt(whole("matching_pursuit_needs", "k", k, 1) + 1)


def rip_typical(d: int, k: int) -> float:
    r"""$\delta$ of one random support: $(1 + \sqrt{k/d})^2 - 1 = 2\sqrt{k/d} + k/d$.

    The edge of the Marchenko-Pastur law. It is what a support met in data deviates by when atoms are random, and the
    value plain sampling of supports reports. It is not $\delta_k$, which is over all supports and two or three times
    larger.

    Args:
        d: dimension, at least 1.
        k: active features, at least 1.

    Returns:
        A typical deviation of the extreme eigenvalues from 1.

    Raises:
        ValueError: if d < 1 or k < 1.

    Source:
        Marchenko and Pastur, "Distribution of eigenvalues for some sets of random matrices", 1967. Geman 1980.

    Example:
        >>> round(rip_typical(d=256, k=32), 2)      # 0.73 measured, finite-size
        0.83
    """
    ratio = whole("rip_typical", "k", k, 1) / whole("rip_typical", "d", d, 1)
    return 2 * math.sqrt(ratio) + ratio


def rip_random(n: int, d: int, k: int, failure: Number = 0.5) -> float:
    r"""With chance 1 - p, Gaussian W has $\delta_k \le (1 + \sqrt{k/d} + \epsilon)^2 - 1$,
    $\frac{d \epsilon^2}{2} = \ln \frac{2 \binom nk}{p}$.

    Concentration of one support's singular values, and a union over all. Entries are N(0, 1/d), so atoms have norm 1
    only on average. An upper bound at chance, not an estimate: at 256 x 1 024 and k = 8 it says 2.2 where search
    finds 0.95.

    Args:
        n: number of atoms, at least k.
        d: dimension, at least 1.
        k: number of atoms at once, at least 1.
        failure: p, in (0, 1).

    Returns:
        A bound on delta_k.

    Raises:
        ValueError: if an argument is out of range.

    Source:
        Davidson and Szarek, "Local operator theory, random matrices and Banach spaces", 2001. Candes and Tao, "Decoding
        by linear programming", 2005.

    Example:
        >>> 0.95 < rip_random(n=1024, d=256, k=8) < 2.5
        True
    """
    d, k = whole("rip_random", "d", d, 1), whole("rip_random", "k", k, 1)
    n = whole("rip_random", "n", n, k)
    failure = real("rip_random", "failure", failure, 0, 1, open_low=True, open_high=True)
    return (1 + math.sqrt(k / d) + math.sqrt(2 * _log_supports(n, k, failure) / d)) ** 2 - 1


def rip_dimension(n: int, k: int, delta: Number = BASIS_PURSUIT_NEEDS, failure: Number = 0.5) -> int:
    r"""Dimensions at which Gaussian W has $\delta_k \le \delta$ with chance 1 - p:
    $d = \left(\frac{\sqrt k + \sqrt{2 \ln (2 \binom nk / p)}}{\sqrt{1+\delta} - 1}\right)^2$.

    The honest size of "random matrices satisfy RIP": to certify k = 10 active of n = 1 024 through delta_20 it asks for
    several thousand dimensions, more than n; basis pursuit needs 62 for k = 10 (`statistical_dimension`).

    Args:
        n: number of atoms, at least k.
        k: number of atoms at once (2 x active features for basis pursuit), at least 1.
        delta: the constant wanted, in (0, 1).
        failure: p, in (0, 1).

    Returns:
        A number of dimensions that suffices.

    Raises:
        ValueError: if an argument is out of range.

    Source:
        That of `rip_random`, solved for d.

    Example:
        >>> rip_dimension(n=1024, k=20) > 1024
        True
    """
    k = whole("rip_dimension", "k", k, 1)
    n = whole("rip_dimension", "n", n, k)
    delta = real("rip_dimension", "delta", delta, 0, 1, open_low=True, open_high=True)
    failure = real("rip_dimension", "failure", failure, 0, 1, open_low=True, open_high=True)
    width = math.sqrt(k) + math.sqrt(2 * _log_supports(n, k, failure))
    return math.ceil((width / (math.sqrt(1 + delta) - 1)) ** 2)


def check_babel(caller: str, babel: Numbers) -> np.ndarray:
    """The Babel function as an array, or an error that says what a Babel function is."""
    values = np.asarray(babel, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"{caller}: babel must be a list mu_1(1), mu_1(2), ...; got shape {values.shape}.")
    # mu_1 rises; the mean of the m largest, mu_1(m)/m, falls. (It is not concave in m: the worst atom may change.)
    means = values / np.arange(1, values.size + 1)
    if (
        not np.all(np.isfinite(values))
        or not 0 <= values[0] <= 1 + 1e-6
        or np.any(np.diff(values) < -1e-6)
        or np.any(np.diff(means) > 1e-6)
    ):
        raise ValueError(
            f"{caller}: babel must rise while babel[m - 1] / m falls, as sums of the m largest cosines do. "
            "Pass mu_1(1), mu_1(2), ..., not the cosines themselves."
        )
    return values


def _log_supports(n: int, k: int, failure: float) -> float:
    return float(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)) + math.log(2 / failure)
