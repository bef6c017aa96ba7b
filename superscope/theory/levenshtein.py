"""At most how many directions fit with pairwise cosine at most eps? Levenshtein's bound, every degree."""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg import eigvalsh_tridiagonal

from .arguments import Number, real, whole
from .root import root
from .welch import rankin


def levenshtein_count(eps: Number, d: int, *, signed: bool = False) -> float:
    r"""Natural logarithm of Levenshtein's bound: $\ln n \le \ln L(d, \epsilon)$.

    With $P_k^{(p,q)}$ the Jacobi polynomials of exponents $(\alpha + p, \beta + q)$ scaled to 1 at t = 1,

    $L_{2k-1} = \left(1 - P_{k-1}^{(1,0)}(s) / P_k^{(0,0)}(s)\right) D_{2k-1}$ and
    $L_{2k} = \left(1 - P_{k-1}^{(1,1)}(s) / P_k^{(0,1)}(s)\right) D_{2k}$,

    each used on the stretch of s between the largest zeros of neighbouring polynomials. For lines (absolute cosines)
    $s = 2 \epsilon^2 - 1$, $\alpha = (d-3)/2$, $\beta = -1/2$ and $D_m = \binom{d+m-2}{m-1}$. For one-sided codes
    (signed cosines) $s = \epsilon$, $\alpha = \beta = (d-3)/2$ and $D_m$ is the kernel of the same weights at t = 1.
    Degree 1 is the Welch bound solved for n; degrees 1 and 2 of the signed form are Rankin's. Logarithms, because the
    bound passes the largest float soon: d = 4 096 and eps = 0.5 is enough.

    Args:
        eps: largest cosine allowed, in [0, 1) or, signed, in [-1, 1).
        d: dimension, at least 2.
        signed: bound cosines from above only, so that opposite directions are far apart.

    Returns:
        ln of the bound, which itself need not be a whole number; n is at most its floor. It is a ceiling proved for
        all n at once, often far above what anyone can construct.

    Raises:
        ValueError: if eps or d is out of range.

    Source:
        Levenshtein, "Designs as maximum codes in polynomial metric spaces", 1992; "Universal bounds for codes and
        designs", Handbook of Coding Theory, 1998, section 5.

    Example:
        >>> round(math.exp(levenshtein_count(0.5, 24)))                 # the lines of the Leech lattice
        98280
        >>> round(math.exp(levenshtein_count(0.5, 8, signed=True)))     # the kissing number of E8
        240
    """
    d = whole("levenshtein_count", "d", d, 2)
    eps = real("levenshtein_count", "eps", eps, -1 if signed else 0, 1, open_high=True)
    if signed and eps == -1:
        return math.log(2)
    alpha = (d - 3) / 2
    beta = alpha if signed else -0.5
    s = eps if signed else 2 * eps * eps - 1
    k, odd = _degree(s, alpha, beta)
    upper = 0 if odd else 1
    sign_a, log_a = _jacobi(k - 1, alpha + 1, beta + upper, s)
    sign_b, log_b = _jacobi(k, alpha, beta + upper, s)
    # s is at most the largest zero of the numerator's neighbour, where the ratio is negative: the bracket exceeds 1.
    ratio = sign_a * sign_b * math.exp(log_a - log_b)
    return math.log1p(-ratio) + _log_dimension(k, upper, alpha, beta)


def levenshtein(n: int, d: int, *, signed: bool = False) -> float:
    r"""Smallest cosine that $L(d, \epsilon) \ge n$ allows: Levenshtein's bound solved for $\mu$.

    Its first degree is the Welch bound, its second $\mu^2 \ge \frac{3n - d^2 - 2d}{(n-d)(d+2)}$; all degrees are used.
    Reached by E8 (120 lines in 8 dimensions, 1/2), the Leech lattice (98 280 lines in 24, 1/2), Kerdock sets and many
    more. For n <= d(d+1)/2 it says what `welch` says.

    Args:
        n: number of directions, at least 2.
        d: dimension, at least 1.
        signed: bound the largest signed cosine, in [-1, 1], instead of the largest absolute one.

    Returns:
        A cosine that no n directions in d dimensions can stay below.

    Raises:
        ValueError: if n < 2 or d < 1.

    Source:
        Levenshtein, "Universal bounds for codes and designs", Handbook of Coding Theory, 1998, section 5.

    Example:
        >>> levenshtein(n=120, d=8)
        0.5
    """
    n, d = whole("levenshtein", "n", n, 2), whole("levenshtein", "d", d, 1)
    if signed and n <= 2 * d:
        return rankin(n, d)
    if n <= d:
        return 0.0
    if d == 1:
        return 1.0
    if d == 2:
        return math.cos((2 if signed else 1) * math.pi / n)
    if not signed and n <= d * (d + 1) / 2:
        return math.sqrt((n - d) / (d * (n - 1)))
    if not signed and n <= d * (d + 1) * (d + 2) / 6:
        return math.sqrt((3 * n - d * (d + 2)) / ((n - d) * (d + 2)))
    target = math.log(n)

    def excess(eps: float) -> float:
        return levenshtein_count(eps, d, signed=signed) - target

    # Halve 1 - eps until the bound admits n: the degree, and with it the cost, grows as eps nears 1.
    low, high = 0.0, 0.5
    while excess(high) < 0:
        low, high = high, (1 + high) / 2
    return root(excess, low, high, 1e-15)


