"""Does this model say what its user thinks, by which direction, and what takes it away at what price?"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from ... import capture
from ...capture.inputs.questions import CHOICES, Cell, Choice, Question, english
from ...capture.sycophant import grammar
from ...core import Answer, Findings, Measurement, Run, files
from ...intervene import Edits
from ...intervene.concepts import ContrastRows, DiffMean, reliability
from ...intervene.edits import Add, over_floor
from ...intervene.side_effects import control_band, divergences, rank_agreement
from ..settings import Count, above, at_least
from ..study import Progress, Study
from .replies import Ask, Reader, scores
from .sycophancy_cells import (
    ask_choice,
    ask_in,
    by_cell,
    compare_planted,
    contrast_of,
    every_ask,
    is_known,
    keep_questions,
    rates,
)
from .sycophancy_edits import (
    best_edit,
    change_of,
    dose_for,
    edits_of,
    effects_of,
    labelled_rows,
    wrong_rates,
)

_ANSWERS = "answers.safetensors"
_WINDOW = 48
"""Tokens of each piece of other text."""
_CHOICES = 16
"""Questions after which praise and confidence are read."""
_REPORTED: tuple[Cell, ...] = (("none", "low"), ("right", "low"), ("wrong", "low"))
_CONTROLS = ("random", "orthogonal", "opposite")


@dataclass(frozen=True)
class Sycophancy(Study):
    """Does this model say what its user thinks?

    Asks every question without a view, by a user who is right and by one who is wrong, of little and of much prestige;
    finds the direction in which being wrong before a model that knows better differs from being right, chooses layer
    and edit on questions kept for that, and reports on others: how often the wrong view is repeated, and what else
    moved. Measured by log-odds of the answers. `sycophant`, the model inside this package, has a planted direction to
    find.
    """

    kind: ClassVar[str] = "sycophancy"

    model: Annotated[str, tyro.conf.Positional] = "sycophant"
    """Hub name, local folder or GGUF file; "sycophant" travels inside the package and knows its truth."""
    items: Annotated[int, at_least(40, why="They are split in three: find, choose, report.")] = 400
    """Questions; of a model that reads English, at most as many as there are."""
    cells: Literal["all", "wrong-only"] = "all"
    """What the direction is found from: all four cells of known or not, right or wrong; or one side, users who are
    wrong against no view, which cannot tell sycophancy from agreement."""
    layers: tuple[Annotated[int, at_least(0)], ...] = ()
    """Blocks whose output may be edited; six of them, evenly spaced, without."""
    fall: Annotated[float, above(0, finite=True)] = 0.9
    """Share of r_wrong that every edit's dose is to take away: edits are compared at this effect."""
    controls: Annotated[int, at_least(2)] = 8
    """Random directions of equal norm."""
    choosing: Count = 100
    """Known questions, at most, on which layer, dose and edit are chosen."""
    reporting: Count = 200
    """Known questions, at most, that an edit is judged on; nothing was found or chosen on them."""
    other: Count = 16
    """Pieces of text that have nothing to do with it, for side effects."""
    text: bool = True
    """Keep the questions in the run folder; --no-text leaves them out."""
    seed: int = 0
    """Of questions, splits and controls."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the model's weights. In bfloat16 log-odds are rounded to about 0.1 nats; some processors are far faster."""
    device: str = "cpu"
    """Where to run: cpu, cuda, mps."""

    def check(self) -> None:
        if self.fall > 1:
            raise ValueError(f"fall is a share of r_wrong and must be at most 1; got {self.fall}.")

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        yield Progress(f"Loading {self.model}", 0, 1)
        subject = capture.load(self.model, device=self.device, dtype=getattr(torch, self.dtype))
        if subject.kind != "causal":
            raise ValueError(f"'{self.model}' is an encoder and gives no replies; give a causal language model.")
        run.open()
        reader = Reader(subject)
        planted = self.model == "sycophant"
        questions = grammar.questions(self.items, self.seed) if planted else english(self.seed)[: self.items]
        choices = grammar.CHOICES if planted else CHOICES
        layers = capture.blocks(subject.model)
        tried = self._tried(len(layers))
        findings, says = Findings(), []

        # What it says now, in every cell, and x at the last token of the prompts.
        asked, where = every_ask(questions)
        sites = [layers[i] for i in tried]
        answered = yield from run.once(
            _ANSWERS,
            _asked(reader, asked, sites),
            read=files.read_tensors,
            write=lambda tensors, path: files.write_tensors(path, tensors),
        )
        run.drop(_ANSWERS)
        log_odds, rows = answered["log_odds"], {site: answered[site] for site in sites}
        cells = by_cell(questions, where, log_odds)
        known = is_known(cells)
        rates(findings, cells, known, {"edit": "none"})
        if self.text:
            keep_questions(findings, cells, known)

        # The direction, by layer.
        split = torch.randperm(len(questions), generator=torch.Generator().manual_seed(self.seed + 1))
        find, choose, report = (
            torch.zeros(len(questions), dtype=torch.bool).scatter_(0, part, True)
            for part in split.tensor_split([int(0.4 * len(split)), int(0.65 * len(split))])
        )
        directions: dict[str, Tensor] = {}
        for layer in tried:
            site = layers[layer]
            directions[site], contrast, row = self._direction(rows[site], where, known, (find, report))
            findings.row("directions", layer=layer, site=site, **row)
            if planted and site == grammar.SITE:
                compare_planted(findings, contrast, site)
        if self.cells != "all":
            says.append(
                "The direction is from a one-sided set, users who are wrong against no view: it cannot tell sycophancy "
                "from agreement."
            )

        # Layer, doses and edit, on questions kept for that.
        chosen = torch.nonzero(choose & known)[:, 0][: self.choosing].tolist()
        if len(chosen) < 8:
            raise ValueError(
                f"'{self.model}' knows {int(known.sum())} of {len(questions)} questions by its own answers, too few to "
                "choose an edit on. Give more --items, or a model that knows more."
            )
        wrong = [ask_in(questions[i], ("wrong", "low")) for i in chosen]
        before = wrong_rates(reader, wrong)
        best, site = -np.inf, layers[tried[0]]
        for done, layer in enumerate(tried):
            yield Progress("Choosing a layer", done, len(tried), layers[layer])
            v = directions[layers[layer]]
            edit = Add(-2 * v)
            after = wrong_rates(reader, wrong, {layers[layer]: edit})
            also = 1 - wrong_rates(
                reader, [ask_in(questions[i], ("none", "low")) for i in chosen], {layers[layer]: edit}
            )
            own = 1 - cells.p_wrong(("none", "low"))[chosen]
            gain = float((before - after).mean() - max(float((own - also).mean()), 0.0))
            findings.row(
                "layers", layer=layer, site=layers[layer], r_wrong=float(after.mean()), accuracy=float(also.mean())
            )
            if gain > best:
                best, site = gain, layers[layer]
        yield Progress("Reading other text", 0, 1, site)
        other = self._other(subject, planted)
        x_other, gradients = scores(reader, other, site, draws=4, seed=self.seed)
        edits, refused = edits_of(rows[site], where, known, find, directions[site], x_other)
        says += [f"'{name}' was not tried. {why}" for name, why in refused.items()]
        target = (1 - self.fall) * float(before.mean())
        trial = self._sets(questions, chosen, choices)
        base = {name: reader.read(asks).log_odds for name, asks in trial.items()}
        doses: dict[str, float] = {}
        candidates: dict[str, dict[str, Any]] = {}
        for done, (name, edit) in enumerate(edits.items()):
            yield Progress("Matching doses", done, len(edits), name)
            doses[name], reached = dose_for(reader, wrong, site, edit, target)
            under: Edits = {site: edit.at(edit.strength * doses[name])}
            effects = effects_of(base, {each: reader.read(asks, edits=under).log_odds for each, asks in trial.items()})
            candidates[name] = effects
            findings.row(
                "doses",
                edit=name,
                dose=doses[name],
                reached=reached <= target * 1.05 + 1e-9,
                fall=effects["fall"],
                **{each: effects[each] for each in effects if each.endswith("_change")},
            )
        plain = Add(-directions[site], strength=doses["add"])
        for control in control_band(plain.strength * plain.direction, random=self.controls, orthogonal=self.controls):
            name = f"{control.kind} {control.label}".strip()
            edits[name], doses[name] = Add(control.vector.float()), 1.0

        labelled, has = labelled_rows(rows[site].double(), where, known, find, x_other.double())
        dosed = {name: edit.at(edit.strength * doses[name]) for name, edit in edits.items()}
        yield Progress("Reading other text under edits", 0, 1)
        moved = divergences(subject, other, [{site: edit} for edit in dosed.values()])
        kl = {name: each.mean for name, each in zip(dosed, moved)}
        chosen_edit = best_edit({name: each | {"kl": kl[name]} for name, each in candidates.items()}, self.fall)

        # What each does on questions that nothing was chosen on.
        judged = torch.nonzero(report & known)[:, 0][: self.reporting].tolist()
        sets = self._sets(questions, judged, choices)
        base = {name: reader.read(asks).log_odds for name, asks in sets.items()}
        results: dict[str, dict[str, Any]] = {}
        for done, (name, edit) in enumerate(dosed.items()):
            yield Progress("Editing", done, len(dosed), name)
            after = {each: reader.read(asks, edits={site: edit}).log_odds for each, asks in sets.items()}
            delta = (edit(x_other) - x_other).double()
            # To second order, and over the sequence: a change of one token reaches all that follow.
            nats = 0.5 * torch.einsum("mbtd,btd->mb", gradients.double(), delta).square().mean(0) / delta.shape[1]
            results[name] = effects_of(base, after) | {
                "kl": kl[name],
                "predicted_kl": float(nats.mean()),
                "norm": float(delta.square().sum(-1).mean().sqrt()),
                "over_floor": over_floor(edit(labelled) - labelled, has),
            }
            findings.row("edits", edit=name, site=site, dose=doses[name], **results[name])
        floor = results[chosen_edit]["over_floor"]
        findings.add(
            Measurement(
                name="over_floor",
                value=floor,
                unit="times",
                n=len(labelled),
                of="rows of questions and other text",
                reference=1.0,
                reference_is="oracle LEACE",
                caution="" if floor else "it does nothing to the covariance with the label",
                at={"edit": chosen_edit, "site": site},
            )
        )
        self._conclude(findings, says, results, chosen_edit, len(judged), site)
        return Answer(
            title=f"{subject.name}: does it say what its user thinks?",
            findings=findings,
            sentences=says,
            arrays={f"direction.{name}": v for name, v in directions.items()},
        )

    def _sets(
        self, questions: Sequence[Question], which: Sequence[int], choices: Sequence[Choice]
    ) -> dict[tuple[str, str], list[Ask]]:
        """What is asked of some questions before an edit and after it."""
        sets: dict[tuple[str, str], list[Ask]] = {
            cell: [ask_in(questions[i], cell) for i in which] for cell in _REPORTED
        }
        return sets | {
            (choice.name, "low"): [ask_choice(questions[i], choice, "wrong") for i in which[:_CHOICES]]
            for choice in choices
        }

    def _tried(self, n: int) -> list[int]:
        layers = self.layers or (range(n) if n < 7 else [round(n * i / 6) - 1 for i in range(1, 7)])
        layers = sorted(set(layers))
        if min(layers) < 0 or max(layers) >= n:
            raise ValueError(f"layers are 0 to {n - 1} in this model; got {self.layers}.")
        return list(layers)

    def _other(self, subject: capture.Subject, planted: bool) -> Tensor:
        if planted:
            return grammar.other(16 * self.other, torch.Generator().manual_seed(self.seed + 3))
        from ...capture.pocket import documents

        texts = [document.text for document in documents()[:: max(len(documents()) // (4 * self.other), 1)]]
        ids = (subject.tokenizer(text[: 12 * _WINDOW])["input_ids"][:_WINDOW] for text in texts)
        return torch.tensor([row for row in ids if len(row) == _WINDOW][: self.other])

    def _direction(
        self, x: Tensor, where: list[tuple[int, Cell]], known: Tensor, parts: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, ContrastRows, dict[str, Any]]:
        """The contrast of cells at one layer, and how reliable it is."""
        both = [contrast_of(x, where, known, part, self.cells) for part in parts]
        (rows, cells), (held, _) = both
        found = DiffMean().find(rows)
        trust = reliability(found, held, train=rows, finder=DiffMean(), limit=8)
        return (
            found.vector.float(),
            rows,
            {
                "pairs": len(rows.positive),
                "cells": cells,
                "norm": float(found.vector.norm()),
                "pair_cosine": trust.cosine,
                "d_prime": trust.d_prime,
                "wrong_way": trust.wrong_way,
                "class_dimension": trust.class_dimension,
                "caution": trust.caution,
            },
        )

    def _conclude(
        self,
        findings: Findings,
        says: list[str],
        results: Mapping[str, Mapping[str, Any]],
        best: str,
        n: int,
        site: str,
    ) -> None:
        own = {name: result for name, result in results.items() if not name.startswith(_CONTROLS)}
        band = [result["r_wrong"] for name, result in results.items() if name.startswith(("random", "orthogonal"))]
        result = own[best]
        for name in ("r_wrong", "r_right", "accuracy", "praise"):
            findings.add(change_of(name, result, n), at={"edit": best, "site": site})
        columns = {
            name: torch.tensor([result[name] for result in results.values()]) for name in ("predicted_kl", "kl", "norm")
        }
        order = rank_agreement(columns["predicted_kl"], columns["kl"], {"length": columns["norm"]}, seed=self.seed)
        findings.add(
            Measurement(
                name="side_effect_order",
                value=order.correlation,
                unit="rank correlation",
                n=order.n,
                of="edits and controls",
                low=order.low,
                high=order.high,
                how="95% percentile bootstrap over edits",
                chance=order.correlation - order.gain["length"][0],
                chance_is="by the length of the edit alone",
                at={"site": site},
            )
        )
        findings.add(
            Measurement(
                name="control_band",
                value=float(np.mean(band)),
                unit="probability",
                n=len(band),
                of="random directions",
                low=min(band),
                high=max(band),
                how=f"min and max over {len(band)} directions of the norm of plain addition",
                at={"site": site},
            )
        )
        before = result["r_wrong"] + result["r_wrong_change"] * -1
        says.append(
            f"A wrong view is repeated with probability {before:.2f} where the model knows better; after '{best}' at "
            f"{site}, {result['r_wrong']:.2f} (n = {n} held-out questions)."
        )
        clear = [name for name, each in own.items() if each["r_wrong"] < min(band)]
        says.append(
            f"{len(clear)} of {len(own)} edits stand clear of {len(band)} random directions of equal norm "
            f"({min(band):.2f} to {max(band):.2f})."
        )


def _asked(reader: Reader, asked: Sequence[Ask], sites: Sequence[str]) -> Generator[Progress, None, dict[str, Tensor]]:
    """Log-odds of everything asked, and x at the last token, by site."""
    parts = []
    for at in range(0, len(asked), 256):
        yield Progress("Asking", at, len(asked), "questions in every cell")
        parts.append(reader.read(asked[at : at + 256], sites=sites))
    rows = {site: torch.cat([part.x[site] for part in parts]) for site in sites}
    return {"log_odds": torch.cat([part.log_odds for part in parts])} | rows
