"""Can features be read back at all? Two numbers: one for sparse decoding, one for a linear read-out."""

from __future__ import annotations

import math
from typing import SupportsFloat, SupportsIndex

from .arguments import real, whole


def kappa_cs(n: SupportsIndex, d: SupportsIndex, l0: SupportsFloat) -> float:
    r"""$\kappa_{cs} = 2\, l_0 \ln(n / l_0) / d$: below 1 a sparse f can be read back from x and W; above 1 nobody can.

    The yardstick of compressed sensing for large random dictionaries, about the Donoho-Tanner threshold. Print it
    beside every score: where it is above 1 a low score says nothing of the learner.

    Args:
        n: number of features, at least 1.
        d: dimension, at least 1.
        l0: active features in a row on average, above 0.

    Returns:
        Infinite where l0 >= n: such a code is not sparse.

    Raises:
        ValueError: if a number is out of its range.

    Source:
        Donoho and Tanner, "Counting faces of randomly projected polytopes when the projection radically lowers
        dimension", 2009.

    Example:
        >>> round(kappa_cs(n=256, d=64, l0=4), 2)
        0.52
    """
    n, d = whole("kappa_cs", "n", n, 1), whole("kappa_cs", "d", d, 1)
    l0 = real("kappa_cs", "l0", l0, 0, math.inf, open_low=True)
    return 2 * l0 * math.log(n / l0) / d if l0 < n else math.inf


def kappa_lin(n: SupportsIndex, d: SupportsIndex, l0: SupportsFloat) -> float:
    r"""$\kappa_{lin} = l_0^2 \ln(n) / d$: where it is large no linear read-out is exact, however well W is known.

    Reading n features linearly at k active takes $d = \Omega(\frac{k^2}{\ln k} \ln \frac{n}{k})$ dimensions and
    $O(k^2 \ln n)$ are enough, so this is the yardstick up to a constant. Where $\kappa_{cs} < 1 < \kappa_{lin}$
    features are stored, sparse decoding reads them, and probes and matched filters err.

    Args:
        n: number of features, at least 1.
        d: dimension, at least 1.
        l0: active features in a row on average, above 0.

    Raises:
        ValueError: if a number is out of its range.

    Source:
        Garg, Kleinberg and Peng, "How many features can a language model store under the linear representation
        hypothesis?", 2026 (the two bounds, from its abstract; that their ratio is a yardstick is ours).

    Example:
        >>> round(kappa_lin(n=256, d=64, l0=4), 2)
        1.39
    """
    n, d = whole("kappa_lin", "n", n, 1), whole("kappa_lin", "d", d, 1)
    l0 = real("kappa_lin", "l0", l0, 0, math.inf, open_low=True)
    return l0**2 * math.log(n) / d
