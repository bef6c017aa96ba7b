r"""Up to which k does $\ell_1$ minimisation find a k-sparse f from x = W f, when W is random?

delta = d/n says how many dimensions there are per atom, rho = k/d how many active features per dimension. The *weak*
threshold is about one random support: below it nearly every f is recovered, above it nearly none. The *strong* one is
about all supports at once. Each is computed here twice, by unrelated formulas, so that tests can compare them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import entr, erf, log_ndtr, ndtr

from .arguments import Number, real, whole
from .root import root


def weak_threshold(delta: Number, *, nonnegative: bool = False) -> float:
    r"""Weak Donoho-Tanner threshold: $\rho(\delta) = \max_{z \ge 0} \frac{1 - (\kappa/\delta) g(z)}{1 + z^2 - \kappa
    g(z)}$.

    $g(z) = (1+z^2) \Phi(-z) - z \phi(z)$, kappa = 2 for signed codes, 1 for nonnegative ones. For Gaussian W, random
    support and no noise, basis pursuit succeeds with probability tending to 1 for k < rho d and to 0 above; at d = 256,
    n = 1024 the 50 % point is within one atom of it. Magnitudes do not matter. The popular $k \le d / (2 \ln(n/d))$
    is the limit of this curve for delta -> 0: 5 % too high at delta = 1/32, 87 % at 1/2, and impossible (rho > 1)
    from 0.61 on.

    Args:
        delta: d/n, in (0, 1].
        nonnegative: f >= 0 is known and used.

    Returns:
        rho = k/d, in (0, 1].

    Raises:
        ValueError: if delta is not in (0, 1].

    Source:
        Donoho and Tanner, "Counting faces of randomly projected polytopes when the projection radically lowers
        dimension", 2009. Donoho, Maleki and Montanari, "Message-passing algorithms for compressed sensing", 2009.

    Example:
        >>> round(weak_threshold(0.25) * 256, 2)        # d = 256, n = 1024
        68.45
    """
    delta = _delta("weak_threshold", delta)
    if delta == 1:
        return 1.0
    kappa = 1 if nonnegative else 2
    best = minimize_scalar(
        lambda z: -_weak_at(z, delta, kappa),
        bounds=(0.0, _largest_z(delta)),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return float(-best.fun)


def weak_threshold_by_dimension(delta: Number, *, nonnegative: bool = False) -> float:
    r"""The same threshold from the statistical dimension: $\delta = \min_{t \ge 0} \epsilon (1+t^2) + (1-\epsilon)
    \kappa g(t)$.

    epsilon = k/n = rho delta. The right side is the mean squared distance of a Gaussian vector from the cone of
    subgradients of the $\ell_1$ norm at f, over n: recovery succeeds when the kernel of W, of n - d dimensions, and the
    descent cone together fill less than the space.

    Args:
        delta: d/n, in (0, 1].
        nonnegative: f >= 0 is known and used.

    Returns:
        rho = k/d, in (0, 1].

    Raises:
        ValueError: if delta is not in (0, 1].

    Source:
        Chandrasekaran, Recht, Parrilo and Willsky, "The convex geometry of linear inverse problems", 2012,
        Proposition 3.10. Amelunxen, Lotz, McCoy and Tropp, "Living on the edge", 2014, Proposition 4.5.

    Example:
        >>> round(weak_threshold_by_dimension(0.25) * 256, 2)
        68.45
    """
    delta = _delta("weak_threshold_by_dimension", delta)
    if delta == 1:
        return 1.0

    def excess(log_density: float) -> float:
        return math.log(statistical_dimension(math.exp(log_density), nonnegative=nonnegative) / delta)

    # delta > epsilon (every nonzero needs a dimension) and the dimension rises with epsilon: one sign change.
    return math.exp(root(excess, math.log(delta) - 12.0, math.log(delta), 1e-13)) / delta


def statistical_dimension(density: Number, *, nonnegative: bool = False) -> float:
    r"""Dimensions $\ell_1$ needs per atom: $\min_{t \ge 0} \epsilon (1 + t^2) + (1 - \epsilon) \kappa g(t)$.

    Multiply by n for the number of dimensions at which a code of k = epsilon n nonzeros becomes recoverable. The same
    number is the minimax risk of soft thresholding in unit noise, and the minimiser its threshold (`amp.minimax_risk`).

    Args:
        density: epsilon = k/n, in (0, 1].
        nonnegative: f >= 0 is known and used.

    Returns:
        A fraction of n, in (0, 1].

    Raises:
        ValueError: if density is not in (0, 1].

    Source:
        Amelunxen, Lotz, McCoy and Tropp, "Living on the edge: phase transitions in convex programs with random data",
        2014, section 4.

    Example:
        >>> round(1024 * statistical_dimension(10 / 1024))      # dimensions for 10 active features of 1024
        62
    """
    density = real("statistical_dimension", "density", density, 0, 1, open_low=True)
    return soft_threshold_minimum(density, nonnegative)[0]


def soft_threshold_minimum(density: float, nonnegative: bool) -> tuple[float, float]:
    """Minimum over t >= 0 of density (1 + t^2) + (1 - density) kappa g(t), and the t that attains it."""
    if density == 1:
        return 1.0, 0.0
    kappa = 1 if nonnegative else 2
    ratio = (1 - density) * kappa / density

    # Derivative over 2 density: t - ratio (phi(t) - t Phi(-t)), increasing in t (the risk is convex).
    def slope(t: float) -> float:
        return t - ratio * (_phi(t) - t * float(ndtr(-t)))

    high = 1.0
    while slope(high) < 0:
        high *= 2
    t = root(slope, 0.0, high, 1e-14) if slope(0.0) < 0 else 0.0
    return density * (1 + t * t) + (1 - density) * kappa * soft_threshold_tail(t), t


def soft_threshold_tail(z: float) -> float:
    """g(z) = E[(Z - z)_+^2] = (1 + z^2) Phi(-z) - z phi(z), with its own digits also for large z."""
    if z < 12:
        return (1 + z * z) * float(ndtr(-z)) - z * _phi(z)
    # Both terms cancel to z^-4 there; integrate u^2 phi(z + u) through Mills' expansion instead.
    total, term, j = 0.0, 2.0, 1
    while abs(term) > 1e-17 * abs(total) and j < 60:
        total += term
        following = -term * (2 * j + 1) * (2 * j + 2) / (2 * j) / (z * z)
        if abs(following) >= abs(term):
            break
        term, j = following, j + 1
    return _phi(z) * total / z**3


def strong_threshold(delta: Number, *, nonnegative: bool = False) -> float:
    r"""Strong Donoho-Tanner threshold: the rho at which $H(a) + a \ln \kappa + \Psi(a, \delta) = 0$, $a = \rho \delta$.

    $\Psi = \min_{t \ge 0,\, 0 \le \xi < 1/2} \; a \ln E e^{\xi (Z-t)^2} + (1-a) \ln E e^{\xi (|Z|-t)_+^2} +
    \frac{\delta}{2} \ln(1 - 2 \xi)$ is the exponent of the chance that the kernel of W meets the descent cone of one
    support (for nonnegative codes Z stands for |Z| in the second mean), H(a) the exponent of the number of supports,
    both in nats. Below the threshold one W serves every support and every sign at once. It is what a guarantee for
    all codes costs, and far below what nearly all codes enjoy.

    Args:
        delta: d/n, in (0, 1).
        nonnegative: f >= 0 is known and used.

    Returns:
        rho = k/d, in (0, 1).

    Raises:
        ValueError: if delta is not in (0, 1).

    Source:
        Donoho, "High-dimensional centrally symmetric polytopes with neighborliness proportional to dimension", 2006,
        for the threshold. The exponent here is the Laplace transform of the intrinsic volumes of the descent cone:
        McCoy and Tropp, "From Steiner formulas for cones to concentration of intrinsic volumes", 2014.

    Example:
        >>> round(strong_threshold(0.5), 4)
        0.0894
    """
    return _strong("strong_threshold", delta, nonnegative, _exponent_by_cones)


def strong_threshold_by_angles(delta: Number, *, nonnegative: bool = False) -> float:
    r"""The same threshold from polytope angles: $\max_{\nu \in [\delta, 1]}$ (faces + internal + external exponent)
    = 0.

    The polytope $W C$ loses a face when the sum over larger faces G of (number of G) x (internal angle of the face
    in G) x (external angle of G) is not small. With $a = \rho\delta$, $m = \nu - a$: internal
    $m (t^2/2 + \ln \Phi(t) - t h) - m^2 h^2 / (2a)$ at the t < 0 that solves $t + (m/a) h = 0$,
    $h = t + \phi(t)/\Phi(t)$; external $\max_x -\nu x^2 + (1-\nu) \ln \mathrm{erf}\, x$ ($\Phi(\sqrt2 x)$ if
    nonnegative); faces $(1-a) H(m/(1-a))$, and $m \ln 2$ more for signed codes.

    Args:
        delta: d/n, in (0, 1).
        nonnegative: f >= 0 is known and used.

    Returns:
        rho = k/d, in (0, 1).

    Raises:
        ValueError: if delta is not in (0, 1).

    Source:
        Vershik and Sporyshev, "Asymptotic behavior of the number of faces of random polyhedra and the neighborliness
        problem", 1992. Donoho and Tanner, "Neighborliness of randomly projected simplices in high dimensions", 2005.

    Example:
        >>> round(strong_threshold_by_angles(0.5), 4)
        0.0894
    """
    return _strong("strong_threshold_by_angles", delta, nonnegative, _exponent_by_angles)


def weak_count(n: int, d: int, *, nonnegative: bool = False) -> float:
    r"""$k = d\, \rho_{weak}(d/n)$: active features that $\ell_1$ recovers from a random W, for nearly every support.

    Args:
        n: number of atoms, at least d.
        d: dimension, at least 1.
        nonnegative: f >= 0 is known and used.

    Returns:
        A count, not rounded: the 50 % point of an experiment lies within about one atom of it.

    Raises:
        ValueError: if d < 1 or n < d.

    Source:
        That of `weak_threshold`.

    Example:
        >>> int(weak_count(n=24576, d=768)), int(weak_count(n=24576, d=768, nonnegative=True))
        (105, 125)
    """
    d = whole("weak_count", "d", d, 1)
    n = whole("weak_count", "n", n, d)
    return d * weak_threshold(d / n, nonnegative=nonnegative)


def strong_count(n: int, d: int, *, nonnegative: bool = False) -> float:
    r"""$k = d\, \rho_{strong}(d/n)$: active features that $\ell_1$ recovers from a random W, for all supports at once.

    Args:
        n: number of atoms, more than d.
        d: dimension, at least 1.
        nonnegative: f >= 0 is known and used.

    Returns:
        A count, not rounded.

    Raises:
        ValueError: if d < 1 or n <= d.

    Source:
        That of `strong_threshold`.

    Example:
        >>> int(strong_count(n=24576, d=768))
        28
    """
    d = whole("strong_count", "d", d, 1)
    n = whole("strong_count", "n", n, d + 1)
    return d * strong_threshold(d / n, nonnegative=nonnegative)


def sufficient_dimension(n: int, k: int) -> float:
    r"""$d \ge 2 k \ln(n/k) + \frac54 k + 1$ dimensions suffice for $\ell_1$ to recover k of n, W Gaussian.

    A clean formula that is a theorem, unlike $d = 2 k \ln(n/d)$: note $\ln(n/k)$, not $\ln(n/d)$. It is safe rather
    than sharp; `statistical_dimension` is sharp.

    Args:
        n: number of atoms, at least k.
        k: active features, at least 1.

    Returns:
        A number of dimensions, not rounded.

    Raises:
        ValueError: if k < 1 or n < k.

    Source:
        Chandrasekaran, Recht, Parrilo and Willsky, "The convex geometry of linear inverse problems", 2012,
        Proposition 3.10 with Corollary 3.3.

    Example:
        >>> sufficient_dimension(n=1024, k=30) < 256 < sufficient_dimension(n=1024, k=31)
        True
    """
    k = whole("sufficient_dimension", "k", k, 1)
    n = whole("sufficient_dimension", "n", n, k)
    return 2 * k * math.log(n / k) + 1.25 * k + 1


def popular_count(n: int, d: int) -> float:
    r"""$k = \frac{d}{2 \ln(n/d)}$: the popular formula, which is neither a bound nor, at usual d/n, close.

    It is the leading term of `weak_count` (signed) as d/n -> 0, and overstates it by 5 % at n = 32 d, by 35 % at n =
    4 d, by 87 % at n = 2 d; it passes d itself, which nothing can, before n = 1.65 d. Shipped to be compared with.

    Args:
        n: number of atoms, more than d.
        d: dimension, at least 1.

    Returns:
        A count, not rounded.

    Raises:
        ValueError: if d < 1 or n <= d.

    Source:
        Donoho and Tanner, "Counting faces of randomly projected polytopes when the projection radically lowers
        dimension", 2009, for the limit it is.

    Example:
        >>> popular_count(n=512, d=256) > 1.8 * weak_count(n=512, d=256)
        True
    """
    d = whole("popular_count", "d", d, 1)
    n = whole("popular_count", "n", n, d + 1)
    return d / (2 * math.log(n / d))


def _delta(caller: str, delta: Number) -> float:
    return real(caller, "delta", delta, 0, 1, open_low=True)


def _phi(z: float) -> float:
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _weak_at(z: float, delta: float, kappa: int) -> float:
    tail = kappa * soft_threshold_tail(z)
    return (1 - tail / delta) / (1 + z * z - tail)


def _largest_z(delta: float) -> float:
    # The maximiser grows as sqrt(2 ln 1/delta); beyond this the numerator is 1 and the quotient only falls.
    return math.sqrt(2 * math.log(1 / delta)) + 2.0


def _strong(caller: str, delta: Number, nonnegative: bool, exponent: Callable[[float, float, bool], float]) -> float:
    delta = real(caller, "delta", delta, 0, 1, open_low=True, open_high=True)

    def net(log_rho: float) -> float:
        a = math.exp(log_rho) * delta
        supports = float(entr(a) + entr(1 - a)) + (0 if nonnegative else a * math.log(2))
        return supports + exponent(a, delta, nonnegative)

    # The exponent vanishes at the weak threshold, where the number of supports leaves the sum positive.
    high = math.log(weak_threshold(delta, nonnegative=nonnegative)) - 1e-6
    low = high - 0.5
    while net(low) > 0:
        high, low = low, low - 0.5
    return math.exp(root(net, low, high, 1e-10))


def _exponent_by_cones(a: float, delta: float, nonnegative: bool) -> float:
    """ln of the chance, per atom, that the descent cone's conic volume sits above delta (Chernoff, two variables)."""
    # Nested grids, each four cells around the least point of the last: one call each, where a line search takes 600.
    # t is scaled by sqrt(1 - 2 xi), which straightens the valley.
    r_low, r_high = 0.0, math.sqrt(2 * math.log(1 / a)) + 4
    u_low, u_high = -14.0, 0.0  # u = ln(1 - 2 xi)
    least = 0.0
    for _ in range(13):
        r, u = np.linspace(r_low, r_high, 33)[:, None], np.linspace(u_low, u_high, 33)[None, :]
        values = _cone_exponent(r, u, a, delta, nonnegative)
        row, column = np.unravel_index(int(values.argmin()), values.shape)
        least = min(least, float(values[row, column]))
        r_step, u_step = (r_high - r_low) / 8, (u_high - u_low) / 8
        r_low, r_high = max(0.0, float(r[row, 0]) - r_step), float(r[row, 0]) + r_step
        u_low, u_high = float(u[0, column]) - u_step, min(0.0, float(u[0, column]) + u_step)
    return least


