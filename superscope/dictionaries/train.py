"""One sparse autoencoder learns its dictionary from a stream of activations."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..core import Activations, ActivationSource, ShapeError, Step, descend
from ..kernels import can_screen, repeated
from ..kernels.choice import multiplies_bfloat16
from .sae.base import SAE
from .sae.residuals import residual_atoms
from .step import exchange, sparse
from .step import memory as scratch
from .step import precision as precisions
from .step.adam import Adam

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """All that a training needs to go on exactly where it was.

    Args:
        tensors: weights, moments and counters, by name.
        facts: what the run is (architecture, arguments, settings) and where it was: anything JSON can hold.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Ramp:
    r"""A factor that goes from `start` to 1 over the first `share` of training, then stays there.

    Args:
        start: at the first step; 4 begins with four times as much, 0 with nothing.
        share: of the steps.
        shape: "linear", or "geometric": by equal ratios.

    Raises:
        ValueError: if start is negative or not finite, or 0 where the shape is geometric, or share is outside [0, 1].

    Example:
        >>> [Ramp(4, 0.5, "geometric")(progress) for progress in (0.0, 0.25, 0.5, 1.0)]
        [4.0, 2.0, 1.0, 1.0]
    """

    start: float | int
    share: float | int = 0.2
    shape: Literal["linear", "geometric"] = "linear"

    def __post_init__(self) -> None:
        if not 0 <= self.start < math.inf or (self.shape == "geometric" and not self.start):
            raise ValueError(
                f"Ramp: start must be a finite factor, at least 0, and above it where the shape is geometric; "
                f"got {self.start}."
            )
        if not 0 <= self.share <= 1:
            raise ValueError(f"Ramp: share must be in [0, 1]; got {self.share}.")
        if self.shape not in ("linear", "geometric"):
            raise ValueError(f'Ramp: shape must be "linear" or "geometric"; got {self.shape!r}.')

    def __call__(self, progress: float) -> float:
        """The factor after a share of training."""
        if progress >= self.share:
            return 1.0
        left = 1 - progress / self.share
        return float(self.start**left) if self.shape == "geometric" else 1 + (self.start - 1) * left


