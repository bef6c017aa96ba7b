r"""What do features that share dimensions do to each other's read-out?

Feature i is active with probability p = `density` = 1 - S, independently, with magnitude of moments $m_1 = E f$ and
$m_2 = E f^2$ while active. Its linear read-out is $r_i = \langle w_i, x \rangle = f_i + I_i$ with interference
$I_i = \sum_{j \ne i} \langle w_i, w_j \rangle f_j$. A ReLU changes the picture for opposite directions: interference
then hurts only while both features are active.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from scipy.integrate import quad

from .arguments import Number, real, whole


class Interference(NamedTuple):
    """Moments of I_i: mean, variance and mean square, in units of the features."""

    mean: float
    variance: float
    square: float


@dataclass(frozen=True)
class Magnitude:
    """Law of a feature while it is active: first and second moment, and the chance to exceed m for m >= 0."""

    first: float
    second: float
    survival: Callable[[float], float]


def fixed(value: Number = 1.0) -> Magnitude:
    """Always `value` > 0: $m_1 = v$, $m_2 = v^2$.

    Args:
        value: the magnitude.

    Returns:
        A `Magnitude`.

    Raises:
        ValueError: if value is not positive and finite.

    Source:
        Elementary.

    Example:
        >>> fixed(2).second
        4.0
    """
    v = real("fixed", "value", value, 0, math.inf, open_low=True, open_high=True)
    return Magnitude(v, v * v, lambda m: float(m < v))


def uniform(low: Number = 0.0, high: Number = 1.0) -> Magnitude:
    r"""Uniform on [low, high]: $m_1 = \frac{a+b}{2}$, $m_2 = \frac{a^2 + ab + b^2}{3}$; the toy papers' law is [0, 1].

    Args:
        low: a, at least 0.
        high: b, above a.

    Returns:
        A `Magnitude`.

    Raises:
        ValueError: if not 0 <= low < high.

    Source:
        Elementary.

    Example:
        >>> uniform().second
        0.333...
    """
    a = real("uniform", "low", low, 0, math.inf, open_high=True)
    b = real("uniform", "high", high, a, math.inf, open_low=True, open_high=True)
    return Magnitude((a + b) / 2, (a * a + a * b + b * b) / 3, lambda m: min(1.0, max(0.0, (b - m) / (b - a))))


def half_normal(scale: Number = 1.0) -> Magnitude:
    r"""Absolute value of N(0, scale^2): $m_1 = \sigma \sqrt{2/\pi}$, $m_2 = \sigma^2$.

    For signed Gaussian features take `normal`: their first moment is 0.

    Args:
        scale: sigma > 0.

    Returns:
        A `Magnitude`.

    Raises:
        ValueError: if scale is not positive and finite.

    Source:
        Elementary.

    Example:
        >>> round(half_normal().first, 4)
        0.7979
    """
    s = real("half_normal", "scale", scale, 0, math.inf, open_low=True, open_high=True)
    return Magnitude(s * math.sqrt(2 / math.pi), s * s, lambda m: math.erfc(max(m, 0.0) / s / math.sqrt(2)))


def normal(scale: Number = 1.0) -> Magnitude:
    r"""N(0, scale^2), of either sign: $m_1 = 0$, $m_2 = \sigma^2$; the survival is of the positive half.

    Args:
        scale: sigma > 0.

    Returns:
        A `Magnitude`. `opposite_relu_error` counts its positive half only, as a ReLU does.

    Raises:
        ValueError: if scale is not positive and finite.

    Source:
        Elementary.

    Example:
        >>> normal(3).second
        9.0
    """
    s = real("normal", "scale", scale, 0, math.inf, open_low=True, open_high=True)
    return Magnitude(0.0, s * s, lambda m: math.erfc(max(m, 0.0) / s / math.sqrt(2)) / 2)


def exponential(mean: Number = 1.0) -> Magnitude:
    r"""Exponential: $m_1 = \mu$, $m_2 = 2 \mu^2$; a wide law, as SAE latents have.

    Args:
        mean: mu > 0.

    Returns:
        A `Magnitude`.

    Raises:
        ValueError: if mean is not positive and finite.

    Source:
        Elementary.

    Example:
        >>> exponential().second
        2.0
    """
    u = real("exponential", "mean", mean, 0, math.inf, open_low=True, open_high=True)
    return Magnitude(u, 2 * u * u, lambda m: math.exp(-max(m, 0.0) / u))


def pair_interference(cosine: Number, density: Number, first: Number, second: Number) -> Interference:
    r"""Two features at cosine c, linear read-out: mean $c\,p\,m_1$, variance $c^2 (p\,m_2 - p^2 m_1^2)$, mean square
    $c^2 p\,m_2$.

    Exact for every law with these moments. Linear in p = 1 - S: sparsity makes interference rarer, not smaller while it
    happens. For U[0, 1]: $c p/2$, $c^2 (p/3 - p^2/4)$, $c^2 p/3$.

    Args:
        cosine: of the two directions, in [-1, 1].
        density: p = P(f != 0) = 1 - S, in [0, 1].
        first: m_1 = E[f | active].
        second: m_2 = E[f^2 | active], at least m_1^2.

    Returns:
        (mean, variance, square) of the interference that one feature receives from the other.

    Raises:
        ValueError: if an argument is out of range.

    Source:
        Elhage et al., "Toy models of superposition", 2022, for the setting.

    Example:
        >>> pair_interference(cosine=-1, density=0.1, first=1/2, second=1/3)
        Interference(mean=-0.05, variance=0.0308..., square=0.0333...)
    """
    c = real("pair_interference", "cosine", cosine, -1, 1)
    return frame_interference(c, c * c, density, first, second)


def frame_interference(
    sum_cosines: Number, sum_squares: Number, density: Number, first: Number, second: Number
) -> Interference:
    r"""All other features on one: $E I = p\,m_1 \sum_j G_{ij}$,
    $\mathrm{Var}\, I = (p\,m_2 - p^2 m_1^2) \sum_j G_{ij}^2$.

    Sums run over j != i. For unit atoms $\sum_j G_{ij}^2 = w_i^\top W W^\top w_i - 1$ and
    $\sum_j G_{ij} = w_i^\top W 1 - 1$: O(d^2) per atom, no n x n matrix. Independent features; co-activation is what
    real data add to it.

    Args:
        sum_cosines: sum of the cosines with all other atoms.
        sum_squares: sum of their squares, at least 0.
        density: p = P(f != 0), in [0, 1].
        first: m_1 = E[f | active].
        second: m_2 = E[f^2 | active], at least m_1^2.

    Returns:
        (mean, variance, square) of I_i.

    Raises:
        ValueError: if an argument is out of range.

    Source:
        Variances of independent sums.

    Example:
        >>> frame_interference(0.0, 3.0, density=0.01, first=0, second=1).variance
        0.03
    """
    name = "frame_interference"
    total = real(name, "sum_cosines", sum_cosines, -math.inf, math.inf, open_low=True, open_high=True)
    squares = real(name, "sum_squares", sum_squares, 0, math.inf, open_high=True)
    p, m1, m2 = _moments(name, density, first, second)
    mean, variance = p * m1 * total, (p * m2 - (p * m1) ** 2) * squares
    return Interference(mean, variance, mean * mean + variance)


def interference_floor(n: int, d: int, density: Number, first: Number, second: Number) -> float:
    r"""Least variance of interference, averaged over features: $(p\,m_2 - p^2 m_1^2)\,(n/d - 1)$.

    For n >= d unit atoms; reached exactly by tight frames. Random atoms have (n-1)/d in place of n/d - 1, less than one
    unit above: mean-square interference hardly tells a learned dictionary from noise. Tails and correlations do.

    Args:
        n: number of atoms, at least 1.
        d: dimension, at least 1.
        density: p = P(f != 0), in [0, 1].
        first: m_1 = E[f | active].
        second: m_2 = E[f^2 | active], at least m_1^2.

    Returns:
        A variance, in squared units of the features; 0 for n <= d.

    Raises:
        ValueError: if an argument is out of range.

    Source:
        Benedetto and Fickus, "Finite normalized tight frames", 2003 (the frame potential is at least n^2/d).

    Example:
        >>> interference_floor(n=20, d=5, density=0.1, first=0, second=1)
        0.3...
    """
    n, d = whole("interference_floor", "n", n, 1), whole("interference_floor", "d", d, 1)
    p, m1, m2 = _moments("interference_floor", density, first, second)
    return (p * m2 - (p * m1) ** 2) * max(n - d, 0) / d


def random_interference(n: int, d: int, density: Number, first: Number, second: Number) -> Interference:
    r"""Interference among random atoms: mean 0, variance over atoms and features together $p\,m_2\,(n-1)/d$.

    The null beside `interference_floor`. Over the draw of W the signs of the cosines average out, so the square of the
    mean belongs to the variance here.

    Args:
        n: number of atoms, at least 1.
        d: dimension, at least 1.
        density: p = P(f != 0), in [0, 1].
        first: m_1 = E[f | active].
        second: m_2 = E[f^2 | active], at least m_1^2.

    Returns:
        (mean, variance, square), over W and f.

    Raises:
        ValueError: if an argument is out of range.

    Source:
        E cos^2 = 1/d.

    Example:
        >>> random_interference(n=21, d=5, density=0.1, first=0, second=1).square
        0.4...
    """
    n, d = whole("random_interference", "n", n, 1), whole("random_interference", "d", d, 1)
    p, _, m2 = _moments("random_interference", density, first, second)
    square = p * m2 * (n - 1) / d
    return Interference(0.0, square, square)


def readout_signal_to_noise(sum_squares: Number, density: Number, first: Number, second: Number) -> float:
    r"""Mean square of an active feature over the variance of its interference:
    $\frac{m_2}{(p\,m_2 - p^2 m_1^2) \sum_j G_{ij}^2}$.

    Args:
        sum_squares: sum of squared cosines with the other atoms, at least 0.
        density: p = P(f != 0), in [0, 1].
        first: m_1 = E[f | active].
        second: m_2 = E[f^2 | active], above 0.

    Returns:
        A ratio of powers; `inf` without interference.

    Raises:
        ValueError: if an argument is out of range.

    Source:
        Variances of independent sums.

    Example:
        >>> readout_signal_to_noise(sum_squares=3, density=0.01, first=0, second=1)
        33.3...
    """
    noise = frame_interference(0.0, sum_squares, density, first, second).variance
    return float(second) / noise if noise > 0 else math.inf


def opposite_relu_error(cosine: Number, density: Number, magnitude: Magnitude) -> float:
    r"""Expected squared error of one feature, read through a ReLU, from one other: $p^2 E \min(f, |c| f')^2$ for c
    <= 0.

    With $c \le 0$ the other feature alone pushes the read-out below zero, where the ReLU cuts it off: only joint
    activity hurts, hence p^2 instead of p. For c > 0 the ReLU does nothing and the error is $c^2 p\,m_2$. Two antipodal
    features with U[0, 1] magnitudes: $p^2/6$ each, $p^2/3$ together. It is the ReLU, not sparsity alone, that buys the
    extra factor 1 - S.

    Args:
        cosine: c, of the two unit directions, in [-1, 1]; -1 is an antipodal pair in one dimension.
        density: p = P(f != 0) = 1 - S of both, in [0, 1].
        magnitude: law of both while active, such as `uniform()`; nonnegative features.

    Returns:
        A mean squared error per feature (twice it for the pair), without bias term and features on which nothing acts.

    Raises:
        ValueError: if cosine or density is out of range.

    Source:
        Elhage et al., "Toy models of superposition", 2022, for the setting; the integral is
        $E \min(f, c f')^2 = \int_0^\infty 2 m\, P(f > m) P(c f' > m)\, dm$.

    Example:
        >>> 2 * opposite_relu_error(-1, 0.1, uniform())         # p^2 / 3
        0.00333...
    """
    c = real("opposite_relu_error", "cosine", cosine, -1, 1)
    p, _, m2 = _moments("opposite_relu_error", density, magnitude.first, magnitude.second)
    if c >= 0:
        return c * c * p * m2
    return p * p * least_square(-c, magnitude)


def least_square(ratio: Number, magnitude: Magnitude) -> float:
    r"""$E \min(f, c f')^2 = \int_0^\infty 2 m\, P(f > m)\, P(f' > m/c)\, dm$ for independent f, f' of one law.

    Args:
        ratio: c, in [0, 1].
        magnitude: the law.

    Returns:
        A mean square, to about ten digits.

    Raises:
        ValueError: if ratio is outside [0, 1].

    Source:
        Integration by parts.

    Example:
        >>> round(least_square(1, half_normal()), 6)            # 1 - 2/pi
        0.36338
    """
    c = real("least_square", "ratio", ratio, 0, 1)
    if c == 0:
        return 0.0
    # Beyond the largest c f' nothing is left: stop there, so that the rule does not miss a short range.
    far = 1.0
    while magnitude.survival(far) > 1e-18 and far < 1e300:
        far *= 2
    while far > 1e-300 and magnitude.survival(far / 2) <= 1e-18:
        far /= 2
    # Halve down to where the law lives, then bisect to the end of its support, so that a jump falls on a limit.
    low, high = far / 2, far
    for _ in range(60):
        middle = (low + high) / 2
        if magnitude.survival(middle) > 1e-18:
            low = middle
        else:
            high = middle
    value, _ = quad(
        lambda m: 2 * m * magnitude.survival(m) * magnitude.survival(m / c),
        0.0,
        c * high,
        epsabs=0.0,
        epsrel=1e-11,
        limit=500,
    )
    return float(value)


def capacity_used(n: int, d: int) -> float:
    r"""Sum over atoms of $C_i = \|w_i\|^4 / \sum_j \langle w_i, w_j \rangle^2$, for random unit atoms:
    $\frac{n d}{n + d - 1}$.

    The null model of "capacity used" (the same number as summed feature dimensionality): at n >> d it is nearly d, the
    value of a tight frame, whatever has been learned.

    Args:
        n: number of atoms, at least 1.
        d: dimension, at least 1.

    Returns:
        A number of dimensions, at most min(n, d).

    Raises:
        ValueError: if n < 1 or d < 1.

    Source:
        Scherlis, Sachan, Jermyn, Benton and Shlegeris, "Polysemanticity and capacity in neural networks", 2022, for
        C_i; E cos^2 = 1/d.

    Example:
        >>> round(capacity_used(n=1024, d=256), 2)
        204.96
    """
    n, d = whole("capacity_used", "n", n, 1), whole("capacity_used", "d", d, 1)
    return n * d / (n + d - 1)


def _moments(caller: str, density: Number, first: Number, second: Number) -> tuple[float, float, float]:
    p = real(caller, "density", density, 0, 1)
    m1 = real(caller, "first", first, -math.inf, math.inf, open_low=True, open_high=True)
    m2 = real(caller, "second", second, 0, math.inf, open_high=True)
    if m2 < m1 * m1 * (1 - 1e-9):
        raise ValueError(
            f"{caller}: second = {m2:g} is less than first squared = {m1 * m1:g}, which no law has. "
            "Pass moments given activity, E[f | f != 0] and E[f^2 | f != 0]."
        )
    return p, m1, m2
