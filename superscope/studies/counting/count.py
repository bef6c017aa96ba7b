"""How many features are there? Any rows in, one answer out: a count with its interval, "at least", or nothing."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from ...capture import MemorySource, outlier_limit
from ...core import ActivationSource, Answer, Findings, Report, Run, ShapeError, result_of
from ...measure.counts import cumulant_rank
from ...measure.counts.rows import rows_of
from ..learning.stream import Streamed, length
from ..settings import Count as AtLeastOne
from ..settings import above, at_least
from ..study import Progress
from .checks import checked
from .combined import Combined, combined, measurements
from .search import Given, Search, search

FEWEST = 3000
"""Rows below which nothing is counted: a thousand for each dictionary."""

_READ = 8192
_CUMULANT_DIMENSIONS = 32

_HELD_OUT = 5
"""One row in so many is kept from learning, the last ones, to certify directions on."""


@dataclass(frozen=True)
class CountFeatures(Streamed):
    """How many features stand behind these activations?

    Learns dictionaries of disjoint thirds of the rows, and counts the directions that they agree on. The number of
    active latents, the width and the length of training are chosen by the procedure: k where what recurs carries most,
    training and width doubled until the count no longer moves. Where the budget ends before, or what recurs is only
    part of what there is, the answer is "at least"; where nothing can be known it says so. Two counters that need no
    dictionary are asked beside it. SOURCE: a world (`world:uniform`), a store, a .npy or .safetensors matrix of one
    activation a row, or a model.
    """

    kind: ClassVar[str] = "count"

    rows: Annotated[int, at_least(FEWEST)] = 100_000
    """Rows to read at most."""
    budget: Annotated[float, above(0, finite=True)] = 3.0
    """Minutes for learning. What has been found by then is the answer."""
    n: AtLeastOne | None = None
    """Latents. Default: 8 for each dimension, doubled until the count is flat."""
    k: AtLeastOne | None = None
    """Active latents. Default: where what recurs carries most."""
    steps: AtLeastOne | None = None
    """Training steps. Default: 200, doubled until the count is flat."""
    checks: bool = False
    """Plant known directions and look for them, and count in twin worlds of known truth: three looks more."""

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        yield Progress(f"Opening {self.source}", 0, 1)
        stream = self.open_stream()
        x = _gathered(stream.train, self.rows, self.seed, self.device)
        yield Progress(f"Opening {self.source}", 1, 1, f"{len(x):,} rows of {x.shape[1]} numbers")
        run.open()
        answer, _, findings = yield from counted(
            x,
            run,
            Given(self.n, self.k, self.steps, 60 * self.budget, self.seed),
            keep_outliers=self.outliers == "keep",
            checks=self.checks,
        )
        where = f" at {stream.site}" if stream.site else ""
        truth = getattr(stream.train, "truth", None)
        sentences = [sentence(answer, x.shape[1]), *answer.reasons]
        if truth is not None:
            sentences.append(f"The world has {truth.n:,} components.")
        return Answer(title=f"{stream.name}{where}: how many features?", findings=findings, sentences=sentences)


def counted(
    x: Tensor,
    run: Run,
    given: Given,
    *,
    keep_outliers: bool = False,
    checks: bool = False,
    place: str = "looks",
) -> Generator[Progress, None, tuple[Combined, Search, Findings]]:
    """The combined answer for rows at hand, and what it rests on.

    Args:
        x: rows; some at most are left out for their norm.
        run: keeps the dictionaries.
        given: settings that are fixed, and the budget.
        keep_outliers: whether rows far beyond the others' norm are kept.
        checks: whether to plant directions and count in twin worlds, where there is an answer (`checks.checked`).
        place: folder of the run.

    Raises:
        ValueError: if there are too few rows, or they hold NaN, are all alike, or have one dimension.
    """
    x, left_out = ordinary(x, keep=keep_outliers)
    learned, held = x[: -len(x) // _HELD_OUT], x[-len(x) // _HELD_OUT :]
    found = yield from search(learned, held, run, given, place=place)
    yield Progress("Asking a counter without dictionaries", 0, 1)
    cumulants = cumulant_rank(x, dimensions=_CUMULANT_DIMENSIONS, seed=given.seed)
    yield Progress("Asking a counter without dictionaries", 1, 1)
    answer = combined(found, x.shape[1], left_out=left_out, beside=cumulants)
    findings = Findings()
    findings.add(measurements(answer, found, len(x)))
    findings.add(cumulants)
    if checks and answer.value is not None:
        more = yield from checked(learned, held, found, answer.value, run, given, place=f"{place}/checks")
        findings.add(more.findings)
        answer = replace(answer, reasons=(*answer.reasons, *more.sentences))
    for look, unexplained in zip(found.looks, found.unexplained, strict=True):
        findings.row(
            "looks",
            n=look.setting.n,
            k=look.setting.k,
            steps=look.setting.steps,
            directions=look.agreed.counted,
            certified=look.certified,
            counted=look.count.counted,
            estimate=look.count.value,
            found=0.0 if math.isnan(look.count.found) else look.count.found,
            share=look.agreed.share,
            explained=look.explained,
            unexplained=unexplained,
            score=look.score,
            plausible=look in found.plausible,
        )
    agreed = found.best.agreed
    findings.rows(
        "features",
        {
            "density": agreed.densities.tolist(),
            "dictionaries": agreed.captures.tolist(),
            "sum_of_two": agreed.sums.tolist(),
            "counted": found.best.kept.tolist(),
        },
    )
    return answer, found, findings


def ordinary(x: Tensor, *, keep: bool = False) -> tuple[Tensor, int]:
    """The rows that can be counted in, and how many were left out for their norm.

    Raises:
        ShapeError: if x is no matrix of two columns or more.
        ValueError: if there are fewer than 3 000 rows, a number that is not finite, or fewer than 1 000 different rows.
    """
    if x.ndim != 2 or x.shape[1] < 2:
        raise ShapeError(f"x has shape {tuple(x.shape)}; give a matrix of one activation a row, of 2 numbers or more.")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("x holds NaN or infinite numbers. Remove those rows first.")
    norms = (x - x.mean(0)).float().norm(dim=1)
    # Of the longest tenth, since where features are rare most rows may be silent and every other one far outside.
    longest = norms.sort().values[-max(len(norms) // 10, 1) :]
    kept = x if keep else x[norms <= outlier_limit(longest)]
    if len(kept) < FEWEST:
        raise ValueError(f"{len(kept):,} rows are too few to count features in: give at least {FEWEST:,}.")
    different = len(torch.unique(kept[: 2 * FEWEST], dim=0))
    if different < 1000:
        raise ValueError(
            f"only {different:,} of the first {min(len(kept), 2 * FEWEST):,} rows differ from each other. Rows "
            "repeated, or constant ones, say nothing of features; give different rows."
        )
    return kept.float(), len(x) - len(kept)


def sentence(answer: Combined, d: int) -> str:
    """The answer in one sentence."""
    if answer.value is None:
        return "How many features there are cannot be said."
    if answer.at_least:
        return f"At least {answer.low:,.0f} features in {d} dimensions; {answer.value:,.0f} were seen."
    against = "more features than dimensions" if answer.low > d else "which may be no more than there are dimensions"
    interval = f"90 % interval {answer.low:,.0f} to {answer.high:,.0f}"
    return f"{answer.value:,.0f} features in {d} dimensions ({interval}): {against}."


def count(
    x: Tensor,
    *,
    budget: float | int = 3.0,
    n: int | None = None,
    k: int | None = None,
    steps: int | None = None,
    checks: bool = False,
    seed: int = 0,
) -> Report:
    """How many features stand behind rows of activations? The report of `CountFeatures` for a tensor.

    Args:
        x: [rows, d], one activation a row; 3 000 rows or more, better 30 000.
        budget: minutes.
        n, k, steps: of the dictionaries; chosen by the procedure where none is given.
        checks: whether to plant known directions and look for them, and to count in twin worlds: three looks more.
        seed: of everything random.

    Returns:
        A report: `report["feature_count"][0]` is the count with its interval; its value is None where nothing can be
        said, and its caution says why.

    Raises:
        ShapeError: if x is no matrix of two columns or more.
        ValueError: if there are too few different rows, or numbers that are not finite.
    """
    settings = {"budget": budget, "n": n, "k": k, "steps": steps, "checks": checks, "seed": seed}
    run = Run.begin("count", settings, None)
    answer, _, findings = result_of(counted(x, run, Given(n, k, steps, 60 * budget, seed), checks=checks))
    return run.finish(
        Answer(
            title=f"{len(x):,} rows in {x.shape[1]} dimensions: how many features?",
            findings=findings,
            sentences=[sentence(answer, x.shape[1]), *answer.reasons],
        )
    )


def _gathered(source: ActivationSource, most: int, seed: int, device: str) -> Tensor:
    """Rows of a source in memory: the first of a matrix in their order, or of a stream in its own."""
    if isinstance(source, MemorySource):
        return source.x[:most].to(device)
    rows = length(source)
    wanted = most if rows is None else min(most, rows)
    return rows_of(source.batches(min(_READ, wanted), seed=seed), wanted).to(device)
