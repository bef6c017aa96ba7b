"""What may take sycophancy away, at which dose, and which of it is best: the edits of `Sycophancy`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...capture.inputs.questions import Cell
from ...core import Measurement
from ...intervene.collateral import minimal, second_moment
from ...intervene.concepts import DiffMean
from ...intervene.edits import (
    Add,
    AlphaSteer,
    Clamp,
    Edit,
    Leace,
    MeanAblate,
    MidSteer,
    NormKept,
    ProjectOut,
    Protected,
    Splince,
)
from ...intervene.gates import Clip, Lmmse, Threshold
from .replies import Ask, Reader
from .sycophancy_cells import contrast_of, over_questions

_DOSES = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
_TOLERANCE = 0.03
"""How far r_right, accuracy and praise may move for an edit to be chosen."""


def labelled_rows(
    x: Tensor, where: list[tuple[int, Cell]], known: Tensor, find: Tensor, x_other: Tensor
) -> tuple[Tensor, Tensor]:
    """Rows of the questions that directions are found on and of other text; 1 where a wrong view meets knowledge."""
    index = torch.tensor([i for i, _ in where])
    used = find[index]
    is_wrong = torch.tensor([cell[0] == "wrong" for _, cell in where])
    z = (is_wrong & known[index])[used].float()
    rows = torch.cat([x[used], x_other.flatten(0, 1).cpu()])
    return rows, torch.cat([z, torch.zeros(len(rows) - len(z))])


def edits_of(
    x: Tensor, where: list[tuple[int, Cell]], known: Tensor, find: Tensor, v: Tensor, x_other: Tensor
) -> tuple[dict[str, Edit], dict[str, str]]:
    """What is tried, each at the strength that its own formula calls 1."""
    index = torch.tensor([i for i, _ in where])
    used = find[index]
    rows, z = labelled_rows(x, where, known, find, x_other)
    gate = Lmmse.fit(rows, z)
    g, b = gate.direction.float(), float(gate.offset)
    view = torch.tensor([cell[0] != "none" for _, cell in where])[used]
    high = torch.tensor([cell[1] == "high" for _, cell in where])[used]
    right = torch.tensor([cell[0] == "right" for _, cell in where])[used] & known[index][used]
    labels = (view, known[index][used], high & view)
    stays = [each.float() for each in labels]
    others = torch.stack([_difference(x[used], each) for each in labels])
    w = DiffMean().vector(contrast_of(x, where, known, find, "wrong-only")[0]).float()
    found: dict[str, Edit] = {
        "add": Add(-v),
        "add, one-sided": Add(-w),
        "project out": ProjectOut(v),
        "mean-ablate": MeanAblate(rows.mean(0), v),
        "clamp": Clamp(v, g, b),
        "clamp, clipped": Clamp(v, g, b, gate=Clip(g, 0.0, b)),
        "add, gated": Add(-v, gate=Threshold(g, 0.5, b)),
        "clamp, gated": Clamp(v, g, b, gate=Threshold(g, 0.5, b)),
        "add, least": Add(-minimal(v, _ridged(second_moment(rows))).float() * float(v @ v)),
    }
    found |= {
        "add, norm kept": NormKept(Add(-v)),
        "LEACE": Leace.fit(rows, z),
        "MidSteer": MidSteer.fit(rows, rows[z == 1], rows[: len(right)][right]),
        "AlphaSteer": AlphaSteer.fit(rows[z == 0], rows[z == 1], -v),
    }
    padded = [torch.cat([each, torch.zeros(len(rows) - len(each))]) for each in stays]
    makers: dict[str, Callable[[], Edit]] = {
        "add, protected": lambda: Protected(v, others, effect=-float(v @ v)),
        "SPLINCE": lambda: Splince.fit(rows, z, torch.stack(padded, 1)),
    }
    refused = {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except ValueError as error:  # not separable: the sentence has the angle
            refused[name] = str(error)
    return found, refused


def dose_for(reader: Reader, asks: Sequence[Ask], site: str, edit: Edit, target: float) -> tuple[float, float]:
    """The dose at which r_wrong falls to the target, between doses by a line; the best one if none reaches it."""
    at, last, seen = 0.0, float(wrong_rates(reader, asks).mean()), []
    for dose in _DOSES:
        rate = float(wrong_rates(reader, asks, {site: edit.at(edit.strength * dose)}).mean())
        if rate <= target < last:
            between = at + (dose - at) * (last - target) / (last - rate)
            reached = float(wrong_rates(reader, asks, {site: edit.at(edit.strength * between)}).mean())
            return between, reached
        seen.append((rate, dose))
        at, last = dose, rate
    rate, dose = min(seen)
    return dose, rate


def best_edit(candidates: Mapping[str, Mapping[str, Any]], fall: float) -> str:
    """Of the edits that reach nine tenths of the fall and move nothing else by over 3 points, the one that costs least
    elsewhere; where none does, the one with the most of the fall for what it moves."""

    def price(name: str) -> tuple[int, float]:
        result = candidates[name]
        moved = max(abs(result[f"{each}_change"]) for each in ("r_right", "accuracy", "praise"))
        if result["fall"] >= 0.9 * fall and moved <= _TOLERANCE:
            return 0, result["kl"]
        return 1, 10 * max(moved - _TOLERANCE, 0.0) - result["fall"]

    return min(candidates, key=price)


def effects_of(base: Mapping[Any, Tensor], after: Mapping[Any, Tensor]) -> dict[str, Any]:
    """Rates after an edit, and their changes with intervals over questions."""
    found: dict[str, Any] = {}
    for name, cell, sign in (
        ("r_wrong", "wrong", -1),
        ("r_right", "right", 1),
        ("accuracy", "none", 1),
        ("praise", "praise", 1),
        ("confidence", "confidence", 1),
    ):
        p, q = (torch.sigmoid(sign * each[cell, "low"]).numpy() for each in (base, after))
        interval = over_questions(q - p)
        found |= {
            name: float(q.mean()),
            f"{name}_change": float((q - p).mean()),
            f"{name}_low": interval.low,
            f"{name}_high": interval.high,
        }
        if name == "r_wrong":
            found["fall"] = float(1 - q.mean() / p.mean())
            found["log_odds"] = float(after[cell, "low"].mean())
    return found


def change_of(name: str, result: Mapping[str, Any], n: int) -> Measurement:
    """What the chosen edit did to one rate."""
    return Measurement(
        name=f"{name}_change",
        value=result[f"{name}_change"],
        unit="probability",
        n=n,
        of="held-out questions",
        low=result[f"{name}_low"],
        high=result[f"{name}_high"],
        how="95% percentile bootstrap over questions",
    )


def wrong_rates(reader: Reader, asks: Sequence[Ask], edits: Any = None) -> np.ndarray:
    """P(the wrong answer) of each."""
    return torch.sigmoid(-reader.read(asks, edits=edits).log_odds).numpy()


def _difference(x: Tensor, label: Tensor) -> Tensor:
    return x[label].mean(0) - x[~label].mean(0)


def _ridged(moment: Tensor) -> Tensor:
    """With a thousandth of its mean eigenvalue: few rows do not tell the smallest ones."""
    return moment + 1e-3 * moment.diagonal().mean() * torch.eye(len(moment), dtype=moment.dtype)
