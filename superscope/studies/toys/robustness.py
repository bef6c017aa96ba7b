"""Are superposed features easier to disturb? Attacks, input noise and weight noise over a sweep of densities."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from scipy.stats import spearmanr

from ...core import Answer, Findings, Measurement, Run
from ...features import Independent
from ...toys import Ensemble, Recipe, Tied, attacked
from ..settings import Count, above, at_least
from ..study import Progress, Study
from .kept import kept_training

_ATTACKED = 96
"""Rows that are attacked, each in n ways."""
_NOISY = 4096
"""Rows that are read with and without noise."""


@dataclass(frozen=True)
class ToyRobustness(Study):
    """Are superposed features easier to disturb?

    Trains tied models over densities, then measures how much their loss rises under the analytic attack (the strongest
    of n, along the rows of W'W), under random input noise of the same size, and under noise in the weights.
    """

    kind: ClassVar[str] = "toy-robustness"

    n: Count = 80
    """Features."""
    d: Count = 10
    """Hidden dimensions."""
    densities: tuple[float, ...] = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05)
    """P(feature active); the first is the model that others are compared with, and should be dense."""
    size: Annotated[float, above(0)] = 0.1
    """Size of a perturbation, in mean norms of the input (of the weights, for weight noise)."""
    attack: Annotated[float, at_least(0, finite=True)] = 0.0
    """Train against the attack too: its size in training, in mean norms."""
    steps: Count = 3000
    """Training steps."""
    batch: Count = 512
    """Rows in one step."""
    lr: Annotated[float, above(0, finite=True)] = 5e-3
    """Adam's peak learning rate, falling along a cosine."""
    seed: int = 0
    """Of starts, data and noise."""

    def check(self) -> None:
        if len(self.densities) < 3 or not all(0 < p <= 1 for p in self.densities):
            raise ValueError(f"densities must be at least three numbers in (0, 1]; got {self.densities}.")
        self._recipe()

    def _recipe(self) -> Recipe:
        return Recipe(
            steps=self.steps, batch=self.batch, lr=self.lr, schedule="cosine", weight_decay=0.0, attack=self.attack
        )

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        ensemble = Ensemble(Tied(self.n, self.d), [Independent(self.n, p) for p in self.densities], None, self.seed)
        training = kept_training(run, "trained", ensemble, self._recipe(), every=max(1, self.steps // 20))
        # Rows that are read; those of training a second and third time for the gradients.
        ahead = {"Training": 3.0 * self.steps * self.batch, "Disturbing": _ATTACKED * self.n + 4.0 * _NOISY}
        yield Progress("Training", ensemble.step, self.steps, resumed=ensemble.step > 0, ahead=ahead)
        for step in training:
            yield Progress("Training", step.index, self.steps)
        columns = ("density", "features_per_dimension", "attack", "input_noise", "weight_noise")
        table: dict[str, list] = {name: [] for name in columns}
        per_dimension = ensemble.atoms.double().square().sum((1, 2)) / self.d
        yield Progress("Disturbing", 0, len(self.densities))
        for e, p in enumerate(self.densities):
            rises = (vulnerability(ensemble, e, self.size), *noise_rises(ensemble, e, self.size, self.seed))
            for name, value in zip(columns, (p, float(per_dimension[e]), *rises), strict=True):
                table[name].append(value)
            yield Progress("Disturbing", e + 1, len(self.densities))
        return self._report(table)

    def _report(self, table: dict[str, list]) -> Answer:
        measurements, findings = [], []
        for name in ("attack", "input_noise", "weight_noise"):
            values = table[name]
            found = spearmanr(values, table["features_per_dimension"])
            measurements.append(
                Measurement(
                    name=f"{name}_follows_superposition",
                    value=float(found.statistic),
                    unit="rank correlation",
                    n=len(values),
                    of="densities",
                    how=f"no interval: one model per density (two-sided p = {float(found.pvalue):.2g} if independent)",
                    chance=0.0,
                    chance_is="no relation",
                )
            )
            if values[0] > 0:
                ratio = max(values) / values[0]
                what = name.replace("_", " ")
                findings.append(f"The rise of loss under {what} grows up to {ratio:.1f}-fold over the densest model.")
        return Answer(
            title=f"Robustness of {self.n} features in {self.d} dimensions",
            findings=Findings(measurements, {"models": table}),
            sentences=tuple(findings),
        )


def vulnerability(ensemble: Ensemble, model: int, share: float = 0.1, rows: int = _ATTACKED) -> float:
    r"""$\mathbb E\left[ \max_i L(f + \epsilon \hat G_i) - L(f) \right] / \epsilon^2$, $\epsilon$ a share of the mean
    norm of f.

    Divided by the squared size, models on features of different densities can be compared; for unit norms the excess is
    about $1/D_i$. Gradient attacks see nothing behind an inactive ReLU and are weaker.

    Args:
        ensemble: models that read linearly.
        model: which one.
        share: size of the attack, in mean norms of f.
        rows: clean rows; each is attacked n ways.
    """
    law, n = ensemble.laws[model], ensemble.family.n
    f = law.sample(rows, generator=torch.Generator().manual_seed(5)).dense()
    one = {name: value[model : model + 1] for name, value in ensemble.parameters.items()}
    G = ensemble.family.responses(one)[0][1]
    reach = torch.full((1,), share * float(f.norm(dim=1).mean()))
    repeated = f.repeat_interleave(n, 0)[None]
    pushed = attacked(G, repeated, ((torch.arange(n) + 0.5) / n).repeat(rows), reach)
    with torch.no_grad():
        hurt = ((ensemble.family.forward(one, pushed) - repeated) ** 2).sum(-1).reshape(rows, n).amax(1)
        clean = ((ensemble.family.forward(one, f[None]) - f) ** 2).sum(-1)[0]
    return float((hurt - clean).mean() / reach**2)


def noise_rises(ensemble: Ensemble, model: int, share: float, seed: int, rows: int = _NOISY) -> tuple[float, float]:
    """Rise of the loss over clean: under Gaussian input noise of a share of the mean norm of f (per squared size), and
    under Gaussian weight noise of a share of W's norm (as a share of the clean loss)."""
    g = torch.Generator().manual_seed(seed)
    f = ensemble.laws[model].sample(rows, generator=g).dense()[None]
    one = {name: value[model : model + 1] for name, value in ensemble.parameters.items()}
    size = share * float(f.norm(dim=-1).mean())
    noise = torch.randn(f.shape, generator=g) * size / f.shape[-1] ** 0.5
    shake = torch.randn(one["W"].shape, generator=g)
    shaken = one | {"W": one["W"] + shake * share * one["W"].norm() / shake.norm()}

    def loss(parameters: dict, seen: torch.Tensor) -> float:
        with torch.no_grad():
            return float(((ensemble.family.forward(parameters, seen) - f) ** 2).sum(-1).double().mean())

    clean = loss(one, f)
    return (loss(one, f + noise) - clean) / size**2, (loss(shaken, f) - clean) / max(clean, 1e-12)
