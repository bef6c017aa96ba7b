"""Gradient descent on thousands of toy models at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..features import Independent, Uniform, Zipf
from .ensemble import Ensemble, closed_form
from .exact import exact_gradient
from .family import mix
from .one_active import (
    counts_of_active,
    draw_three_or_more,
    draw_two_or_more,
    one_active_gradient,
    three_active_chance,
)
from .pair import pair_chances, pair_gradient
from .product import aligned, product, room
from .tied import Tied
from .two_active import two_active_gradient

Estimator = Literal["sampled", "stratified", "exact"]
Schedule = Literal["constant", "linear", "cosine"]

# Rows times features that are worked on at once: larger blocks leave the cache between two passes.
_BLOCK = 2**18
_PIECE = 2**17
# Pairs of features worked on at once: fewer leave most of the time to the calls, more leave the cache.
_PAIRS = 6144


@dataclass(frozen=True)
class Recipe:
    r"""How an ensemble is trained. The defaults are the published notebook's: AdamW, 10 000 steps of 1024 rows,
    decay 0.01.

    Three estimators of one objective, $L = \mathbb E \sum_i I_i (y_i - y_i')^2$ (a sum over features; the notebook's
    mean differs by the factor n, which Adam hides):

    - `sampled`: a batch. For dynamics, where the noise is part of the phenomenon.
    - `stratified`: the terms with no, one and two active features in closed form, a batch only for three or more (for
      two or more where the hidden layer has a ReLU, n = 2, or three are likelier than two); unbiased, and worth it
      where n p <= 1 or so. Independent features with uniform magnitudes.
    - `exact`: the closed form. Linear models of any n; ReLU models of n <= 8. No noise at all, hence other dynamics.

    Args:
        steps: index of the last step.
        batch: rows per step (of three or more active features, or two, if stratified).
        lr: Adam's peak learning rate.
        schedule: constant, or decay to 0 along a line or a cosine.
        warmup: steps over which lr rises from 0.
        weight_decay: AdamW's, on every parameter. Below 0 it pulls the norm of each atom of "W" towards 1 instead:
            $W_i \leftarrow W_i - \eta\gamma W_i (1/\|W_i\| - 1)$.
        estimator: see above.
        l1: lambda of an L1 penalty on the hidden activations.
        attack: L2 size of an input perturbation against one random feature, in mean norms of f; 0 is none.
        seed: shifts every stream of batches, for a rerun on other data from the same starts.

    Raises:
        ValueError: if a number is out of range.

    Source:
        Elhage et al., "Toy models of superposition", 2022, and its notebook. Negative decay: Liu, Liu and Gore, 2025.
    """

    steps: int = 10_000
    batch: int = 1024
    lr: float = 1e-3
    schedule: Schedule = "constant"
    warmup: int = 0
    weight_decay: float = 0.01
    estimator: Estimator = "sampled"
    l1: float = 0.0
    attack: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch", 1), ("warmup", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"Recipe: {name} must be at least {least}; got {getattr(self, name)}.")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"Recipe: lr must be finite and above 0; got {self.lr}.")
        for name in ("l1", "attack"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"Recipe: {name} must be finite and >= 0; got {getattr(self, name)}.")
        for name, known in (
            ("schedule", ("constant", "linear", "cosine")),
            ("estimator", ("sampled", "stratified", "exact")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"Recipe: {name} must be one of {', '.join(known)}; got {getattr(self, name)!r}.")
        if self.estimator != "sampled" and (self.l1 or self.attack):
            raise ValueError(f"Recipe: l1 and attack need the estimator 'sampled'; got {self.estimator!r}.")

    def rate(self, index: int) -> float:
        """The learning rate of step `index` (0 is the first)."""
        rise = min(1.0, (index + 1) / self.warmup) if self.warmup else 1.0
        done = index / self.steps
        fall = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[self.schedule]
        return self.lr * rise * fall


@dataclass(frozen=True, eq=False)
class EnsembleStep:
    """Where training stands.

    Args:
        index: steps done.
        loss: of each model on this step's batch (or exactly), before the step; NaN where a model diverged.
    """

    index: int
    loss: Float[Tensor, "e"]


def train(ensemble: Ensemble, recipe: Recipe, *, every: int = 100) -> Iterator[EnsembleStep]:
    """AdamW on every model of the ensemble, in place, from where it stands to `recipe.steps`.

    The loop belongs to the caller: look at `ensemble.parameters`, save them, or stop at any yielded step. A model that
    diverges fills with NaN and disturbs nobody.

    Args:
        ensemble: is trained in place.
        recipe: how.
        every: steps between two yields; the last step is always yielded.

    Yields:
        EnsembleStep.

    Raises:
        ValueError: if every < 1.
        TypeError: if the estimator has no closed form for these models.

    Example:
        >>> from superscope.features import Independent
        >>> from superscope.toys import Ensemble, Recipe, Tied, train
        >>> pentagon = Ensemble(Tied(5, 2), Independent(5, 0.05))
        >>> [step.index for step in train(pentagon, Recipe(steps=25, batch=64), every=10)]
        [10, 20, 25]
    """
    if every < 1:
        raise ValueError(f"train: every must be at least 1; got {every}.")
    gradient = _GRADIENTS[recipe.estimator](ensemble, recipe)
    for index in range(ensemble.step, recipe.steps):
        shown = (index + 1) % every == 0 or index + 1 == recipe.steps
        with torch.no_grad():
            loss, slopes = gradient(index, shown)
            _adamw(ensemble, slopes, recipe, index)
        ensemble.step = index + 1
        if shown:
            yield EnsembleStep(ensemble.step, loss)


def _adamw(ensemble: Ensemble, slopes: dict[str, Tensor], recipe: Recipe, index: int) -> None:
    rate, first, second, tiny = recipe.rate(index), 0.9, 0.999, 1e-8
    bias_first, bias_second = 1 - first ** (index + 1), 1 - second ** (index + 1)
    for name, value in ensemble.parameters.items():
        slope = slopes[name]
        m, v = ensemble.moments[f"first {name}"], ensemble.moments[f"second {name}"]
        if recipe.weight_decay > 0:
            value.mul_(1 - rate * recipe.weight_decay)
        elif recipe.weight_decay < 0 and name == "W":
            norm = value.norm(dim=-1, keepdim=True).clamp_(min=1e-12)
            value.mul_(1 - rate * recipe.weight_decay * (1 / norm - 1))
        m.mul_(first).add_(slope, alpha=1 - first)
        v.mul_(second).addcmul_(slope, slope, value=1 - second)
        denominator = v.sqrt().div_(math.sqrt(bias_second)).add_(tiny)
        value.addcdiv_(m, denominator, value=-rate / bias_first)


class _Batches:
    """Uniforms by (seed, step), and the models in blocks that share the work."""

    def __init__(
        self, ensemble: Ensemble, recipe: Recipe, extra: int = 0, kinds: Sequence[object] | None = None
    ) -> None:
        # `extra` uniforms per row beside those of a block's own law. Models share a block if of one kind.
        self.ensemble, self.recipe, self.extra = ensemble, recipe, extra
        # The size of a model alone decides how it is blocked, never what else is in the ensemble.
        work = recipe.batch * max(ensemble.family.n, ensemble.family.outputs)
        count = len(ensemble)
        # Blocks of one where a model fills the cache; else never of one, for a library may treat a batch of one matrix
        # by another routine, with other roundings.
        # Sampled tied models have a step of their own for that, which pays earlier.
        filled = 4 if type(ensemble.family) is Tied and recipe.estimator == "sampled" else 2
        size = 1 if filled * work > _BLOCK else max(2, _BLOCK // work)
        self.blocks: list[slice] = []

        def alike(i: int) -> tuple[object, object]:
            return ensemble.laws[i].structure(), kinds[i] if kinds is not None else None

        start = 0
        while start < count:
            stop = min(start + size, count)
            while not all(alike(i) == alike(start) for i in range(start, stop)):
                stop = start + max(1, (stop - start) // 2)
            self.blocks.append(slice(start, stop))
            start = stop
        self.alone = size > 1
        self.knobs = [
            tuple(
                torch.stack(rows)[:, None].to(ensemble.importance)
                for rows in zip(*(law.knobs() for law in self._laws(block)), strict=True)
            )
            for block in self.blocks
        ]
        self._seen: dict[tuple[int, int], Tensor] = {}
        self._index = -1

    def _laws(self, block: slice) -> tuple:
        laws = self.ensemble.laws[block]
        return laws * 2 if self.alone and len(laws) == 1 else laws

    def doubled(self, value: Tensor, block: slice) -> Tensor:
        """The block's rows of a per-model tensor; a block of one is given twice where small blocks are the rule."""
        rows = value[block]
        rows = rows.expand(2, *rows.shape[1:]) if self.alone and len(rows) == 1 else rows
        return aligned(rows) if rows.ndim == 3 else rows

    def uniforms(self, index: int, block: slice) -> Float[Tensor, "*e rows noise"]:
        """This step's uniforms for a block, with no model axis where all its models share a seed."""
        if index != self._index:
            self._seen, self._index = {}, index
        seeds, noise = self.ensemble.seeds[block], self.ensemble.laws[block.start].noise + self.extra
        for seed in dict.fromkeys(seeds):
            if (seed, noise) not in self._seen:
                self._seen[seed, noise] = _uniforms(
                    mix(seed, 1 + index + (self.recipe.seed << 32)),
                    (self.recipe.batch, noise),
                    self.ensemble.importance.dtype,
                )
        if len(set(seeds)) == 1:
            return self._seen[seeds[0], noise]
        together = torch.stack([self._seen[seed, noise] for seed in seeds])
        # Earlier seeds may come again in a later block; keep them only while they are few.
        if sum(u.numel() for u in self._seen.values()) > 2**25:
            self._seen = {}
        return together


