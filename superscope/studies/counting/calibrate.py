"""Does the count hold where the truth is known? The very procedure, and what others count, over families of worlds."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Annotated, Any, ClassVar

import torch
from scipy.stats import binomtest
from torch import Tensor

from ...capture import MemorySource
from ...core import Activations, Answer, Findings, Measurement, Run, files, result_of
from ...measure import Evidence, Wanted
from ...measure.counts import COUNTERS, Counter
from ...measure.counts.baselines import BASELINES
from ...measure.counts.rows import rows_of
from ...worlds import FAMILIES
from ...worlds.families.family import Family
from ..arguments import pick
from ..learned import learned
from ..settings import Count, above, at_least
from ..study import Progress, Study
from .count import FEWEST, counted
from .search import Given

_SIZES = ((48, 24, 1.5), (96, 32, 2.0), (160, 32, 2.0))
"""n, d, l0 of the worlds of a family: from twice as many features as dimensions to five times as many. What others
count is asked in the middle one."""

_RARE = 60
"""Activations in all rows below which a feature is in nobody's count: p0 is this over the rows."""

_LEARNED = 8
_K = 4
_STEPS = 300
"""Latents for each dimension, active latents and steps of the dictionaries that others count in: fixed, as a scan's."""

_READ, _HELD = 8192, 8192
_SEED = 0x0CA1


@dataclass(frozen=True)
class Calibrate(Study):
    """Does the count of features hold where the truth is known?

    Runs `superscope count`'s procedure, at its defaults, over worlds of many families, with the other counters and the
    counts that others publish beside it, and tabulates errors, coverage of the 90 % interval, false features on nulls
    and abstentions: apart for the families that nothing was tuned on (`worlds.HELD_OUT`) and for the others. A run that
    was interrupted goes on with the next world.
    """

    kind: ClassVar[str] = "calibrate"

    families: tuple[str, ...] = ()
    """Families of worlds. Default: all."""
    seeds: Count = 1
    """Worlds of each family and size."""
    rows: Annotated[int, at_least(FEWEST)] = 50_000
    """Rows of each world."""
    budget: Annotated[float, above(0, finite=True)] = 3.0
    """Minutes for each count."""
    checks: bool = False
    """The counts by planted directions and by twin worlds too, in worlds of the middle size: half the time again."""
    short: bool = False
    """One size and seed of each family, fewer rows, and no counts but ours: some minutes in all."""
    seed: int = 0
    """Of everything random."""

    def check(self) -> None:
        for name in self.families:
            pick(name, FAMILIES, "family")

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        run.open()
        units = list(self._units())
        stage, rows = "Counting in worlds", []
        yield Progress(stage, 0, len(units))
        for done, (family, size, seed) in enumerate(units):
            name = f"worlds/{family.name}-{size[0]}-{size[1]}-{size[2]:g}-{seed}.json"
            kept = run.kept(name, files.read_json)
            if kept is None:
                kept = self._world(family, size, seed)
                run.keep(name, lambda path, value=kept: files.write_json(path, value))
            rows.append(kept)
            own = kept["counts"]["feature_count"]
            said = "abstains" if own["value"] is None else f"{own['value']:,.0f}"
            yield Progress(stage, done + 1, len(units), f"{family.name}: {said}, truly {kept['n']:,}")
        return summary(rows)

    def _units(self) -> Iterable[tuple[Family, tuple[int, int, float], int]]:
        sizes = _SIZES[1:2] if self.short else _SIZES
        for seed in range(1 if self.short else self.seeds):
            for size in sizes:
                for name in self.families or FAMILIES:
                    yield FAMILIES[name], size, self.seed + seed

    def _world(self, family: Family, size: tuple[int, int, float], seed: int) -> dict[str, Any]:
        """One world: its truth, and what is counted in it."""
        n, d, l0 = size
        # Nulls have no features to be told of.
        offered = {"n": n, "d": d, "l0": l0, "seed": seed}
        world = family(**{key: offered[key] for key in inspect.signature(family.make).parameters if key in offered})
        wanted = self.rows // 3 if self.short else self.rows
        x = rows_of(world.batches(min(wanted, _READ), seed=seed + _SEED), wanted)
        truth = world.truth
        n_true = 0 if truth is None else truth.count(p0=_RARE / wanted)
        begun = time.process_time()
        about = {
            "family": family.name,
            "null": family.null,
            "held_out": family.held_out,
            "size": list(size),
            "seed": seed,
            "n": n_true,
            "kappa_cs": None if truth is None else truth.kappa_cs,
        }
        try:
            answer, found, findings = result_of(
                counted(
                    x,
                    Run.begin("count", {}, None),
                    Given(budget=60 * self.budget, seed=seed),
                    checks=self.checks and size == _SIZES[1],
                )
            )
        except ValueError as refusal:
            # Rows that are refused, such as the few different ones of a small circuit, are an abstention.
            seconds = time.process_time() - begun
            none = {"value": None, "low": 0.0, "high": None, "seconds": seconds}
            return about | {"identity": None, "refused": str(refusal), "counts": {"feature_count": none}}
        counts: dict[str, dict[str, Any]] = {
            "feature_count": {
                "value": answer.value,
                "low": answer.low,
                "high": answer.high if math.isfinite(answer.high) else None,
                "seconds": time.process_time() - begun,
            }
        }
        for each in ("directions_certified", "cumulant_rank", "cumulant_directions", "cumulant_components"):
            measured = findings.get(each)
            if measured is not None:
                counts[each] = {"value": measured.value}
        for each in ("count_by_plants", "count_by_twins"):
            measured = findings.get(each)
            if measured is not None:
                counts[each] = {"value": measured.value, "low": measured.low, "high": measured.high}
        if not self.short and size == _SIZES[1]:
            counts |= _others(x, d, seed)
        return about | {
            "identity": None if truth is None else _identity(found.directions, truth.dictionary.atoms),
            "counts": counts,
        }