def _degree(s: float, alpha: float, beta: float) -> tuple[int, bool]:
    """The k and the parity of the formula that holds at s: 2k - 1 below the largest zero of P_k^(1,0), else 2k."""
    if s <= _largest_zero(1, alpha + 1, beta):
        return 1, True
    least, most = 1, 2  # largest zeros rise with k: double, then bisect for the first P_k^(1,1) whose zero is >= s
    while s > _largest_zero(most, alpha + 1, beta + 1):
        least, most = most, 2 * most
    if s <= _largest_zero(1, alpha + 1, beta + 1):
        most = 1
    while most - least > 1:
        middle = (least + most) // 2
        if s > _largest_zero(middle, alpha + 1, beta + 1):
            least = middle
        else:
            most = middle
    return most, s <= _largest_zero(most, alpha + 1, beta)


def _largest_zero(k: int, alpha: float, beta: float) -> float:
    """Largest zero of the Jacobi polynomial of degree k: the top eigenvalue of its recurrence matrix."""
    total = alpha + beta
    j = np.arange(1, k, dtype=float)
    diagonal = np.empty(k)
    diagonal[0] = (beta - alpha) / (total + 2)
    if k == 1:
        return float(diagonal[0])
    diagonal[1:] = (beta**2 - alpha**2) / ((2 * j + total) * (2 * j + total + 2))
    top = 4 * j * (j + alpha) * (j + beta) * (j + total)
    bottom = (2 * j + total) ** 2 * ((2 * j + total) ** 2 - 1)
    # At j = 1 both contain the factor total + 1, which may be 0 (d = 2): cancel it by hand.
    top[0], bottom[0] = 4 * (1 + alpha) * (1 + beta), (2 + total) ** 2 * (3 + total)
    return float(eigvalsh_tridiagonal(diagonal, np.sqrt(top / bottom), select="i", select_range=(k - 1, k - 1))[0])


def _jacobi(k: int, alpha: float, beta: float, t: float) -> tuple[float, float]:
    """Sign and ln|P| of the Jacobi polynomial of degree k at t, scaled to 1 at t = 1; rescaled on the way."""
    total = alpha + beta
    previous, current, log_scale = 1.0, 1.0, 0.0
    for j in range(k):
        if j == 0:
            # P_1 scaled: 1 at t = 1 and 0 at the mean (beta - alpha)/(total + 2).
            following = 1 + (total + 2) * (t - 1) / (2 * (alpha + 1))
        else:
            a = 2 * (j + 1) * (j + total + 1) * (2 * j + total)
            b = (2 * j + total + 1) * (2 * j + total + 2) * (2 * j + total)
            c = (2 * j + total + 1) * (alpha**2 - beta**2)
            e = 2 * (j + alpha) * (j + beta) * (2 * j + total + 2)
            up, down = (j + 1) / (j + 1 + alpha), j / (j + alpha)  # ratios of the values at 1
            following = ((b * t + c) * current - e * previous * down) * up / a
        previous, current = current, following
        size = max(abs(current), abs(previous))
        if size < 1e-100:
            previous, current, log_scale = previous / size, current / size, log_scale + math.log(size)
    if current == 0:
        return 1.0, -math.inf
    return math.copysign(1.0, current), math.log(abs(current)) + log_scale


def _log_dimension(k: int, upper: int, alpha: float, beta: float) -> float:
    """ln of D: the polynomial kernel of degree k - 1 at (1, 1), over the mean of ((1 + t)/2)^upper."""
    b = beta + upper
    terms = (math.log((alpha + b + 2 + i) * (alpha + 2 + i) / ((1 + i) * (b + 1 + i))) for i in range(k - 1))
    return math.fsum(terms) - upper * math.log((beta + 1) / (alpha + beta + 2))
