"""Is a feature ignored, dedicated or shared, at each density and importance? Trained exactly, beside theory."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...core import Answer, Findings, Measurement, Run, files
from ...features import Independent
from ...theory import toy_loss
from ...toys import Ensemble, Recipe, Tied, best_of
from ...toys.exact import MOST_FEATURES
from ..settings import Count, above, at_least, at_most
from ..study import Progress, Study
from .kept import keep, kept_training

OTHER_PHASES = ("last ignored", "last dedicated", "last shares")
"""Phases for sizes without a closed theory: what becomes of the last feature."""


@dataclass(frozen=True)
class PhaseDiagram(Study):
    """Is a feature ignored, given its own dimension, or stored in superposition?

    On a grid of densities and of the last feature's relative importance, trains several models per cell on the exact
    expected loss, keeps the best, and compares what it does with the closed-form theory.
    """

    kind: ClassVar[str] = "phase"

    n: Annotated[int, at_least(1), at_most(MOST_FEATURES, because="for the loss is exact")] = 2
    """Features, at most 8; theory is known for n = 2, d = 1 and n = 3, d = 2."""
    d: Count = 1
    """Hidden dimensions."""
    size: Annotated[int, at_least(2)] = 100
    """Cells along each axis."""
    restarts: Count = 10
    """Models per cell; the best counts."""
    steps: Annotated[int, at_least(8)] = 700
    """Steps of the restarts that survive; most are dropped after a quarter, when the better ones show."""
    lr: Annotated[float, above(0, finite=True)] = 0.03
    """Adam's peak learning rate; it falls to 0 along a cosine."""
    densities: tuple[float, float] = (0.01, 1.0)
    """Smallest and largest P(feature active), spaced by ratio."""
    ratios: tuple[float, float] = (0.1, 10.0)
    """Smallest and largest importance of the last feature, the others having 1; spaced by ratio."""
    seed: int = 0
    """Of the first start; restart r uses seed + r."""

    def check(self) -> None:
        low, high = self.densities
        if not 0 < low < high <= 1:
            raise ValueError(f"densities must rise within (0, 1], P(feature active); got {self.densities}.")
        low, high = self.ratios
        if not 0 < low < high < math.inf:
            raise ValueError(f"ratios must be positive and rise; got {self.ratios}.")

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        densities = np.geomspace(*self.densities, self.size).tolist()
        ratios = np.geomspace(*self.ratios, self.size).tolist()
        cells = [(p, r) for p in densities for r in ratios]
        best, loss, agreement = yield from self._trained(cells, run)
        return self._report(cells, best, loss, agreement)

    def _trained(
        self, cells: list[tuple[float, float]], run: Run
    ) -> Generator[Progress, None, tuple[Ensemble, Tensor, list[float]]]:
        known = {p: Independent(self.n, min(p, 1.0)) for p, _ in cells}
        laws = [known[p] for _ in range(self.restarts) for p, _ in cells]
        importance = torch.ones(len(laws), self.n, dtype=torch.float64)
        importance[:, -1] = torch.tensor([r for _, r in cells], dtype=torch.float64).repeat(self.restarts)
        seeds = [self.seed + restart for restart in range(self.restarts) for _ in cells]
        ensemble = Ensemble(Tied(self.n, self.d), laws, importance, seeds, dtype=torch.float64)
        # The schedule is that of the whole run, so that the first quarter is at a high rate and the last fine.
        recipe = Recipe(steps=self.steps, lr=self.lr, schedule="cosine", weight_decay=0.0, estimator="exact")
        stage, first = f"Training {len(ensemble):,} models exactly", self.steps // 4
        many = len(ensemble)
        kept = min(self.restarts, max(2, self.restarts // 4))
        every = max(1, first // 4)
        # The yield that judges may fall a little after a quarter; it is the same whether or not a run was stopped.
        last = -(-first // every) * every
        polish = f"Polishing the best {kept} of each cell, of {many:,} models"
        ahead = {stage: float(many * last), polish: float(kept * len(cells) * (self.steps - last))}
        names = _names(self.n, self.d)
        survivors = run.kept("survivors.safetensors", files.read_tensors)
        if survivors is not None:
            rows = survivors["rows"].tolist()
            ensemble = ensemble.select(rows)
        else:
            loss = None
            training = kept_training(run, "restarts", ensemble, recipe, every=every, last=last)
            yield Progress(stage, ensemble.step, last, resumed=ensemble.step > 0, ahead=ahead)
            for step in training:
                yield Progress(stage, step.index, last)
                loss = step.loss
            assert loss is not None
            order = torch.nan_to_num(loss, nan=torch.inf).reshape(self.restarts, len(cells)).argsort(0)[:kept]
            rows = (order * len(cells) + torch.arange(len(cells))).flatten().tolist()
            early = torch.tensor([names.index(phase(w)) for w in ensemble.atoms.double()])
            ensemble = ensemble.select(rows)
            keep(run, "polished", ensemble)
            survivors = {"rows": torch.tensor(rows), "early": early}
            run.keep("survivors.safetensors", lambda path: files.write_tensors(path, survivors))
        groups = [row % len(cells) for row in rows]
        training = kept_training(run, "polished", ensemble, recipe, every=max(1, self.steps // 20))
        there = ensemble.step - last
        yield Progress(polish, there, self.steps - last, resumed=there > 0, ahead=ahead)
        for step in training:
            yield Progress(polish, step.index - last, self.steps - last)
        loss = torch.cat(
            [ensemble.select(part.tolist()).expected_loss()[0] for part in torch.arange(len(ensemble)).split(8192)]
        )
        chosen = best_of(loss, groups)
        models = [chosen[cell] for cell in range(len(cells))]
        final = torch.tensor([names.index(phase(w)) for w in ensemble.atoms[models].double()])
        agreement = (survivors["early"].reshape(self.restarts, -1) == final).double().mean(0)
        return ensemble.select(models), loss[models], agreement.tolist()

    def _report(self, cells: list[tuple[float, float]], best: Ensemble, loss: Tensor, agreement: list[float]) -> Answer:
        W = best.atoms.double()
        theory = {(2, 1): toy_loss.phase_2_1, (3, 2): toy_loss.phase_3_2}.get((self.n, self.d))
        labels = [phase(w) for w in W]
        predictions = [theory(p, r) for p, r in cells] if theory else []
        norms = W.norm(dim=-1)
        table = {
            "density": [p for p, _ in cells],
            "ratio": [r for _, r in cells],
            "phase": labels,
            "agreement": agreement,
            "loss": loss.tolist(),
            "theory": [name for name, _ in predictions] or [""] * len(cells),
            "theory_loss": [min(losses.values()) for _, losses in predictions] or [None] * len(cells),
            "norm_last": norms[:, -1].tolist(),
            "norms": norms.tolist(),
        }
        measurements = []
        findings = []
        if theory:
            same = sum(label == name for label, (name, _) in zip(labels, predictions, strict=True))
            low, high = _wilson(same, len(cells))
            measurements.append(
                Measurement(
                    name="agreement_with_theory",
                    value=same / len(cells),
                    unit="share of cells",
                    n=len(cells),
                    of="cells",
                    low=low,
                    high=high,
                    how="95 % Wilson interval over cells",
                    reference=1.0,
                    reference_is="every cell",
                    caution="theory compares three or four simple models; the optimum itself moves continuously "
                    "between them",
                )
            )
            gain = 1 - loss / torch.tensor([min(losses.values()) for _, losses in predictions])
            measurements.append(
                Measurement(
                    name="gain_over_theory",
                    value=float(gain.max()),
                    unit="share of the loss",
                    n=len(cells),
                    of="cells",
                    low=float(gain.min()),
                    high=float(gain.max()),
                    how="min and max over cells; below 0 a cell is worse than the simple model",
                )
            )
            findings.append(f"{same / len(cells):.1%} of {len(cells):,} cells do what the simple theory says.")
            if float(gain.max()) > 0:
                findings.append(f"Trained models are up to {float(gain.max()):.1%} below the simple models' loss.")
            if float(gain.min()) < -0.01:
                findings.append(
                    f"Some cells are {-float(gain.min()):.1%} above the simple models' loss: not converged. Raise "
                    f"steps or restarts."
                )
        counts = {name: labels.count(name) for name in dict.fromkeys(labels)}
        for name, count in counts.items():
            measurements.append(
                Measurement(
                    name="share_of_phase", value=count / len(cells), unit="share of cells", n=len(cells), of="cells",
                    at={"phase": name}, how="exact count on this grid",
                )
            )  # fmt: skip
        return Answer(
            title=f"Phases of {self.n} features in {self.d} dimension{'s' if self.d > 1 else ''}, "
            f"{self.size} x {self.size} cells",
            findings=Findings(measurements, {"cells": table}),
            sentences=tuple(findings),
            arrays={"W": W, "b": best.parameters["b"].double()},
        )


def _names(n: int, d: int) -> tuple[str, ...]:
    """What `phase` can say."""
    return {(2, 1): toy_loss.PHASES_2_1, (3, 2): toy_loss.PHASES_3_2}.get((n, d), OTHER_PHASES)


def phase(W: Tensor) -> str:
    """What one model does, by norms and the most opposite pair: see `theory.toy_loss.PHASES_2_1` and `PHASES_3_2`.

    A feature below half the largest norm is ignored. For other sizes only the last feature is judged: it shares if its
    overlap with another is above half its own squared norm.
    """
    n, d = W.shape
    if (n, d) == (2, 1):
        return toy_loss.phase_of_pair(float(W[0, 0]), float(W[1, 0]))
    norms = W.norm(dim=1)
    faint = norms < norms.max() / 2
    if (n, d) == (3, 2):
        if bool(faint.any()):
            return toy_loss.PHASES_3_2[0 if bool(faint[2]) else 1]
        unit = W / norms[:, None]
        cosines = unit @ unit.T
        pairs = {(0, 1): float(cosines[0, 1]), (0, 2): float(cosines[0, 2]), (1, 2): float(cosines[1, 2])}
        return toy_loss.PHASES_3_2[3 if min(pairs, key=pairs.__getitem__) == (0, 1) else 2]
    if bool(faint[-1]):
        return OTHER_PHASES[0]
    overlap = (W[:-1] @ W[-1]).abs().max() if n > 1 else torch.zeros(())
    return OTHER_PHASES[2 if float(overlap) > float(norms[-1] ** 2) / 2 else 1]


def _wilson(successes: int, n: int) -> tuple[float, float]:
    z, share = 1.96, successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(centre - half, 0.0), min(centre + half, 1.0)