def _cone_exponent(r: np.ndarray, u: np.ndarray, a: float, delta: float, nonnegative: bool) -> np.ndarray:
    """a ln E exp(xi (Z-t)^2) + (1-a) ln E exp(xi (|Z|-t)_+^2) + (delta/2) u at u = ln(1 - 2 xi), t = r exp(u/2)."""
    t = r * np.exp(u / 2)
    log_on = -u / 2 - np.expm1(u) * r * r / 2
    log_far = log_on + log_ndtr(-r)  # E exp(xi (Z-t)^2), Z > t
    if nonnegative:
        log_off = np.logaddexp(log_ndtr(t), log_far)
    else:
        with np.errstate(divide="ignore"):  # ln 0 at t = 0: no mass within
            log_near = np.log(erf(t / math.sqrt(2)))
        log_off = np.logaddexp(log_near, math.log(2) + log_far)
    return a * log_on + (1 - a) * log_off + delta / 2 * u


def _exponent_by_angles(a: float, delta: float, nonnegative: bool) -> float:
    """Largest over nu in [delta, 1] of the exponents of faces, internal angle and external angle together."""

    def at(nu: float) -> float:
        m = nu - a
        faces = (1 - a) * float(entr(m / (1 - a)) + entr((1 - nu) / (1 - a)))
        if not nonnegative:
            faces += m * math.log(2)
        return faces + _internal(m, a) + _external(nu, nonnegative)

    best = minimize_scalar(lambda nu: -at(nu), bounds=(delta, 1.0), method="bounded", options={"xatol": 1e-8})
    return max(float(-best.fun), at(delta), at(1.0) if delta < 1 else -math.inf)


def _internal(m: float, a: float) -> float:
    def h(t: float) -> float:
        # t + phi/Phi is the mean distance of a Gaussian truncated to z < t from t; series where both terms cancel.
        if t < -30:
            return -1 / t + 2 / t**3
        return t + math.exp(-t * t / 2 - 0.5 * math.log(2 * math.pi) - float(log_ndtr(t)))

    low = -1.0
    while low + (m / a) * h(low) > 0:
        low *= 2
    t = root(lambda t: t + (m / a) * h(t), low, 0.0, 1e-14)
    return m * (t * t / 2 + float(log_ndtr(t)) - t * h(t)) - m * m * h(t) ** 2 / (2 * a)


def _external(nu: float, nonnegative: bool) -> float:
    if nu >= 1:
        return 0.0

    def log_body(x: float) -> float:
        inside = float(log_ndtr(math.sqrt(2) * x))
        return inside if nonnegative else math.log(math.erf(x))

    best = minimize_scalar(
        lambda log_x: nu * math.exp(2 * log_x) - (1 - nu) * log_body(math.exp(log_x)),
        bounds=(-20.0, 3.5),
        method="bounded",
        options={"xatol": 1e-8},
    )
    return float(-best.fun)
