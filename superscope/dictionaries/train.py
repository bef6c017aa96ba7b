"""One sparse autoencoder learns its dictionary from a stream of activations."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..core import ActivationSource, ShapeError, Step, descend
from .sae.base import SAE

log = logging.getLogger(__name__)


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
    centre: Literal["mean", "median"] = "mean",
    dead_after: int = 50_000,
    auxiliary: float | int = 1 / 32,
    auxiliary_k: int | None = None,
    initialise: bool = True,
) -> Iterator[Step]:
    r"""Descends on $E|x - \hat x|^2 / E|x - \bar x|^2$ (+ penalty + auxiliary), yielding a Step after each step.

    The loop is the caller's: log, save or stop between steps; the SAE is whole and in the units of x after each.
    Numbers of a Step, measured on its batch before the step: `fraction_variance_unexplained` (about the batch's mean,
    summed over dimensions), `l0` (mean nonzeros per row), `dead` (latents that have not fired for `dead_after` rows).

    What happens at each point, and why:

    - Start: b is the first batch's mean or geometric median; the encoder is the dictionary times the one scale that
      minimises the first batch's squared error, c = <r, t> / <r, r> with r the reconstruction at scale 1 without bias
      and t = x - b. No grid search; worth 0.06 of fraction_variance_unexplained early on.
    - Scale: x is measured in units of its root mean square deviation per dimension, one scalar of the first batch,
      so that one learning rate suits every site. The scalar is folded into the biases' learning rate (they alone
      carry units) and into the loss, so the weights are in the units of x at every step.
    - Atoms have norm 1: the part of the gradient along an atom is removed before Adam, the atom is renormalised after.
    - Dead latents: those silent for `dead_after` rows are fitted to the residual, which is detached, through their
      `auxiliary_k` largest pre-activations, with weight `auxiliary`, relative to the residual's own energy.

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
        centre: where b starts.
        dead_after: rows of silence that make a latent dead.
        auxiliary: weight of the dead latents' error; 0 leaves them dead.
        auxiliary_k: latents per row that fit the residual; None is d/2, as in the source, or all the dead if fewer.
        initialise: False goes on with the SAE's weights as they are.

    Raises:
        ShapeError: if source and SAE differ in d.
        ValueError: if an argument is out of range, the source has no batch of this size, or x is constant.
        FloatingPointError: if x or the loss is not finite, naming the batch and the row.

    Source:
        Gao et al., "Scaling and evaluating sparse autoencoders", 2024 (sections 2.4, A.1, A.2: dead latents, unit
        norm, projected gradients). Rows are counted where they count tokens, which is the same.
        Bricken et al., "Towards Monosemanticity", 2023 (gradient parallel to the dictionary removed).

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
        ("dead_after", dead_after, dead_after >= 1, "at least 1"),
        ("auxiliary", auxiliary, 0 <= auxiliary < float("inf"), "at least 0 and finite"),
        ("auxiliary_k", auxiliary_k, auxiliary_k is None or auxiliary_k >= 1, "at least 1, or None"),
    )
    for name, value, holds, wanted in checks:
        if not holds:
            raise ValueError(f"train: {name} must be {wanted}; got {value}.")
    if centre not in ("mean", "median"):
        raise ValueError(f'train: centre must be "mean" or "median"; got {centre!r}.')
    return _train(
        sae,
        source,
        steps=steps,
        batch=batch,
        lr=lr,
        seed=seed,
        schedule=trapezoid(steps, warmup, decay),
        centre=centre,
        dead_after=dead_after,
        auxiliary=auxiliary,
        auxiliary_k=auxiliary_k or max(sae.d // 2, 1),
        initialise=initialise,
    )


def _train(
    sae: SAE,
    source: ActivationSource,
    *,
    steps: int,
    batch: int,
    lr: float,
    seed: int,
    schedule: Callable[[int], float],
    centre: Literal["mean", "median"],
    dead_after: int,
    auxiliary: float,
    auxiliary_k: int,
    initialise: bool,
) -> Iterator[Step]:
    if steps == 0:
        return
    stream = _rows(sae, source, batch, seed)
    first = next(stream)
    scale = _scale(first)
    if initialise:
        sae.start(first, centre=centre)
    silent = torch.zeros(sae.n, dtype=torch.long, device=sae.atoms.device)
    waiting = [first]

    done = 0

    def objective() -> tuple[Tensor, Mapping[str, float]]:
        nonlocal done
        x = waiting.pop() if waiting else next(stream)
        target = x
        fit = sae.fit(x, scale=scale, progress=done / steps)
        code, x_hat, loss = fit.code, fit.x_hat, fit.loss
        squared = (target - x_hat.detach()).square().sum()
        dead = silent >= dead_after
        n_dead = int(dead.sum())
        if n_dead and auxiliary:
            loss = loss + auxiliary * sae.auxiliary(x, target - x_hat.detach(), dead, auxiliary_k)
        with torch.no_grad():
            fired = torch.zeros_like(dead)
            fired[code.indices[code.values != 0]] = True
            silent.add_(len(x)).masked_fill_(fired, 0)
            variance = x.var(0, correction=0).sum() * len(x)
            numbers = {
                "fraction_variance_unexplained": float(squared / variance) if float(variance) > 0 else float("nan"),
                "l0": float(code.l0.double().mean()),
                "dead": float(n_dead),
            }
        done += 1
        return loss, numbers

    # Adam moves a weight by about lr whatever its gradient's units, so the two biases, which have the units of x, get
    # theirs in those units: exactly the step that training on x / scale would make.
    optimizer = torch.optim.Adam(
        [
            {"params": [p for name, p in sae.named_parameters() if name not in sae.units], "lr": lr},
            {
                "params": [p for name, p in sae.named_parameters() if name in sae.units],
                "lr": lr * scale,
                "eps": 1e-8 / scale,
            },
        ],
        eps=1e-8,
        fused=True,
    )
    yield from descend(objective, optimizer, steps=steps, schedule=schedule, before=sae.project, after=sae.constrain)


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


def _rows(sae: SAE, source: ActivationSource, batch: int, seed: int) -> Iterator[Float[Tensor, "b d"]]:
    """x of each batch, on the SAE's device and in its dtype, for ever; every epoch in another order."""
    index = epoch = 0
    while True:
        before = index
        # Two seeds must not share an epoch's order, as seed + epoch would make them.
        order = int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
        for activations in source.batches(batch, seed=order):
            x = activations.x.to(sae.atoms.device, sae.atoms.dtype)
            # One pass over x tells; only a sum that is not finite (it may have overflowed) needs the closer look.
            finite = torch.ones(1, dtype=torch.bool) if math.isfinite(float(x.sum())) else torch.isfinite(x).all(1)
            if not bool(finite.all()):
                row = int((~finite).nonzero()[0])
                where = "" if activations.places is None else _place(activations.places[row].tolist())
                raise FloatingPointError(
                    f"train: batch {index} holds a NaN or infinite activation in row {row}{where}. "
                    "Look at the model's output there; a model in float16 may overflow: load it in float32 or bfloat16."
                )
            yield x
            index += 1
        if index == before:
            raise ValueError(
                f"train: the source has no batch of {batch} rows. Give more text, or train with a smaller batch."
            )
        epoch += 1
        log.debug("source ended after %d batches; epoch %d begins", index, epoch)


def _place(place: list[int]) -> str:
    return f" (sequence {place[0]}, position {place[1]})"


def _scale(x: Float[Tensor, "b d"]) -> float:
    """Root mean square deviation of x from its mean, per dimension."""
    x = x.double()
    scale = float((x - x.mean(0)).square().mean().sqrt())
    # Differences at the level of rounding are no variation either.
    if scale <= 1e-6 * float(x.abs().max()) or scale == 0:
        raise ValueError(
            "train: the activations are constant, so there is no variance to explain. "
            "Check the site: it may be a bias, a mask or a module whose input never changes."
        )
    return scale
