"""How much can an edit spare the other features, and how much of that do ours reach? Over worlds that are known."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Annotated, ClassVar

import torch
import tyro
from jaxtyping import Float64
from torch import Tensor

from ... import measure
from ...core import Activations, Answer, Findings, Measurement, Run
from ...intervene import collateral
from ...intervene.edits import Edit, Least, MeanAblate, ProjectOut, Scale, over_floor
from ...intervene.gates import Lmmse
from ...measure.interval import Interval
from ...worlds import World
from ..learning.stream import open_world
from ..settings import Count, at_least
from ..study import Progress, Study

KNOWN: tuple[str, ...] = (
    "uniform:n=48,d=24,l0=2.5",
    "uniform:n=96,d=24,l0=2.5",
    "uniform:n=256,d=64,l0=2.5",
    "uniform:n=512,d=64,l0=4",
    "zipf:n=48,d=24,l0=2.5",
    "zipf:n=96,d=24,l0=2.5",
    "zipf:n=256,d=64,l0=2.5",
    "zipf:n=96,d=24,l0=2.5,alpha=1.2",
    "zipf:n=256,d=64,l0=2.5,alpha=1.2",
    "log_uniform:n=96,d=24,l0=2.5",
    "magnitudes:n=96,d=24,l0=2.5",
    "coherent:n=96,d=24,l0=2.5",
    "noise:n=96,d=24,l0=2.5",
    "copula:n=48,d=24,l0=2.5",
    "copula:n=96,d=24,l0=2.5",
    "copula:n=256,d=64,l0=2.5",
    "hierarchy:n=48,d=24,l0=2.5",
    "hierarchy:n=96,d=24,l0=2.5",
    "gated:n=48,d=24,l0=2.5",
    "gated:n=96,d=24,l0=2.5",
    "toy_networks:n=32,d=12,l0=1",
    "toy_networks:n=48,d=16,l0=1",
    "toy_networks:n=64,d=16,l0=1",
    "toy_networks:n=32,d=12,l0=2",
)
"""Independent, Zipf, correlated, hierarchical worlds and toy networks, from twice to eight times as many features as
dimensions."""

_TRUTH = 100_000
_RARE = 100
"""Rows with the feature, among those that edits are fitted on, below which it is not edited."""
_MOST = 10_000.0
"""Sparing is not told beyond this: a gate that never opens falsely disturbs nothing."""
_FLAT = 1.05
"""Attainable gain below which plain addition is as good as the best, so that a share of nothing is not counted."""

GOALS: Mapping[str, tuple[float, bool]] = {
    "gain_reached": (0.8, True),
    "rho_known": (1.02, False),
    "rho_estimated": (1.25, False),
    "absent_sparing": (4.0, True),
    "present_cost": (1.5, False),
}
"""What the median over worlds is to be, and whether it is to be at least so much or at most."""


@dataclass(frozen=True)
class Spare(Study):
    """How much can an edit spare the other features?

    In worlds whose directions and frequencies are known: what the best constant vector gains over plain addition of the
    feature's direction, how much of it is reached with the metric known and with one estimated from rows, and what a
    gated ablation disturbs against orthogonal projection at equal effect, where the feature is absent and where it is
    present, each also over the floor: what oracle LEACE changes that is told the feature's value. The network is taken
    to read features by their own directions; what becomes of the edit where it reads otherwise is said beside it.
    """

    kind: ClassVar[str] = "spare"

    worlds: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Worlds, as in zipf:n=96,d=24,alpha=1.2; without any, 24 of them."""
    features: Count = 8
    """Features to edit in each world, spread over their densities."""
    rows: Annotated[int, at_least(1000)] = 20_000
    """Rows that metrics, gates and strengths are fitted on, and as many that edits are measured on."""
    seed: int = 0
    """Of the rows."""

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        named = self.worlds or KNOWN
        findings = Findings()
        for done, name in enumerate(named):
            yield Progress("Editing known worlds", done, len(named), name)
            rows = self._edited(name, opened(name))
            for row in rows:
                findings.row("edits", world=name, **row)
            findings.add(_of_world(rows), at={"world": name})
        yield Progress("Editing known worlds", len(named), len(named))
        overall = tuple(_overall(findings, len(named)))
        findings.measurements[:0] = overall
        return Answer(
            title=f"Edits that spare other features, in {len(named)} known worlds",
            findings=findings,
            sentences=tuple(_sentences(overall)),
        )

    def _edited(self, name: str, world: World) -> list[dict[str, float]]:
        """One row for each edited feature."""
        draw = lambda rows, seed: world.draw(rows, generator=torch.Generator(world.device).manual_seed(seed))  # noqa: E731
        first = 4 * self.seed
        truth = _dense(draw(_TRUTH, first + 1))[1]
        power = truth.square().mean(0)
        fitted, held = _dense(draw(self.rows, first + 2)), _dense(draw(self.rows, first + 3))
        chosen = _spread(world, (fitted[1] != 0).sum(0), self.features)
        if not chosen:
            raise ValueError(
                f"{name}: no feature is present in {_RARE} of {self.rows:,} rows, so that none can be edited and "
                "measured. Give more rows, or a denser world."
            )
        atoms = world.dictionary.atoms.double()
        return [
            {"feature": float(i)} | _constant(atoms, power, i, fitted) | _gated(atoms, i, fitted, held) for i in chosen
        ]


