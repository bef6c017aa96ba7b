"""How many features, how sure, and when must nothing be said? One answer of all that was looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...core import Measurement
from ...measure.counts import Cumulants, shared_parts
from .search import Look, Search

_LEVEL, _Z = 0.9, 1.645

FLOOR = 0.035
"""Deviation of the logarithm of a count that no look shows: where all looks agreed, worlds of the families for tuning
were still miscounted by so much."""

_UNSURE = 0.4
"""Deviation for each share of activations that is of directions which do not recur: where features come together, what
recurs depends on the setting, and gated worlds were overcounted by .2 at a share of .75."""

_DEPENDENT = 0.12
"""Deviation where fourth cumulants show that features depend on each other: then combinations recur too."""

_SHARE, _TRACE = 0.5, 0.25
"""Directions that carry less of the activations than the first are at most some of those there are, and less than the
second no answer at all: rows of independent coordinates without sparse features have shown up to .15."""

_CERTIFIED = 0.25
"""Where less of what is counted is certified, or less of what recurs is counted, no count is given: rings are tiled by
directions of which none is certified, and where rows are shuffled coordinate by coordinate 1 of 57 was."""

_HIDDEN = 0.05
"""Features that may be hidden in parts that directions share, for each direction, above which the interval reaches out
to them. Fewer are chance."""

_CROWDED = 1.5
"""kappa_cs beyond which sparse features cannot be read back, whoever looks."""


@dataclass(frozen=True)
class Combined:
    """How many features there are.

    Args:
        value: the count; None where the answer is that it cannot be known.
        low, high: of a 90 % interval; high is inf where the answer is "at least".
        l0: active features in a row.
        kappa_cs, kappa_lin: of the count in these dimensions; NaN where nothing was counted.
        reasons: what the answer rests on, or why there is none, in sentences.
        caution: that of them which says why there is no upper end, or no answer; empty where there are both.
    """

    value: float | None
    low: float
    high: float
    l0: float
    kappa_cs: float
    kappa_lin: float
    reasons: tuple[str, ...]
    caution: str = ""

    @property
    def at_least(self) -> bool:
        """Whether there may be any number more."""
        return self.value is not None and math.isinf(self.high)

    @property
    def abstains(self) -> bool:
        """Whether nothing can be said."""
        return self.value is None


def combined(found: Search, d: int, *, left_out: int = 0, beside: Cumulants | None = None) -> Combined:
    """The count over all plausible looks, the spread between them as its uncertainty; "at least" where it still rose.

    Each look counts with the inverse of its own variance, that of `FLOOR` included. A look's own logarithm is the
    mean of what was counted and of what that extrapolates to, and half their distance is added to its deviation, for
    both what recurs by habit and what is missed are part of it. The upper end reaches out to features that never occur
    alone, as many as directions may share (`shared_parts`).

    Args:
        found: the looks.
        d: dimensions.
        left_out: rows that were left out for their norm.
        beside: what a counter without dictionaries says; it is quoted, not used.
    """
    outside = _outside(left_out, beside)
    best = found.best
    if not best.count.counted:
        return _nothing(
            "No direction recurs between dictionaries of disjoint rows: there is nothing sparse in these rows, or more "
            "than can be told apart.",
            outside,
        )
    if best.agreed.share < _TRACE:
        return _nothing(
            f"{best.count.counted:,} directions recur, and carry only {best.agreed.share:.0%} of activations: too "
            "little to say that the rows are made of such directions.",
            outside,
        )
    if best.certified < _CERTIFIED * best.count.counted or best.count.counted < _CERTIFIED * best.agreed.counted:
        return _nothing(
            f"{best.agreed.counted:,} directions recur, but held-out rows certify only {best.certified:,} of them as "
            "active by themselves: they are parts of features of several dimensions, or too rare to judge in so few "
            "rows.",
            outside,
        )
    l0 = float(best.agreed.densities[best.kept].sum())
    logs, variances = zip(*(_own(look) for look in found.plausible), strict=True)
    weights = [1 / (variance + FLOOR**2) for variance in variances]
    total = sum(weights)
    mean = sum(w * log for w, log in zip(weights, logs, strict=True)) / total
    between = sum(w * (log - mean) ** 2 for w, log in zip(weights, logs, strict=True)) / total
    within = sum(w * v for w, v in zip(weights, variances, strict=True)) / total
    unsure = _UNSURE * (1 - best.agreed.share)
    dependent = _DEPENDENT if _depend(beside) else 0.0
    deviation = math.sqrt(between + within + FLOOR**2 + unsure**2 + dependent**2)
    value = math.exp(mean)
    kappa_cs, kappa_lin = _kappas(value, l0, d)
    reasons = [_spoken(found), *outside]
    low, high = value * math.exp(-_Z * deviation), value * math.exp(_Z * deviation)
    if kappa_cs > _CROWDED:
        reasons.append(
            f"With {l0:.1f} of {value:,.0f} active in {d} dimensions kappa is {kappa_cs:.2f}: above {_CROWDED} sparse "
            "features cannot be told apart, so no count is given."
        )
        return Combined(None, low, math.inf, l0, kappa_cs, kappa_lin, tuple(reasons), reasons[-1])
    rising = [name for name, still in found.flat.items() if not still]
    if best.agreed.share < _SHARE:
        reasons.append(
            f"Only {best.agreed.share:.0%} of activations are on directions that recur, so there are at least so many."
        )
        high = math.inf
    elif not best.count.extrapolated:
        reasons.append(
            "Some directions are found so seldom that nothing can be said of those never found, so there are at least "
            "so many."
        )
        high = math.inf
    elif rising:
        words = {"n": "wider dictionaries", "k": "another k", "steps": "longer training"}
        reasons.append(
            f"The budget ended before {' and '.join(words[name] for name in rising)} was seen to change nothing."
        )
        high = math.inf
    caution = reasons[-1] if math.isinf(high) else ""
    shared = shared_parts(best.agreed.directions[best.kept])
    if math.isfinite(high) and shared.hidden > _HIDDEN * best.count.counted:
        high *= 1 + shared.hidden / best.count.counted
        reasons.append(
            f"{shared.directions:,} of the directions stand closer to each other than random ones do, in "
            f"{shared.groups:,} groups: what they share may be up to {shared.hidden:,} features that never occur "
            "alone, and the interval reaches out to them."
        )
    return Combined(value, low, high, l0, kappa_cs, kappa_lin, tuple(reasons), caution)


def _nothing(why: str, outside: list[str]) -> Combined:
    """No answer, and why there is none."""
    return Combined(None, 0.0, math.inf, math.nan, math.nan, math.nan, (why, *outside), why)


def _depend(beside: Cumulants | None) -> bool:
    """Whether far fewer directions stand alone than there are."""
    if beside is None or not beside["cumulant_directions"].value:
        return False
    return (beside["cumulant_components"].value or 0.0) < 0.7 * beside["cumulant_directions"].value


def _outside(left_out: int, beside: Cumulants | None) -> list[str]:
    spoken = []
    if left_out:
        spoken.append(f"{left_out:,} rows far beyond the others' norm were left out.")
    if beside is not None and beside["cumulant_rank"].value is not None:
        own, parts = beside["cumulant_directions"].value or 0, beside["cumulant_components"].value or 0
        together = f", which hang together as {parts:,.0f} components" if parts < own else ""
        spoken.append(
            f"Without any dictionary fourth cumulants show {own:,.0f} directions{together}, in {beside.dimensions} "
            f"dimensions (rank {beside['cumulant_rank'].value:,.0f}). {beside.certificate}".strip()
        )
    return spoken


def _own(look: Look) -> tuple[float, float]:
    """Logarithm of a look's count, and its variance."""
    counted, value = math.log(look.count.counted), math.log(look.count.value)
    half = (value - counted) / 2
    return counted + half, half**2 + look.count.deviation**2


