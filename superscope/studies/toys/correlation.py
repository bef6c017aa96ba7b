"""Does superposition rise with features per dimension and fall as features come together? A sweep that can refute
it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from scipy.stats import spearmanr

from ...core import Answer, Findings, Measurement, Run
from ...features import Correlated
from ...measure.toy import FAINT, dimensionalities
from ...toys import Ensemble, Recipe, Tied
from ..settings import Count, above, at_least, at_most
from ..study import Progress, Study
from .kept import kept_training

_DRAWS = 200


@dataclass(frozen=True)
class ToyCorrelation(Study):
    """Does superposition rise with n/d, and fall as features correlate?

    Trains tied models over a grid of n/d, correlation of the gates within sets, and seeds. Superposition is the
    share of a represented feature's dimension that others use, 1 - D_i, averaged. The prediction is a trend; it is
    reported as a rank correlation with an interval over seeds, whichever way it comes out.
    """

    kind: ClassVar[str] = "toy-correlation"

    d: Count = 5
    """Hidden dimensions."""
    ratios: tuple[int, ...] = (1, 2, 4, 8)
    """Features per dimension, n/d."""
    correlations: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Correlation of two gates of one set; 1 is always together."""
    size: Annotated[int, at_least(2)] = 5
    """Features in a set; n must be a multiple of it."""
    density: Annotated[float, above(0), at_most(1)] = 0.1
    """P(feature active), the same throughout."""
    seeds: Annotated[int, at_least(2)] = 5
    """Models for each cell of the grid."""
    steps: Count = 2000
    """Training steps."""
    batch: Count = 256
    """Rows in one step."""
    lr: Annotated[float, above(0, finite=True)] = 5e-3
    """Adam's peak learning rate, falling along a cosine."""

    def check(self) -> None:
        if len(self.ratios) < 2 or min(self.ratios) < 1 or len(self.correlations) < 2:
            raise ValueError(
                "ratios and correlations each need at least two values, ratios of at least 1, to show a trend."
            )
        for ratio in self.ratios:
            if ratio * self.d % self.size:
                raise ValueError(
                    f"size = {self.size} must divide every n = ratio x d; it does not divide {ratio} x {self.d}."
                )
        for correlation in self.correlations:
            Correlated(1, self.size, self.density, correlation)
        self._recipe()

    def _recipe(self) -> Recipe:
        return Recipe(steps=self.steps, batch=self.batch, lr=self.lr, schedule="cosine", weight_decay=0.0)

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        table: dict[str, list] = {
            name: [] for name in ("ratio", "correlation", "seed", "superposition", "per_dimension")
        }
        # A step of a tied model costs its products, and those grow with n.
        ahead = {_stage(ratio): float(ratio) for ratio in self.ratios}
        for number, ratio in enumerate(self.ratios):
            n = ratio * self.d
            cells = [(correlation, seed) for seed in range(self.seeds) for correlation in self.correlations]
            laws = [Correlated(n // self.size, self.size, self.density, correlation) for correlation, _ in cells]
            # Without a break in the tie between ratio and seed, errors would be shared across ratios.
            ensemble = Ensemble(Tied(n, self.d), laws, None, [1000 * number + seed for _, seed in cells])
            training = kept_training(run, f"ratio-{ratio}", ensemble, self._recipe(), every=max(1, self.steps // 10))
            yield Progress(_stage(ratio), ensemble.step, self.steps, resumed=ensemble.step > 0, ahead=ahead)
            for step in training:
                yield Progress(_stage(ratio), step.index, self.steps)
            D, norms = dimensionalities(ensemble.atoms), ensemble.atoms.norm(dim=-1)
            for e, (correlation, seed) in enumerate(cells):
                seen = norms[e] > FAINT
                values = (
                    ratio,
                    correlation,
                    seed,
                    float((1 - D[e][seen]).mean()),
                    float(norms[e].square().sum() / self.d),
                )
                for name, value in zip(table, values, strict=True):
                    table[name].append(value)
        return self._report(table)

    def _report(self, table: dict[str, list]) -> Answer:
        measurements = [
            self._trend(table, "ratio", "correlation", "rise_with_features_per_dimension"),
            self._trend(table, "correlation", "ratio", "change_with_correlation"),
            self._trend(table, "correlation", "ratio", "features_change_with_correlation", "per_dimension"),
        ]
        rise, change, stored = measurements
        findings = (
            _verdict("Superposition rises with n/d", rise, up=True),
            _verdict(
                "Superposition, as the share of a feature's dimension that others use, falls with correlation",
                change,
                up=False,
            ),
            _verdict("Superposition, as features stored per dimension, falls with correlation", stored, up=False),
        )
        return Answer(
            title=f"Superposition against n/d and correlation, d = {self.d}",
            findings=Findings(measurements, {"models": table}),
            sentences=findings,
        )

    def _trend(
        self, table: dict[str, list], along: str, within: str, name: str, what: str = "superposition"
    ) -> Measurement:
        x, held, seed, y = (np.asarray(table[key], float) for key in (along, within, "seed", what))

        def trend(seeds: np.ndarray) -> float:
            # The mean over the other variable's values, so that only comparisons at equal settings count.
            found = []
            for value in np.unique(held):
                rows = np.concatenate([np.flatnonzero((held == value) & (seed == s)) for s in seeds])
                if np.ptp(y[rows]) > 0:
                    found.append(float(spearmanr(x[rows], y[rows]).statistic))
            return float(np.mean(found)) if found else 0.0

        g = np.random.default_rng(0)
        draws = [trend(g.integers(0, self.seeds, self.seeds)) for _ in range(_DRAWS)]
        low, high = (float(q) for q in np.quantile(draws, (0.025, 0.975)))
        return Measurement(
            name=name,
            value=trend(np.arange(self.seeds)),
            unit="rank correlation",
            n=len(y),
            of="models",
            low=low,
            high=high,
            how=f"95 % bootstrap over {self.seeds} seeds, {_DRAWS} draws",
            chance=0.0,
            chance_is="no trend",
            caution="few seeds: the interval is itself uncertain" if self.seeds < 5 else "",
        )


def _verdict(claim: str, trend: Measurement, *, up: bool) -> str:
    assert trend.low is not None
    assert trend.high is not None
    sign = 1 if up else -1
    low, high = sorted((sign * trend.low, sign * trend.high))
    word = "holds" if low > 0 else "is refuted" if high < 0 else "is not decided"
    return f"{claim}: {word} (rank correlation {trend.value:.2f}, {trend.low:.2f} to {trend.high:.2f})."


def _stage(ratio: int) -> str:
    return f"Training at n/d = {ratio}"