def _others(x: Tensor, d: int, seed: int) -> dict[str, dict[str, Any]]:
    """What others count in the same rows, with the dictionaries that they ask for."""
    rows, held = x[:-_HELD], x[-_HELD:]
    source = MemorySource(rows)
    n, k, seeds = _LEARNED * d, _K, tuple(seed + i for i in range(3))
    asking: list[tuple[Counter, tuple[Wanted, ...]]] = [
        (each, each.wants(n, k, seeds))
        for each in (*COUNTERS, *BASELINES)
        if not each.name.startswith(("cumul", "certif"))
    ]
    wanted = tuple(dict.fromkeys(w for _, own in asking for w in own))
    found = result_of(
        learned(
            wanted,
            source,
            Run.begin("count", {}, None),
            steps=_STEPS,
            batch=1024,
            device=x.device,
            stage="Learning",
            folder=lambda w: f"n{w.n}-k{w.k}-seed{w.seed}",
            notes={},
        )
    )
    seen = Evidence(
        rows=[Activations(block) for block in rows.split(4096)],
        held=[Activations(block) for block in held.split(4096)],
        learned={w: sae for w, (sae, _) in found.items()},
        seed=seed,
    )
    counts = {}
    for counter, own in asking:
        begun = time.process_time()
        first = next(iter(counter.count(seen, own)))
        counts[first.name] = {"value": first.value, "seconds": time.process_time() - begun}
    return counts


def _identity(directions: Tensor, truth: Tensor, threshold: float = 0.9) -> float:
    """F1 of directions and true atoms, an atom found where a direction of cosine above the threshold is."""
    if not len(directions) or not len(truth):
        return 0.0
    cosines = torch.nn.functional.normalize(truth.float(), dim=1) @ directions.T
    recall = float((cosines.max(1).values > threshold).double().mean())
    precision = float((cosines.max(0).values > threshold).double().mean())
    return 2 * recall * precision / (recall + precision) if recall + precision else 0.0


