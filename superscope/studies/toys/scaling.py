"""How does loss fall with width, in weak and in strong superposition?"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from ...core import Answer, Findings, Measurement, Run
from ...features import Uniform, Zipf
from ...measure import power_law
from ...toys import Ensemble, Recipe, Tied
from ..settings import Count, above, at_least
from ..study import Progress, Study
from .kept import kept_training

REGIMES = ("weak", "strong")
_FEATURES = 30
"""Of a training step: what is done to each feature beside the products, in hidden dimensions (timed)."""


@dataclass(frozen=True)
class ToyScaling(Study):
    """How does loss fall with width, in weak and in strong superposition?

    Features of Zipfian densities, stored by tied ReLU models of several widths. Weight decay above 0 keeps only
    frequent features (weak superposition: the loss is that of the features left out); below 0 it pulls every
    feature's norm to 1 (strong: the loss is interference, about 1/width whatever the densities).
    """

    kind: ClassVar[str] = "toy-scaling"

    n: Count = 512
    """Features."""
    widths: tuple[int, ...] = (6, 8, 12, 16, 24)
    """Hidden dimensions d."""
    alpha: Annotated[float, at_least(0)] = 1.0
    """Densities fall as rank^-alpha."""
    active: Annotated[float, above(0)] = 1.0
    """Features active in one row, on average."""
    decay: Annotated[float, above(0, because="its sign is the regime's")] = 1.0
    """Size of the weight decay, positive for the weak and negative for the strong regime."""
    seeds: Count = 2
    """Models at each width."""
    steps: Count = 1500
    """Training steps."""
    batch: Count = 256
    """Rows in one step."""
    lr: Annotated[float, above(0, finite=True)] = 1e-2
    """Adam's peak learning rate, with a warm-up over a tenth of the steps and a cosine."""

    def check(self) -> None:
        if len(self.widths) < 3 or min(self.widths) < 1 or len(set(self.widths)) < len(self.widths):
            raise ValueError(
                f"widths must be at least three different positive numbers, to fit a slope; got {self.widths}."
            )
        Zipf(self.n, self.alpha, self.active)
        self._recipe("weak")

    def _recipe(self, regime: str) -> Recipe:
        return Recipe(
            steps=self.steps,
            batch=self.batch,
            lr=self.lr,
            schedule="cosine",
            warmup=self.steps // 10,
            weight_decay=self.decay if regime == "weak" else -self.decay,
        )

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        columns = ("regime", "d", "seed", "loss", "error", "represented", "left_out")
        table: dict[str, list] = {name: [] for name in columns}
        law = Zipf(self.n, self.alpha, self.active, Uniform(0.0, 2.0))
        # Products of n x d, and what is done to the n features whatever d is.
        ahead = {_stage(regime, d): float(d + _FEATURES) for regime in REGIMES for d in self.widths}
        for regime in REGIMES:
            for number, d in enumerate(self.widths):
                seeds = [1000 * number + seed for seed in range(self.seeds)]
                ensemble = Ensemble(Tied(self.n, d), law, None, seeds)
                name, every = f"{regime}-{d}", max(1, self.steps // 10)
                training = kept_training(run, name, ensemble, self._recipe(regime), every=every)
                stage, there = _stage(regime, d), ensemble.step
                yield Progress(stage, there, self.steps, resumed=there > 0, ahead=ahead)
                for step in training:
                    yield Progress(stage, step.index, self.steps)
                loss, error = ensemble.expected_loss(rows=32_768)
                stored = (ensemble.atoms.norm(dim=-1) > 0.5).double()
                share = stored.mean(1)
                # What the features left out cost at their best bias: their variance.
                left_out = (1 - stored) @ law.covariance.diagonal()
                for e in range(self.seeds):
                    values = (regime, d, e, float(loss[e]), float(error[e]), float(share[e]), float(left_out[e]))
                    for name, value in zip(columns, values, strict=True):
                        table[name].append(value)
        return self._report(table)

    def _report(self, table: dict[str, list]) -> Answer:
        measurements = []
        for regime in REGIMES:
            rows = [i for i, name in enumerate(table["regime"]) if name == regime]
            law = power_law(*([table[key][i] for i in rows] for key in ("d", "loss")), of="models")
            low, high = law.interval.low, law.interval.high
            measurements.append(
                Measurement(
                    name="width_exponent",
                    value=-law.exponent,
                    unit="loss ~ d^-exponent",
                    n=len(rows),
                    of="models",
                    low=None if high is None else -high,
                    high=None if low is None else -low,
                    how=law.interval.how,
                    reference=1.0 if regime == "strong" else self.alpha - 1,
                    reference_is="overlaps of 1/d"
                    if regime == "strong"
                    else "alpha - 1: the tail of features left out",
                    at={"regime": regime},
                    caution=""
                    if law.explained > 0.95
                    else f"a power law explains only {law.explained:.0%} of log loss",
                )
            )
            shares = [table["represented"][i] for i in rows]
            measurements.append(
                Measurement(
                    name="represented",
                    value=float(np.mean(shares)),
                    unit="share of features with norm above 1/2",
                    n=len(rows),
                    of="models",
                    low=min(shares),
                    high=max(shares),
                    how="min and max over models",
                    at={"regime": regime},
                )
            )
        rows = [i for i, name in enumerate(table["regime"]) if name == "weak" and table["left_out"][i] > 0]
        ratios = [table["loss"][i] / table["left_out"][i] for i in rows]
        if ratios:
            measurements.append(
                Measurement(
                    name="loss_over_features_left_out",
                    value=float(np.median(ratios)),
                    unit="ratio",
                    n=len(ratios),
                    of="models",
                    low=min(ratios),
                    high=max(ratios),
                    how="median, min and max over models",
                    reference=1.0,
                    reference_is="nothing but the features left out costs",
                    at={"regime": "weak"},
                )
            )
        weak, strong = (m for m in measurements if m.name == "width_exponent")
        tail = "" if self._tail() is None else f"; {self._tail():.2f} expected of an endless tail"
        return Answer(
            title=f"Loss against width, n = {self.n}, densities ~ rank^-{self.alpha:g}",
            findings=Findings(measurements, {"models": table}),
            sentences=(
                f"Strong superposition: loss falls as d^-{strong.value:.2f} ({strong.low:.2f} to "
                f"{strong.high:.2f}); 1 expected.",
                f"Weak superposition: loss falls as d^-{weak.value:.2f} ({weak.low:.2f} to {weak.high:.2f}){tail}.",
            ),
        )

    def _tail(self) -> float | None:
        # The sum over ranks beyond d falls as a power only if the tail converges.
        return self.alpha - 1 if self.alpha > 1 else None


def _stage(regime: str, d: int) -> str:
    return f"Training, {regime} superposition, d = {d}"
