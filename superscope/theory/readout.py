r"""How many active features can a one-step read-out (largest entries of W^T x, as an SAE encoder) tell apart?

Scores of active features are their magnitude plus interference, scores of the others interference alone. For random
unit atoms interference is nearly normal with variance (sum of the other squared magnitudes) / d, and the chance that
every active score beats every other is a one-dimensional integral.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import log_ndtr, ndtr, ndtri

from .arguments import Number, Numbers, real, whole
from .root import root


def readout_success(
    n: int,
    d: int,
    k: int,
    values: Numbers = (1.0,),
    weights: Numbers | None = None,
    *,
    signed: bool = False,
) -> float:
    r"""Chance that the k largest scores are the k active features:
    $P = \int \left[\sum_v p_v \Phi\!\left(\frac{v - x}{\sigma_{on}}\right)\right]^k d\,\Phi(x/\sigma_{off})^{n-k}$.

    $\sigma_{on}^2 = (k-1) m_2 / d$ and $\sigma_{off}^2 = k m_2 / d$, with $m_2$ the mean squared magnitude. Flat
    magnitudes are the best case; a wide law is ruinous, because the smallest active feature drowns in the
    interference of the largest. (It helps matching pursuit, which removes the largest first.)

    Args:
        n: number of atoms, more than k.
        d: dimension, at least 1.
        k: active features, at least 1.
        values: magnitudes of active features, positive.
        weights: their probabilities, normalised here; equal if left out.
        signed: features take either sign and scores are compared by absolute value.

    Returns:
        A probability. An approximation (independent normal scores) that agrees with experiments within their error.

    Raises:
        ValueError: if an argument is out of range, or values and weights do not match.

    Source:
        Derived in this module's docstring. For the scaling: Genovese, Jin, Wasserman and Yao, "A comparison of the
        Lasso and marginal regression", 2012.

    Example:
        >>> readout_success(n=1024, d=256, k=11) > 0.5 > readout_success(n=1024, d=256, k=13)
        True
    """
    at, share, spread_on, spread_off = _scores("readout_success", n, d, k, values, weights)
    nodes, mass = np.polynomial.legendre.leggauss(200)
    u, mass = (nodes + 1) / 2, mass / 2
    # x at which the largest of the n - k idle scores has distribution u; tails from above keep their digits.
    tail = -np.expm1(np.log(u) / (n - k))
    x = -spread_off * ndtri(tail / 2 if signed else tail)
    return float(np.clip(mass @ _above(x, at, share, spread_on, signed) ** k, 0.0, 1.0))


def readout_recall(
    n: int,
    d: int,
    k: int,
    values: Numbers = (1.0,),
    weights: Numbers | None = None,
    *,
    signed: bool = False,
) -> float:
    r"""Share of the active features among the k largest scores: $P_{on}(x^*)$ at
    $k P_{on}(x^*) + (n - k) P_{off}(x^*) = k$.

    Graceful where `readout_success` is all or nothing: at d = 256, n = 1024 and k = 40 no support is read exactly, and
    65 % of each is.

    Args:
        n: number of atoms, more than k.
        d: dimension, at least 1.
        k: active features, at least 1.
        values: magnitudes of active features, positive.
        weights: their probabilities, normalised here; equal if left out.
        signed: features take either sign and scores are compared by absolute value.

    Returns:
        An expected share in (0, 1], for large n and k.

    Raises:
        ValueError: if an argument is out of range, or values and weights do not match.

    Source:
        Derived as `readout_success`.

    Example:
        >>> round(readout_recall(n=1024, d=256, k=40), 2)
        0.64
    """
    at, share, spread_on, spread_off = _scores("readout_recall", n, d, k, values, weights)
    sides = 2 if signed else 1

    def on(x: float) -> float:
        return float(_above(np.array([x]), at, share, spread_on, signed)[0])

    def excess(x: float) -> float:
        return k * on(x) + (n - k) * sides * float(ndtr(-x / spread_off)) - k

    high = float(at.max()) + 40 * spread_off
    low = 0.0 if signed else -high
    return min(1.0, on(root(excess, low, high, 1e-12))) if excess(low) > 0 else 1.0


def readout_threshold(
    n: int,
    d: int,
    values: Numbers = (1.0,),
    weights: Numbers | None = None,
    *,
    success: Number = 0.5,
    signed: bool = False,
) -> int:
    r"""Largest k with `readout_success(n, d, k)` at least `success`.

    For flat magnitudes at SAE sizes (n = 24 576, d = 768) it is 22, where $\ell_1$ recovers 105: the encoder, not the
    dictionary, is the bottleneck. Asymptotically $k \approx d / (2 (\sqrt{\ln k} + \sqrt{\ln n})^2)$.

    Args:
        n: number of atoms, at least 2.
        d: dimension, at least 1.
        values: magnitudes of active features, positive.
        weights: their probabilities, normalised here; equal if left out.
        success: chance of reading the whole support, in (0, 1).
        signed: features take either sign and scores are compared by absolute value.

    Returns:
        A count; 0 if not even one active feature is read that reliably.

    Raises:
        ValueError: if an argument is out of range.

    Source:
        That of `readout_success`.

    Example:
        >>> readout_threshold(n=1024, d=256)
        11
    """
    n, d = whole("readout_threshold", "n", n, 2), whole("readout_threshold", "d", d, 1)
    success = real("readout_threshold", "success", success, 0, 1, open_low=True, open_high=True)

    def works(k: int) -> bool:
        return readout_success(n, d, k, values, weights, signed=signed) >= success

    if not works(1):
        return 0
    low, high = 1, 2
    while high < n and works(high):
        low, high = high, 2 * high
    high = min(high, n)  # k = n is not a question: every score is an active one
    while high - low > 1:
        middle = (low + high) // 2
        if works(middle):
            low = middle
        else:
            high = middle
    return low


def threshold_success(n: int, d: int, k: int, level: Number = 0.5) -> float:
    r"""Chance that a fixed threshold separates active from idle, flat magnitudes:
    $\Phi\!\left(\frac{1-\theta}{\sigma_{on}}\right)^k \Phi\!\left(\frac{\theta}{\sigma_{off}}\right)^{n-k}$.

    What a ReLU with a bias does, as against keeping the k largest. At level 1/2 it holds up to about $d / (8 \ln n)$.

    Args:
        n: number of atoms, more than k.
        d: dimension, at least 1.
        k: active features, at least 1, all of magnitude 1.
        level: theta, in (0, 1).

    Returns:
        A probability.

    Raises:
        ValueError: if an argument is out of range.

    Source:
        That of `readout_success`.

    Example:
        >>> threshold_success(n=1024, d=256, k=4) > 0.5 > threshold_success(n=1024, d=256, k=8)
        True
    """
    _, _, spread_on, spread_off = _scores("threshold_success", n, d, k, (1.0,), None)
    level = real("threshold_success", "level", level, 0, 1, open_low=True, open_high=True)
    on = float(log_ndtr((1 - level) / spread_on)) if spread_on > 0 else 0.0
    return math.exp(k * on + (n - k) * float(log_ndtr(level / spread_off)))


def _scores(
    caller: str, n: int, d: int, k: int, values: Numbers, weights: Numbers | None
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Checked magnitudes, their shares, and the spread of active and of idle scores."""
    d, k = whole(caller, "d", d, 1), whole(caller, "k", k, 1)
    if whole(caller, "n", n, 2) <= k:
        raise ValueError(f"{caller}: k = {k} active features leave none of n = {n} idle. Choose k below n.")
    at = np.asarray(values, dtype=np.float64)
    share = np.ones_like(at) if weights is None else np.asarray(weights, dtype=np.float64)
    if at.ndim != 1 or at.size == 0 or not np.all((at > 0) & np.isfinite(at)):
        raise ValueError(f"{caller}: values must be a list of finite positive magnitudes.")
    if share.shape != at.shape or not np.all(share >= 0) or not 0 < share.sum() < math.inf:
        raise ValueError(f"{caller}: weights must be one non-negative number per value, not all 0.")
    share = share / share.sum()
    power = float(share @ at**2)
    return at, share, math.sqrt((k - 1) * power / d), math.sqrt(k * power / d)


def _above(x: np.ndarray, at: np.ndarray, share: np.ndarray, spread: float, signed: bool) -> np.ndarray:
    """Chance that an active score exceeds each x."""
    gap = at[None, :] - x[:, None]
    if spread == 0:
        return (gap > 0).astype(np.float64) @ share
    above = ndtr(gap / spread)
    if signed:
        above = above + ndtr((-at[None, :] - x[:, None]) / spread)
    return above @ share