class Training(Iterator[Step]):
    """The training of one SAE: an iterator of Steps whose state can be taken between any two of them.

    Made by `train`, which checks its arguments.

    Args:
        sae: changed in place.
        source: where x comes from.
        settings: the arguments of `train`, by name.
    """

    def __init__(self, sae: SAE, source: ActivationSource, settings: Mapping[str, Any]) -> None:
        self.sae, self.source, self.settings = sae, source, dict(settings)
        self.done = 0
        self._batches = Batches(sae, source, settings["batch"], settings["seed"])
        self._scale = 0.0
        self._silent = torch.zeros(sae.n, dtype=torch.long, device=sae.atoms.device)
        # How often each latent was on since latents were last put in order.
        self._uses = torch.zeros_like(self._silent)
        self._optimizer: Adam | None = None
        self._restored: State | None = None
        self._held: dict[str, Tensor] = {}
        self._steps: Iterator[Step] | None = None
        self._truth = getattr(source, "dictionary", None)

    def __iter__(self) -> Training:
        return self

    def __next__(self) -> Step:
        if self._steps is None:
            self._steps = self._run()
        return next(self._steps)

    def state(self) -> State:
        """Where the training is, between two steps. The tensors are copies.

        Raises:
            ValueError: before the first step, when there is nothing to go on from.
        """
        if self._optimizer is None:
            raise ValueError("Training.state: nothing has been trained yet. Take a step first.")
        tensors = self._tensors()
        for name, parameter in self.sae.named_parameters():
            moments = self._optimizer.state[parameter]
            tensors |= {f"adam.{name}.{moment}": moments[moment] for moment in moments}
        tensors["silent"] = self._silent
        if self.settings["sort_every"]:
            tensors["uses"] = self._uses
        facts = self._facts() | {
            "done": self.done,
            "scale": self._scale,
            "epoch": self._batches.epoch,
            "batch": self._batches.index,
        }
        return State({name: tensor.detach().clone() for name, tensor in tensors.items()}, facts)

    def restore(self, state: State) -> Training:
        """Goes on from a state that the same training had, in this process or an earlier one.

        Raises:
            ValueError: if the state is of another architecture, other arguments or settings, or lacks a tensor; the SAE
                is then unchanged.
        """
        if self._steps is not None:
            raise ValueError("Training.restore: this training has begun. Restore before the first step.")
        facts = self._facts()
        for key in ("architecture", "arguments", "settings"):
            if state.facts.get(key) != facts[key]:
                what = _difference(key, state.facts.get(key), facts[key])
                raise ValueError(
                    f"Training.restore: the state is that of another training: {what}. "
                    "Repeat its settings to go on, or start anew in another place."
                )
        own = self._tensors()
        for name, tensor in own.items():
            if name not in state.tensors or state.tensors[name].shape != tensor.shape:
                raise ValueError(f"Training.restore: the state has no {name} of shape {tuple(tensor.shape)}.")
        for name, tensor in own.items():
            tensor.data.copy_(state.tensors[name])
        self._restored = state
        self.done = state.facts["done"]
        return self

    def _tensors(self) -> dict[str, Tensor]:
        """All of the SAE, what it does not save included."""
        return {f"sae.{name}": tensor for name, tensor in [*self.sae.named_parameters(), *self.sae.named_buffers()]}

    def _facts(self) -> dict[str, Any]:
        return {
            "architecture": type(self.sae).__name__,
            "arguments": dict(self.sae.about),
            "settings": dict(self.settings),
        }

    def _run(self) -> Iterator[Step]:
        steps = self.settings["steps"]
        first: Activations | None = None
        if self._restored is not None:
            facts = self._restored.facts
            self._scale = facts["scale"]
            self._batches.seek(facts["epoch"], facts["batch"], facts["done"])
            self._silent.copy_(self._restored.tensors["silent"])
            if self.settings["sort_every"]:
                self._uses.copy_(self._restored.tensors["uses"])
        if self.done >= steps:
            return
        if self._restored is None:
            first = next(self._batches)
            target = first.x if first.target is None else first.target
            self._scale = root_mean_square(target)
            if self.settings["initialise"]:
                if self.settings["start"] == "residuals":
                    self.begin(first)
                with self._scheduled():
                    self.sae.start(first.x, target=first.target, centre=self.settings["centre"])
        # What needs whole gradients, to clip them or to add up those of several processes, cannot have them deferred.
        rows = self.settings["clip"] is None and exchange.current().alone
        self._optimizer = self._adam(rows)
        deferred = self._optimizer.deferred if rows else None
        waiting = [] if first is None else [first]
        schedule = trapezoid(steps, self.settings["warmup"], self.settings["decay"])
        began = time.perf_counter()

        def objective() -> tuple[Tensor, Mapping[str, float]]:
            given = waiting.pop() if waiting else next(self._batches)
            product = _PRODUCT[self.settings["precision"]]
            with (
                self._scheduled(),
                scratch.kept(self._held),
                precisions.using(product),
                sparse.deferring(deferred),
                repeated(steps, self.settings["batch"] * self.sae.n),
            ):
                return self._objective(given)

        for step in descend(
            objective,
            self._optimizer,
            steps=steps,
            start=self.done,
            schedule=schedule,
            before=self._before,
            after=self._after,
        ):
            self.done = step.index
            every = self.settings["resample_every"]
            if every and step.index % every == 0:
                self._resample()
            every = self.settings["sort_every"]
            if every and step.index % every == 0:
                self._sort()
            now = time.perf_counter()
            numbers = {**step.numbers, "rows_per_second": self.settings["batch"] / (now - began)}
            began = now
            yield Step(step.index, step.loss, numbers)

    def begin(self, first: Activations) -> None:
        """Sets the atoms to directions of rows that the atoms before leave unexplained; `first` gives their centre."""
        if first.target is not None:
            raise ValueError(
                'train: start = "residuals" takes the atoms from the rows, and the source gives targets. '
                'Leave start at "random".'
            )
        whole = self._whole()
        # A seed of the order of rows and of the SAE's own: the members of a sweep share the first alone.
        seeds = np.random.SeedSequence((self.settings["seed"], int(whole.about["seed"]), 2)).generate_state(2)
        order, draws = (int(seed) for seed in seeds)
        rows = (given.x for given in Batches(whole, self.source, self.settings["batch"], order))
        atoms = whole.atoms.detach().clone()
        residual_atoms(atoms, first.x.mean(0), rows, torch.Generator().manual_seed(draws))
        self._begin_with(atoms)

    def _whole(self) -> SAE:
        """The SAE with all of its latents."""
        return self.sae

    def _begin_with(self, atoms: Tensor) -> None:
        """Puts atoms in the place of those that the SAE was made with."""
        self.sae.atoms.data.copy_(atoms)

    @contextmanager
    def _scheduled(self) -> Iterator[None]:
        """k and the penalty's weight as they should be at this step; as they were made, outside."""
        sae, progress = self.sae, self.done / max(self.settings["steps"], 1)
        made: dict[str, Any] = {}
        for name, ramp in (("k", self.settings["k_ramp"]), ("coefficient", self.settings["penalty_ramp"])):
            if ramp is not None:
                made[name] = getattr(sae, name)
                now = Ramp(**ramp)(progress) * made[name]
                setattr(sae, name, min(max(round(now), 1), sae.about["n"]) if name == "k" else now)
        try:
            yield
        finally:
            for name, value in made.items():
                setattr(sae, name, value)

    def _objective(self, given: Activations) -> tuple[Tensor, Mapping[str, float]]:
        sae, settings, x = self.sae, self.settings, given.x
        target = x if given.target is None else given.target
        fit = sae.fit(x, target=given.target, scale=self._scale, progress=self.done / settings["steps"])
        x_hat, loss = fit.x_hat.detach(), fit.loss
        dead = self._silent >= settings["dead_after"]
        n_dead = int(dead.sum())
        if n_dead and settings["auxiliary"]:
            some = rows_for_dead(n_dead, sae.n, len(x))
            error = target[some] - x_hat[some]
            loss = loss + settings["auxiliary"] * sae.auxiliary(x[some], error, dead, settings["auxiliary_k"])
        with torch.no_grad():
            self._silent.add_(len(x)).masked_fill_(fit.fired, 0)
            if settings["sort_every"]:
                self._uses += fit.code.uses
            # Two passes, by hand: torch's own variance over rows costs as much as a sparse product.
            variance, left = _squares(target, target.mean(0)), _squares(target, x_hat)
            numbers = {
                "fraction_variance_unexplained": left / variance if variance > 0 else math.nan,
                "l0": fit.l0,
                "dead": float(n_dead),
            }
            if self._truth is not None and self.done % _TRUTH_EVERY == 0 and self._truth.d == sae.atoms.shape[1]:
                atoms = sae.dictionary.unit().atoms
                numbers["mmcs"] = float((self._truth.unit().atoms.to(atoms) @ atoms.T).amax(1).mean())
        return loss, numbers

    def _adam(self, rows: bool) -> Adam:
        # Adam moves a weight by about lr whatever its gradient's units, so the biases, which have the units of x, get
        # theirs in those units: exactly the step that training on x / scale would make.
        lr, units, shared = self.settings["lr"], self.sae.units, {"betas": tuple(self.settings["betas"])}
        optimizer = Adam(
            [
                {
                    "params": [p for name, p in self.sae.named_parameters() if name not in (*units, "atoms")],
                    "lr": lr,
                    **shared,
                },
                {
                    "params": [p for name, p in self.sae.named_parameters() if name == "atoms"],
                    "lr": lr * self.settings["atoms_lr"],
                    **shared,
                },
                {
                    "params": [p for name, p in self.sae.named_parameters() if name in units],
                    "lr": lr * self._scale,
                    "eps": 1e-8 / self._scale,
                    **shared,
                },
            ],
            unit=self.sae.atoms if rows and self.sae.unit else None,
            steps=self.settings["steps"],
            most=self.settings["batch"] * self.sae.n,
        )
        if self._restored is not None:
            kept: dict[str, dict[str, Tensor]] = {}
            for name, tensor in self._restored.tensors.items():
                if name.startswith("adam."):
                    parameter, _, moment = name.removeprefix("adam.").rpartition(".")
                    kept.setdefault(parameter, {})[moment] = tensor
            for name, parameter in self.sae.named_parameters():
                if name in kept:
                    # A state that was read from disk is on the CPU; the count of steps stays there.
                    optimizer.state[parameter] = {
                        moment: tensor.to("cpu" if moment == "step" else parameter.device, copy=True)
                        for moment, tensor in kept[name].items()
                    }
        return optimizer

    @torch.no_grad()
    def _before(self) -> None:
        assert self._optimizer is not None
        if self._optimizer.unit is None:
            self.sae.project()
        clip = self.settings["clip"]
        if clip is None:
            return
        if self.settings["clip_by"] == "global":
            shrink = (clip / self._norm()).clamp(max=1)
            for parameter in self.sae.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(shrink)
            return
        for parameter in self.sae.parameters():
            gradient = parameter.grad
            if gradient is not None:
                rows = gradient.norm(dim=-1, keepdim=True) if gradient.ndim > 1 else gradient.abs()
                gradient.mul_(clip / rows.clamp(min=clip))

    def _after(self) -> None:
        assert self._optimizer is not None
        self.sae.constrain(normalised=self._optimizer.unit is not None)

    def _norm(self) -> Tensor:
        """The norm of the gradients of all parameters together."""
        gradients = [p.grad for p in self.sae.parameters() if p.grad is not None]
        return torch.stack([gradient.norm() for gradient in gradients]).norm()

    @torch.no_grad()
    def _resample(self) -> None:
        """Each dead latent becomes the direction in which a badly reconstructed row of the next batch is off."""
        dead = (self._silent >= self.settings["dead_after"]).nonzero().squeeze(1)
        if not len(dead):
            return
        sae = self.sae
        given = next(self._batches)
        target = given.x if given.target is None else given.target
        error = target - sae.fit(given.x, target=given.target, scale=self._scale).x_hat
        # A seed of the step, so that a resumed run draws the same rows.
        seed = int(np.random.SeedSequence((self.settings["seed"], self.done, 1)).generate_state(1)[0])
        weights = error.double().square().sum(1).square().cpu()
        if not float(weights.sum()) > 0:
            return
        drawn = torch.multinomial(
            weights, len(dead), replacement=len(dead) > len(weights), generator=torch.Generator().manual_seed(seed)
        ).to(dead.device)
        alive = torch.ones(sae.n, dtype=torch.bool, device=dead.device)
        alive[dead] = False
        lengths = sae.encoder.norm(dim=1)
        length = float(lengths[alive].mean()) if bool(alive.any()) else 1.0
        atoms = torch.nn.functional.normalize(error[drawn], dim=1)
        sae.atoms[dead] = atoms
        # A fifth of a living encoder's length, so that the newcomer does not upset what is learned.
        directions = (
            atoms if sae.encoder.shape == sae.atoms.shape else torch.nn.functional.normalize(given.x[drawn], dim=1)
        )
        sae.encoder[dead] = 0.2 * length * directions
        sae.encoder_bias[dead] = 0
        assert self._optimizer is not None
        for parameter in (sae.atoms, sae.encoder, sae.encoder_bias):
            # A parameter without gradients, an encoder that an architecture does not read, has no moments.
            for name in ("exp_avg", "exp_avg_sq"):
                if name in self._optimizer.state[parameter]:
                    self._optimizer.state[parameter][name][dead] = 0
        self._silent[dead] = 0

    @torch.no_grad()
    def _sort(self) -> None:
        """Numbers the latents anew: those that were on most often since the last time come first."""
        order = self._uses.argsort(descending=True, stable=True)
        assert self._optimizer is not None
        for parameter in (self.sae.atoms, self.sae.encoder, self.sae.encoder_bias):
            moments = self._optimizer.state[parameter]
            for tensor in (parameter, moments["exp_avg"], moments["exp_avg_sq"]):
                tensor.copy_(tensor[order])
        self._silent.copy_(self._silent[order])
        self._uses.zero_()


