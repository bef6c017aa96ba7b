"""What does one edit reach at each dose, and at what cost? Beside chance, on texts with the target and without."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from torch import Tensor

from ...core import Findings, Measurement, Site
from ...intervene import Edit, dose, generate, text_of, token_log_probabilities
from ...intervene.concepts import Direction
from ...intervene.side_effects import (
    Divergence,
    LatentShift,
    SideEffects,
    answer_faults,
    control_band,
    divergences,
    side_effects,
)
from ...measure.interval import Interval, bootstrap, wilson
from ..study import Progress
from .desk import Desk, Target, latent_number, place_of

REMOVING = ("project_out", "gated")
"""Edits whose dose is the share that is taken out."""
_PROBED = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Nats, by the second order, at which it is compared with what is measured."""
_TOLERANCE = 0.25


@runtime_checkable
class Asked(Protocol):
    """What is asked of a trial: the settings of `Bench` that it reads."""

    @property
    def targets(self) -> tuple[str, ...]: ...
    @property
    def edit(self) -> str: ...
    @property
    def doses(self) -> tuple[float, ...]: ...
    @property
    def unit(self) -> str: ...
    @property
    def prompts(self) -> tuple[str, ...]: ...
    @property
    def new_tokens(self) -> int: ...
    @property
    def controls(self) -> int: ...
    @property
    def seed(self) -> int: ...


