"""How many directions fit in d dimensions with pairwise cosine at most eps, and how far apart can n of them be?

Signed and absolute cosines are two questions with two answers: opposite directions do not disturb each other behind a
ReLU (signed), but they do in a linear read-out (absolute). Every count here is a bracket: what can be built, and what
is proved impossible.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from scipy.special import betainc, betaln

from .arguments import Number, real, whole
from .levenshtein import levenshtein, levenshtein_count
from .welch import bukh_cox, orthoplex, rankin, welch


class Bound(NamedTuple):
    """A number that cannot be passed, and which bound says so."""

    value: float
    by: str


@dataclass(frozen=True)
class Bracket:
    """Between `lower` and `upper` directions; both kept as natural logarithms, because they may pass the largest
    float."""

    log_lower: float
    log_upper: float
    lower_by: str
    upper_by: str

    @property
    def lower(self) -> int | float:
        """Directions that exist: a whole number while floats hold it, `inf` beyond the largest float."""
        return math.ceil(_exp(self.log_lower) * (1 - 1e-11)) if self.log_lower < 34 else _exp(self.log_lower)

    @property
    def upper(self) -> int | float:
        """No more directions than this: a whole number while floats hold it, `inf` beyond the largest float."""
        return math.floor(_exp(self.log_upper) * (1 + 1e-11)) if self.log_upper < 34 else _exp(self.log_upper)

    @property
    def is_exact(self) -> bool:
        """Whether the two ends meet."""
        return self.lower == self.upper and math.isfinite(self.lower)


def best_lower_bound(n: int, d: int, *, signed: bool = False) -> Bound:
    r"""$\mu \ge \max(\text{Welch, Bukh-Cox, orthoplex, Levenshtein})$, and which of them it was.

    With `signed`, the largest signed cosine is bounded, by Rankin and Levenshtein. The bound rises with n and falls
    with d. Nothing says that it can be reached: for 36 lines in 6 dimensions it is (E6, 1/2), for 7 lines in 3
    dimensions it says 0.488, where the best possible is 0.577.

    Args:
        n: number of directions, at least 2.
        d: dimension, at least 1.
        signed: bound the largest signed cosine instead of the largest absolute one.

    Returns:
        A `Bound`: value (a cosine) and by (the name of the bound).

    Raises:
        ValueError: if n < 2 or d < 1.

    Source:
        Those of `welch`, `bukh_cox`, `orthoplex`, `rankin` and `levenshtein`.

    Example:
        >>> best_lower_bound(n=28, d=7)
        Bound(value=0.333..., by='Welch')
        >>> best_lower_bound(n=9, d=7)
        Bound(value=0.2, by='Bukh-Cox')
    """
    n, d = whole("best_lower_bound", "n", n, 2), whole("best_lower_bound", "d", d, 1)
    if signed:
        if n <= 2 * d:
            return Bound(rankin(n, d), "Rankin")
        return Bound(levenshtein(n, d, signed=True), "Levenshtein")
    if n <= d:
        return Bound(0.0, "none: n <= d directions can be orthogonal")
    candidates = (
        Bound(welch(n, d), "Welch"),
        Bound(bukh_cox(n, d), "Bukh-Cox"),
        Bound(orthoplex(n, d), "orthoplex"),
        Bound(levenshtein(n, d), "Levenshtein"),
    )
    best = max(bound.value for bound in candidates)
    # The earliest, that is the best known, of those that agree to rounding.
    return next(bound for bound in candidates if bound.value >= best - 1e-14)


def cap_fraction(d: int, eps: Number, *, signed: bool = False) -> float:
    r"""Natural logarithm of the chance that two random directions are closer than eps.

    $\ln P(|\cos| > \epsilon) = \ln I_{1 - \epsilon^2}\!\left(\tfrac{d-1}{2}, \tfrac12\right)$, because $\cos^2$ is
    Beta(1/2, (d-1)/2). With `signed`, $\ln P(\cos > \epsilon)$: for eps >= 0 half of it.

    Args:
        d: dimension, at least 2.
        eps: the cosine, in [0, 1) or, signed, in (-1, 1).
        signed: count cosines above eps only, not those below -eps.

    Returns:
        A natural logarithm, at most 0; exact also where the chance itself is below the smallest float.

    Raises:
        ValueError: if d or eps is out of range.

    Source:
        Muirhead, "Aspects of multivariate statistical theory", 1982, section 1.5.

    Example:
        >>> math.exp(cap_fraction(d=3, eps=0.25))       # on a sphere, heights are uniform
        0.75
    """
    d = whole("cap_fraction", "d", d, 2)
    eps = real("cap_fraction", "eps", eps, -1 if signed else 0, 1, open_low=signed, open_high=True)
    if eps < 0:
        return math.log1p(-math.exp(cap_fraction(d, -eps, signed=True)))
    a, x = (d - 1) / 2, (1 - eps) * (1 + eps)
    fraction = float(betainc(a, 0.5, x))
    if fraction > 1e-250:
        log_fraction = math.log(fraction)
    else:  # I_x(a, 1/2) = x^a sqrt(1-x) / (a B(a, 1/2)) * (1 + (a+1/2)/(a+1) x + ...), a series of positive terms
        term = total = 1.0
        j = 0
        while term > 1e-17 * total:
            term *= x * (a + 0.5 + j) / (a + 1 + j)
            total += term
            j += 1
        log_fraction = a * math.log(x) + math.log(eps) - math.log(a) - float(betaln(a, 0.5)) + math.log(total)
    return log_fraction - math.log(2) if signed else log_fraction


def covering_count(d: int, eps: Number, *, signed: bool = False) -> float:
    r"""Natural logarithm of the covering (Gilbert-Varshamov, Shannon) bound: $n \ge 1 / P(\epsilon)$.

    Add directions until none is left farther than eps from all: the caps then cover the sphere, so n is at least one
    over the fraction a cap holds. It is a promise that such directions exist, not a construction. "Exponentially many
    almost orthogonal directions" is this bound, and it is smaller than a plain basis until d reaches 1 096 at
    eps = 0.1, 193 at 0.2 and 64 at 0.3.

    Args:
        d: dimension, at least 2.
        eps: largest cosine allowed, in [0, 1) or, signed, in (-1, 1).
        signed: allow opposite directions.

    Returns:
        A natural logarithm.

    Raises:
        ValueError: if d or eps is out of range.

    Source:
        Shannon, "Probability of error for optimal codes in a Gaussian channel", 1959; Chabauty 1953;
        Wyner 1965.

    Example:
        >>> math.ceil(math.exp(covering_count(768, 0.1)))
        182
    """
    return -cap_fraction(d, eps, signed=signed)


def random_count(d: int, eps: Number, *, signed: bool = False) -> float:
    r"""Natural logarithm of the n at which independent random directions are expected to have one pair closer than eps.

    $\binom n2 P(\epsilon) = 1$. Below it a random draw works with positive chance (union bound). It is the square
    root of the covering bound: drawing without looking wastes half of the exponent.

    Args:
        d: dimension, at least 2.
        eps: largest cosine allowed, in [0, 1) or, signed, in (-1, 1).
        signed: allow opposite directions.

    Returns:
        A natural logarithm.

    Raises:
        ValueError: if d or eps is out of range.

    Source:
        Cai, Fan and Jiang, "Distributions of angles in random packing on spheres", 2013.

    Example:
        >>> round(math.exp(random_count(768, 0.1)))
        20
    """
    log_pairs = -cap_fraction(d, eps, signed=signed)
    # n (n - 1) / 2 = pairs; the square root is taken where squares cannot overflow.
    return (
        math.log((1 + math.sqrt(1 + 8 * math.exp(log_pairs))) / 2) if log_pairs < 500 else (log_pairs + math.log(2)) / 2
    )


def packing_rate(eps: Number) -> tuple[float, float]:
    r"""Exponent of the largest count as d grows: $-\tfrac12 \ln(1 - \epsilon^2) \le \tfrac1d \ln n \le
    R_{KL}(\epsilon)$.

    $R_{KL} = \frac{1+s}{2s} \ln \frac{1+s}{2s} - \frac{1-s}{2s} \ln \frac{1-s}{2s}$ with $s = \sqrt{1 - \epsilon^2}$.
    For small eps the two ends behave as $\epsilon^2/2$ and $(\epsilon^2/4) \ln(4 e/\epsilon^2)$. Asymptotic in d: it
    bounds no finite d, and at the d of real networks it misleads (see `covering_count`).

    Args:
        eps: largest cosine allowed, in (0, 1); the same exponents hold for signed and for absolute cosines.

    Returns:
        (lower, upper), in nats per dimension.

    Raises:
        ValueError: if eps is not in (0, 1).

    Source:
        Kabatiansky and Levenshtein, "Bounds for packings on a sphere and in space", 1978. Chabauty 1953.

    Example:
        >>> lower, upper = packing_rate(0.1)
        >>> 0.005 < lower < upper < 0.02
        True
    """
    eps = real("packing_rate", "eps", eps, 0, 1, open_low=True, open_high=True)
    s = math.sqrt((1 - eps) * (1 + eps))
    plus, minus = (1 + s) / (2 * s), eps * eps / (2 * s * (1 + s))  # (1 - s)/(2s) without cancellation
    return -math.log(s), plus * math.log(plus) - minus * math.log(minus)


def direction_count(d: int, eps: Number, *, signed: bool = False) -> Bracket:
    r"""How many unit vectors in R^d have all $|\langle w_i, w_j \rangle| \le \epsilon$: a lower and an upper bound.

    Below: a basis, the simplex, the covering bound, and the best sum of known line systems in orthogonal blocks (roots,
    equiangular lines, E8, Leech, Kerdock and Delsarte-Goethals sets). Above: Levenshtein at every degree (Welch is its
    first), orthoplex, Bukh-Cox. With `signed`, only $\langle w_i, w_j \rangle \le \epsilon$ is asked; every line then
    gives two directions, and eps <= 0 is answered exactly by Rankin.

    Args:
        d: dimension, at least 1.
        eps: largest cosine allowed, in [0, 1) or, signed, in [-1, 1).
        signed: allow opposite directions.

    Returns:
        A `Bracket`. Its ends may be far apart: at d = 768 and eps = 0.1 they are 295 680 and about 10^11.

    Raises:
        ValueError: if d or eps is out of range.

    Source:
        Those of `covering_count`, `levenshtein_count`, `orthoplex`, `bukh_cox` and `rankin`; Delsarte and Goethals,
        "Alternating bilinear forms over GF(q)", 1975; Calderbank, Cameron, Kantor and Seidel, "Z4-Kerdock codes,
        orthogonal spreads, and extremal Euclidean line-sets", 1997; Lemmens and Seidel, "Equiangular lines", 1973.

    Example:
        >>> direction_count(d=10, eps=0.1).upper        # a simplex, and no more
        11
        >>> direction_count(d=3, eps=0.5, signed=True).lower
        12
    """
    d = whole("direction_count", "d", d, 1)
    eps = real("direction_count", "eps", eps, -1 if signed else 0, 1, open_high=True)
    lower = max(_lower_signed(d, eps) if signed else _lower(d, eps), key=lambda bound: bound.value)
    upper = min(_upper_signed(d, eps) if signed else _upper(d, eps), key=lambda bound: bound.value)
    return Bracket(lower.value, upper.value, lower.by, upper.by)


# Line systems that others are built from: dimension, lines, squared cosine, name. Polygons, roots D_d, simplices and
# Delsarte-Goethals sets are families and are added by formula.
_LINES = (
    (3, 6, 1 / 5, "icosahedron"),
    (6, 16, 1 / 9, "16 equiangular lines"),
    (6, 36, 1 / 4, "E6"),
    (7, 28, 1 / 9, "28 equiangular lines"),
    (7, 63, 1 / 4, "E7"),
    (8, 120, 1 / 4, "E8"),
    (10, 16, 1 / 25, "16 equiangular lines"),
    (15, 36, 1 / 25, "36 equiangular lines"),
    (16, 2160, 1 / 4, "Barnes-Wall"),
    (21, 126, 1 / 25, "126 equiangular lines"),
    (22, 176, 1 / 25, "176 equiangular lines"),
    (22, 1408, 1 / 9, "1408 lines of the Leech lattice"),
    (23, 276, 1 / 25, "276 equiangular lines"),
    (23, 2300, 1 / 9, "2300 lines of the Leech lattice"),
    (24, 98280, 1 / 4, "Leech lattice"),
)


def _lower(d: int, eps: float) -> list[Bound]:
    bounds = [Bound(math.log(d), "orthonormal basis"), _blocks(d, eps)]
    if d >= 2:
        bounds.append(Bound(covering_count(d, eps), "covering (Gilbert-Varshamov)"))
    return bounds


def _upper(d: int, eps: float) -> list[Bound]:
    if d == 1:
        return [Bound(0.0, "one line in one dimension")]
    if eps == 0:
        return [Bound(math.log(d), "orthogonality")]
    if d == 2:
        return [Bound(math.log(_polygon(eps)), "angles in the plane")]
    bounds = [
        Bound(_floor(levenshtein_count(eps, d)), "Levenshtein"),
        Bound(_floor(levenshtein_count(eps, d, signed=True) - math.log(2)), "Levenshtein, signed"),
    ]
    if eps * math.sqrt(d) < 1 - 1e-12:
        bounds.append(Bound(math.log(d * (d + 1) // 2), "orthoplex"))
    if eps < bukh_cox(3 * d + 8, d) * (1 - 1e-12):
        low, high = d, 3 * d + 8  # bukh_cox rises with n: the largest n it admits, by bisection
        while high - low > 1:
            middle = (low + high) // 2
            if bukh_cox(middle, d) <= eps * (1 + 1e-12):
                low = middle
            else:
                high = middle
        bounds.append(Bound(math.log(low), "Bukh-Cox"))
    return bounds


def _lower_signed(d: int, eps: float) -> list[Bound]:
    if eps < 0:
        return [_simplex_signed(d, eps)]
    if d == 1:
        return [Bound(math.log(2), "both directions of one line")]
    if d == 2:
        return [Bound(math.log(math.floor(2 * math.pi / math.acos(eps) * (1 + 1e-12))), "polygon")]
    twice = [Bound(bound.value + math.log(2), f"twice: {bound.by}") for bound in _lower(d, eps)]
    return [*twice, Bound(covering_count(d, eps, signed=True), "covering (Gilbert-Varshamov)")]


def _upper_signed(d: int, eps: float) -> list[Bound]:
    if eps < 0:
        return [_simplex_signed(d, eps)]
    if d == 1:
        return [Bound(math.log(2), "two directions in one dimension")]
    if eps == 0:
        return [Bound(math.log(2 * d), "Rankin")]
    if d == 2:
        return [Bound(math.log(math.floor(2 * math.pi / math.acos(eps) * (1 + 1e-12))), "angles in the plane")]
    return [Bound(_floor(levenshtein_count(eps, d, signed=True)), "Levenshtein")]


def _simplex_signed(d: int, eps: float) -> Bound:
    return Bound(math.log(min(d + 1, math.floor((1 - 1 / eps) * (1 + 1e-12)))), "Rankin")


def _polygon(eps: float) -> int:
    """Lines in the plane with cosine at most eps."""
    return math.floor(math.pi / math.acos(eps) * (1 + 1e-12))


def _blocks(d: int, eps: float) -> Bound:
    """ln of the lines of the largest known system that fits, plus those of the largest that fits into what is left."""
    square = eps * eps * (1 + 1e-12)
    left, counts, names = d, [], []
    while left > 0:
        options = [(float(left), left, "basis")]
        if left >= 2 and square >= 1 / left**2:
            options.append((left + 1.0, left, "simplex"))
        if left >= 2:
            options.append((float(_polygon(eps)), 2, "polygon"))
        if left >= 3 and square >= 1 / 4:
            options.append((float(left * (left - 1)), left, f"roots of D{left}"))
        options += [(float(n), size, name) for size, n, cosine, name in _LINES if size <= left and square >= cosine]
        options += _delsarte_goethals(left, square)
        # Logarithms only where floats end; here all counts are floats, and the largest wins, then the smallest block.
        count, size, name = max(options, key=lambda option: (option[0], -option[1]))
        counts.append(count)
        names.append(name)
        left -= size
    log_largest = max(math.log(count) for count in counts)
    log_total = log_largest + math.log(math.fsum(math.exp(math.log(count) - log_largest) for count in counts))
    kinds = [f"{names.count(name)} x {name}" if names.count(name) > 1 else name for name in dict.fromkeys(names)]
    return Bound(log_total, " + ".join(kinds))


def _delsarte_goethals(d: int, square: float) -> list[tuple[float, int, str]]:
    """Sets of quadratic forms on GF(2)^m whose differences have rank at least 2r: |cos| <= 2^-r among 2^m
    dimensions."""
    options = []
    for m in range(2, d.bit_length()):
        size = 2**m
        ranks = [r for r in range(1, m // 2 + 1) if 4.0**-r <= square]
        if not ranks or size > d:
            continue
        r = min(ranks)
        if m % 2 == 0:
            forms = (m - 1) * (m // 2 - r + 1)
        else:
            forms = m * ((m - 1) // 2 - r + 1)
        if forms + m > 1000:
            continue
        name = "Kerdock" if m % 2 == 0 and r == m // 2 else "Delsarte-Goethals"
        # The standard basis meets every sign vector at 2^(-m/2), which is no more than 2^-r.
        options.append((2.0 ** (forms + m) + size, size, f"{name} set in {size} dimensions"))
    return options


def _floor(log_value: float) -> float:
    """ln of the whole number below, while floats can tell whole numbers apart."""
    return math.log(math.floor(math.exp(log_value) * (1 + 1e-11))) if log_value < 34 else log_value


def _exp(log_value: float) -> float:
    return math.exp(log_value) if log_value < 709 else math.inf
