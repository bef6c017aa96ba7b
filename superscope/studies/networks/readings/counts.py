"""How many features? Every counter's answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from ....core import Findings, Measurement, Site
from ....measure import Wanted, counts
from .base import CONTROL, TRAINED, Reading, View


class Counts(Reading):
    """What each of `measure.counts.COUNTERS` says."""

    name: ClassVar[str] = "counts of features"
    prominence: ClassVar[int] = 2

    def wants(self, n: int, k: int, seeds: tuple[int, ...]) -> tuple[Wanted, ...]:
        return tuple(wanted for counter in counts.COUNTERS for wanted in counter.wants(n, k, seeds))

    def read(self, seen: View, findings: Findings) -> None:
        first, seeds = seen.wanted[0], tuple(each.seed for each in seen.wanted)
        for counter in counts.COUNTERS:
            findings.add(counter.count(seen, counter.wants(first.n, first.k, seeds)), at=seen.at)

    def sentences(self, findings: Findings, sites: Sequence[Site]) -> Iterable[str]:
        def known(name: str, model: str = TRAINED) -> dict[Site, Measurement]:
            asked = {site: findings.get(name, site, model) for site in sites}
            return {site: m for site, m in asked.items() if m is not None and m.value is not None}

        yield from _combined(known, sites, findings)
        per_dimension, recurring = known("recurring_per_dimension"), known("recurring_features")
        if not per_dimension:
            return
        strongest = max(per_dimension, key=lambda site: per_dimension[site].value or 0)
        most, d = recurring[strongest], findings["dimensions", strongest, TRAINED].value
        counted = (
            f"{most.value:,.0f} directions are found by all {most.n} seeds in {d:,.0f} dimensions, "
            f"{per_dimension[strongest].value:.2f} per dimension; chance gives {most.chance:,.0f}"
        )
        over = [site for site, m in per_dimension.items() if (m.value or 0) - (m.chance or 0) > 1]
        if over:
            where = "this site holds" if len(sites) == 1 else f"{len(over)} of {len(sites)} sites hold"
            yield f"Superposition: {where} more recurring directions than dimensions, most at {strongest}: {counted}."
        else:
            where = "this site does not hold" if len(sites) == 1 else f"none of the {len(sites)} sites holds"
            yield (
                f"No superposition shown: {where} more recurring directions than dimensions. The most are at "
                f"{strongest}: {counted}. A count of this kind is a lower one: more text or training may find more."
            )
        controls = known("recurring_features", CONTROL)
        if strongest in controls:
            largest = max(controls, key=lambda site: controls[site].value or 0)
            yield (
                f"With random weights in place of the trained ones, {controls[strongest].value:,.0f} directions recur "
                f"at {strongest}, and at most {controls[largest].value:,.0f} at any site ({largest})."
            )


def _combined(
    known: Callable[..., dict[Site, Measurement]], sites: Sequence[Site], findings: Findings
) -> Iterable[str]:
    """The combined answer, where features were counted: the strongest site, and random weights beside it."""
    counted = known("feature_count")
    asked = [site for site in sites if findings.get("feature_count", site, TRAINED) is not None]
    if asked and not counted:
        yield "How many features there are cannot be said at any of the sites; their notes say why."
    if not counted:
        return
    site = max(counted, key=lambda each: counted[each].value or 0)
    count, d = counted[site], findings["dimensions", site, TRAINED].value
    if count.low is None:
        certified = findings["directions_certified", site, TRAINED].value
        said = f"at least {certified:,.0f} features, so many certified on held-out rows, and {count.value:,.0f} seen,"
    else:
        said = f"{count.value:,.0f} features (90 % interval {count.low:,.0f} to {count.high:,.0f})"
    more = (count.low if count.low is not None else count.value) or 0
    what = "Superposition" if more > (d or 0) else "No superposition shown"
    yield f"{what}: {said} in {d:,.0f} dimensions at {site}, counted by dictionaries of disjoint text."
    control = findings.get("feature_count", site, CONTROL)
    if control is not None:
        other = "none can be counted" if control.value is None else f"{control.value:,.0f} are counted"
        yield f"With random weights {other} there."
