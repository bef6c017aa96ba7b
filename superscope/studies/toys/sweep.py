"""What does a toy model do with n features in d dimensions, as density falls? Trained side by side, measured,
recorded."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pyarrow
import pyarrow.parquet
import torch
import tyro
from torch import Tensor

from ...core import Answer, Findings, Measurement, Run, files
from ...features import MAGNITUDES, Independent, Magnitude
from ...measure.geometry.polytope import polytopes
from ...measure.toy import FAINT, dimensionalities, jumps, overlaps
from ...toys import FAMILIES, Ensemble, Family, Recipe, train
from .. import arguments
from ..settings import Count, above, at_least
from ..study import Progress, Study

METRICS = ("features_per_dimension", "feature_dimensionality", "interference", "represented")
_PAUSE, _SHARE = 1.0, 20.0
"""Training is kept at a step that is recorded, at most once in so many seconds, and so many times what keeping took,
and at the last."""
_MEASURING = 130_000.0
"""What measuring costs, in rows of training: 65 536 are read for the loss."""
_FAMILIES: dict[str, tuple[type[Family], dict[str, Any]]] = {
    name: (family, dict(stands_for))
    for family in FAMILIES
    for name, stands_for in ((family.name, {}), *family.variants.items())
}
_SIZES = ("n", "d")


@dataclass(frozen=True, eq=False)
class _Frame:
    """Where all models stood at one step: W, of shape (e, n, d), and b, by output, 0 where there is none."""

    step: int
    W: Tensor
    b: Tensor

    @classmethod
    def of(cls, ensemble: Ensemble) -> _Frame:
        W = ensemble.atoms.detach().clone()
        b = ensemble.parameters.get("b")
        return cls(ensemble.step, W, W.new_zeros(W.shape[:2]) if b is None else b.detach().clone())


@dataclass(frozen=True)
class ToySweep(Study):
    """What does a toy model do with n features in d dimensions, as they grow rarer?

    Trains one model for every density and seed, all at once, and measures each: how many features are represented,
    in how many dimensions each, who interferes with whom, which polytopes they form, and how training went.
    """

    kind: ClassVar[str] = "toy"

    n: Count = 20
    """Features."""
    d: Count = 5
    """Hidden dimensions (neurons, for the families with a hidden ReLU)."""
    densities: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03, 0.01)
    """P(feature active), one model each."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Starts and data of each density; densities of one seed share both."""
    importance: Annotated[float, at_least(0)] = 1.0
    """Feature i weighs importance^i in the loss."""
    family: Annotated[str, tyro.conf.arg(metavar=f"{{{','.join(_FAMILIES)}}}")] = "tied"
    """The model: ReLU(W'W f + b), its linear twin, two matrices, a ReLU in the hidden layer, or one that computes: |f|,
    every AND of two features, a ReLU beside a residual stream."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """NAME=VALUE: a setting that the family has beside n and d; `--set help` lists them. May be repeated."""
    magnitude: str | None = None
    """Law of an active feature: uniform, gaussian, fixed, each with its numbers after colons (uniform:-1:1,
    gaussian:0:1, fixed:1). Default: what the family's definition has: U[0, 1], U[-1, 1] where it takes features of
    either sign, 1 where it takes booleans."""
    steps: Count = 10_000
    """Training steps."""
    batch: Count = 1024
    """Rows in one step."""
    lr: Annotated[float, above(0, finite=True)] = 1e-3
    """Adam's learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate falls."""
    weight_decay: Annotated[float, at_least(0, finite=True)] = 0.01
    """AdamW's; 0 to compare with exact optima."""
    estimator: Literal["sampled", "stratified", "exact"] = "sampled"
    """The published recipe, or fewer sampled terms, or none: see superscope.toys.Recipe."""
    l1: Annotated[float, at_least(0, finite=True)] = 0.0
    """Penalty on hidden activations."""
    record: Annotated[int, at_least(0)] = 40
    """Snapshots kept of training, evenly spaced; 0 for none."""
    metrics: tuple[str, ...] = METRICS
    """Which of these to report for each model."""

    def check(self) -> None:
        if not self.densities or not all(0 < p <= 1 for p in self.densities):
            raise ValueError(f"densities must be numbers in (0, 1], P(feature active); got {self.densities}.")
        if not self.seeds:
            raise ValueError("seeds must name at least one seed.")
        if unknown := [name for name in self.metrics if name not in METRICS]:
            raise ValueError(f"metrics knows {', '.join(METRICS)}; got {unknown[0]!r}.")
        # The rest is checked where it is used; here, before anything has run.
        self.recipe()
        self.law(self.model())

    def recipe(self) -> Recipe:
        """How the models are trained."""
        return Recipe(
            steps=self.steps,
            batch=self.batch,
            lr=self.lr,
            schedule=self.schedule,
            weight_decay=self.weight_decay,
            estimator=self.estimator,
            l1=self.l1,
        )

    def model(self) -> Family:
        """What each of the models is."""
        family, stands_for = arguments.pick(self.family, _FAMILIES, "family of toy models")
        without = (*_SIZES, *stands_for)
        settings = arguments.read(self.set, family, name=self.family, without=without)
        return family(n=self.n, d=self.d, **stands_for, **settings)  # type: ignore[call-arg]

    def law(self, family: Family) -> Magnitude:
        """Of an active feature."""
        if self.magnitude is None:
            return family.magnitude
        known = arguments.by_name(MAGNITUDES)
        # The family's own law by its bare name has the family's own numbers.
        if ":" not in self.magnitude and type(family.magnitude) is known.get(self.magnitude.lower()):
            return family.magnitude
        return arguments.magnitude(self.magnitude)

    def ensemble(self) -> Ensemble:
        """The untrained models, seed by seed and within a seed density by density."""
        family = self.model()
        laws = [Independent(self.n, p, self.law(family)) for _ in self.seeds for p in self.densities]
        seeds = [seed for seed in self.seeds for _ in self.densities]
        importance = self.importance ** torch.arange(family.outputs, dtype=torch.float64)
        return Ensemble(family, laws, importance, seeds)

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        ensemble, recipe = self.ensemble(), self.recipe()
        history: list[tuple[int, Tensor]] = []
        frames = [_Frame.of(ensemble)]
        if run.has("arrays.safetensors", "training.parquet", "state.safetensors"):
            ensemble.restore(run / "state.safetensors")
            frames, history = self._kept(run, ensemble.step, frames)
        every = max(1, self.steps // max(self.record, 20))
        stage = f"Training {len(ensemble)} models"
        ahead = {stage: float(self.steps * self.batch), "Measuring": _MEASURING}
        yield Progress(stage, ensemble.step, self.steps, resumed=ensemble.step > 0, ahead=ahead)
        due = 0.0
        for step in train(ensemble, recipe, every=every):
            history.append((step.index, step.loss.double()))
            if self.record:
                frames.append(_Frame.of(ensemble))
            # The last step always: what a finished run holds does not follow from how long it took.
            if time.monotonic() >= due or step.index == self.steps:
                began = time.monotonic()
                self._keep(run, ensemble, frames, history)
                due = time.monotonic() + max(_PAUSE, _SHARE * (time.monotonic() - began))
            yield Progress(stage, step.index, self.steps, f"loss {float(step.loss.nanmean()):.4g}")
        yield Progress("Measuring", 0, 1)
        answer = self._report(ensemble, frames, history)
        yield Progress("Measuring", 1, 1)
        return answer

    def _keep(self, run: Run, ensemble: Ensemble, frames: list[_Frame], history: list[tuple[int, Tensor]]) -> None:
        """What the report will have of training so far, for whoever watches, and after it the state to go on from."""
        arrays, training = self._arrays(ensemble, frames), pyarrow.table(self._training(history))
        run.keep("arrays.safetensors", lambda path: files.write_tensors(path, arrays))
        run.keep("training.parquet", lambda path: files.write_table(path, training))
        run.keep("state.safetensors", ensemble.save)

    def _kept(self, run: Run, last: int, frames: list[_Frame]) -> tuple[list[_Frame], list[tuple[int, Tensor]]]:
        """Frames and losses up to the step that the state is of."""
        arrays = files.read_tensors(run / "arrays.safetensors")
        if self.record:
            marks = arrays["snapshot_steps"].tolist()
            frames = [
                _Frame(step, W, b)
                for step, W, b in zip(marks, arrays["snapshots"], arrays["snapshot_biases"], strict=True)
                if step <= last
            ]
        training = pyarrow.parquet.read_table(run / "training.parquet").to_pydict()
        losses: dict[int, list[float]] = {}
        for step, loss in zip(training["step"], training["loss"], strict=True):
            losses.setdefault(step, []).append(math.nan if loss is None else loss)
        history = [(step, torch.tensor(row, dtype=torch.float64)) for step, row in losses.items() if step <= last]
        return frames, history

    def _arrays(self, ensemble: Ensemble, frames: list[_Frame]) -> dict[str, Tensor]:
        now = _Frame.of(ensemble)
        arrays = {"W": now.W.contiguous(), "b": now.b.contiguous()}
        if self.record:
            arrays |= {
                "snapshots": torch.stack([frame.W for frame in frames]),
                "snapshot_biases": torch.stack([frame.b for frame in frames]),
                "snapshot_steps": torch.tensor([frame.step for frame in frames]),
            }
        return arrays

    def _training(self, history: list[tuple[int, Tensor]]) -> dict[str, list]:
        where = self._where()
        return {
            "step": [step for step, _ in history for _ in where],
            "density": [at["density"] for _ in history for at in where],
            "seed": [at["seed"] for _ in history for at in where],
            "loss": [float(v) if torch.isfinite(v) else None for _, values in history for v in values],
        }

    def _where(self) -> list[dict[str, Any]]:
        return [{"density": p, "seed": seed} for seed in self.seeds for p in self.densities]

    def _report(
        self,
        ensemble: Ensemble,
        frames: list[_Frame],
        history: list[tuple[int, Tensor]],
    ) -> Answer:
        where = self._where()
        alive = ~ensemble.diverged
        loss, error = ensemble.expected_loss()
        atoms = ensemble.atoms.double()
        D, share, norms = dimensionalities(atoms), overlaps(atoms), atoms.norm(dim=-1)
        measurements: list[Measurement] = []
        for e, at in enumerate(where):
            measurements += self._model(at, bool(alive[e]), loss[e], error[e], D[e], share[e], norms[e])
        rows = [(e, i) for e in range(len(where)) for i in range(self.n) if alive[e]]
        b = _Frame.of(ensemble).b
        features = {
            "density": [where[e]["density"] for e, _ in rows],
            "seed": [where[e]["seed"] for e, _ in rows],
            "feature": [i for _, i in rows],
            "norm": [float(norms[e, i]) for e, i in rows],
            "dimensionality": [float(D[e, i]) for e, i in rows],
            "interference": [float(share[e, i]) for e, i in rows],
            "bias": [float(b[e, i]) for e, i in rows],
        }
        shapes = [(e, p) for e in range(len(where)) if alive[e] for p in polytopes(atoms[e])]
        named = {
            "density": [where[e]["density"] for e, _ in shapes],
            "seed": [where[e]["seed"] for e, _ in shapes],
            "polytope": [p.name for _, p in shapes],
            "features": [list(p.features) for _, p in shapes],
            "k": [p.k for _, p in shapes],
            "d": [p.d for _, p in shapes],
            "error": [p.error for _, p in shapes],
        }
        found_jumps = self._jumps(frames, where, alive)
        return Answer(
            title=f"{self.n} features in {self.d} dimensions, {len(where)} {self.family} models",
            findings=Findings(
                measurements,
                {
                    "features": features,
                    "polytopes": named,
                    "training": self._training(history),
                    "jumps": found_jumps,
                },
            ),
            sentences=self._findings(norms, D, alive),
            arrays=self._arrays(ensemble, frames),
        )

    def _model(
        self, at: dict, alive: bool, loss: Tensor, error: Tensor, D: Tensor, share: Tensor, norms: Tensor
    ) -> list[Measurement]:
        if not alive:
            return [
                Measurement(
                    name="loss", value=None, unit="squared error", n=self.steps, of="steps", at=at,
                    caution="this model diverged; lower lr",
                )
            ]  # fmt: skip
        sure = float(error) == 0
        family = self.model()
        importance = [self.importance**i for i in range(family.outputs)]
        best, best_is = family.best_known(importance, float(at["density"]), self.law(family))
        found = [
            Measurement(
                name="loss",
                value=float(loss),
                unit="squared error",
                n=1 if sure else 65_536,
                of="closed forms" if sure else "rows",
                low=None if sure else float(loss - 1.96 * error),
                high=None if sure else float(loss + 1.96 * error),
                how="exact: closed form" if sure else "1.96 standard errors over sampled rows",
                reference=best,
                reference_is=best_is,
                at=at,
            )
        ]
        seen = norms > FAINT
        spread = norms.square().sum() / self.d
        facts = {
            "features_per_dimension": (float(spread), "features per dimension", None, ""),
            "feature_dimensionality": (
                float(D[seen].mean()) if bool(seen.any()) else 0.0,
                "dimensions",
                min(1.0, self.d / max(int(seen.sum()), 1)),
                "d shared evenly",
            ),
            "interference": (float(share.mean()), "squared overlap", 0.0, "orthogonal features"),
            "represented": (float((norms > 0.5).sum()), "features", None, ""),
        }
        for name in self.metrics:
            value, unit, reference, reference_is = facts[name]
            found.append(
                Measurement(
                    name=name, value=value, unit=unit, n=self.n, of="features", at=at, how="exact, of this model",
                    reference=reference, reference_is=reference_is,
                )
            )  # fmt: skip
        return found

    def _jumps(self, frames: list[_Frame], where: list[dict], alive: Tensor) -> dict[str, list]:
        table: dict[str, list] = {name: [] for name in ("density", "seed", "feature", "start", "stop", "change")}
        if not self.record:
            return table
        trajectory = dimensionalities(torch.stack([frame.W for frame in frames]))
        marks = [frame.step for frame in frames]
        window = max(1, self.steps // 20)
        for e, at in enumerate(where):
            if not alive[e]:
                continue
            for jump in jumps(trajectory[:, e], marks, window=window, after=self.steps // 10):
                for name, value in (*at.items(), *dataclasses.asdict(jump).items()):
                    table[name].append(value)
        return table

    def _findings(self, norms: Tensor, D: Tensor, alive: Tensor) -> tuple[str, ...]:
        sentences = []
        count = len(self.densities)
        for index, p in enumerate(self.densities):
            models = [e for e in range(index, len(norms), count) if alive[e]]
            if not models:
                sentences.append(f"At density {p:g} every model diverged.")
                continue
            per_dimension = norms[models].square().sum(-1) / self.d
            sentences.append(
                f"At density {p:g}, {float(per_dimension.mean()):.2f} features per dimension "
                f"({float(per_dimension.min()):.2f} to {float(per_dimension.max()):.2f} over {len(models)} seeds)."
            )
        if lost := int((~alive).sum()):
            sentences.append(f"{lost} of {len(alive)} models diverged and are left out.")
        return tuple(sentences)
