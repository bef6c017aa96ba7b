"""How many active features does a small coherence guarantee, and which coherence does chance give?"""

from __future__ import annotations

import math
import sys

from .arguments import real


def coherence_guarantee(mu: float) -> int:
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
        Donoho and Elad, "Optimally sparse representation in general dictionaries via l1 minimization", 2003, Theorem 7.
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