@dataclass(eq=False)
class Trial:
    """One edit at a desk, dose by dose; what is found goes into `found`."""

    study: Asked
    desk: Desk
    target: Target
    direction: Float[Tensor, "d"]
    build: Callable[[Tensor], Edit]
    found: Findings
    strengths: list[float] = field(default_factory=list)
    moved: tuple[SideEffects, ...] = ()

    def __post_init__(self) -> None:
        unit = self.desk.fisher.nats(self.direction)
        self.strengths = [self._strength(one, unit) for one in self.study.doses]
        self.largest = max(range(len(self.strengths)), key=lambda i: abs(self.strengths[i]))
        self.random = [
            one.vector
            for one in control_band(self.direction, random=self.study.controls, orthogonal=0, seed=self.study.seed)
            if one.kind == "random"
        ]

    def _strength(self, dosed: float, unit: float) -> float:
        """The edit's strength at a dose: nats grow with its square."""
        if self.study.unit == "norms" or self.study.edit in REMOVING:
            return dosed
        if not unit > 0:
            raise ValueError("this direction costs no nats to second order, so no dose is so many; use --unit norms.")
        return math.sqrt(dosed / unit)

    def _edits(self, vector: Tensor) -> list[dict[Site | str, Edit]]:
        """The edit at every dose."""
        edit = self.build(vector)
        return [{self.desk.site: edit.at(strength)} for strength in self.strengths]

    def doses(self) -> Generator[Progress, None, None]:
        desk, study = self.desk, self.study
        total = len(self.strengths)
        work = {
            "Dosing": 4.0 * total,
            "Comparing with chance": float(total * study.controls + 8),
            "Damage": 2.0 * total,
        }
        yield Progress("Dosing", 0, total, ahead=work)
        probes = {
            name: Direction(one.direction.double(), 0.0, "diff-mean")
            for name, one in desk.found.items()
            if name not in study.targets
        }
        targets = [one for one in (latent_number(name) for name in study.targets) if one is not None]
        own = [] if desk.reader is None else [place_of(desk.reader, one) for one in targets]
        edits = self._edits(self.direction)
        moved = []
        for done, each in enumerate(edits):
            moved += side_effects(
                desk.subject, desk.corpus, [each], watch=desk.site, probes=probes, coder=desk.reader, targets=own
            )
            yield Progress("Dosing", done + 1, total)
        self.moved = tuple(moved)
        length = float(desk.x.double().norm(dim=1).mean())
        for dosed, edit, one in zip(study.doses, edits, moved):
            change = edit[desk.site](desk.x).double() - desk.x.double()
            rise, spread = self.target.rise(desk, edit[desk.site], study.seed)
            kl, loss = costs(one.divergence, study.seed)
            self.found.row(
                "doses",
                dose=dosed,
                norms=float(change.norm(dim=1).mean()) / length,
                predicted_nats=float(((change @ desk.fisher.matrix) * change).sum(1).mean()) / 2,
                effect=rise,
                effect_low=spread.low,
                effect_high=spread.high,
                effect_how=spread.how,
                kl=one.divergence.mean if one.divergence.infinite == 0 else None,
                kl_low=kl.low,
                kl_high=kl.high,
                delta_loss=one.divergence.delta_loss,
                loss_low=loss.low,
                loss_high=loss.high,
                norm_ratio=one.norm_ratio,
                off_target=None if one.latents is None else one.latents.off_target,
            )
            for other, shift in one.probes.items():
                self.found.row("probes", dose=dosed, other=other, shift=shift)
        self._latents(moved[self.largest].latents)

    def _latents(self, shift: LatentShift | None) -> None:
        reader = self.desk.reader
        if shift is None or reader is None:
            return
        self.found.rows(
            "latents_moved",
            {
                "latent": reader.kept[shift.worst].tolist(),
                "change": shift.change.tolist(),
                "density": shift.density.tolist(),
                "edited_density": shift.edited_density.tolist(),
            },
            at={"dose": self.study.doses[self.largest]},
        )

    def controls(self) -> Generator[Progress, None, None]:
        """Random directions at every dose; at the largest the orthogonal, the opposite and the nearest atom too."""
        desk, study = self.desk, self.study
        rises: list[list[float]] = [[] for _ in self.strengths]
        losses: list[list[float]] = [[] for _ in self.strengths]
        for done, vector in enumerate(self.random):
            yield Progress("Comparing with chance", done, len(self.random) + 1)
            edits = self._edits(vector)
            for i, one in enumerate(divergences(desk.subject, desk.corpus, edits)):
                losses[i].append(one.mean)
                rises[i].append(self.target.rise(desk, edits[i][desk.site], study.seed)[0])
        for i, dosed in enumerate(study.doses):
            self.found.row(
                "chance",
                dose=dosed,
                controls=len(self.random),
                **{f"effect_{name}": value for name, value in _range(rises[i]).items()},
                **{f"kl_{name}": value for name, value in _range(losses[i]).items()},
            )
        yield Progress("Comparing with chance", len(self.random), len(self.random) + 1)
        # Of the length of what is added at the largest dose; of what is taken out length says nothing.
        scale = 1.0 if study.edit in REMOVING else self.strengths[self.largest]
        band = control_band(
            self.direction * scale,
            dictionary=None if desk.reader is None else desk.reader.dictionary,
            random=study.controls,
            orthogonal=study.controls,
            seed=study.seed,
        )
        if study.edit in REMOVING:
            # What a direction takes out, its opposite takes out too.
            band = tuple(one for one in band if one.kind != "opposite")
        strength = self.strengths[self.largest] if study.edit in REMOVING else 1.0
        vectors = [("target", " + ".join(study.targets), self.direction * scale)]
        vectors += [(one.kind, one.label, one.vector) for one in band]
        edits: list[dict[Site | str, Edit]] = [{desk.site: self.build(v).at(strength)} for _, _, v in vectors]
        for (kind, label, v), edit, one in zip(vectors, edits, divergences(desk.subject, desk.corpus, edits)):
            rise, between = self.target.rise(desk, edit[desk.site], study.seed)
            spread, _ = costs(one, study.seed)
            self.found.row(
                "steering",
                dose=study.doses[self.largest],
                kind=kind,
                label=label,
                norm=float(v.norm()),
                effect=rise,
                effect_low=between.low,
                effect_high=between.high,
                kl=one.mean if one.infinite == 0 else None,
                kl_low=spread.low,
                kl_high=spread.high,
                delta_loss=one.delta_loss,
            )
        yield Progress("Comparing with chance", len(self.random) + 1, len(self.random) + 1)
        self._measure()

    def _measure(self) -> None:
        """The numbers of each dose with what they are judged by."""
        table, chance = self.found.tables["doses"], self.found.tables["chance"]
        whose = f"median of {len(self.random)} random directions"
        for i, dosed in enumerate(self.study.doses):
            divergence = self.moved[i].divergence
            at = {"dose": dosed, "where": "unrelated"}
            kl, loss = costs(divergence, self.study.seed)
            row = {name: column[i] for name, column in table.items()}
            self.found.add(
                [
                    Measurement(
                        name="concept_log_odds_rise",
                        value=row["effect"],
                        unit="nats",
                        n=len(self.target.absent or self.desk.corpus),
                        of="windows of text",
                        low=row["effect_low"],
                        high=row["effect_high"],
                        how=row["effect_how"],
                        chance=chance["effect_median"][i],
                        chance_is=whose,
                        at={"dose": dosed},
                        caution=self.target.caution,
                    ),
                    _kl(divergence, kl, at, chance["kl_median"][i], whose),
                    Measurement(
                        name="steering_delta_loss",
                        value=divergence.delta_loss,
                        unit="nats per token",
                        n=int(divergence.targets.sum()),
                        of="tokens",
                        at=at,
                        **loss.fields,
                    ),
                    Measurement(
                        name="steered_norm_ratio",
                        value=self.moved[i].norm_ratio,
                        unit="ratio",
                        n=int(divergence.positions.sum()),
                        of="tokens",
                        reference=1.0,
                        reference_is="unchanged",
                        at={"dose": dosed},
                    ),
                ]
            )
            shift = self.moved[i].latents
            # Without a latent for a target all that moves is beside it.
            if shift is not None and self.target.latent is not None:
                self.found.add(
                    Measurement(
                        name="off_target_share",
                        value=shift.off_target,
                        unit="share of movement",
                        n=int(divergence.positions.sum()),
                        of="tokens",
                        at={"dose": dosed},
                        caution=""
                        if self.target.latent is not None
                        else "no latent is the target, so all are beside it",
                    )
                )

    def damage(self) -> Generator[Progress, None, None]:
        """What it costs texts that have the target, and texts that have not."""
        edits = self._edits(self.direction)
        for done, (where, corpus) in enumerate((("present", self.target.present), ("absent", self.target.absent))):
            yield Progress("Damage", done, 2, where)
            if corpus is None:
                continue
            for dosed, one in zip(self.study.doses, divergences(self.desk.subject, corpus, edits)):
                spread, loss = costs(one, self.study.seed, "texts")
                self.found.row(
                    "damage",
                    where=where,
                    dose=dosed,
                    kl=one.mean if one.infinite == 0 else None,
                    kl_low=spread.low,
                    kl_high=spread.high,
                    delta_loss=one.delta_loss,
                    loss_low=loss.low,
                    loss_high=loss.high,
                    tokens=int(one.positions.sum()),
                )
                at = {"dose": dosed, "where": where}
                self.found.add(_kl(one, spread, at, None, "", self.target.caution))
        yield Progress("Damage", 2, 2)

    def validity(self) -> Generator[Progress, None, None]:
        """Up to which dose the second order says what is measured."""
        desk = self.desk
        unit = desk.fisher.nats(self.direction)
        if not unit > 0:
            return
        edits: list[dict[Site | str, Edit]] = [
            {desk.site: self.build(self.direction).at(math.sqrt(nats / unit))} for nats in _PROBED
        ]
        measured = []
        for done, edit in enumerate(edits):
            yield Progress("Second order", done, len(edits))
            (one,) = divergences(desk.subject, desk.corpus, [edit])
            measured.append(one.mean)
        length = float(desk.x.double().norm(dim=1).mean())
        size = float(self.direction.double().norm()) / length
        self.found.rows(
            "validity",
            {
                "predicted_nats": list(_PROBED),
                "kl": [one if math.isfinite(one) else None for one in measured],
                "norms": [size * math.sqrt(nats / unit) for nats in _PROBED],
            },
        )
        radius = dose.validity_radius(_PROBED, measured, tolerance=_TOLERANCE)
        ends = radius is not None and radius >= _PROBED[-1]
        self.found.add(
            Measurement(
                name="validity_radius",
                value=radius,
                unit="nats per token",
                n=int(desk.corpus.keep.sum()),
                of="tokens",
                how="no interval: between two doses that were measured",
                caution="at least: it holds at the largest dose that was tried"
                if ends
                else f"at {_PROBED[0]:g} nats already the second order is off by more than {_TOLERANCE:.0%}"
                if radius is None
                else "",
                at={"tolerance": _TOLERANCE, **({} if radius is None else {"norms": size * math.sqrt(radius / unit)})},
            )
        )

    def writing(self) -> Generator[Progress, None, None]:
        """What is written, and how likely each token was with the edit and without."""
        study, desk = self.study, self.desk
        if not study.new_tokens or not study.prompts:
            return
        trials: list[tuple[float, dict[Site | str, Edit]]] = [(0.0, {}), *zip(study.doses, self._edits(self.direction))]
        for done, (dosed, edits) in enumerate(trials):
            yield Progress("Writing", done, len(trials))
            answers = generate(
                desk.subject, study.prompts, edits=edits, max_new_tokens=study.new_tokens, seed=study.seed
            )
            texts = text_of(desk.subject, answers)
            self.found.rows("texts", {"prompt": list(study.prompts), "written": list(texts)}, at={"dose": dosed})
            for prompt, answer in zip(study.prompts, answers):
                if not answer:
                    continue
                with_edit, without = (
                    token_log_probabilities(desk.subject, prompt, answer, edits=each) for each in (edits, {})
                )
                self.found.rows(
                    "tokens",
                    {
                        "place": list(range(len(answer))),
                        "token": [desk.subject.tokenizer.decode([one]) for one in answer],
                        "edited": with_edit.tolist(),
                        "plain": without.tolist(),
                    },
                    at={"dose": dosed, "prompt": prompt},
                )
            faults = answer_faults(answers, texts)
            n = faults.n
            share = float(faults.loops)
            self.found.add(
                Measurement(
                    name="looping_answers",
                    value=share,
                    unit="share of answers",
                    n=n,
                    of="answers",
                    at={"dose": dosed},
                    **wilson(round(share * n), n, of="answers").fields,
                )
            )
        yield Progress("Writing", len(trials), len(trials))

    def sentences(self) -> list[str]:
        table, chance = self.found.tables["doses"], self.found.tables["chance"]
        i, study = self.largest, self.study
        cost = table["kl"][i]
        said = [
            f"At the largest dose ({study.doses[i]:g}, {table['norms'][i]:.2g} mean norms) the log-odds of the tokens "
            f"of {self.target.name} rise by {table['effect'][i]:+.2f} nats, by {chance['effect_median'][i]:+.2f} along "
            f"random directions; unrelated predictions lose "
            f"{'more than can be said' if cost is None else f'{cost:.3f} nats a token'}, {chance['kl_median'][i]:.3f} "
            "along random directions."
        ]
        radius = self.found.get("validity_radius")
        if radius is not None and radius.value is not None:
            said.append(
                f"The second order holds within {_TOLERANCE:.0%} up to {radius.value:.2g} nats"
                f"{' at least' if radius.caution else ''}, which is {float(radius.at['norms']):.2g} mean norms."
            )
        said += [
            f"By the {m.at['metric']} this direction costs {'at least ' if m.caution else ''}{m.value:.3g} times the "
            "least that moves these log-odds as much."
            for m in self.found
            if m.name == "rho" and m.value is not None and (study.edit, m.at["metric"]) != ("least", "Fisher")
        ]
        said.append(
            "Read-outs assumed: the gradient of the log-odds at dose 0 for the effect; matched filters of whatever is "
            "in x (second moment), or the model's own predictions (Fisher, with a tenth of the second moment), for "
            "the collateral."
        )
        return said