def _uniforms(seed: int, shape: tuple[int, int], dtype: torch.dtype) -> Float[Tensor, "rows noise"]:
    # NumPy's small fast generator makes uniforms at about five times the rate of torch's Mersenne twister, which was a
    # tenth of a step.
    generator = np.random.Generator(np.random.SFC64(seed))
    return torch.from_numpy(generator.random(shape, dtype=np.float64 if dtype == torch.float64 else np.float32))


def _sampled(ensemble: Ensemble, recipe: Recipe):
    family = ensemble.family
    batches = _Batches(ensemble, recipe, extra=1 if recipe.attack else 0)
    uniform_importance = bool((ensemble.importance == 1).all())
    reach = _mean_norms(ensemble) * recipe.attack if recipe.attack else None
    loss = ensemble.importance.new_zeros(len(ensemble))
    slopes = {name: torch.zeros_like(value) for name, value in ensemble.parameters.items()}

    if type(family) is Tied and not (batches.alone or recipe.l1 or recipe.attack):
        return _sampled_large(ensemble, recipe, batches)

    # A large model's batch is worked through in pieces that stay in the cache between passes.
    pieces = 1 if batches.alone else max(1, recipe.batch * family.n // _PIECE)

    def gradient(index: int, with_loss: bool = True):
        if pieces > 1:
            for slope in slopes.values():
                slope.zero_()
            loss.zero_()
        for block, knobs in zip(batches.blocks, batches.knobs, strict=True):
            law = ensemble.laws[block.start]
            parameters = {name: batches.doubled(value, block) for name, value in ensemble.parameters.items()}
            models = len(next(iter(parameters.values())))
            importance = None if uniform_importance else batches.doubled(ensemble.importance, block)
            count = block.stop - block.start
            for u in batches.uniforms(index, block).chunk(pieces, dim=-2):
                f = law.draw(u[..., : law.noise], knobs)
                # A law without knobs draws one batch for all models of a block.
                f = f.expand(models, *f.shape[-2:])
                seen = None
                if reach is not None:
                    seen = attacked(family.responses(parameters)[0][1], f, u[..., -1], batches.doubled(reach, block))
                block_loss, block_slopes = family.loss_gradient(parameters, f, importance, recipe.l1, seen)
                if pieces == 1:
                    loss[block] = block_loss[:count]
                    for name, slope in block_slopes.items():
                        slopes[name][block] = slope[:count]
                else:
                    share = u.shape[-2] / recipe.batch
                    loss[block].add_(block_loss, alpha=share)
                    for name, slope in block_slopes.items():
                        slopes[name][block].add_(slope, alpha=share)
        return loss.clone(), slopes

    return gradient


def _sampled_large(ensemble: Ensemble, recipe: Recipe, batches: _Batches):
    """`_sampled` for tied models whose batch fills the cache, one at a time.

    Three passes over the batch beside the five products: every buffer is allocated once (a fresh one costs a page fault
    per 4 KiB), the bias goes through the products as a column of ones beside h, importance weighs rows of W, the loss
    is computed only where it will be shown, and p f, which one pass makes of the uniforms, stands for f: the products
    bear the 1 / p.
    """
    family, rows, scale = ensemble.family, recipe.batch, 2 / recipe.batch
    n, d = family.n, family.d
    relu = family.activation_is_relu()
    like = ensemble.parameters["W"]
    weighted = bool((ensemble.importance != 1).any())
    z, error, back = like.new_empty(rows, n), like.new_empty(rows, n), like.new_empty(rows, d)
    shrunk, h = like.new_empty(rows, n), like.new_ones(rows, d + 1)
    written, h_T, back_T = h[:, :d], h.T, back.T
    # What a model reads with, W transposed and b below it, and the slopes of that, for all models.
    read, reading = (room(like, len(ensemble), d + 1, n) for _ in range(2))
    slopes = {name: torch.zeros_like(value) for name, value in ensemble.parameters.items()}
    loss = like.new_zeros(len(ensemble))
    complements: dict[int, Tensor] = {}

    def draw(index: int, block: slice, knobs: tuple[Tensor, ...]) -> tuple[Tensor, float]:
        # A multiple of f, and what it lacks.
        law, u = ensemble.laws[block.start], batches.uniforms(index, block)
        if not (isinstance(law, Independent) and isinstance(law.p, float) and law.magnitude == Uniform()):
            return law.draw(u, knobs).reshape(rows, n), 1.0
        seed = ensemble.seeds[block.start]
        if seed not in complements:
            complements[seed] = 1 - u
        # max(1 - u - (1 - p), 0) = p relu(1 - u / p).
        return torch.ops.aten.softshrink.out(complements[seed], 1 - law.p, out=shrunk), 1 / law.p

    def gradient(index: int, with_loss: bool = True):
        complements.clear()
        W, importance = ensemble.parameters["W"], ensemble.importance[:, :, None]
        read[:, :d].copy_(W.mT)
        read[:, d].copy_(ensemble.parameters["b"])
        W = aligned(W)
        weighing = aligned(importance * W) if weighted else W
        for block, knobs, W_e, weighing_e, read_e, reading_e, reading_W in zip(
            batches.blocks, batches.knobs, W, weighing, read, reading, reading[:, :d], strict=True
        ):
            f, lacking = draw(index, block, knobs)
            torch.addmm(written, f, W_e, beta=0, alpha=lacking, out=written)
            torch.mm(h, read_e, out=z)
            torch.sub(z, f, alpha=lacking, out=error)
            if with_loss:
                missed = torch.where(z > 0, error, f * lacking) if relu else error
                loss[block] = (missed.square().sum(0) @ importance[block.start]) / rows
            if relu:
                # d ReLU: the error survives where the output is positive, and there the output is z.
                torch.ops.aten.threshold_backward.grad_input(error, z, 0, grad_input=error)
            torch.mm(error, weighing_e, out=back)
            torch.mm(h_T, error, out=reading_e)
            if weighted:
                reading_e.mul_(ensemble.importance[block])
            reading_W.addmm_(back_T, f, alpha=lacking)
        torch.mul(reading[:, :d].mT, scale, out=slopes["W"])
        torch.mul(reading[:, d], scale, out=slopes["b"])
        return loss.clone(), slopes

    return gradient


def attacked(
    G: Float[Tensor, "e n n"], f: Float[Tensor, "e rows n"], choice: Float[Tensor, "*e rows"], reach: Float[Tensor, "e"]
) -> Float[Tensor, "e rows n"]:
    r"""$f + \epsilon\, G_i / \|G_i\|$ for one random feature i per row: the attack that a gradient would not find
    behind the ReLU.

    Args:
        G: responses.
        f: clean rows.
        choice: a uniform per row, which picks i.
        reach: epsilon of each model.
    """
    feature = (choice * G.shape[-1]).long().clamp_(max=G.shape[-1] - 1).expand(f.shape[:2])
    direction = G / G.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    push = direction.gather(1, feature[..., None].expand(-1, -1, G.shape[-1]))
    return f + reach[:, None, None] * push


def _mean_norms(ensemble: Ensemble) -> Float[Tensor, "e"]:
    # E |f| has no closed form for most laws; 16 384 rows give it to about one per cent.
    known: dict[object, float] = {}
    for law in dict.fromkeys(ensemble.laws):
        sample = law.sample(16_384, generator=torch.Generator().manual_seed(mix(0, -7)))
        known[law] = float(sample.values.double().norm(dim=-1).mean())
    return torch.tensor([known[law] for law in ensemble.laws], dtype=ensemble.importance.dtype)


def _stratified(ensemble: Ensemble, recipe: Recipe):
    family = ensemble.family
    sides = len(family.responses({name: value[:1] for name, value in ensemble.parameters.items()}))
    wanted = Uniform(-1.0, 1.0) if sides == 2 else Uniform()
    if not family.activation_is_relu():
        raise TypeError("train: linear models have an exact gradient for any n. Use the estimator 'exact'.")
    if bad := next(
        (law for law in ensemble.laws if not isinstance(law, Independent | Zipf) or law.magnitude != wanted), None
    ):
        raise TypeError(
            f"train: the estimator 'stratified' needs independent features with magnitudes {wanted}; got {bad}."
        )
    density = torch.stack([law.density for law in ensemble.laws])
    none, single, several = counts_of_active(density)
    # With two active features the expected loss is a closed form too where outputs read linearly, which leaves only
    # three or more to sampling. It costs about as much as a batch, so it is for models in which two are likelier than
    # more. The family and a model's own law decide, never another model: each must train as it does alone.
    by_pairs, forced = [False] * len(ensemble), 2
    if family.reads_linearly() and family.n >= 3:
        forced = 3
        many = three_active_chance(density)
        paired = several >= 2 * many
        several, by_pairs = torch.where(paired, many, several), paired.tolist()
    batches = _Batches(ensemble, recipe, extra=forced, kinds=by_pairs)
    loss = torch.zeros(len(ensemble), dtype=torch.float64)
    slopes = {name: torch.zeros_like(value) for name, value in ensemble.parameters.items()}

    def gradient(index: int, with_loss: bool = True):
        for block in batches.blocks:
            parameters = {name: batches.doubled(value, block) for name, value in ensemble.parameters.items()}
            importance = batches.doubled(ensemble.importance, block)
            p, p0, p1, p2 = (batches.doubled(value, block) for value in (density, none, single, several))
            pairs = by_pairs[block.start]
            low_loss, low = _few_active(family, parameters, importance, p0, p1, p if pairs else None)
            if family.n > 1:
                draw = draw_three_or_more if pairs else draw_two_or_more
                f = draw(batches.uniforms(index, block), p, wanted)
                high_loss, high = family.loss_gradient(parameters, f, importance)
            else:
                high_loss, high = low_loss.new_zeros(len(p2)), {name: torch.zeros_like(s) for name, s in low.items()}
            count = block.stop - block.start
            loss[block] = (low_loss + p2 * high_loss)[:count]
            for name, slope in high.items():
                weight = p2.to(slope).reshape(-1, *[1] * (slope.ndim - 1))
                slopes[name][block] = (low[name] + weight * slope)[:count]
        return loss.clone(), slopes

    return gradient


def _few_active(family, parameters, importance, none, single, density=None):
    # Exact loss and gradient of inputs with no or one active feature (or two, given densities), pulled back through
    # the responses.
    if type(family) is Tied:
        W, b = parameters["W"], parameters["b"]
        G = product(W, W.mT)
        loss, by_G, by_b = one_active_gradient(G, b, importance, none, single)
        if density is not None:
            pair_loss, pair_G, pair_b = two_active_gradient(G, b, importance, density)
            loss, by_G, by_b = loss + pair_loss, by_G + pair_G, by_b + pair_b
        # G = W W': each row of W is met twice.
        return loss, {"W": product((by_G + by_G.mT).to(W), W), "b": by_b.to(b)}
    with torch.enable_grad():
        leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        loss, carried = torch.zeros_like(none), []
        bias = leaves.get("b")
        for share, G in family.responses(leaves):
            given = G.new_zeros(G.shape[:2]) if bias is None else bias.detach()
            part, G_slope, b_slope = one_active_gradient(G.detach(), given, importance, share * none, share * single)
            if density is not None:
                # Families that read linearly have one side, which serves all inputs.
                pair_loss, pair_G, pair_b = two_active_gradient(G.detach(), given, importance, density)
                part, G_slope, b_slope = part + pair_loss, G_slope + pair_G, b_slope + pair_b
            loss = loss + part
            carried.append((G, G_slope.to(G)))
            if bias is not None:
                carried.append((bias, b_slope.to(bias)))
        outputs, slopes = zip(*carried, strict=True)
        gradient = torch.autograd.grad(outputs, list(leaves.values()), slopes, allow_unused=True)
    zeros = (torch.zeros_like(v) if g is None else g for g, v in zip(gradient, leaves.values(), strict=True))
    return loss, dict(zip(leaves, zeros, strict=True))


def _exact(ensemble: Ensemble, recipe: Recipe):
    if not ensemble.has_exact_loss():
        raise TypeError(
            f"train: {ensemble.family} on these features has no closed-form loss (it needs outputs ReLU(G f + b) with "
            "n <= 8 and uniform magnitudes, or linear outputs). Use the estimator 'stratified' or 'sampled'."
        )
    family = ensemble.family
    if family == Tied(2, 1) and all(isinstance(law, Independent | Zipf) for law in ensemble.laws):
        return _exact_pairs(ensemble)
    terms = family.n * 3 ** (family.n - 1) if family.activation_is_relu() else family.n**2
    size = max(2, 2**18 // terms)
    blocks = [slice(start, min(start + size, len(ensemble))) for start in range(0, len(ensemble), size)]
    supports = None
    if family.activation_is_relu():
        known = {law: law.supports() for law in dict.fromkeys(ensemble.laws)}
        supports = torch.stack([known[law] for law in ensemble.laws])

    def gradient(index: int, with_loss: bool = True):
        loss = torch.zeros(len(ensemble), dtype=torch.float64)
        slopes = {name: torch.zeros_like(value) for name, value in ensemble.parameters.items()}
        for block in blocks:
            with torch.enable_grad():
                leaves = {name: value[block].detach().requires_grad_() for name, value in ensemble.parameters.items()}
                if supports is None:
                    values = closed_form(ensemble, leaves, block)
                    gradient = torch.autograd.grad(values.sum(), list(leaves.values()))
                else:
                    ((_, G),) = family.responses(leaves)
                    b = leaves.get("b", G.new_zeros(G.shape[:2]))
                    values, by_G, by_b = exact_gradient(
                        G.detach(), b.detach(), supports[block], ensemble.importance[block]
                    )
                    outputs = [(G, by_G.to(G)), *([(b, by_b.to(b))] if b.requires_grad else [])]
                    ends, cotangents = zip(*outputs, strict=True)
                    gradient = torch.autograd.grad(ends, list(leaves.values()), cotangents)
            loss[block] = values.detach()
            for name, slope in zip(leaves, gradient, strict=True):
                slopes[name][block] = slope
        return loss, slopes

    return gradient


def _exact_pairs(ensemble: Ensemble):
    # The instance axis last, and blocks that stay in the cache: the fastest form of the two-feature phase diagram.
    p = torch.stack([law.density for law in ensemble.laws]).T.contiguous()
    importance = ensemble.importance.double().T.contiguous()
    blocks = [slice(start, min(start + _PAIRS, len(ensemble))) for start in range(0, len(ensemble), _PAIRS)]
    chances = [pair_chances(p[:, block]) for block in blocks]

    def gradient(index: int, with_loss: bool = True):
        w = ensemble.parameters["W"][:, :, 0].T.double().contiguous()
        b = ensemble.parameters["b"].T.double().contiguous()
        loss = w.new_zeros(w.shape[1])
        slope_w, slope_b = torch.empty_like(w), torch.empty_like(b)
        for block, chance in zip(blocks, chances, strict=True):
            part, slope_w[:, block], slope_b[:, block] = pair_gradient(
                w[:, block], b[:, block], chance, importance[:, block], with_loss
            )
            if part is not None:
                loss[block] = part
        return loss, {
            "W": slope_w.T[:, :, None].to(ensemble.parameters["W"]),
            "b": slope_b.T.to(ensemble.parameters["b"]),
        }

    return gradient


_GRADIENTS = {"sampled": _sampled, "stratified": _stratified, "exact": _exact}