def _kappas(n: float, l0: float, d: int) -> tuple[float, float]:
    if not 0 < l0 < n:
        return math.nan, math.nan
    return 2 * l0 * math.log(n / l0) / d, l0**2 * math.log(n) / d


def _spoken(found: Search) -> str:
    best = found.best
    return (
        f"{best.agreed.counted:,} directions recur between dictionaries of disjoint rows ({best.setting}), and carry "
        f"{best.agreed.share:.0%} of activations; {best.certified:,} of them are certified on held-out rows. "
        f"{len(found.plausible)} of {len(found.looks)} settings tried explain held-out rows as well with hardly more."
    )


def measurements(answer: Combined, found: Search, rows: int) -> list[Measurement]:
    """The answer as numbers of a report."""
    best = found.best
    how = "90 %: spread over plausible settings, captures over dictionaries, and what worlds were miscounted by"
    bounded = answer.value is not None and math.isfinite(answer.high)
    null = {"chance": float(found.decoy), "chance_is": "Gaussian rows of the same covariance, looked at likewise"}
    at = {"n": best.setting.n, "k": best.setting.k, "steps": best.setting.steps}
    return [
        Measurement(
            name="feature_count",
            value=answer.value,
            unit="features",
            n=rows,
            of="rows",
            low=answer.low if bounded else None,
            high=answer.high if bounded else None,
            how=how if bounded else f"no upper end; 95 % sure of {answer.low:,.0f}" if answer.at_least else "abstained",
            caution=answer.caution,
            **null,
        ),
        Measurement(
            name="directions_certified",
            value=float(best.certified),
            unit="directions",
            n=rows,
            of="rows",
            how="a lower bound: at most 5 % of those certified are expected to be false",
            at=at,
            **null,
        ),
        Measurement(
            name="directions_recurring",
            value=float(best.agreed.counted),
            unit="directions",
            n=best.agreed.runs,
            of="dictionaries",
            how="no interval: a count at one setting",
            at=at,
            **null,
        ),
        Measurement(
            name="share_recurring",
            value=best.agreed.share,
            unit="share of activations",
            n=best.agreed.runs,
            of="dictionaries",
            how="no interval: a mean at one setting",
            at=at,
        ),
    ]


__all__ = ["Combined", "combined", "measurements"]
