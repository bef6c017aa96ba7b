r"""How many features can be active at once, in n atoms and d dimensions? Every answer on one ladder.

The answers differ by a factor of a hundred because they are answers to different questions: for which f (all, nearly
all), by which reader (one step, l1, any), with which noise. The ladder says all three.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy.special import gammaln

from .arguments import Number, real, whole
from .coherence import coherence_guarantee, random_coherence
from .donoho_tanner import popular_count, strong_count, sufficient_dimension, weak_count
from .packing import best_lower_bound
from .readout import readout_threshold
from .rip import rip_ceiling


@dataclass(frozen=True)
class Rung:
    """One answer: k active features, who finds them, for which f, and what to know before quoting it."""

    name: str
    k: int | float
    reader: str
    holds_for: str
    caution: str


def capacity_ladder(
    n: int, d: int, *, mu: Number | None = None, signal_to_noise: Number | None = None
) -> tuple[Rung, ...]:
    r"""Largest k by each criterion, for n atoms in d dimensions (n > d).

    coherence $\frac12(1 + 1/\mu)$; the same at the least $\mu$ there could be; RIP's ceiling; one-step read-out;
    strong and weak Donoho-Tanner, signed and nonnegative; the sufficient $d \ge 2k \ln(n/k) + \frac54 k + 1$; the
    popular $d / (2 \ln(n/d))$, marked as what it is; the rate bound at `signal_to_noise`; uniqueness d/2 and d - 1.

    Args:
        n: number of atoms, more than d.
        d: dimension, at least 2.
        mu: coherence of the dictionary at hand; that of a random one if left out.
        signal_to_noise: power of the signal over that of the noise per dimension of x; adds the rate bound.

    Returns:
        Rungs, in order of their question, not of their height: guarantees first, then typical cases, then limits.

    Raises:
        ValueError: if d < 2, n <= d, or an optional argument is out of range.

    Source:
        Those of the functions named in each rung.

    Example:
        >>> for rung in capacity_ladder(n=24576, d=768)[:5]:
        ...     print(f"{rung.k:6.0f}  {rung.name}")
             2  coherence
            14  best coherence there could be
           198  RIP ceiling
            22  one-step read-out
            28  strong l1
    """
    d = whole("capacity_ladder", "d", d, 2)
    n = whole("capacity_ladder", "n", n, d + 1)
    at = "a random dictionary's" if mu is None else "the dictionary's"
    mu = random_coherence(n, d) if mu is None else real("capacity_ladder", "mu", mu, 0, 1)
    every, nearly = "every f", "nearly every f"
    rungs = [
        Rung(
            "coherence",
            min(coherence_guarantee(mu), n),
            "basis pursuit or matching pursuit",
            every,
            f"From {at} coherence {mu:.4f}. A worst case that data never meet; never a capacity.",
        ),
        Rung(
            "best coherence there could be",
            min(coherence_guarantee(best_lower_bound(n, d).value), n),
            "basis pursuit or matching pursuit",
            every,
            "At the lower bound on coherence, which may not be attainable.",
        ),
        Rung(
            "RIP ceiling",
            rip_ceiling(n, d),
            "basis pursuit",
            every,
            "No dictionary can be certified beyond it through delta_2k < 1/sqrt(2); none is known to come near.",
        ),
        Rung(
            "one-step read-out",
            readout_threshold(n, d),
            "k largest of W^T x, as a TopK encoder",
            nearly,
            "Equal magnitudes, random atoms, whole support right with chance 1/2. Wide magnitudes: far less.",
        ),
        Rung(
            "strong l1",
            math.floor(strong_count(n, d)),
            "basis pursuit",
            every,
            "Random atoms, no noise, large d.",
        ),
        Rung(
            "strong l1, nonnegative",
            math.floor(strong_count(n, d, nonnegative=True)),
            "nonnegative basis pursuit",
            every + " >= 0",
            "Random atoms, no noise, large d.",
        ),
        Rung(
            "sufficient",
            _sufficient(n, d),
            "basis pursuit",
            nearly,
            "A theorem with a clean formula, d >= 2k ln(n/k) + 5k/4 + 1; safe, not sharp.",
        ),
        Rung(
            "weak l1",
            math.floor(weak_count(n, d)),
            "basis pursuit",
            nearly,
            "Sharp: random supports, no noise. Noise grows without limit on the way there (noise_sensitivity).",
        ),
        Rung(
            "weak l1, nonnegative",
            math.floor(weak_count(n, d, nonnegative=True)),
            "nonnegative basis pursuit",
            nearly + " >= 0",
            "Sharp: random supports, no noise.",
        ),
        Rung(
            "popular formula d / (2 ln(n/d))",
            popular_count(n, d),
            "none",
            "nothing",
            "Not a bound: the limit of weak l1 for d/n -> 0, too high at every finite d/n.",
        ),
        Rung(
            "unique for all",
            d // 2,
            "exhaustive search",
            every,
            "Generic atoms, no noise: no other code as sparse gives the same x.",
        ),
        Rung(
            "unique for nearly all",
            d - 1,
            "exhaustive search",
            nearly,
            "Generic atoms, no noise. A limit for every reader.",
        ),
    ]
    if signal_to_noise is not None:
        rungs.append(
            Rung(
                "rate bound",
                rate_bound(n, d, signal_to_noise),
                "any, told nothing but x",
                "most supports",
                "Information alone: naming the support takes ln C(n, k) nats, x carries (d/2) ln(1 + SNR).",
            )
        )
    return tuple(rungs)


def rate_bound(n: int, d: int, signal_to_noise: Number) -> int:
    r"""Largest k with $\ln \binom nk \le \frac d2 \ln(1 + \mathrm{SNR})$, and at most d.

    Naming which k of n are active takes that many nats, and d real numbers with noise carry no more. It holds for every
    dictionary and every reader that should get most supports right.

    Args:
        n: number of atoms, at least 1.
        d: dimension, at least 1.
        signal_to_noise: power of W f over that of the noise, per dimension, above 0.

    Returns:
        A count, from 0 to min(n, d).

    Raises:
        ValueError: if an argument is out of range.

    Source:
        Shannon, "A mathematical theory of communication", 1948, with Fano's inequality; Wainwright, "Information-
        theoretic limits on sparsity recovery in the high-dimensional and noisy setting", 2009.

    Example:
        >>> [rate_bound(24576, 768, snr) for snr in (1, 10, 100)]
        [35, 151, 336]
    """
    n, d = whole("rate_bound", "n", n, 1), whole("rate_bound", "d", d, 1)
    snr = real("rate_bound", "signal_to_noise", signal_to_noise, 0, math.inf, open_low=True, open_high=True)
    budget = d / 2 * math.log1p(snr)

    def fits(k: int) -> bool:
        return float(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)) <= budget

    # ln C(n, k) rises up to k = n/2 only; beyond, naming the idle ones is cheaper, and d is the limit.
    return _largest(fits, min(d, n // 2)) if not fits(n // 2) or n // 2 > d else min(n, d)


def _sufficient(n: int, d: int) -> int:
    return _largest(lambda k: k == 0 or sufficient_dimension(n, k) <= d, min(n, d))


def _largest(holds: Callable[[int], bool], most: int) -> int:
    """Largest k in 0 ... most for which `holds`, true up to some k and false beyond."""
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low