_DEAD, _FEWEST = 16, 256
"""How many times less the product of rows and dead latents may be than that of a batch and all latents, and the rows
that are fewer than enough to fit them on."""


def rows_for_dead(n_dead: int, n: int, batch: int, *, first: int = 0) -> slice:
    """Which rows of a batch the dead latents are fitted on: each up to n/16 of them, else one in 16 n_dead / n.

    Products with dead latents are dense, six of them in a step. At the beginning of a short run most latents are dead,
    and on all rows they took two thirds of a step; on a few hundred, what is learned is the same but for chance.

    Args:
        n_dead: at least 1.
        n: latents in all.
        batch: rows in all.
        first: the number in the batch of the first row at hand, so that parts of a batch take what the whole would.
    """
    every = min(-(-_DEAD * n_dead // n), max(batch // _FEWEST, 1))
    return slice(-first % every, None, every)


SHORT: Mapping[str, Any] = {"lr": 6e-3, "betas": (0.5, 0.95), "atoms_lr": 2.0, "start": "residuals"}
"""Arguments of `train` for a few hundred steps on one place of a network: `train(sae, source, steps=250, **SHORT)`."""

_TRUTH_EVERY = 50
# Rows that are held in double precision at once, and bytes of differences on a GPU, where each part costs launches.
_PART, _GPU_PART = 256, 2**27
_PRODUCT = {"full": None, "bfloat16": torch.bfloat16, "int8": torch.int8}


def train(
    sae: SAE,
    source: ActivationSource,
    *,
    steps: int,
    batch: int = 2048,
    lr: float = 3e-3,
    seed: int = 0,
    warmup: float | int = 0.05,
    decay: float | int = 0.5,
    betas: tuple[float, float] = (0.9, 0.999),
    atoms_lr: float | int = 1.0,
    start: Literal["random", "residuals"] = "random",
    centre: Literal["mean", "median"] = "mean",
    k_ramp: Ramp | None = None,
    penalty_ramp: Ramp | None = None,
    precision: Literal["full", "bfloat16", "int8", "auto"] = "full",
    dead_after: int | None = None,
    auxiliary: float | int = 1 / 32,
    auxiliary_k: int | None = None,
    initialise: bool = True,
    clip: float | int | None = None,
    clip_by: Literal["global", "row"] = "global",
    resample_every: int = 0,
    sort_every: int = 0,
) -> Training:
    r"""Descends on $E|x - \hat x|^2 / E|x - \bar x|^2$ (+ penalty + auxiliary), yielding a Step after each step.

    The loop is the caller's: log, save or stop between steps; the SAE is whole and in the units of x after each.
    Numbers of a Step, measured on its batch before the step: `fraction_variance_unexplained` (about the batch's mean,
    summed over dimensions), `l0` (mean nonzeros per row), `dead` (latents that have not fired for `dead_after` rows),
    `rows_per_second`; every 50 steps, where the source knows its dictionary, `mmcs` (mean over the true atoms of the
    largest cosine with an atom).

    What happens at each point, and why:

    - Start: b is the first batch's mean or geometric median; the encoder is the dictionary times the one scale that
      minimises the first batch's squared error, c = <r, t> / <r, r> with r the reconstruction at scale 1 without bias
      and t = x - b. No grid search; worth 0.06 of fraction_variance_unexplained early on.
    - Scale: x is measured in units of its root mean square deviation per dimension, one scalar of the first batch,
      so that one learning rate suits every site. The scalar is folded into the biases' learning rate (they alone
      carry units) and into the loss, so the weights are in the units of x at every step.
    - Atoms have norm 1: the part of the gradient along an atom is removed before Adam, the atom is renormalised after.
    - Dead latents: those silent for `dead_after` rows are fitted to the residual, which is detached, through their
      `auxiliary_k` largest pre-activations, with weight `auxiliary`, relative to the residual's own energy; of a batch
      on as many rows as cost a sixteenth of the encoder's product (`rows_for_dead`). Or, with
      `resample_every`, each that often becomes the direction of a row that is badly reconstructed.
    - `Training.state` is everything that a later process needs to go on: weights, moments, counters, the place in the
      data. On a CPU of the same kind the resumed run is bit-equal to one that was never interrupted.

    Args:
        sae: changed in place.
        source: where x comes from; asked again with another seed whenever it ends.
        steps: steps to make; 0 makes none, and then nothing is initialised.
        batch: rows per step.
        lr: peak learning rate of Adam, in units of the scaled x. Of 0.001, 0.003 and 0.006 the default left least
            unexplained on held-out rows of a synthetic Zipf world (d = 192, n = 1 536, k = 16, 400 steps of 2 048
            rows: 0.2225, 0.2176, 0.2180; one seed). Long runs and wide dictionaries want less.
        seed: of the order of the data.
        warmup: share of the steps over which the rate rises linearly from 0.
        decay: share of the steps, the last ones, over which it falls linearly to 0.
        betas: of Adam's moments: how much of the gradient's mean and of its square's mean is kept at each step.
        atoms_lr: factor on the rate of the atoms, beside that of all other weights.
        start: which atoms to begin with. "random": those the SAE was made with. "residuals": directions of rows, drawn
            in rounds where the atoms of the rounds before leave most (`residual_atoms`); costs some ten steps, reads
            rows of its own, and two seeds, of the data or of the SAE, begin with different rows.
        centre: where b starts.
        k_ramp: factor on k by progress: `Ramp(4)` begins with 4 k latents a row and ends with k.
        penalty_ramp: factor on the penalty's coefficient by progress, beside the architecture's own warm-up.
        precision: what the encoder's product is made in. "full" is the weights' own; "bfloat16" chooses latents by a
            product of rounded numbers and computes the chosen ones anew in float32; "auto" does so where the device
            multiplies bfloat16 faster (asked once), and is "full" elsewhere. "int8" excludes most latents by a product
            of whole numbers and computes the others in float32: TopK, AbsTopK, BatchTopK and Matryoshka then choose
            what float32 does but for chance (`kernels.Screen`: a wanted latent is missed with probability
            at most 1e-9); where rows and encoder are large enough for that to pay, dense products stay float32.
            Weights and moments stay float32.
        dead_after: rows of silence that make a latent dead. None is a twentieth of the run's rows, between two batches
            and 50 000. With as many latents as there are features, early is better: on the easy world (n = 256, d =
            64, k = 4, TopK, 400 steps of 1 024 rows, lr 0.01, two seeds) windows of 2 048, 4 096, 8 192, 20 480 and
            50 000 rows ended at MMCS 0.997, 0.996, 0.994, 0.990, 0.984. With twice as many it disturbs: BatchTopK
            with 512 latents, 600 steps of 512 rows, ended at 0.948, 0.963 and 0.967 with 3 072, 15 360 and 50 000.
        auxiliary: weight of the dead latents' error; 0 leaves them dead.
        auxiliary_k: latents per row that fit the residual; None is d/2, as in the source, or all the dead if fewer.
        initialise: False goes on with the SAE's weights as they are.
        clip: largest norm of the gradient; None does not clip. Gradients are those of the loss per number, so 1 is
            large.
        clip_by: "global", of all parameters together, or "row", of each latent's by itself.
        resample_every: steps between replacements of dead latents; 0 never replaces.
        sort_every: steps after which the latents of nested prefixes are numbered anew, those that were on most often
            since the last time first; 0 never. Which latents a prefix holds is chance at the start, and a parent that
            begins behind its children stays there: they take its rows from it (absorption). What is general is
            frequent, so that order puts it in front. For trees of features; where none is more general it disturbs.

    Returns:
        An iterator of Steps that can also be saved and resumed.

    Raises:
        ShapeError: if source and SAE differ in d.
        ValueError: if an argument is out of range, the source has no batch of this size, or x is constant.
        FloatingPointError: if x or the loss is not finite, naming the batch and the row.

    Source:
        Gao et al., "Scaling and evaluating sparse autoencoders", 2024 (sections 2.4, A.1, A.2: dead latents, unit
        norm, projected gradients). Rows are counted where they count tokens, which is the same.
        Chanin, LISTA-Matryoshka for SynthSAEBench, 2026 (prefixes of latents in order of frequency; there the order is
        of the loss alone, and gradients of narrower prefixes are held back from wider ones, which is not done here).
        Bricken et al., "Towards Monosemanticity", 2023 (gradient parallel to the dictionary removed; resampling).

    Example:
        >>> from superscope.core import Activations
        >>> from superscope.dictionaries import TopK
        >>> class Axes(ActivationSource):                       # one of three orthogonal directions at a time
        ...     d = 3
        ...     def batches(self, size, *, seed):
        ...         random = torch.Generator().manual_seed(seed)
        ...         while True:
        ...             yield Activations(torch.eye(3)[torch.randint(3, (size,), generator=random)])
        >>> for step in train(TopK(d=3, n=6, k=1), Axes(), steps=100, batch=64, lr=0.03):
        ...     unexplained = step.numbers["fraction_variance_unexplained"]
        >>> unexplained < 0.05
        True
    """
    if source.d != sae.d:
        raise ShapeError(
            f"train: the source has d = {source.d} and the SAE d = {sae.d}. Make the SAE with d = source.d."
        )
    checks = (
        ("steps", steps, steps >= 0, "at least 0"),
        ("batch", batch, batch >= 2, "at least 2"),
        ("lr", lr, 0 < lr < float("inf"), "positive and finite"),
        ("warmup", warmup, 0 <= warmup <= 1, "a share in [0, 1]"),
        ("decay", decay, 0 <= decay <= 1, "a share in [0, 1]"),
        ("betas", betas, len(betas) == 2 and all(0 <= beta < 1 for beta in betas), "two numbers in [0, 1)"),
        ("atoms_lr", atoms_lr, 0 < atoms_lr < float("inf"), "positive and finite"),
        ("dead_after", dead_after, dead_after is None or dead_after >= 1, "at least 1, or None"),
        ("auxiliary", auxiliary, 0 <= auxiliary < float("inf"), "at least 0 and finite"),
        ("auxiliary_k", auxiliary_k, auxiliary_k is None or auxiliary_k >= 1, "at least 1, or None"),
        ("clip", clip, clip is None or 0 < clip < float("inf"), "positive and finite, or None"),
        ("resample_every", resample_every, resample_every >= 0, "at least 0"),
        ("sort_every", sort_every, sort_every >= 0, "at least 0"),
    )
    for name, value, holds, wanted in checks:
        if not holds:
            raise ValueError(f"train: {name} must be {wanted}; got {value}.")
    if centre not in ("mean", "median"):
        raise ValueError(f'train: centre must be "mean" or "median"; got {centre!r}.')
    if start not in ("random", "residuals"):
        raise ValueError(f'train: start must be "random" or "residuals"; got {start!r}.')
    if start == "residuals" and not (initialise and "atoms" in dict(sae.named_parameters())):
        why = (
            "the atoms stay as they are" if not initialise else f"{type(sae).__name__} makes its atoms of other weights"
        )
        raise ValueError(f'train: start = "residuals" sets the atoms, and {why}. Leave start at "random".')
    if clip_by not in ("global", "row"):
        raise ValueError(f'train: clip_by must be "global" or "row"; got {clip_by!r}.')
    if resample_every and "atoms" not in dict(sae.named_parameters()):
        raise ValueError(
            f"train: resample_every replaces atoms, and those of {type(sae).__name__} are made of other parameters. "
            "Leave it at 0."
        )
    if sort_every and not getattr(sae, "groups", ()):
        raise ValueError(
            f"train: sort_every orders the latents of nested prefixes, and {type(sae).__name__} has none. "
            "Leave it at 0, or train a Matryoshka."
        )
    for name, ramp, attribute in (("k_ramp", k_ramp, "k"), ("penalty_ramp", penalty_ramp, "coefficient")):
        if ramp is not None and not hasattr(sae, attribute):
            raise ValueError(f"train: {name} has nothing to act on: {type(sae).__name__} has no {attribute}.")
    if precision not in ("full", "bfloat16", "int8", "auto"):
        raise ValueError(f'train: precision must be "full", "bfloat16", "int8" or "auto"; got {precision!r}.')
    if precision == "int8" and not can_screen(sae.atoms.device.type):
        raise ValueError(
            "train: precision = 'int8' is for CPUs with VNNI instructions and wants the extra superscope[fast]; "
            f"here is {sae.atoms.device.type}, or one of them is missing. "
            'Leave precision at "full", or at "auto" for what the device has.'
        )
    if precision in ("bfloat16", "int8") and sae.atoms.dtype != torch.float32:
        raise ValueError(
            f"train: precision = {precision!r} is for float32 weights, and these are {sae.atoms.dtype}. "
            'Leave precision at "full", which takes the weights as they are.'
        )
    if precision == "auto":
        fast = sae.atoms.dtype == torch.float32 and multiplies_bfloat16(sae.atoms.device)
        precision = "bfloat16" if fast else "full"
    if dead_after is None:
        dead_after = min(50_000, max(2 * batch, steps * batch // 20))
    settings = {
        "steps": steps,
        "batch": batch,
        "lr": lr,
        "seed": seed,
        "warmup": warmup,
        "decay": decay,
        # A list, as it is read back from a checkpoint.
        "betas": list(betas),
        "atoms_lr": atoms_lr,
        "start": start,
        "centre": centre,
        "k_ramp": None if k_ramp is None else dataclasses.asdict(k_ramp),
        "penalty_ramp": None if penalty_ramp is None else dataclasses.asdict(penalty_ramp),
        "precision": precision,
        "dead_after": dead_after,
        "auxiliary": auxiliary,
        "auxiliary_k": auxiliary_k or max(sae.d // 2, 1),
        "initialise": initialise,
        "clip": clip,
        "clip_by": clip_by,
        "resample_every": resample_every,
        "sort_every": sort_every,
    }
    return Training(sae, source, settings)


def trapezoid(steps: int, warmup: float, decay: float) -> Callable[[int], float]:
    """Linear rise over the first `warmup` share of the steps, 1, linear fall to 0 over the last `decay` share.

    Example:
        >>> [round(trapezoid(10, 0.2, 0.5)(i), 1) for i in range(10)]
        [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2]
    """
    rise, fall = warmup * steps, decay * steps

    def factor(index: int) -> float:
        up = (index + 1) / rise if rise else 1.0
        down = (steps - index) / fall if fall else 1.0
        return min(1.0, up, down)

    return factor


class Batches(Iterator[Activations]):
    """Batches on the SAE's device and in its dtype, for ever; every epoch in another order; each looked over."""

    def __init__(self, sae: SAE, source: ActivationSource, batch: int, seed: int) -> None:
        self.sae, self.source, self.batch, self.seed = sae, source, batch, seed
        self.epoch = self.index = self.total = 0
        self._stream: Iterator[Activations] | None = None

    def seek(self, epoch: int, index: int, total: int) -> None:
        """Goes on after `index` batches of an epoch; `total` have been seen in all."""
        self.epoch, self.index, self.total = epoch, index, total
        self._stream = None

    def __next__(self) -> Activations:
        while True:
            if self._stream is None:
                # Two seeds must not share an epoch's order, as seed + epoch would make them.
                order = int(np.random.SeedSequence((self.seed, self.epoch)).generate_state(1)[0])
                self._stream = self.source.batches_from(self.index, self.batch, seed=order)
            activations = next(self._stream, None)
            if activations is not None:
                return self._checked(activations)
            if self.index == 0:
                raise ValueError(
                    f"train: the source has no batch of {self.batch} rows. "
                    "Give more text, or train with a smaller batch."
                )
            log.debug("source ended after %d batches; epoch %d begins", self.total, self.epoch + 1)
            self.epoch, self.index, self._stream = self.epoch + 1, 0, None

    def _checked(self, given: Activations) -> Activations:
        like = self.sae.atoms
        x = self._finite(given.x.to(like.device, like.dtype), given, "activation")
        target = given.target
        if target is not None:
            target = self._finite(target.to(like.device, like.dtype), given, "target")
        self.index += 1
        self.total += 1
        return Activations(x, target=target)

    def _finite(self, x: Tensor, given: Activations, what: str) -> Tensor:
        # One pass over x tells; only a sum that is not finite (it may have overflowed) needs the closer look.
        finite = torch.ones(1, dtype=torch.bool) if math.isfinite(float(x.sum())) else torch.isfinite(x).all(1)
        if not bool(finite.all()):
            row = int((~finite).nonzero()[0])
            where = "" if given.places is None else _place(given.places[row].tolist())
            raise FloatingPointError(
                f"train: batch {self.total} holds a NaN or infinite {what} in row {row}{where}. "
                "Look at the model's output there; a model in float16 may overflow: load it in float32 or bfloat16."
            )
        return x


def _squares(x: Float[Tensor, "b d"], of: Float[Tensor, "*b d"]) -> float:
    """The sum of (x - of)^2, with few rows of differences held at once; a GPU is waited for once."""
    size = max(_GPU_PART // max(x[:1].nbytes, 1), 1) if x.is_cuda else _PART
    parts = zip(x.split(size), of.expand_as(x).split(size), strict=True)
    sums = [(one - other).square().sum() for one, other in parts]
    return sum(torch.stack(sums).tolist()) if sums else 0.0


def _difference(key: str, found: Any, wanted: Any) -> str:
    """What differs between two values of a fact, in words."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for name in {**found, **wanted}:
            if found.get(name) != wanted.get(name):
                return f"{name} was {found.get(name)!r} and is {wanted.get(name)!r}"
    return f"its {key} was {found!r} and is {wanted!r}"


def _place(place: list[int]) -> str:
    return f" (sequence {place[0]}, position {place[1]})"


def root_mean_square(x: Float[Tensor, "b d"]) -> float:
    """Root mean square deviation of x from its mean, per dimension."""
    # In parts, so that no more than one is held in double precision.
    parts = x.split(_PART)
    mean = sum(part.double().sum(0) for part in parts) / len(x)
    scale = math.sqrt(float(sum((part.double() - mean).square().sum() for part in parts)) / x.numel())
    # Differences at the level of rounding are no variation either.
    if scale <= 1e-6 * float(x.abs().max()) or scale == 0:
        raise ValueError(
            "train: the activations are constant, so there is no variance to explain. "
            "Check the site: it may be a bias, a mask or a module whose input never changes."
        )
    return scale
