"""Do directions act on the network behind them as features do? The exponent of the norm that it measures them by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...core import Measured, Measurement, ShapeError

Network = Callable[[Tensor], Tensor]
"""From rows of x to rows of whatever comes of them."""
Distance = Callable[[Tensor, Tensor], Tensor]
"""From two batches of outputs to a number for each row: 0 where they are the same, growing with the difference."""

_RADII, _BISECTIONS = 16, 8
_SMALLEST = 0.01
_ROWS_AT_ONCE = 2**14


@dataclass(frozen=True, eq=False)
class LpExponent(Measured):
    """What `lp_exponent` found; iterating gives the measurements.

    Args:
        measurements: `lp_exponent` (the median), `causal_directions` (how many count), with chance.
        inverse: 1/p of each direction; NaN where too few radii were found. Below 1/2 is p above 2.
        low, high: its interval.
        above_two: directions that count: the whole interval of 1/p is below 1/2, and 1/p is below what 99 % of random
            directions have.
        null: 1/p of the random directions.
    """

    measurements: tuple[Measurement, ...]
    inverse: Float[Tensor, "n"]
    low: Float[Tensor, "n"]
    high: Float[Tensor, "n"]
    above_two: Bool[Tensor, "n"]
    null: Float[Tensor, "m"]

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements)


def squared_distance(a: Float[Tensor, "b m"], b: Float[Tensor, "b m"]) -> Float[Tensor, "b"]:
    """Squared Euclidean distance, row by row."""
    return (a - b).square().sum(1)


def kl_divergence(a: Float[Tensor, "b m"], b: Float[Tensor, "b m"]) -> Float[Tensor, "b"]:
    """KL of the distributions that two rows of logits stand for, in nats: of b from a."""
    log_a, log_b = a.double().log_softmax(1), b.double().log_softmax(1)
    return (log_a.exp() * (log_a - log_b)).sum(1)


@torch.no_grad()
def lp_exponent(
    network: Network,
    x: Float[Tensor, "rows d"],
    directions: Float[Tensor, "n d"],
    *,
    level: float = 0.1,
    distance: Distance = squared_distance,
    on_sphere: bool = False,
    partners: int = 12,
    null: int = 64,
    coherence: float = 0.1,
    draws: int = 500,
    seed: int = 0,
) -> LpExponent:
    r"""$p = 1 / (1/2 - \log_2 (r_{mix} / r_{pure}))$: r is how far x must move for the output to change by a level.

    Estimand: where the effect of a move $\delta$ is a function of $\|f\|_p$, f being the move in terms of the
    network's features, two features together, $(u + v)/\sqrt 2$, need a longer move than each alone as soon as p > 2:
    $r_{mix} / r_{pure} = 2^{1/2 - 1/p}$, with $r_{pure}$ the geometric mean of the two. A ReLU with a negative bias,
    say, takes no notice of several small parts. Rotated directions are treated as p = 2 would, so that p tells true
    directions from others, and it is causal: no statistic of x is in it.

    For each direction 1/p is the mean over partners v from the same set with $|u \cdot v|$ below `coherence` and over
    rows of x, paired: the same rows for u, v and their mixture. Rows where any of the three radii is beyond the
    farthest move, two root mean squares of x, are left out.

    Interval: 95 % bootstrap over partners. Null: random directions, measured in the same way among themselves. A
    direction that is by chance more effective than its partners has p above 2 without being a feature, so it is not
    enough that the interval excludes 2: a direction counts where 1/p is also 2.33 deviations below the null's mean.

    Abstains (value None) where fewer than four directions have an exponent: directions that are no set of nearly
    orthogonal pairs, a level that is never reached, a network that does not depend on x.

    Costs 24 passes at most of the network over rows x n x (partners + 1) rows.

    Args:
        network: from rows of x to outputs.
        x: rows to move from; some tens are enough.
        directions: candidates; norms do not matter, signs do.
        level: of change, in shares of the mean distance between the outputs of different rows.
        distance: of outputs; `kl_divergence` for logits.
        on_sphere: keep |x|, for networks that normalise their input; a move is then an arc.
        partners: of each direction.
        null: random directions.
        coherence: see above.
        draws: of the bootstrap.
        seed: of partners, random directions and bootstrap.

    Raises:
        ShapeError: if x and directions differ in d.
        ValueError: if there are fewer than two rows, or a setting is out of range.

    Source:
        arXiv 2606.24964, 2026, which finds p above 2 for contrastive and SAE directions of six language models and
        p = 2 for random ones (its abstract; the estimator by radii and the null are ours).
    """
    if x.ndim != 2 or directions.ndim != 2 or x.shape[1] != directions.shape[1]:
        raise ShapeError(
            f"lp_exponent: x of shape {tuple(x.shape)} and directions of {tuple(directions.shape)}; rows of one d are "
            "needed in both."
        )
    if len(x) < 2:
        raise ValueError(f"lp_exponent: {len(x)} rows; give at least 2 to move from.")
    if not level > 0:
        raise ValueError(f"lp_exponent: level must be above 0; got {level}.")
    if partners < 2 or null < 20 or draws < 2:
        raise ValueError("lp_exponent: at least 2 partners, 20 random directions and 2 draws are needed.")
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(null, x.shape[1], generator=generator).to(x)
    clean = network(x)
    usual = float(distance(clean, clean.roll(1, 0)).mean())
    farthest = 2 * float(x.square().sum(1).mean().sqrt())
    # Where outputs are all alike no change is large: an infinite level is never reached.
    reach = level * usual if usual > 0 else math.inf
    mover = _Mover(network, x, clean, distance, reach, farthest, on_sphere)
    settings = (partners, coherence, draws, generator)
    null_inverse = _inverses(mover, random, *settings)[0]
    inverse, low, high = _inverses(mover, directions.to(x), *settings)
    known = null_inverse[null_inverse.isfinite()]
    edge = _edge(known) if len(known) >= 20 else -torch.inf
    above = (high < 0.5) & (inverse < edge)
    return LpExponent(
        _measurements(inverse, low, high, above, known, x.shape[1], len(x)), inverse, low, high, above, null_inverse
    )


def _measurements(
    inverse: Tensor, low: Tensor, high: Tensor, above: Tensor, known: Tensor, d: int, rows: int
) -> tuple[Measurement, ...]:
    there = inverse.isfinite()
    count = int(there.sum())
    common = {"n": len(inverse), "of": "directions"}
    if count < 4 or len(known) < 20:
        short = f"{count} directions" if count < 4 else f"{len(known)} random directions"
        reason = (
            f"only {short} have an exponent: give more directions with small cosines to each other, a smaller level, "
            "or a network that depends on x."
        )
        return tuple(
            Measurement(name=name, value=None, unit=unit, caution=reason, **common)
            for name, unit in (("lp_exponent", "exponent"), ("causal_directions", "directions"))
        )
    chance = float((known < _edge(known)).double().mean()) * count
    return (
        Measurement(
            name="lp_exponent",
            value=_exponent(float(inverse[there].median())),
            unit="exponent",
            low=_exponent(float(inverse[there].quantile(0.75))),
            high=_exponent(float(inverse[there].quantile(0.25))),
            how="quartiles over directions",
            chance=_exponent(float(known.median())),
            chance_is=f"{len(known)} random directions",
            caution="" if count == len(inverse) else f"{len(inverse) - count} directions have none",
            **common,
        ),
        Measurement(
            name="causal_directions",
            value=float(above.sum()),
            unit="directions",
            how=f"no interval: each by 95% bootstrap over its partners, on {rows} rows",
            chance=chance,
            chance_is="as many random directions",
            caution=f"more than the {d} dimensions: superposition" if int(above.sum()) > d + chance else "",
            **common,
        ),
    )


def _edge(known: Tensor) -> float:
    """What 99 % of random directions are above, were they normal: a quantile of some tens would be too rough."""
    return float(known.mean() - 2.326 * known.std())


def _exponent(inverse: float) -> float:
    """p, 100 standing for all that is larger."""
    return 1 / max(inverse, 0.01)


def _inverses(
    mover: _Mover, directions: Tensor, partners: int, coherence: float, draws: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """1/p of each direction and its interval."""
    u = torch.nn.functional.normalize(directions, dim=1)
    n = len(u)
    first, second = _pairs((u @ u.T).abs().cpu() < coherence, partners, generator)
    inverse, low, high = (torch.full((n,), torch.nan, dtype=torch.float64) for _ in range(3))
    if not len(first):
        return inverse, low, high
    pure = mover.log_radii(u)
    mixed = torch.nn.functional.normalize(u[first.to(u.device)] + u[second.to(u.device)], dim=1)
    gains = mover.log_radii(mixed) - (pure[first] + pure[second]) / 2
    seen = gains.isfinite()
    enough = seen.sum(1) >= 2
    by_pair = torch.where(seen, gains, 0.0).sum(1) / seen.sum(1).clamp(min=1)
    for each in range(n):
        mine = by_pair[(first == each) & enough]
        if len(mine) < 2:
            continue
        inverse[each] = 0.5 - mine.mean()
        drawn = mine[torch.randint(len(mine), (draws, len(mine)), generator=generator)].mean(1)
        low[each], high[each] = 0.5 - drawn.quantile(0.975), 0.5 - drawn.quantile(0.025)
    return inverse, low, high


def _pairs(
    allowed: Bool[Tensor, "n n"], partners: int, generator: torch.Generator
) -> tuple[Int[Tensor, "pairs"], Int[Tensor, "pairs"]]:
    """For each direction some random others that it is allowed to be mixed with."""
    score = torch.rand(allowed.shape, generator=generator)
    score = torch.where(allowed & ~torch.eye(len(allowed), dtype=torch.bool), score, -1.0)
    best, other = score.topk(min(partners, len(allowed)), dim=1)
    first = torch.arange(len(allowed))[:, None].expand_as(other)
    return first[best >= 0], other[best >= 0]


@dataclass(frozen=True, eq=False)
class _Mover:
    """Moves rows until the output has changed enough."""

    network: Network
    x: Tensor
    clean: Tensor
    distance: Distance
    level: float
    farthest: float
    on_sphere: bool

    def log_radii(self, u: Float[Tensor, "n d"]) -> Float[Tensor, "n rows"]:
        """log2 of the radius at which the level is first crossed; NaN where it is not."""
        steps = torch.logspace(torch.log10(torch.tensor(_SMALLEST)), 0, _RADII, dtype=torch.float64) * self.farthest
        found = []
        for part in u.split(max(_ROWS_AT_ONCE // len(self.x), 1)):
            low = torch.zeros(len(part), len(self.x), dtype=torch.float64)
            high = torch.full_like(low, torch.nan)
            for radius in steps:
                crossed = high.isnan() & (self._change(part, torch.full_like(low, float(radius))) >= self.level)
                high = torch.where(crossed, radius, high)
                low = torch.where(high.isnan(), radius, low)
                if not bool(high.isnan().any()):
                    break
            for _ in range(_BISECTIONS):
                middle = (low + high) / 2
                over = self._change(part, middle.nan_to_num(0.0)) >= self.level
                high, low = torch.where(over, middle, high), torch.where(over, low, middle)
            found.append(high.log2())
        return torch.cat(found)

    def _change(self, u: Float[Tensor, "n d"], radius: Float[Tensor, "n rows"]) -> Float[Tensor, "n rows"]:
        r = radius.to(self.x)[:, :, None]
        start = self.x.expand(len(u), *self.x.shape)
        if self.on_sphere:
            length = start.norm(dim=2, keepdim=True).clamp(min=torch.finfo(self.x.dtype).tiny)
            across = u[:, None] - (start * u[:, None]).sum(2, keepdim=True) / length.square() * start
            across = torch.nn.functional.normalize(across, dim=2)
            angle = (r / length).clamp(max=torch.pi / 2)
            moved = angle.cos() * start + angle.sin() * length * across
        else:
            moved = start + r * u[:, None]
        outputs = self.network(moved.flatten(0, 1))
        clean = self.clean.expand(len(u), *self.clean.shape).flatten(0, 1)
        return self.distance(clean, outputs).double().cpu().view(radius.shape)