def opened(name: str) -> World:
    """The world that a name with its numbers stands for, zipf:n=96,d=24.

    Raises:
        ValueError: if there is none, or it is not one whose rows are composed of features.
    """
    kind, _, numbers = name.partition(":")
    world = open_world(kind, [pair for pair in numbers.split(",") if pair])
    if not isinstance(world, World):
        raise ValueError(f"{name}: its rows are not features times directions alone, so edits have no truth there.")
    return world


Rows = tuple[Float64[Tensor, "rows d"], Float64[Tensor, "rows n"]]


def _dense(batch: Activations) -> Rows:
    assert batch.code is not None
    return batch.x.double(), batch.code.dense().double()


def _spread(world: World, present: Tensor, count: int) -> list[int]:
    """Features that are to be found and present often enough, evenly over the ranks of their densities."""
    found = torch.ones(world.n, dtype=torch.bool) if world.component is None else world.component.cpu() >= 0
    able = (found & (present.cpu() >= _RARE)).nonzero()[:, 0]
    able = able[present.cpu()[able].argsort(descending=True)]
    places = torch.linspace(0, len(able) - 1, min(count, len(able))).round().long()
    return able[places].tolist() if len(able) else []


def _constant(atoms: Tensor, power: Tensor, i: int, fitted: Rows) -> dict[str, float]:
    """What constant vectors cost the other features' read-outs, over the least possible."""
    a, (x, f) = atoms[i], fitted
    known = collateral.interference(atoms, power, leave_out=i)
    ours = Least(a, collateral.second_moment(x, centred=True)).direction
    plain, reached = collateral.rho(a, a, known), collateral.rho(ours, a, known)
    # What the same vectors cost where the network reads by the estimates of least error.
    centred, codes = x - x.mean(0), f - f.mean(0)
    reads = torch.linalg.lstsq(centred, codes, driver="gelsd").solution.T
    other = collateral.interference(reads, power, leave_out=i)
    return {
        "attainable_gain": plain,
        "rho_known": collateral.rho(Least(a, known).direction, a, known),
        "rho_estimated": reached,
        "gain_reached": 1 - math.log(reached) / math.log(plain) if plain > _FLAT else math.nan,
        "rho_plain_elsewhere": collateral.rho(a, reads[i], other),
        "rho_elsewhere": collateral.rho(ours, reads[i], other),
    }


def _gated(atoms: Tensor, i: int, fitted: Rows, held: Rows) -> dict[str, float]:
    """What ablations disturb where the feature is absent and present, each as strong as removes it wholly."""
    a, (x, f) = atoms[i], fitted
    gate = Lmmse.fit(x, f[:, i])
    made: dict[str, Edit] = {
        "orthogonal": ProjectOut(a),
        "about_mean": MeanAblate(x.mean(0), a),
        "gated": Scale(a, gate.direction, gate.offset, gate=gate),
    }
    absent, present, floors = {}, {}, {}
    effect = math.nan
    for name, edit in made.items():
        removed = _removed(edit, a, x, f[:, i])
        if not removed > 0:
            absent[name] = present[name] = floors[name] = math.nan
            continue
        edit = edit.at(1 / removed)
        change = edit(held[0]) - held[0]
        z = held[1][:, i]
        absent[name] = float(change[z == 0].square().sum(1).mean())
        present[name] = float((change + torch.outer(z, a))[z != 0].square().sum(1).mean())
        floors[name] = over_floor(change, z) or math.nan
        if name == "gated":
            effect = _removed(edit, a, *(held[0], z))
    return {
        "absent_orthogonal": absent["orthogonal"],
        "absent_about_mean": absent["about_mean"],
        "absent_gated": absent["gated"],
        # The better of the two projections is what the gate must beat.
        "absent_sparing": min(absent["orthogonal"], absent["about_mean"])
        / max(absent["gated"], absent["orthogonal"] / _MOST),
        "present_cost": present["gated"] / min(present["orthogonal"], present["about_mean"]),
        "projection_over_floor": min(floors["orthogonal"], floors["about_mean"]),
        "gated_over_floor": floors["gated"],
        "effect_held_out": effect,
    }