def summary(rows: Sequence[Mapping[str, Any]]) -> Answer:
    """The table of estimators, and what may be said of ours."""
    findings = Findings()
    for row in rows:
        own = row["counts"]["feature_count"]
        findings.row(
            "worlds",
            family=row["family"],
            held_out=row["held_out"],
            n=row["n"],
            d=row["size"][1],
            seed=row["seed"],
            kappa_cs=row["kappa_cs"] or 0.0,
            count=own["value"] if own["value"] is not None else -1.0,
            low=own["low"],
            high=own["high"] if own["high"] is not None else -1.0,
            identity=row["identity"] or 0.0,
            seconds=own["seconds"],
        )
    names = list(dict.fromkeys(name for row in rows for name in row["counts"]))
    groups = {
        "held-out families": [r for r in rows if r["held_out"] and not r["null"]],
        "other families": [r for r in rows if not r["held_out"] and not r["null"]],
    }
    nulls = [r for r in rows if r["null"]]
    for group, own in groups.items():
        for name in names:
            if own:
                _estimator(findings, group, name, own, nulls)
    sentences = []
    for group in groups:
        m = findings.get("median_error", group, "feature_count")
        c = findings.get("coverage", group, "feature_count")
        if m is not None and m.value is not None and c is not None and c.value is not None:
            sentences.append(
                f"{group[0].upper()}{group[1:]}: median error {m.value:.1%} over {m.n} worlds, the interval holds the "
                f"truth in {c.value:.0%} of {c.n} ({c.low:.0%} to {c.high:.0%}); 90 % was aimed at."
            )
    if nulls:
        worst = max(r["counts"]["feature_count"]["value"] or 0 for r in nulls)
        sentences.append(f"Of {len(nulls)} worlds with nothing to be found the most that was counted is {worst:,.0f}.")
    return Answer(title=f"Counting in {len(rows)} worlds whose truth is known", findings=findings, sentences=sentences)


def _estimator(
    findings: Findings, group: str, name: str, rows: Sequence[Mapping[str, Any]], nulls: Sequence[Mapping[str, Any]]
) -> None:
    """One row of the table, and the measurements of it."""
    given = [(r["n"], r["counts"][name]) for r in rows if r["counts"].get(name, {}).get("value")]
    errors = sorted(abs(math.log(c["value"] / n)) for n, c in given)
    signed = [math.log(c["value"] / n) for n, c in given]
    bounded = [(n, c) for n, c in given if c.get("low") is not None and c.get("high") is not None]
    lower = [(n, c) for n, c in given if c.get("low") is not None and c.get("high") is None]
    held = sum(c["low"] <= n <= c["high"] for n, c in bounded) + sum(c["low"] <= n for n, c in lower)
    intervals = len(bounded) + len(lower)
    false = [r["counts"][name]["value"] or 0.0 for r in nulls if name in r["counts"]]
    identity = [r["identity"] for r in rows if r["identity"] is not None]
    findings.row(
        "estimators",
        group=group,
        estimator=name,
        worlds=len(rows),
        answers=len(given),
        at_least=len(lower),
        median_error=median(errors) if errors else -1.0,
        p90_error=quantiles(errors, n=10)[-1] if len(errors) > 1 else -1.0,
        bias=median(signed) if signed else 0.0,
        coverage=held / intervals if intervals else -1.0,
        width=median(math.log(c["high"] / c["low"]) for _, c in bounded) if bounded else -1.0,
        nulls=len(false),
        most_on_nulls=max(false) if false else -1.0,
        identity=median(identity) if identity and name == "feature_count" else -1.0,
        seconds=median(c["seconds"] for _, c in given) if given and "seconds" in given[0][1] else -1.0,
    )
    at = {"group": group, "estimator": name}
    findings.add(
        Measurement(
            name="median_error",
            value=median(errors) if errors else None,
            unit="|ln(count / n)|",
            n=len(errors),
            of="worlds",
            caution="" if errors else "no world was answered",
            at=at,
        )
    )
    if intervals:
        spread = binomtest(held, intervals).proportion_ci(0.95, "exact")
        findings.add(
            Measurement(
                name="coverage",
                value=held / intervals,
                unit="share of worlds",
                n=intervals,
                of="worlds",
                low=float(spread.low),
                high=float(spread.high),
                how="95 %, binomial",
                reference=0.9,
                reference_is="aimed at",
                at=at,
            )
        )


__all__ = ["Calibrate", "summary"]
