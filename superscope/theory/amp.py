r"""What approximate message passing does to a sparse code: its threshold, its state evolution, its error in noise.

These formulas hold for W with independent entries. On clustered or anisotropic dictionaries the algorithm itself often
diverges, so read them as theory curves, not as a solver's promise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from .arguments import Number, Numbers, real, whole
from .donoho_tanner import soft_threshold_minimum, weak_threshold


class Minimax(NamedTuple):
    """The least worst-case risk, and the threshold that attains it."""

    risk: float
    threshold: float


@dataclass(frozen=True)
class Evolution:
    """State evolution: effective noise variance before each step and mean squared error per atom after it."""

    noise: tuple[float, ...]
    error: tuple[float, ...]
    converged: bool


def minimax_risk(density: Number, *, nonnegative: bool = False) -> Minimax:
    r"""Minimax soft thresholding: $M(\epsilon) = \min_t \max_{F} E(\eta(f + Z; t) - f)^2 = \min_t \epsilon(1 + t^2)
    + (1 - \epsilon) \kappa g(t)$.

    F ranges over all laws with P(f != 0) <= epsilon, Z is standard normal. The worst law sends the nonzeros to
    infinity. As epsilon -> 0 the threshold behaves as $\sqrt{2 \ln 1/\epsilon}$ and the risk as
    $2 \epsilon \ln 1/\epsilon$.

    Args:
        density: epsilon = P(f_i != 0), in (0, 1].
        nonnegative: f >= 0, and the threshold is one-sided.

    Returns:
        (risk, threshold): in units of the noise variance and of its standard deviation.

    Raises:
        ValueError: if density is not in (0, 1].

    Source:
        Donoho and Johnstone, "Minimax risk over lp balls for lq error", 1994. Donoho, Maleki and Montanari, "The noise-
        sensitivity phase transition in compressed sensing", 2011.

    Example:
        >>> minimax_risk(0.1)
        Minimax(risk=0.3287..., threshold=1.140...)
    """
    density = real("minimax_risk", "density", density, 0, 1, open_low=True)
    return Minimax(*soft_threshold_minimum(density, nonnegative))


def minimax_threshold(delta: Number, *, nonnegative: bool = False) -> float:
    r"""Threshold that carries AMP furthest: $\alpha^*(\delta) = \arg\max_z \frac{1 - (\kappa/\delta) g(z)}{1 + z^2 -
    \kappa g(z)}$.

    In units of the current effective noise. With it AMP recovers codes up to `weak_threshold(delta)`, the same as basis
    pursuit.

    Args:
        delta: d/n, in (0, 1].
        nonnegative: f >= 0, and the threshold is one-sided.

    Returns:
        A threshold, at least 0.

    Raises:
        ValueError: if delta is not in (0, 1].

    Source:
        Donoho, Maleki and Montanari, "Message-passing algorithms for compressed sensing", 2009.

    Example:
        >>> round(minimax_threshold(0.25), 4)
        1.2922
    """
    delta = real("minimax_threshold", "delta", delta, 0, 1, open_low=True)
    # At the threshold, the maximiser of rho is the minimiser of the risk at epsilon = rho delta.
    return soft_threshold_minimum(weak_threshold(delta, nonnegative=nonnegative) * delta, nonnegative)[1]


def noise_sensitivity(delta: Number, rho: Number, *, nonnegative: bool = False) -> float:
    r"""Worst error of the optimally tuned Lasso over noise variance:
    $M^* = \frac{M(\epsilon)}{1 - M(\epsilon)/\delta}$, $\epsilon = \rho\delta$.

    Mean squared error per atom, for x = W f + noise with noise variance 1 per dimension and columns of norm 1. It is
    finite exactly below the weak Donoho-Tanner curve, and grows without limit towards it: near the curve, noiseless
    recovery is of no use in practice.

    Args:
        delta: d/n, in (0, 1].
        rho: k/d, in (0, 1].
        nonnegative: f >= 0 is known and used.

    Returns:
        A ratio of variances; `inf` on the curve and above it.

    Raises:
        ValueError: if delta or rho is out of range.

    Source:
        Donoho, Maleki and Montanari, "The noise-sensitivity phase transition in compressed sensing", 2011.

    Example:
        >>> noise_sensitivity(0.25, 0.2) < noise_sensitivity(0.25, 0.26) < noise_sensitivity(0.25, 0.27) == math.inf
        True
    """
    delta = real("noise_sensitivity", "delta", delta, 0, 1, open_low=True)
    rho = real("noise_sensitivity", "rho", rho, 0, 1, open_low=True)
    risk, _ = soft_threshold_minimum(rho * delta, nonnegative)
    return risk / (1 - risk / delta) if risk < delta else math.inf


def soft_threshold_risk(value: Number, threshold: Number, *, nonnegative: bool = False) -> float:
    r"""Risk of soft thresholding at one value: $r(\mu, \lambda) = E(\eta(\mu + Z; \lambda) - \mu)^2$, Z standard
    normal.

    $\eta(y; \lambda) = \mathrm{sign}(y) (|y| - \lambda)_+$, or $(y - \lambda)_+$ if nonnegative. r(0) = kappa
    g(lambda); r -> 1 + lambda^2 for large values: thresholding costs a bias of lambda on everything it keeps.

    Args:
        value: mu, in units of the noise's standard deviation.
        threshold: lambda >= 0, in the same units.
        nonnegative: one-sided threshold.

    Returns:
        A mean squared error, in units of the noise variance.

    Raises:
        ValueError: if threshold < 0, or the value is negative or not finite where that makes no sense.

    Source:
        Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage", 1994, appendix.

    Example:
        >>> round(soft_threshold_risk(1e6, 2.0), 6)
        5.0
    """
    mu = real("soft_threshold_risk", "value", value, 0 if nonnegative else -math.inf, math.inf)
    lam = real("soft_threshold_risk", "threshold", threshold, 0, math.inf, open_high=True)
    return float(_risk(np.array([mu]), lam, nonnegative)[0])


def state_evolution(
    delta: Number,
    density: Number,
    values: Numbers = (1.0,),
    weights: Numbers | None = None,
    *,
    noise: Number = 0.0,
    threshold: Number | None = None,
    nonnegative: bool = False,
    steps: int = 1000,
    tolerance: Number = 1e-12,
) -> Evolution:
    r"""Error of AMP step by step: $\tau_{t+1}^2 = \sigma^2 + \frac1\delta E\left(\eta(f + \tau_t Z; \alpha \tau_t) -
    f\right)^2$.

    f is 0 with probability 1 - epsilon and otherwise drawn from `values` with `weights`; any law of magnitudes goes
    in as its quadrature nodes. Starts at $\tau_0^2 = \sigma^2 + E f^2 / \delta$. Without noise it goes to 0 below
    the weak threshold for every law, and for no law above it.

    Args:
        delta: d/n, in (0, 1].
        density: epsilon = P(f_i != 0), in (0, 1].
        values: magnitudes of nonzero features (signs do not matter for signed codes).
        weights: their probabilities, normalised here; equal if left out.
        noise: sigma^2, variance of the noise per dimension of x.
        threshold: alpha, in units of tau; the minimax one if left out.
        nonnegative: one-sided threshold; values must then be positive.
        steps: most steps taken, at least 1.
        tolerance: stops when the error falls below this share of E f^2, or changes by less than this share of itself.

    Returns:
        An `Evolution`. `converged` says that it stopped before running out of steps.

    Raises:
        ValueError: if an argument is out of range, or values and weights do not match.

    Source:
        Donoho, Maleki and Montanari, "Message-passing algorithms for compressed sensing", 2009. Bayati and Montanari,
        "The dynamics of message passing on dense graphs", 2011.

    Example:
        >>> state_evolution(0.25, 0.25 * 0.25).error[-1] < 1e-10 < state_evolution(0.25, 0.25 * 0.29).error[-1]
        True
    """
    name = "state_evolution"
    delta = real(name, "delta", delta, 0, 1, open_low=True)
    density = real(name, "density", density, 0, 1, open_low=True)
    sigma2 = real(name, "noise", noise, 0, math.inf, open_high=True)
    steps = whole(name, "steps", steps, 1)
    tolerance = real(name, "tolerance", tolerance, 0, 1, open_high=True)
    alpha = minimax_threshold(delta, nonnegative=nonnegative) if threshold is None else threshold
    alpha = real(name, "threshold", alpha, 0, math.inf, open_high=True)
    at = np.asarray(values, dtype=np.float64)
    share = np.ones_like(at) if weights is None else np.asarray(weights, dtype=np.float64)
    if at.ndim != 1 or at.size == 0 or not np.all(np.isfinite(at)) or (nonnegative and np.any(at <= 0)):
        raise ValueError(f"{name}: values must be a list of finite{' positive' if nonnegative else ''} numbers.")
    if share.shape != at.shape or not np.all(share >= 0) or not 0 < share.sum() < math.inf:
        raise ValueError(f"{name}: weights must be one non-negative number per value, not all 0.")
    share = share / share.sum()

    power = density * float(share @ at**2)
    tau2 = sigma2 + power / delta
    taus, errors, converged = [tau2], [], False
    off = float(_risk(np.zeros(1), alpha, nonnegative)[0])
    for _ in range(steps):
        tau = math.sqrt(tau2)
        on = float(share @ _risk(at / tau, alpha, nonnegative)) if tau > 0 else 0.0
        error = tau2 * (density * on + (1 - density) * off)
        before = errors[-1] if errors else power
        errors.append(error)
        tau2 = sigma2 + error / delta
        if error <= tolerance * power or abs(error - before) <= tolerance * before:
            converged = True
            break
        taus.append(tau2)
    return Evolution(tuple(taus[: len(errors)]), tuple(errors), converged)


def _risk(mu: np.ndarray, lam: float, nonnegative: bool) -> np.ndarray:
    mu = np.minimum(mu, 1e100) if nonnegative else np.minimum(np.abs(mu), 1e100)
    kept = (1 + lam**2) * ndtr(mu - lam) - (mu + lam) * np.exp(-((mu - lam) ** 2) / 2) / math.sqrt(2 * math.pi)
    lost = mu**2 * ndtr(lam - mu)
    if nonnegative:
        return kept + lost
    wrong = (
        (1 + lam**2) * ndtr(-mu - lam)
        - (lam - mu) * np.exp(-((mu + lam) ** 2) / 2) / math.sqrt(2 * math.pi)
        - mu**2 * ndtr(-mu - lam)
    )
    return kept + lost + wrong