def _removed(edit: Edit, a: Tensor, x: Tensor, z: Tensor) -> float:
    """Share of the feature that an edit removes where it is present: slope of what goes along its direction."""
    along = (x - edit(x)) @ a / (a @ a)
    return float((along * z).sum() / z.square().sum())


_WORDS: Mapping[str, tuple[str, str]] = {
    "attainable_gain": ("times", "1"),
    "gain_reached": ("share of the log-gain", ""),
    "rho_known": ("times", "1"),
    "rho_estimated": ("times", "1"),
    "rho_plain_elsewhere": ("times", "1"),
    "rho_elsewhere": ("times", "1"),
    "absent_sparing": ("times", ""),
    "present_cost": ("times", ""),
    "projection_over_floor": ("times", "1"),
    "gated_over_floor": ("times", "1"),
}
"""Unit of each measurement, and the bound that it cannot be below."""


def _measurement(name: str, values: Sequence[float], of: str, caution: str) -> Measurement:
    unit, bound = _WORDS[name]
    whole = [value for value in values if math.isfinite(value)]
    if len(whole) > 1:
        low, _, high = quantiles(whole, n=4, method="inclusive")
        between = Interval(low, high, f"quartiles over {len(whole)} {of}")
    else:
        between = Interval(None, None, f"no interval: {len(whole)} {of}")
    return Measurement(
        name=name,
        value=median(whole) if whole else None,
        unit=unit,
        n=len(whole),
        of=of,
        **between.fields,
        reference=float(bound) if bound else None,
        reference_is="no edit is below" if bound else "",
        caution="" if whole else caution,
    )


def _of_world(rows: Sequence[Mapping[str, float]]) -> list[Measurement]:
    flat = "plain addition is within 5 % of the best here, so there is nothing to reach"
    return [_measurement(name, [row[name] for row in rows], "features", flat) for name in _WORDS]


def _overall(findings: Findings, count: int) -> list[Measurement]:
    """Medians over worlds of their medians."""
    return [
        _measurement(
            name,
            [m.value for m in findings if m.name == name and m.value is not None],
            "worlds",
            "no world has anything to reach",
        ).at_site(world=f"all {count}")
        for name in _WORDS
    ]


def _sentences(overall: Sequence[Measurement]) -> list[str]:
    by = {m.name: m for m in overall}
    said = [
        f"The best constant vector disturbs {_number(by['attainable_gain'])} times less than plain addition; one made "
        f"from rows alone reaches {_number(by['gain_reached'])} of that log-gain (medians).",
        "Read-outs assumed: each feature by its own direction, as a matched filter. Where the network reads by "
        f"estimates of least error, this vector costs {_number(by['rho_elsewhere'])} times the least, and plain "
        f"addition {_number(by['rho_plain_elsewhere'])}.",
        f"A gated ablation disturbs {_number(by['absent_sparing'])} times less than projection where the feature is "
        f"absent, and costs {_number(by['present_cost'])} times as much where it is present.",
        "Oracle LEACE, told the feature's value, takes as much of it out at the least change there is: projection "
        f"changes {_number(by['projection_over_floor'])} times that, gated ablation {_number(by['gated_over_floor'])}.",
    ]
    goals = []
    for name, (goal, at_least_so) in GOALS.items():
        value = by[name].value
        if value is None:
            continue
        met = value >= goal if at_least_so else value <= goal
        bound = f"{'at least' if at_least_so else 'at most'} {goal:g}"
        goals.append(f"{measure.WORDS[name].label.lower()} {bound}, {value:.3g}, {'met' if met else 'missed'}")
    return [*said, f"Goals, of medians over worlds: {'; '.join(goals)}."] if goals else said


def _number(measurement: Measurement) -> str:
    return "—" if measurement.value is None else f"{measurement.value:.3g}"
