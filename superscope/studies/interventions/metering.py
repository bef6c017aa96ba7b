"""What else moves under an edit, beside what any of its size does, and could it have been foretold?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...capture import Corpus, Subject
from ...core import Findings, Measurement, Site, SparseCoder
from ...intervene import dose, text_of
from ...intervene.concepts import Direction, dense_code
from ...intervene.edits import Edit
from ...intervene.side_effects import (
    ControlEdit,
    Features,
    SideEffects,
    answer_faults,
    controls_of,
    divergences,
    main_change,
    predicted_collateral,
    rank_agreement,
    side_effects,
)
from ...measure.interval import Interval, bootstrap, wilson
from .place import features_of
from .rank_correlation import order_of_edits

At = Mapping[str, str | int | float]

TABLE = "side_effects"
_WHOSE = "median of random edits of this size"
_MOST = 4096
"""Latents whose co-activations are held, 128 MB for each of the two."""
_STEPS = 8
"""Effects that are measured to match a dose."""


@dataclass(frozen=True, eq=False)
class Meter:
    """Measures edits of one site on one text, each beside its controls.

    Args:
        subject: a causal model.
        site: where x is edited and watched.
        corpus: text that should stay as it is.
        x: its rows at the site.
        effect: what an edit is for, as one number that grows with it.
        controls: random directions beside an edit, and orthogonal ones of which the most effective is kept.
        probes: of other concepts, found at the site.
        coder: a dictionary of the site.
        targets: its latents that are meant to move.
        fisher: F of `pullback_fisher`, for what nats are foretold; without it none are.
        seed: of the directions and the bootstrap.
    """

    subject: Subject
    site: Site
    corpus: Corpus
    x: Float[Tensor, "rows d"]
    effect: Callable[[Edit], float]
    controls: int
    probes: Mapping[str, Direction] = field(default_factory=dict)
    coder: SparseCoder | None = None
    targets: Sequence[int] = ()
    fisher: Float[Tensor, "d d"] | None = None
    seed: int = 0

    def measure(self, found: Findings, edit: Edit, at: At, *, matched: bool = True) -> SideEffects | None:
        """Adds what an edit does on unrelated text, what its controls do, and what they do at equal KL and effect.

        Args:
            found: receives measurements, and rows of the tables side_effects, unmatched, probes and latents_moved.
            edit: at the strength it is measured at.
            at: what names it.
            matched: whether controls are also dosed to its KL and effect.

        Returns:
            Its side effects; None where it changes none of the rows, so that there is nothing to compare.
        """
        if not bool((edit(self.x) != self.x).any()):
            found.row("unmetered", **at, why="it changes no row of the unrelated text")
            return None
        band = controls_of(
            edit,
            self.x,
            dictionary=None if self.coder is None else self.coder.dictionary,
            random=self.controls,
            orthogonal=self.controls,
            best=self.effect,
            seed=self.seed,
        )
        every = [ControlEdit("edit", "", edit, main_change(edit, self.x)), *band]
        moved = self._moved([one.edit for one in every])
        effects = [self.effect(one.edit) for one in every]
        self._headline(found, at, every, moved)
        for one, effects_of, effect in zip(every, moved, effects):
            self._row(found, at, "size", one, effects_of, effect)
        if matched:
            self._matched(found, at, band, moved[0], effects[0])
        return moved[0]

    def curve(self, found: Findings, edits: Mapping[float, Edit]) -> None:
        """Adds what an edit does at other strengths, all beside one pass without it, and without controls."""
        changing = {s: e for s, e in edits.items() if bool((e(self.x) != self.x).any())}
        for (strength, edit), moved in zip(changing.items(), self._moved(list(changing.values()))):
            one = ControlEdit("edit", f"at {strength:g}", edit, main_change(edit, self.x))
            self._row(found, {"strength": strength}, "strength", one, moved, self.effect(edit))

    def _moved(self, edits: Sequence[Edit]) -> tuple[SideEffects, ...]:
        return side_effects(
            self.subject,
            self.corpus,
            [{self.site: edit} for edit in edits],
            watch=self.site,
            probes=self.probes,
            coder=self.coder,
            targets=self.targets,
        )

    def _matched(self, found: Findings, at: At, band: Sequence[ControlEdit], own: SideEffects, effect: float) -> None:
        """Of each kind of control one, as strong as the edit by KL and by effect."""

        def kl(edit: Edit) -> float:
            return divergences(self.subject, self.corpus, [{self.site: edit}])[0].mean if edit.strength else 0.0

        kinds: dict[str, ControlEdit] = {}
        for one in band:
            kinds.setdefault(one.kind, one)
        for matching, target, measure in (("kl", own.divergence.mean, kl), ("effect", effect, self.effect)):
            if not (math.isfinite(target) and target > 0):
                continue
            for one in kinds.values():
                unit = one.edit.strength
                reached = dose.matched(
                    lambda s, one=one, unit=unit, measure=measure: measure(one.edit.at(s * unit)),
                    target,
                    most=4.0,
                    tolerance=0.1,
                    steps=_STEPS,
                )
                if not reached.reached:
                    row = {"kind": one.kind, "label": one.label, "target": target, "nearest": reached.effect}
                    found.row("unmatched", **at, matched=matching, **row)
                    continue
                dosed = one.edit.at(reached.strength * unit)
                (moved,) = self._moved([dosed])
                vector = main_change(dosed, self.x)
                self._row(
                    found, at, matching, dataclasses.replace(one, edit=dosed, vector=vector), moved, self.effect(dosed)
                )

    def _row(self, found: Findings, at: At, matching: str, one: ControlEdit, moved: SideEffects, effect: float) -> None:
        nearest = self._features.density[self._nearest(one.vector)] if self._features is not None else None
        found.row(
            TABLE,
            **at,
            matched=matching,
            kind=one.kind,
            label=one.label,
            size=float(one.vector.norm()),
            effect=effect,
            kl=moved.divergence.mean if moved.divergence.infinite == 0 else None,
            delta_loss=moved.divergence.delta_loss,
            norm_ratio=moved.norm_ratio,
            off_target=None if moved.latents is None else moved.latents.off_target,
            latents_moved=None if moved.latents is None else moved.latents.size,
            by_features=None
            if self._features is None
            else float(predicted_collateral(self._features, one.vector[None])),
            by_fisher=self._nats(one.edit),
            density_of_nearest=None if nearest is None else float(nearest),
        )

    def _headline(self, found: Findings, at: At, every: Sequence[ControlEdit], moved: Sequence[SideEffects]) -> None:
        random = [side for one, side in zip(every, moved) if one.kind == "random"]
        own = moved[0]
        divergence, latents = own.divergence, own.latents
        tokens: dict[str, Any] = {"n": int(divergence.positions.sum()), "of": "tokens", "at": at}

        def beside(value: Callable[[SideEffects], float]) -> dict[str, Any]:
            return {"chance": float(np.median([value(side) for side in random])), "chance_is": _WHOSE}

        sums = divergence.by_document().numpy()
        finite = divergence.infinite == 0 and all(side.divergence.infinite == 0 for side in random)
        found.add(
            Measurement(
                name="steering_kl",
                value=divergence.mean if finite else None,
                unit="nats per token",
                caution="" if finite else "infinite: it, or a random edit, makes words impossible",
                **tokens,
                **(beside(lambda side: side.divergence.mean) if finite else {}),
                **(
                    bootstrap(lambda s: s[:, 0] / s[:, 1], sums, seed=self.seed)
                    if finite
                    else Interval(None, None, "no interval: infinite")
                ).fields,
            )
        )
        if finite:
            found.add(
                Measurement(
                    name="steering_delta_loss",
                    value=divergence.delta_loss,
                    unit="nats per token",
                    **tokens,
                    **beside(lambda side: side.divergence.delta_loss),
                    **bootstrap(lambda s: s[:, 2] / np.maximum(s[:, 3], 1), sums, seed=self.seed).fields,
                )
            )
        found.add(
            Measurement(
                name="steered_norm_ratio",
                value=own.norm_ratio,
                unit="ratio",
                reference=1.0,
                reference_is="unchanged",
                **tokens,
                **beside(lambda side: side.norm_ratio),
            )
        )
        if latents is not None:
            share = lambda side: side.latents.off_target if side.latents is not None else math.nan  # noqa: E731
            found.add(
                Measurement(
                    name="off_target_share",
                    value=latents.off_target,
                    unit="share of movement",
                    **tokens,
                    **beside(share),
                )
            )
            columns = ("change", "density", "edited_density")
            listed = {name: getattr(latents, name).tolist() for name in columns}
            found.rows("latents_moved", {"latent": latents.worst.tolist(), **listed}, at=at)
        for concept, shift in own.probes.items():
            found.add(
                Measurement(
                    name="probe_shift",
                    value=shift,
                    unit="standard deviations",
                    **{**tokens, "at": {**at, "concept": concept}},
                    **beside(lambda side, concept=concept: abs(side.probes[concept])),
                )
            )

    def answers(
        self,
        found: Findings,
        at: At,
        edited: Sequence[Sequence[int]],
        plain: Sequence[Sequence[int]],
    ) -> None:
        """Adds what goes wrong in answers that were written with the edit, beside those without."""
        own, without = (answer_faults(answers, text_of(self.subject, answers)) for answers in (edited, plain))
        for kind, faults in (("plain", without), ("edited", own)):
            found.row("answer_faults", **at, kind=kind, **dataclasses.asdict(faults))
        common: dict[str, Any] = {"n": own.n, "of": "answers", "chance_is": "without the edit", "at": at}
        for name, part in (("looping_answers", "loops"), ("empty_answers", "empty"), ("refused_answers", "refused")):
            share = float(getattr(own, part))
            found.add(
                Measurement(
                    name=name,
                    value=share,
                    unit="share of answers",
                    chance=float(getattr(without, part)),
                    **common,
                    **wilson(round(share * own.n), own.n, of="answers").fields,
                )
            )
        found.add(
            Measurement(
                name="repetition",
                value=own.repetition,
                unit="share of 4-grams",
                chance=without.repetition,
                **common,
            )
        )

    def foretell(self, found: Findings) -> None:
        """Adds how well what was known beforehand orders all edits that were measured, beside simpler orders."""
        table = found.tables.get(TABLE, {})
        usable = [i for i, kl in enumerate(table.get("kl", ())) if kl is not None]
        if len(usable) < 8:
            return
        column = lambda name: torch.tensor([float(table[name][i]) for i in usable]).double()  # noqa: E731
        controls = {"size": column("size")}
        if self._features is not None:
            controls["frequency"] = column("density_of_nearest")
        for by in ("features", "fisher"):
            if any(table[f"by_{by}"][i] is None for i in usable):
                continue
            one = rank_agreement(column(f"by_{by}"), column("kl"), controls, seed=self.seed)
            found.add(order_of_edits(one, "edits", {"by": by, "moved": "predictions"}))

    def sentences(self, found: Findings) -> Iterator[str]:
        """What was foretold, and what a random edit does."""
        for by, what in (
            ("features", "atoms, densities and co-activations foretell"),
            ("fisher", "the Fisher matrix foretells"),
        ):
            order = found.get("collateral_order", by)
            if order is None or order.value is None:
                continue
            gains = [m for m in found if m.name == "collateral_order_gain" and m.at["by"] == by]
            beside = ", ".join(f"{m.value:+.2f} over {m.at['over']} alone" for m in gains if m.value is not None)
            yield (
                f"What {what} orders the KL of {order.n} edits with {order.value:+.2f} "
                f"[{order.low:.2f}, {order.high:.2f}] ({beside})."
            )
        if self.coder is None:
            yield "Off-target features, and what superposition foretells, need a dictionary of the site: give --sae."
        elif self._features is None:
            yield f"Its dictionary has over {_MOST:,} latents, so that what their co-activations foretell was left out."

    @cached_property
    def _features(self) -> Features | None:
        """What the dictionary's codes of the text say of its features; None without one, or of too many latents."""
        coder = self.coder
        if coder is None or coder.dictionary.n > _MOST:
            return None
        return features_of(coder, dense_code(coder)(self.x))

    def _nearest(self, vector: Tensor) -> int:
        assert self.coder is not None
        atoms = self.coder.dictionary.atoms.detach().double().cpu()
        return int((atoms @ vector / atoms.norm(dim=1).clamp_min(1e-300)).abs().argmax())

    def _nats(self, edit: Edit) -> float | None:
        """Mean of the second-order cost over rows."""
        if self.fisher is None:
            return None
        return foretold_nats(edit(self.x) - self.x, self.fisher)


def foretold_nats(change: Float[Tensor, "rows d"], fisher: Float[Tensor, "d d"]) -> float:
    """Mean over rows of what changes of them cost to second order, half of delta' F delta."""
    delta = change.double()
    return float(((delta @ fisher) * delta).sum(1).mean()) / 2
