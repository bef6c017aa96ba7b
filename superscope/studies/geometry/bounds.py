"""What do n atoms in d dimensions allow? Every bound that needs no data, with what it is good for."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from ... import theory
from ...core import Answer, Findings, Measurement, Run
from ..settings import above, at_least
from ..study import Progress, Study

_LIMITS = (
    "best coherence there could be",
    "RIP ceiling",
    "popular formula d / (2 ln(n/d))",
    "unique for all",
    "unique for nearly all",
    "rate bound",
)
"""Rungs of the ladder that say what cannot be; being below one of them says nothing about what can."""


@dataclass(frozen=True)
class Bounds(Study):
    """What do n atoms in d dimensions allow, before any data?

    Lower bounds on coherence, what coherence guarantees, Donoho-Tanner and read-out thresholds, how many directions
    there are at a given cosine, and the capacity ladder: each with what it says and what it is good for.
    """

    kind: ClassVar[str] = "bounds"

    n: int
    """Atoms."""
    d: Annotated[int, at_least(2)]
    """Dimensions; fewer than n."""
    k: int | None = None
    """Active features to judge by every bound. Default: only the largest k of each."""
    eps: float = 0.1
    """Cosine for the question how many directions there are."""
    snr: Annotated[float, above(0, finite=True)] | None = None
    """Power of W f over that of the noise, per dimension; adds the limit that information alone sets."""

    def check(self) -> None:
        if self.n <= self.d:
            raise ValueError(
                f"n = {self.n} atoms fit into d = {self.d} dimensions without any overlap, so nothing is bounded. "
                "Give n above d; check that the two are not exchanged."
            )
        if self.k is not None and not 1 <= self.k < self.n:
            raise ValueError(
                f"k must lie between 1 and n - 1 = {self.n - 1}, the atoms that can be active; got {self.k}."
            )
        if not 0 <= self.eps < 1:
            raise ValueError(f"eps is a cosine in [0, 1); got {self.eps}.")

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        yield Progress("Evaluating bounds", 0, 1)
        rows = [*self._coherence(), *self._guarantees(), *self._thresholds(), *self._directions(), *self._frames()]
        ladder = theory.capacity_ladder(self.n, self.d, signal_to_noise=self.snr)
        rows += [
            _Row(
                "largest_k",
                float(rung.k),
                "active features",
                f"{rung.reader} finds {rung.holds_for} up to here" if rung.reader != "none" else "nothing",
                rung.caution,
                at={"criterion": rung.name},
                caution="no bound: shown to be compared" if rung.reader == "none" else "",
            )
            for rung in ladder
        ]
        if self.k is not None:
            rows += self._at_k(self.k)
        answer = Answer(
            title=f"What n = {self.n:,} atoms in d = {self.d:,} dimensions allow",
            findings=Findings(
                [row.measurement(self.n) for row in rows],
                {
                    "bounds": {
                        "name": [row.name for row in rows],
                        "of": [", ".join(str(v) for v in row.at.values()) for row in rows],
                        "value": [row.value for row in rows],
                        "unit": [row.unit for row in rows],
                        "says": [row.says for row in rows],
                        "good_for": [row.good_for for row in rows],
                    },
                    "ladder": ladder_table(ladder),
                },
            ),
            sentences=tuple(self._findings(ladder)),
        )
        yield Progress("Evaluating bounds", 1, 1, f"{len(rows)} figures")
        return answer

    def _coherence(self) -> Iterator[_Row]:
        n, d = self.n, self.d
        best = theory.best_lower_bound(n, d)
        yield _Row(
            "coherence_lower_bound",
            best.value,
            "cosine",
            "no n unit vectors have all absolute cosines below it",
            "a yardstick for the coherence of a dictionary; it need not be attainable",
            at={"bound": f"best ({best.by})"},
        )
        orders = {m: theory.welch(n, d, m) for m in range(1, 6)}
        top = max(orders, key=lambda m: orders[m])
        for name, value, use in (
            ("Welch", orders[1], "sharp exactly for equiangular tight frames, up to n = d(d+1)/2 at most"),
            *(
                [(f"Welch of order {top}", orders[top], "better than order 1 from about n = d(d+1)/2")]
                if top > 1
                else []
            ),
            ("Bukh-Cox", theory.bukh_cox(n, d), "better than Welch while n is hardly above d"),
            ("orthoplex", theory.orthoplex(n, d), "starts above n = d(d+1)/2, 0 below"),
            ("Levenshtein", theory.levenshtein(n, d), "the strongest for n far above d; equals Welch below d(d+1)/2"),
        ):
            yield _Row("coherence_lower_bound", value, "cosine", "no frame is below", use, at={"bound": name})
        signed = theory.best_lower_bound(n, d, signed=True)
        yield _Row(
            "signed_cosine_lower_bound",
            signed.value,
            "cosine",
            "the largest signed cosine is at least this",
            "where opposite directions do no harm, as behind a ReLU",
            at={"bound": signed.by},
        )
        yield _Row(
            "random_coherence",
            theory.random_coherence(n, d),
            "cosine",
            "the coherence of random directions (median)",
            "the null model: a dictionary above it has neighbours that chance does not give",
            low=theory.random_coherence(n, d, 0.05),
            high=theory.random_coherence(n, d, 0.95),
            how="5 % and 95 % of random frames",
        )
        yield _Row(
            "random_nearest_cosine",
            theory.random_nearest(n, d),
            "cosine",
            "the nearest neighbour of a random atom (median)",
            "tells which atoms have a true neighbour",
            low=theory.random_nearest(n, d, 0.05),
            high=theory.random_nearest(n, d, 0.95),
            how="5 % and 95 % of atoms",
        )

    def _guarantees(self) -> Iterator[_Row]:
        n, d = self.n, self.d
        vacuous = "a worst case over all supports: data never meet it, so it is never a capacity"
        for of, mu in (
            ("best coherence there could be", theory.best_lower_bound(n, d).value),
            ("random dictionary", theory.random_coherence(n, d)),
        ):
            yield _Row(
                "coherence_guarantee",
                float(min(theory.coherence_guarantee(mu), n)),
                "active features",
                "every code of so many is recovered by basis pursuit and by matching pursuit",
                vacuous,
                at={"coherence": of},
                caution="loose: a worst case",
            )
        yield _Row(
            "rip_ceiling",
            float(theory.rip_ceiling(n, d)),
            "active features",
            "no dictionary can be certified beyond it through its restricted isometry constant",
            "shows what RIP can never do; certificates that exist stop near sqrt(d)",
            caution="loose: a limit of the method, no capacity",
        )

    def _thresholds(self) -> Iterator[_Row]:
        delta = self.d / self.n
        for law, nonnegative in (("l1", False), ("l1, nonnegative", True)):
            yield _Row(
                "weak_threshold",
                theory.weak_threshold(delta, nonnegative=nonnegative),
                "k / d",
                "nearly every code below it is recovered by basis pursuit, nearly none above",
                "typical capacity without noise; hardly depends on the dictionary's shape",
                at={"law": law},
                caution="noiseless; large d",
            )
            yield _Row(
                "strong_threshold",
                theory.strong_threshold(delta, nonnegative=nonnegative),
                "k / d",
                "every code below it is recovered, all supports at once",
                "an average-case answer to a worst-case question, for random dictionaries only",
                at={"law": law},
                caution="random atoms, noiseless; large d",
            )
            yield _Row(
                "amp_threshold",
                theory.minimax_threshold(delta, nonnegative=nonnegative),
                "noise levels",
                "the threshold with which message passing reaches the weak threshold",
                "tuning AMP on random dictionaries; on trained ones AMP diverges",
                at={"law": law},
            )

    def _directions(self) -> Iterator[_Row]:
        d, eps = self.d, self.eps
        for of, signed in (("absolute", False), ("signed", True)):
            bracket = theory.direction_count(d, eps, signed=signed)
            low, high = (value / math.log(10) for value in (bracket.log_lower, bracket.log_upper))
            yield _Row(
                "log10_directions",
                low,
                "log10 of directions",
                f"so many exist ({bracket.lower_by}); more than the upper end do not ({bracket.upper_by})",
                "replaces 'exponentially many almost orthogonal directions' at real d",
                low=low,
                high=max(low, high),
                how="from the best known system to the best upper bound",
                at={"cosine at most": eps, "cosine": of},
            )
        if eps > 0:
            for of, value in (
                ("random draw", theory.random_count(d, eps)),
                ("greedy covering", theory.covering_count(d, eps)),
            ):
                yield _Row(
                    "log10_directions_by_chance",
                    value / math.log(10),
                    "log10 of directions",
                    "what the usual argument for almost orthogonal directions gives",
                    "shows how weak that argument is at this d",
                    at={"cosine at most": eps, "by": of},
                    caution="fewer than the d directions of a basis" if value < math.log(d) else "",
                )

    def _frames(self) -> Iterator[_Row]:
        n, d = self.n, self.d
        yield _Row(
            "interference_energy_floor",
            n / d - 1,
            "squared cosine",
            "no frame has a smaller mean of summed squared overlaps per atom; tight frames have it",
            f"hardly tells a learned dictionary from chance, which has {(n - 1) / d:.4g}",
        )
        yield _Row(
            "random_capacity_used",
            theory.capacity_used(n, d) / d,
            "share of d",
            "the capacity that random unit atoms use",
            "the null of 'capacity used': a value near 1 is no sign of learning",
        )

    def _at_k(self, k: int) -> list[_Row]:
        n, d = self.n, self.d
        delta, rho = d / n, k / d
        at = {"k": k}
        rows = [
            _Row(
                "readout_success",
                theory.readout_success(n, d, k),
                "probability",
                "the k largest read-outs W^T x are exactly the active features",
                "one-step encoders on random atoms and equal magnitudes, their best case",
                at=at,
            ),
            _Row(
                "readout_recall",
                theory.readout_recall(n, d, k),
                "share of active features",
                "so much of the support is among the k largest read-outs",
                "what a TopK encoder still gets where whole supports fail",
                at=at,
            ),
            _Row(
                "rip_floor",
                theory.rip_floor(n, d, min(2 * k, n)),
                "relative squared length",
                "the restricted isometry constant of order 2k is at least this for every dictionary",
                "above 0.707 no dictionary at all can be certified for k by RIP",
                at=at,
            ),
            _Row(
                "rip_typical",
                theory.rip_typical(d, k),
                "relative squared length",
                "by so much a random support of a random dictionary stretches a code",
                "what data meet; not the constant of the theorems",
                at=at,
            ),
        ]
        for law, nonnegative in (("l1", False), ("l1, nonnegative", True)):
            where: dict[str, str | int | float] = {"k": k, "law": law}
            needed = theory.statistical_dimension(k / n, nonnegative=nonnegative) * n
            rows.append(
                _Row(
                    "dimensions_needed",
                    needed,
                    "dimensions",
                    "basis pursuit needs so many for k active of n, nearly always",
                    "compare with d: the distance to the weak threshold",
                    at=where,
                )
            )
            within = rho < theory.weak_threshold(delta, nonnegative=nonnegative)
            rows.append(
                _Row(
                    "noise_sensitivity",
                    theory.noise_sensitivity(delta, rho, nonnegative=nonnegative) if within else None,
                    "mean squared error per atom / noise variance",
                    "the worst error of the best tuned lasso, per unit of noise",
                    "noise decides long before the threshold does",
                    at=where,
                    caution="" if within else "k is beyond the weak threshold, where the error has no bound",
                )
            )
        return rows

    def _findings(self, ladder: tuple[theory.Rung, ...]) -> Iterator[str]:
        n, d = self.n, self.d
        best = theory.best_lower_bound(n, d)
        rung = {r.name: r.k for r in ladder}
        low, mid, high = (theory.random_coherence(n, d, q) for q in (0.05, 0.5, 0.95))
        yield (
            f"No {n:,} directions in {d:,} dimensions have coherence below {best.value:.4f} ({best.by}); random ones "
            f"have {mid:.4f} ({low:.4f} to {high:.4f})."
        )
        yield (
            f"Typical codes: basis pursuit recovers up to k = {rung['weak l1']:.0f} active features "
            f"({rung['weak l1, nonnegative']:.0f} if nonnegative), one-step read-out up to "
            f"{rung['one-step read-out']:.0f}: between the two lies what a better encoder could gain."
        )
        yield (
            f"Every code: coherence guarantees k = {rung['coherence']:.0f} for a random dictionary and could at best "
            f"guarantee {rung['best coherence there could be']:.0f}. Such guarantees are loose; quote them as such."
        )
        bracket = theory.direction_count(d, self.eps)
        yield (
            f"Directions in {d:,} dimensions with absolute cosine at most {self.eps:g}: at least "
            f"{_count(bracket.log_lower)} ({bracket.lower_by}), at most {_count(bracket.log_upper)} "
            f"({bracket.upper_by})."
        )
        if self.k is not None:
            names = [r.name for r in ladder if r.k >= self.k and r.name not in _LIMITS]
            readers = "; ".join(names) if names else "none of the criteria that some reader reaches"
            yield f"k = {self.k} active features are within: {readers}."


@dataclass(frozen=True)
class _Row:
    """One bound: its value, what it says and what it is good for."""

    name: str
    value: float | None
    unit: str
    says: str
    good_for: str
    low: float | None = None
    high: float | None = None
    how: str = "no interval: a formula"
    at: dict[str, Any] = field(default_factory=dict)
    caution: str = ""

    def measurement(self, n: int) -> Measurement:
        return Measurement(
            name=self.name,
            value=self.value,
            unit=self.unit,
            n=n,
            of="atoms",
            low=self.low,
            high=self.high,
            how=self.how,
            at=self.at,
            caution=self.caution,
        )


def ladder_table(ladder: tuple[theory.Rung, ...]) -> dict[str, list[Any]]:
    """The capacity ladder as columns."""
    return {
        "criterion": [rung.name for rung in ladder],
        "k": [float(rung.k) for rung in ladder],
        "reader": [rung.reader for rung in ladder],
        "holds_for": [rung.holds_for for rung in ladder],
        "caution": [rung.caution for rung in ladder],
    }


def _count(log_value: float) -> str:
    """A count, given by its logarithm: whole while short, a power of ten beyond."""
    return f"{math.exp(log_value):,.0f}" if log_value < math.log(1e9) else f"10^{log_value / math.log(10):.1f}"
