"""How many active features can be found again on this very dictionary, beside what theory says of random ones?"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
import tyro
from jaxtyping import Float
from scipy.stats import binomtest
from torch import Tensor

from ... import measure, recovery, theory
from ...core import Answer, Dictionary, Findings, Measurement, Run, SparseCode, files
from ...recovery import RecoveryCoder
from ..arguments import pick
from ..settings import Count, at_least
from ..study import Progress, Study
from .dictionary_file import DUPLICATE, DictionaryFile, RowMeaning, read_codes, read_dictionary

Magnitudes = Literal["uniform", "equal", "exponential"]
_SOLVERS = {solver.__name__: solver for solver in recovery.SOLVERS}

_ZEROS = 2
"""Sizes in a row without one success, after which larger ones are not tried."""

_UNFINISHED = "unfinished.json"
"""File of a run folder that holds the sizes done so far; removed when the run is finished."""


@dataclass(frozen=True)
class Recover(Study):
    """How many active features can be found again on this dictionary?

    Composes x = W f from known sparse codes without noise, solves for f, and counts exact supports for each k: beside
    the Donoho-Tanner threshold of random dictionaries and what coherence guarantees. Atoms are normalised first.
    """

    kind: ClassVar[str] = "recover"

    dictionary: Annotated[str, tyro.conf.Positional]
    """Folder of a saved SAE, a .safetensors or .npy matrix, or pocket:unembedding."""
    tensor: str | None = None
    """Which tensor of a .safetensors file; its only matrix without it."""
    rows_are: RowMeaning | None = None
    """What a row of the matrix is. Default: an atom, if there are at least as many rows as columns."""
    solver: Annotated[str, tyro.conf.arg(metavar=f"{{best,{','.join(_SOLVERS)}}}")] = "best"
    """Solver; "best" takes the one that suits the middle of the ks, and says why."""
    ks: tuple[Count, ...] = ()
    """Active features to try. Default: about twelve, up to 1.4 times the Donoho-Tanner threshold."""
    trials: Count = 100
    """Codes for each k."""
    signed: bool = False
    """Let features be of either sign; without it they are nonnegative, as SAE latents are, and solvers may know it."""
    magnitudes: Magnitudes = "uniform"
    """Law of active features: uniform on [0.5, 1.5], all equal, or exponential. Greedy and one-step solvers depend on
    it, in opposite directions; basis pursuit does not."""
    tokens: Annotated[int, at_least(0)] = 0
    """Also take supports and magnitudes from an SAE's own codes of so many tokens; 0 does not."""
    text: str | None = None
    """Text for these: a file, a folder, or `datasets:NAME`. Default: the text every Python carries."""
    seed: int = 0
    """Of codes and text."""

    def check(self) -> None:
        if self.solver != "best" and not pick(self.solver, _SOLVERS, "solver").signed and self.signed:
            raise ValueError(
                f"{self.solver} finds nonnegative features only. Leave out --signed, or take --solver OMP."
            )

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        yield Progress("Reading the dictionary", 0, 1)
        found = read_dictionary(self.dictionary, tensor=self.tensor, rows=self.rows_are)
        W = Dictionary(found.dictionary.unit().atoms)
        limit = min(W.n - 1, W.d)
        for k in self.ks:
            if k > limit:
                raise ValueError(
                    f"k = {k} cannot be found again among n = {W.n} atoms in d = {W.d} dimensions: no reader goes "
                    f"beyond {limit}. Give smaller --ks."
                )
        predicted = predicted_count(W.n, W.d, nonnegative=not self.signed)
        ks = self.ks or grid(predicted, limit)
        sources: dict[str, tuple[CodeSource, Sequence[int]]] = {
            "random": (random_codes(W.n, self.magnitudes, signed=self.signed), ks)
        }
        if self.tokens:
            yield Progress("Reading codes of data", 0, 1)
            code = read_codes(found, tokens=self.tokens, text=self.text, seed=self.seed)[1]
            sources["data"] = (data_codes(code), self.ks or [k for k in data_grid(code) if k <= limit])
        name, reason = self.solver, ""
        if self.solver == "best":
            choice = recovery.best_for(W, sorted(ks)[len(ks) // 2], nonnegative=not self.signed)
            name, reason = type(choice.solver).__name__, choice.reason
        # For each kind of supports its rows and the state of its generator.
        kept: dict[str, Any] = run.kept(_UNFINISHED, files.read_json) or {}
        run.drop(_UNFINISHED)
        rows: list[dict[str, Any]] = []
        stages = {supports: f"Recovering with {name}, {supports} supports" for supports in sources}
        ahead = {stages[supports]: float(len(sizes)) for supports, (_, sizes) in sources.items()}
        for supports, (source, sizes) in sources.items():
            generator = torch.Generator().manual_seed(self.seed)
            stage = stages[supports]
            own: list[dict[str, Any]] = []
            if supports in kept:
                own = kept[supports]["rows"]
                generator.set_state(torch.tensor(list(bytes.fromhex(kept[supports]["generator"])), dtype=torch.uint8))
            taken = "taken from the interrupted run" if own else ""
            yield Progress(stage, len(own), len(sizes), taken, resumed=bool(own), ahead=ahead)
            for row in success_curve(
                W,
                name,
                sorted(sizes),
                source,
                trials=self.trials,
                nonnegative=not self.signed,
                generator=generator,
                before=own,
            ):
                own = [*own, row]
                # The generator's state too, so that what is resumed draws the codes it would have drawn.
                kept[supports] = {"rows": own, "generator": bytes(generator.get_state().tolist()).hex()}
                run.keep(_UNFINISHED, lambda path: files.write_json(path, kept))
                yield Progress(stage, len(own), len(sizes), f"k = {row['k']}: {row['share']:.0%} found")
            rows += [{"supports": supports} | row for row in own]
        return self._report(found, W, name, reason, predicted, rows)

    def _report(
        self,
        found: DictionaryFile,
        W: Dictionary,
        name: str,
        reason: str,
        predicted: float,
        rows: list[dict[str, Any]],
    ) -> Answer:
        mu = measure.coherence(W)
        guarantee = min(theory.coherence_guarantee(mu.value or 0.0), W.n)
        caution = "; ".join(found.cautions)
        measurements = [mu, guaranteed(mu, W)]
        findings = [f"Solver: {name}. {reason}" if reason else f"Solver: {name}, as asked."]
        for supports in dict.fromkeys(row["supports"] for row in rows):
            own = [row for row in rows if row["supports"] == supports]
            threshold = half_point(own, caution=caution)
            threshold = with_chance(threshold, name, W, self.magnitudes, nonnegative=not self.signed)
            measurements.append(threshold.at_site(supports=supports, solver=name))
            if threshold.value is not None:
                findings.append(
                    f"With {supports} supports, half of all codes are found exactly at k = {threshold.value:.0f}; "
                    f"{threshold.chance_is}: {threshold.chance:.0f}."
                )
            else:
                findings.append(f"With {supports} supports: {threshold.caution}.")
            measurements += [row_measurement(row, W.n) for row in own]
        findings.append(
            f"Coherence {mu.value:.3f} guarantees k = {guarantee}: a worst case, far below what is typical."
            if (mu.value or 0) < DUPLICATE
            else "Two atoms are the same up to sign and length: no reader can tell them apart, and coherence "
            "guarantees k = 1."
        )
        columns = ("supports", "solver", "k", "trials", "successes", "share", "low", "high", "converged")
        return Answer(
            title=f"Recovery on {found.origin}: n = {W.n:,} atoms, d = {W.d:,}",
            findings=Findings(
                measurements,
                {
                    "recovery": {column: [row[column] for row in rows] for column in columns},
                    "predictions": predictions(W, guarantee),
                },
            ),
            sentences=tuple(findings),
        )


CodeSource = Callable[[int, int, torch.Generator], SparseCode | None]
"""k, rows and a generator to codes of exactly k nonzeros; None where there are none."""


def random_codes(n: int, magnitudes: Magnitudes, *, signed: bool) -> CodeSource:
    """Every set of k features equally likely, magnitudes drawn independently."""

    def draw(k: int, rows: int, generator: torch.Generator) -> SparseCode:
        indices = torch.rand(rows, n, generator=generator).topk(k, dim=1).indices
        uniform = torch.rand(rows, k, generator=generator)
        if magnitudes == "uniform":
            values = 0.5 + uniform
        elif magnitudes == "equal":
            values = torch.ones(rows, k)
        else:
            # Bounded away from 0: a feature of magnitude 0 is not active.
            values = -torch.log1p(-uniform) + 1e-6
        if signed:
            values = values * (2 * torch.randint(0, 2, (rows, k), generator=generator) - 1)
        return SparseCode(values, indices, n)

    return draw


def data_codes(code: SparseCode) -> CodeSource:
    """Rows of a given code that have at least k nonzeros, cut to their k largest."""
    active = code.l0

    def draw(k: int, rows: int, generator: torch.Generator) -> SparseCode | None:
        fitting = (active >= k).nonzero()[:, 0]
        if len(fitting) == 0:
            return None
        chosen = fitting[torch.randperm(len(fitting), generator=generator)[:rows]]
        part = code[chosen]
        largest = part.values.abs().topk(k, dim=1).indices
        values = part.values.gather(1, largest)
        return SparseCode(values / values.abs().mean(), part.indices.gather(1, largest), code.n)

    return draw


def data_grid(code: SparseCode) -> tuple[int, ...]:
    """About six sizes up to the largest support of the codes: beyond it data say nothing."""
    most = int(code.l0.max()) if len(code) else 0
    return tuple(sorted({max(1, round(share * most)) for share in (0.125, 0.25, 0.5, 0.75, 0.9, 1.0)})) if most else ()


def found_exactly(answer: Float[Tensor, "rows n"], truth: SparseCode) -> Tensor:
    """Whether the k largest magnitudes of each answer are the k active features; least squares then gives f itself."""
    k = truth.k
    largest = answer.abs().topk(k, dim=1)
    hits = answer.new_zeros(answer.shape).scatter_(1, truth.indices, 1.0).gather(1, largest.indices)
    return (hits == 1).all(1) & (largest.values[:, -1] > 0)


def success_curve(
    W: Dictionary,
    name: str,
    ks: Sequence[int],
    source: CodeSource,
    *,
    trials: int,
    nonnegative: bool,
    generator: torch.Generator,
    before: Sequence[dict[str, Any]] = (),
) -> Iterator[dict[str, Any]]:
    """For each k the share of codes whose support is found exactly, with a Wilson interval.

    Sizes after two in a row without any success are not tried. `before` are the rows of the first ks, if they are
    known already; the generator must then be where it was after them.
    """
    solver: RecoveryCoder | None = None
    zeros = 0
    for row in before:
        zeros = 0 if row["successes"] else zeros + 1
    for k in ks[len(before) :]:
        if zeros == _ZEROS:
            return
        truth = source(k, trials, generator)
        if truth is None:
            return
        truth = SparseCode(truth.values.to(W.atoms.dtype), truth.indices, truth.n)
        # Solvers that are not told k keep what they prepared (a Gram matrix, a pseudo-inverse) from size to size.
        if solver is None or hasattr(solver, "k"):
            solver = pick(name, _SOLVERS, "solver").suited(W, k, nonnegative=nonnegative)
        solution = solver.solve(W.compose(truth))
        successes = int(found_exactly(solution.code.dense(), truth).sum())
        rows = len(truth)
        interval = binomtest(successes, rows).proportion_ci(0.95, method="wilson")
        yield {
            "solver": name,
            "k": k,
            "trials": rows,
            "successes": successes,
            "share": successes / rows,
            "low": float(interval.low),
            "high": float(interval.high),
            "converged": float(solution.converged.double().mean()),
        }
        zeros = 0 if successes else zeros + 1


def grid(predicted: float, limit: int) -> tuple[int, ...]:
    """About twelve sizes, half of them near the prediction, none beyond `limit`."""
    shares = (0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4)
    return tuple(sorted({min(max(1, round(share * predicted)), limit) for share in shares}))


def predicted_count(n: int, d: int, *, nonnegative: bool) -> float:
    """The weak Donoho-Tanner threshold; independent atoms (n <= d) are all found."""
    return float(n) if n <= d else theory.weak_count(n, d, nonnegative=nonnegative)


def predictions(W: Dictionary, guarantee: int) -> dict[str, list[Any]]:
    """What theory says of n and d, and coherence of this dictionary, as columns."""
    rows: list[tuple[str, float]] = [("coherence guarantee", float(guarantee))]
    if W.n > W.d:
        rows += [
            ("one-step read-out, equal magnitudes", float(theory.readout_threshold(W.n, W.d))),
            ("Donoho-Tanner strong", theory.strong_count(W.n, W.d)),
            ("Donoho-Tanner weak", theory.weak_count(W.n, W.d)),
            ("Donoho-Tanner weak, nonnegative", theory.weak_count(W.n, W.d, nonnegative=True)),
        ]
    return {"criterion": [name for name, _ in rows], "k": [k for _, k in rows]}


def guaranteed(mu: Measurement, W: Dictionary) -> Measurement:
    """The k that a measured coherence guarantees, beside the most that any coherence could."""
    best = theory.best_lower_bound(W.n, W.d).value
    return Measurement(
        name="coherence_guarantee",
        value=float(min(theory.coherence_guarantee(mu.value or 0.0), W.n)),
        unit="active features",
        n=W.n,
        of="atoms",
        how="no interval: a theorem",
        reference=float(min(theory.coherence_guarantee(best), W.n)),
        reference_is="best coherence there could be",
        chance=float(min(theory.coherence_guarantee(theory.random_coherence(W.n, W.d)), W.n)),
        chance_is="random dictionary",
        caution="a worst case that data never meet; no capacity",
    )


def half_point(rows: Sequence[dict[str, Any]], *, caution: str = "") -> Measurement:
    """The k at which half of the codes are found, between sizes by straight lines.

    Its interval runs from the first k whose Wilson interval reaches down to 1/2 to the last one whose reaches up to it.
    """
    value, low, high = None, None, None
    for before, after in itertools.pairwise(rows):
        if before["share"] >= 0.5 > after["share"]:
            drop = before["share"] - after["share"]
            value = before["k"] + (before["share"] - 0.5) / drop * (after["k"] - before["k"])
    if value is not None:
        above = [row["k"] for row in rows if row["low"] > 0.5 and row["k"] <= value]
        below = [row["k"] for row in rows if row["high"] < 0.5 and row["k"] >= value]
        low, high = (float(max(above)), float(min(below))) if above and below else (None, None)
        why = ""
    elif not rows:
        why = "no code had so many active features"
    elif rows[0]["share"] < 0.5:
        why = f"fewer than half of the codes are found already at the smallest size, k = {rows[0]['k']}"
    else:
        why = f"at least half of the codes are still found at the largest size tried, k = {rows[-1]['k']}"
    # Beyond the threshold there is often nothing to converge to; up to it a solver that gave up is the likelier reason.
    judged = [row for row in rows if value is None or row["k"] <= value * 1.1]
    unfinished = max((1 - row["converged"] for row in judged), default=0.0)
    if unfinished > 0.05:
        why += f"{'; ' if why else ''}up to {unfinished:.0%} of rows at one k did not converge"
    return Measurement(
        name="recovery_threshold",
        value=value,
        unit="active features",
        n=sum(row["trials"] for row in rows),
        of="codes",
        low=low,
        high=high,
        how="between sizes whose 95 % Wilson interval excludes 1/2"
        if low is not None
        else "no interval: too few sizes or codes",
        caution="; ".join(text for text in (why, caution) if text),
    )


def with_chance(threshold: Measurement, name: str, W: Dictionary, magnitudes: str, *, nonnegative: bool) -> Measurement:
    """The same with what a random dictionary of n and d gives: one-step theory for one-step readers, else l1's."""
    if pick(name, _SOLVERS, "solver").one_step and W.n > W.d:
        chance, label = float(theory.readout_threshold(W.n, W.d)), "random dictionary, equal magnitudes, one step"
    else:
        chance = predicted_count(W.n, W.d, nonnegative=nonnegative)
        label = f"random dictionary, {'nonnegative ' if nonnegative else ''}l1 (Donoho-Tanner)"
    return dataclasses.replace(threshold, chance=chance, chance_is=label)


def row_measurement(row: dict[str, Any], n: int) -> Measurement:
    """One point of a success curve."""
    unfinished = row["converged"] < 0.99
    return Measurement(
        name="supports_found",
        value=row["share"],
        unit="share of codes",
        n=row["trials"],
        of="codes",
        low=row["low"],
        high=row["high"],
        how="95 % Wilson interval",
        reference=1.0,
        reference_is="all",
        chance=math.exp(-_log_choose(n, row["k"])),
        chance_is="a guess",
        at={"k": row["k"], "supports": row["supports"], "solver": row["solver"]},
        caution=f"{1 - row['converged']:.0%} of rows did not converge" if unfinished else "",
    )


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