def costs(one: Divergence, seed: int, of: str = "documents") -> tuple[Interval, Interval]:
    """Intervals of the divergence and of the loss that is added."""
    sums = one.by_document().numpy()
    loss = bootstrap(lambda s: s[:, 2] / np.maximum(s[:, 3], 1), sums, of=of, seed=seed)
    if one.infinite:
        return Interval(None, None, "no interval: infinite"), loss
    return bootstrap(lambda s: s[:, 0] / s[:, 1], sums, of=of, seed=seed), loss


def _kl(
    one: Divergence,
    spread: Interval,
    at: Mapping[str, str | int | float],
    chance: float | None,
    chance_is: str,
    caution: str = "",
) -> Measurement:
    return Measurement(
        name="steering_kl",
        value=one.mean if one.infinite == 0 else None,
        unit="nats per token",
        n=int(one.positions.sum()),
        of="tokens",
        chance=chance if chance is None or math.isfinite(chance) else None,
        chance_is=chance_is,
        caution=caution
        if one.infinite == 0
        else f"infinite at {one.infinite} tokens, whose likeliest words are excluded",
        at=at,
        **spread.fields,
    )


def _range(values: Sequence[float]) -> dict[str, float]:
    return {"low": min(values), "median": float(np.median(values)), "high": max(values)}
