"""How strong is an edit? In mean norms of x, in nats, or as strong as a wanted effect takes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float, Float64
from torch import Tensor

from ..core import ShapeError
from .gates import check_direction


def in_mean_norms(direction: Float[Tensor, "d"], x: Float[Tensor, "rows d"]) -> Float[Tensor, "d"]:
    """The direction, as long as a row of x is on average: strength 0.5 then means the same in every model.

    Raises:
        ValueError: if it is zero, or all of x is.

    Example:
        >>> import torch
        >>> in_mean_norms(torch.tensor([2.0, 0.0]), torch.tensor([[3.0, 4.0], [0.0, 1.0]])).tolist()
        [3.0, 0.0]
    """
    check_direction("in_mean_norms", direction)
    size = float(x.double().norm(dim=-1).mean())
    if not (math.isfinite(size) and size > 0):
        raise ValueError(f"in_mean_norms: rows of x have a mean norm of {size}; give sound rows of the site.")
    return direction * (size / float(direction.double().norm()))


def in_nats(direction: Float[Tensor, "d"], fisher: Float64[Tensor, "d d"]) -> Float[Tensor, "d"]:
    r"""The direction, so long that adding it costs one nat a token: $\tfrac12 \delta^\top F \delta = 1$.

    A dose of c nats is strength $\sqrt c$; it holds as long as the second order does, which is where c is small.

    Args:
        direction: v.
        fisher: F, of `pullback_fisher`.

    Raises:
        ShapeError: if they do not fit.
        ValueError: if F sees nothing of the direction.
    """
    check_direction("in_nats", direction)
    v = direction.double().cpu()
    if fisher.shape != (len(v), len(v)):
        raise ShapeError(f"in_nats: the direction has {len(v)} numbers and F shape {tuple(fisher.shape)}.")
    cost = float(v @ fisher.cpu() @ v) / 2
    if not (math.isfinite(cost) and cost > 0):
        raise ValueError(f"in_nats: the direction costs {cost} nats, so no length of it is one; use mean norms.")
    return direction / math.sqrt(cost)


def validity_radius(predicted: Sequence[float], measured: Sequence[float], *, tolerance: float = 0.25) -> float | None:
    r"""The largest predicted cost up to which what was measured stays within $1 \pm$ `tolerance` times it.

    Between the last dose that keeps to it and the first that does not, their ratio is taken as a straight line over the
    logarithm of the cost. None where even the smallest dose does not keep to it; the largest dose where all do, which
    is then a lower bound.

    Args:
        predicted: costs in nats, rising, above 0: the second order's.
        measured: the costs found there.
        tolerance: share, in (0, 1).

    Raises:
        ValueError: if there is no dose, numbers differ in length, or costs do not rise from above 0.

    Example:
        >>> round(validity_radius([0.01, 0.1, 1.0], [0.01, 0.1, 0.5]), 4)
        0.3162
    """
    if (
        not predicted
        or len(predicted) != len(measured)
        or predicted[0] <= 0
        or any(b <= a for a, b in itertools.pairwise(predicted))
    ):
        raise ValueError(
            f"validity_radius: {len(measured)} costs were measured for {len(predicted)} predicted ones; give one for "
            "each, in the order of predicted costs that rise from above 0."
        )
    ratios = [found / told for told, found in zip(predicted, measured)]
    last = None
    for i, ratio in enumerate(ratios):
        if not abs(ratio - 1) <= tolerance:
            if last is None or not math.isfinite(ratio):
                return last
            edge = 1 + math.copysign(tolerance, ratio - 1)
            share = (edge - ratios[i - 1]) / (ratio - ratios[i - 1])
            return math.exp((1 - share) * math.log(predicted[i - 1]) + share * math.log(predicted[i]))
        last = predicted[i]
    return last


@dataclass(frozen=True)
class Match:
    """A strength and what it does.

    Args:
        strength: found.
        effect: there.
        target: wanted.
        reached: whether the effect is within the tolerance of the target.
        steps: effects that were measured.
    """

    strength: float
    effect: float
    target: float
    reached: bool
    steps: int


def matched(
    effect: Callable[[float], float],
    target: float,
    *,
    most: float,
    tolerance: float = 0.02,
    steps: int = 40,
) -> Match:
    """The strength at which an effect is what is wanted, by bisection between 0 and `most`.

    The effect should grow with strength. Where it turns back before it reaches the target, or `most` is not enough, the
    nearest that was met is returned as not reached: not a failure, but a fact about the edit.

    Args:
        effect: of a strength; measured at 0 and at `most` first.
        target: wanted.
        most: the largest strength; below 0 where the effect grows that way.
        tolerance: as a share of |target - effect(0)|.
        steps: effects to measure at most.

    Raises:
        ValueError: if a number is NaN or infinite, `most` is 0, or the tolerance or steps are too small.

    Example:
        >>> matched(lambda s: s**2, 4.0, most=10.0, tolerance=1e-6).strength
        2.0000...
    """
    if not all(math.isfinite(one) for one in (target, most)) or most == 0 or not tolerance > 0 or steps < 2:
        raise ValueError(
            f"matched: target {target}, most {most}, tolerance {tolerance} and steps {steps} must be finite, most not "
            "0, the tolerance above 0 and steps at least 2."
        )
    start = effect(0.0)
    wanted = target - start
    met = [(0.0, start), (most, effect(most))]
    near = lambda: min(met, key=lambda pair: abs(pair[1] - target))  # noqa: E731
    good = lambda: abs(near()[1] - target) <= tolerance * abs(wanted)  # noqa: E731
    low, high = 0.0, most
    if (met[1][1] - target) * (1 if wanted > 0 else -1) >= 0:
        while not good() and len(met) < steps:
            middle = (low + high) / 2
            met.append((middle, effect(middle)))
            # Whether the middle is past the target, on the way from the start to it.
            if (met[-1][1] - target) * wanted >= 0:
                high = middle
            else:
                low = middle
    return Match(*near(), target, good(), len(met))
