"""Are there circles among the features, and how often does this procedure find them where there are none?"""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from scipy.stats import binomtest, fisher_exact
from torch import Tensor

from ... import capture, measure
from ...capture import MemorySource
from ...core import Answer, Findings, Measurement, Run, Site
from ...dictionaries import SAE, SHORT, TopK, train
from ...dictionaries.sae.base import SAVED
from ...measure.manifolds.captured import captured
from ...measure.manifolds.groups import groups_by_cosine, groups_by_firing, rows_of_group
from ...measure.manifolds.order import ordered
from ...measure.manifolds.plane import Shape, shape
from ...worlds.elliptical import surrogate
from ..learning.stream import Stream, Streamed, length
from ..settings import Count, above, at_least, at_most
from ..study import Progress
from .concepts import CONCEPTS, positions, prompted

_ROWS = 1000
"""Rows of a group that shapes are fitted to, and as many at most that they are judged on."""
_DRAWN = 300
"""Points of a group that are kept to be drawn, of so many circles at most."""
_PICTURES = 24
_SHOWN = 20

DATA, SHUFFLED, MATCHED = "the rows", "coordinates shuffled", "Gaussian of the same covariance"


@dataclass(frozen=True)
class Manifolds(Streamed):
    """Are there circles among the features?

    Without --concepts: a dictionary is learned of the rows, its latents are joined into groups, by the cosines of
    their atoms and by their coming together, and what the others leave of x in a group's span is looked at in the plane
    where discovery rows are roundest. There a ring, and
    clusters on a ring, are held against a line, a mixture and a Gaussian, by the likelihood of other rows. The same is
    done, from the dictionary on, to the rows with each coordinate shuffled and to Gaussian rows of the same covariance,
    where there is no circle: how many are found there stands beside the verdict. With --concepts, a model is given
    prompts with things in an order, and it is asked whether each thing's place is foretold by the others' on a circle.
    SOURCE as for `superscope train`.
    """

    kind: ClassVar[str] = "manifolds"

    concepts: tuple[Literal["weekdays", "months", "digits", "letters", "positions"], ...] = ()
    """Things in an order to ask a model for, in place of learning a dictionary."""
    n: Count | None = None
    """Latents. Default: 8 for each dimension."""
    k: Count | None = None
    """Active latents in a row. Default: as many as are truly active in a world, else d / 8, 32 at most."""
    steps: Count = 800
    """Training steps of each of three dictionaries."""
    batch: Annotated[int, at_least(2)] = 1024
    """Rows in one step."""
    cosine: Annotated[float, above(0), at_most(1)] = 0.5
    """From which two atoms are joined into a group."""
    correlation: Annotated[float, above(0), at_most(1)] = 0.1
    """From which two latents' being on joins them into a group, the other way of grouping."""
    groups: Count = 200
    """Groups to look at in each of the three, those with most rows first."""

    def learning(self, d: int) -> tuple[int, float]:
        return self.n or 8 * d, self.steps * self.batch / self.tokens

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        if self.concepts:
            return (yield from self._named(run))
        yield Progress(f"Opening {self.source}", 0, 1)
        stream = self.open_stream()
        d = stream.train.d
        if d < 3:
            raise ValueError(f"{stream.name} has d = {d}; a plane among others needs rows of at least 3 numbers.")
        n = self.n or 8 * d
        k = min(self.k or (max(round(stream.l0), 2) if stream.l0 else min(max(d // 8, 2), 32)), n)
        rows = {
            DATA: (_gathered(stream, self.tokens, self.seed), _gathered(stream, self.held_out, self.seed, held=True))
        }
        learned, held = rows[DATA]
        yield Progress(f"Opening {self.source}", 1, 1, f"{len(learned):,} rows of {d} numbers")
        run.open()
        random = torch.Generator().manual_seed(self.seed)
        rows[SHUFFLED] = (_shuffled(learned, random), _shuffled(held, random))
        gaussian = surrogate(MemorySource(learned), rows=len(learned), seed=self.seed)
        first, second = (gaussian.draw(len(part), generator=random).x for part in (learned, held))
        rows[MATCHED] = (first, second)
        findings, shapes = Findings(), {}
        points: list[dict[str, Any]] = []
        saes: dict[str, SAE] = {}
        for number, (name, (train_rows, test_rows)) in enumerate(rows.items()):
            sae = yield from self._learned(train_rows, n, k, number, name, run)
            shapes[name] = yield from self._shapes(sae, train_rows, test_rows, number, name, findings, points)
            saes[name] = sae
        findings.add(_rates(shapes))
        sentences = list(_sentences(findings, shapes))
        truth = getattr(stream.train, "truth", None)
        if truth is not None and truth.n and int(truth.dimensions.max()) > 1 and stream.l0 is not None:
            made = captured(saes[DATA], stream.held_out, truth, batches=4, seed=self.seed)
            findings.add(made.measurements)
            recall = _recovered(truth, shapes[DATA])
            findings.add(recall)
            sentences.append(
                f"Of the world's {recall.n:,} planes {(recall.value or 0):.0%} hold a circle that was found."
            )
        if points:
            findings.rows("points", {name: [row[name] for row in points] for name in points[0]})
        at = f" at {stream.site}" if stream.site else ""
        return Answer(title=f"{stream.name}{at}: are there circles?", findings=findings, sentences=sentences)

    def _learned(
        self, rows: Tensor, n: int, k: int, number: int, name: str, run: Run
    ) -> Generator[Progress, None, SAE]:
        stage, total = "Learning dictionaries", 3 * self.steps
        folder = f"saes/{number}"
        if run.has(*(f"{folder}/{part}" for part in SAVED)):
            yield Progress(stage, (number + 1) * self.steps, total, "taken from the interrupted run", resumed=True)
            return TopK.load(run / folder)
        sae = TopK(d=rows.shape[1], n=n, k=k, seed=self.seed).to(self.device)
        source = MemorySource(rows.to(self.device))
        yield Progress(stage, number * self.steps, total, name)
        settings: dict[str, Any] = {**SHORT, "batch": min(self.batch, len(rows)), "seed": self.seed}
        for step in train(sae, source, steps=self.steps, **settings):
            if step.index % _SHOWN == 0:
                unexplained = step.numbers["fraction_variance_unexplained"]
                detail = f"{name}: {unexplained:.1%} of variance unexplained"
                yield Progress(stage, number * self.steps + step.index, total, detail)
        sae = sae.to("cpu")
        run.keep(folder, functools.partial(sae.save, notes={"source": self.source, "rows": name}), SAVED)
        return sae

    def _shapes(
        self,
        sae: SAE,
        learned: Tensor,
        held: Tensor,
        number: int,
        name: str,
        findings: Findings,
        points: list[dict[str, Any]],
    ) -> Generator[Progress, None, list[tuple[tuple[int, ...], Shape, Tensor]]]:
        """Every group's shape: the same steps for the rows and for their controls."""
        stage = "Looking at groups"
        with torch.no_grad():
            codes = [sae.encode(rows) for rows in (learned, held)]
        fires = codes[0].uses
        ways = {
            "cosine": groups_by_cosine(sae.dictionary, fires > 0, cosine=self.cosine),
            "firing": groups_by_firing(codes[0], correlation=self.correlation),
        }
        by = {group: way for way, several in ways.items() for group in several}
        groups = sorted(by, key=lambda group: -int(fires[list(group)].sum()))[: self.groups]
        found = []
        total = 3 * max(len(groups), 1)
        yield Progress(stage, number * max(len(groups), 1), total, name)
        for index, group in enumerate(groups):
            discovery, basis = rows_of_group(sae, learned, codes[0], group, most=_ROWS)
            test, _ = rows_of_group(sae, held, codes[1], group, most=_ROWS)
            seen = shape(discovery, test, seed=self.seed)
            found.append((group, seen, basis))
            findings.row(
                "groups",
                rows=name,
                group=index,
                joined_by=by[group],
                latents=list(group),
                n=len(test),
                verdict=seen.verdict,
                clusters=seen.clusters,
                dimensions=seen.dimensions,
                components=list(seen.components),
                roundness=seen.roundness,
                outside=seen.outside,
                mixture_index=seen.mixture,
                separability_index=seen.separability,
                gain=None if seen.contest is None else seen.contest.gain,
                error=None if seen.contest is None else seen.contest.error,
                **{
                    f"nats_{one.replace(' ', '_')}": None if seen.contest is None else seen.contest.nats[one]
                    for one in ("ring", "clusters on a ring", "line", "mixture", "blob")
                },
            )
            drawn = sum(other.is_circular for _, other, _ in found)
            if seen.is_circular and seen.points is not None and drawn <= _PICTURES:
                points += [
                    {"rows": name, "group": index, "x": float(x), "y": float(y)} for x, y in seen.points[:_DRAWN]
                ]
            yield Progress(stage, number * len(groups) + index + 1, total, f"{name}: {seen.verdict}")
        return found

    def _named(self, run: Run) -> Generator[Progress, None, Answer]:
        """Things in an order, by prompts or positions."""
        total = len(self.concepts)
        yield Progress("Reading prompts", 0, total)
        loaded = capture.load(self.source, device=self.device)
        asked = self.site or f"resid_post.{(len(capture.blocks(loaded.model)) - 1) // 2}"
        site, *more = capture.name_sites(loaded.model, (asked,)).values()
        if more:
            raise ValueError(f"{asked} names {1 + len(more)} sites; things are read at one. Give one with --site.")
        run.open()
        findings = Findings()
        sentences = []
        for done, name in enumerate(self.concepts):
            if name == "positions":
                limit = min(self.tokens, 100_000)
                corpus = capture.tokens(
                    loaded.tokenizer, capture.documents(self.text), context=self.context, limit=limit, seed=self.seed
                )
                x = positions(loaded, site, corpus)
            else:
                x = prompted(loaded, site, CONCEPTS[name])
            verdict, sentence = in_order(x, name, site, findings, self.seed)
            sentences.append(sentence)
            yield Progress("Reading prompts", done + 1, total, f"{name}: {verdict}")
        return Answer(
            title=f"{loaded.name} at {site}: do things in an order lie on circles?",
            findings=findings,
            sentences=sentences,
        )


def in_order(x: Tensor, name: str, site: Site, findings: Findings, seed: int) -> tuple[str, str]:
    """Asks whether things lie on a circle in their order: adds what was found; the verdict, and a sentence with it.

    Args:
        x: [contexts, things, d], as `concepts.prompted` and `concepts.positions` give it.
        name: of the things.
        site: where they were read.
        findings: to add measurements and places of things to.
        seed: of orders drawn at random and of the bootstrap.
    """
    seen = ordered(x, name=name, seed=seed)
    findings.add(seen.measurements, at={"site": str(site)})
    things = CONCEPTS[name].things if name in CONCEPTS else tuple(map(str, range(x.shape[1])))
    for thing, (u, v) in zip(things, seen.plane.tolist(), strict=True):
        findings.row("things", concept=name, thing=thing, x=u, y=v)
    false = findings["false_circle_rate", name, "orders drawn at random"]
    best = max(seen.foretold, key=seen.foretold.__getitem__)
    return seen.verdict, (
        f"{name.capitalize()} ({x.shape[1]} in {len(x)} contexts): {seen.verdict}. A circle foretells "
        f"{seen.foretold['circle']:.0%} of a thing's place, a line {seen.foretold['line']:.0%}, a bent line "
        f"{seen.foretold['bent line']:.0%} (best: {best}; p = {seen.p:.3g}); of orders drawn at random the "
        f"same procedure calls {(false.value or 0):.0%} of {false.n} circles."
    )


def _gathered(stream: Stream, most: int, seed: int, *, held: bool = False) -> Tensor:
    source = stream.held_out if held else stream.train
    if isinstance(source, MemorySource):
        return source.x[:most].float().cpu()
    rows = length(source)
    wanted = most if rows is None else min(most, rows)
    # Worlds never end: rows to be judged on are of another seed.
    batches = source.batches(min(8192, wanted), seed=seed + 1_000_003 * held)
    parts: list[Tensor] = []
    for batch in batches:
        parts.append(batch.x.float().cpu())
        if sum(map(len, parts)) >= wanted:
            break
    return torch.cat(parts)[:wanted]


def _shuffled(x: Tensor, random: torch.Generator) -> Tensor:
    """Each coordinate in an order of its own."""
    order = torch.rand(x.shape, generator=random).argsort(0)
    return x.gather(0, order)


def _counted(shapes: list[tuple[tuple[int, ...], Shape, Tensor]]) -> tuple[int, int]:
    judged = [seen for _, seen, _ in shapes if seen.verdict != "too few rows"]
    return sum(seen.is_circular for seen in judged), len(judged)


def _rates(shapes: dict[str, list[tuple[tuple[int, ...], Shape, Tensor]]]) -> Iterator[Measurement]:
    counts = {name: _counted(found) for name, found in shapes.items()}
    circles, judged = counts[DATA]
    hits, of = (counts[SHUFFLED][at] + counts[MATCHED][at] for at in (0, 1))
    expected = hits / of * judged if of else None
    yield Measurement(
        name="circular_groups",
        value=float(circles),
        unit="groups of latents",
        n=judged,
        of="groups with enough rows",
        how="no interval: a count; see the rates of the controls",
        chance=expected,
        chance_is="as many groups at the false-circle rate of the two controls together" if of else "",
        caution="" if judged else "no group of latents has enough rows",
    )
    for name in (SHUFFLED, MATCHED):
        hits, of = counts[name]
        rate: dict[str, Any] = {
            "value": None,
            "caution": "the dictionary of the control has no groups with enough rows",
        }
        if of:
            rate = {"value": hits / of, **measure.wilson(hits, of, of="groups of the control").fields}
        yield Measurement(
            name="false_circle_rate",
            unit="share of groups",
            n=of,
            of="groups of the control",
            at={"control": name},
            **rate,
        )


def _sentences(findings: Findings, shapes: dict[str, list[tuple[tuple[int, ...], Shape, Tensor]]]) -> Iterator[str]:
    circles, judged = _counted(shapes[DATA])
    if not judged:
        yield "No: no group of latents has enough rows, so no feature of several dimensions is seen."
        return
    false = [_counted(shapes[name]) for name in (SHUFFLED, MATCHED)]
    hits, of = (sum(counts) for counts in zip(*false, strict=True))
    # More circles than a control's, since each was given as many rows; and more of the groups, since groups may be few.
    most = max(hits for hits, _ in false)
    p = float(binomtest(circles, circles + most, 0.5, alternative="greater").pvalue) if circles else 1.0
    if of:
        p = max(p, float(fisher_exact([[circles, judged - circles], [hits, of - hits]], alternative="greater").pvalue))
    said = "Yes" if circles and p < 0.05 else "No"
    why = "more than in the controls" if said == "Yes" else "no more than false ones would be"
    yield f"{said}: {circles:,} of {judged:,} groups of latents write a circle, {why} (p = {p:.2g})."
    for name in (SHUFFLED, MATCHED):
        hits, of = _counted(shapes[name])
        yield f"Of {name}, the same procedure calls {hits:,} of {of:,} groups circles, and all of them are false."
    counts: dict[str, int] = {}
    for _, seen, _ in shapes[DATA]:
        counts[seen.verdict] = counts.get(seen.verdict, 0) + 1
    yield "Verdicts: " + ", ".join(f"{number:,} {verdict}" for verdict, number in sorted(counts.items())) + "."


def _recovered(truth: Any, shapes: list[tuple[tuple[int, ...], Shape, Tensor]]) -> Measurement:
    """Planted planes in which a circle was found: the plane found lies in them by 80 % or more."""
    planes = (truth.dimensions == 2).nonzero().flatten().tolist()
    circles = [
        torch.linalg.qr((seen.basis.T @ basis).T).Q
        for _, seen, basis in shapes
        if seen.is_circular and seen.basis is not None
    ]
    hits = 0
    for component in planes:
        own = torch.linalg.qr(truth.dictionary.atoms[truth.component == component].double().T).Q
        hits += any(float((own.T @ circle).square().sum()) / 2 > 0.8 for circle in circles)
    n = max(len(planes), 1)
    return Measurement(
        name="planes_found",
        value=hits / n,
        unit="share of the world's planes",
        n=len(planes),
        of="planes",
        reference=1.0,
        reference_is="all of them",
        **measure.wilson(hits, n, of="planes").fields,
    )
