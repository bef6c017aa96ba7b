"""How many directions are certain? Those whose held-out evidence survives a false discovery rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ...core import Dictionary, Measured, Measurement, ShapeError
from ...core.threads import torch_threads
from ..evidence import Evidence, Wanted
from .base import Counter
from .cumulants import cumulant_rank
from .rows import WhiteRows, rows_of, white_rows

# Rows of each candidate that are looked at, those with the largest read-outs: of the first half, and of the held one.
_CHOOSING, _JUDGING, _QUICK = 256, 1024, 128
_STEPS = 8
# Candidates nearer than this, in white coordinates, are one.
_SAME = 0.8
# A read-out is told from noise from two deviations on.
_LEAST = 2.0
_FEWEST = 100


@dataclass(frozen=True, eq=False)
class Certificates(Measured):
    """What `certified_count` found; iterating gives the measurements.

    Args:
        measurements: `certified_count`, `certified_candidates`.
        log_e: log e-value of each direction tried; -inf for one that is a copy of an earlier one, or not in x.
        certified: which directions hold.
    """

    measurements: tuple[Measurement, ...]
    log_e: Float[Tensor, "n"]
    certified: Bool[Tensor, "n"]

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements)


def e_benjamini_hochberg(log_e: Float[Tensor, "claims"], alpha: float = 0.05) -> Bool[Tensor, "claims"]:
    r"""The k claims with the largest e-values, k the largest with $e_{(k)} \ge W / (\alpha k)$, W claims in all.

    The expected share of false ones among them is at most alpha, however the e-values depend on each other.

    Args:
        log_e: natural logarithms of the e-values; those of null claims have E e <= 1.
        alpha: the false discovery rate, in (0, 1).

    Raises:
        ValueError: if alpha is not in (0, 1).

    Source:
        Wang and Ramdas, "False discovery rate control with e-values", 2022 (section 4, the base e-BH procedure).

    Example:
        >>> e_benjamini_hochberg(torch.tensor([100.0, 45.0, 2.0]).log()).tolist()
        [True, True, False]
    """
    if not 0 < alpha < 1:
        raise ValueError(f"e_benjamini_hochberg: alpha must be in (0, 1); got {alpha}.")
    order = log_e.argsort(descending=True, stable=True)
    k = torch.arange(1, len(log_e) + 1).to(log_e)
    enough = log_e[order] >= math.log(max(len(log_e), 1) / alpha) - k.log() - 1e-6
    count = int(k[enough].max()) if bool(enough.any()) else 0
    accepted = torch.zeros(len(log_e), dtype=torch.bool)
    accepted[order[:count].cpu()] = True
    return accepted


@torch.no_grad()
def certified_count(
    x: Float[Tensor, "rows d"],
    directions: Dictionary | None = None,
    held: Float[Tensor, "held d"] | None = None,
    *,
    alpha: float = 0.05,
    margin: float = 0.75,
    judged: int = _JUDGING,
    seed: int = 0,
) -> Certificates:
    r"""Directions c, of those tried, that are active on held-out rows in a way that nothing else explains, by e-BH.

    Estimand: features with positive values, each active by itself often enough, whose direction is among those tried;
    a lower bound of n. The null for c: given the other dimensions of the row, c's read-out is as likely to lie below
    its mean as above by as much, or at most `margin` of those far from it lie above. Gaussian rows fulfil it, and rows
    that are Gaussian up to a factor common to the row (elliptical ones), whatever candidates were learned from them.

    In white coordinates of the first rows let $u = y \cdot \hat c$ be the read-out and $y_\perp$ the rest of the row;
    the two are uncorrelated. From $y_\perp$ alone the other candidates are decoded by nonnegative matching pursuit, 8
    steps at most. A row speaks for or against c where |u| is among the 1 024 largest and above $\tau_c$, where what
    the others predict of u is below |u| / 2, and where what they leave of $y_\perp$, beyond what they leave of a usual
    row, is shorter than |u|: the row then lies along c and not just near it. All of this depends on |u| and $y_\perp$
    only, so under the null the sign of u is still a fair coin, or at most `margin` heads. With P rows above and M
    below,

        e_c = (q / margin)^P ((1 - q) / (1 - margin))^M

    has expectation at most 1, q and $\tau_c$ being chosen on the first rows. The likelihood ratio is of signs and not
    of values, since a density of values would have to be right far out in its tails.

    Interval: the count is a lower bound; at most alpha of those certified are expected to be false, under any
    dependence between candidates. Rows are taken to be independent of each other: with long runs of one text the
    bound is less sure than that. Candidates with a cosine above 0.8 in white coordinates count once. What cannot be
    certified: features active in fewer than some 20 held rows, those that are as often negative as positive, and those
    that are never read alone. A composite that is learned for a child feature that never comes without its parent is
    certified as one.

    Abstains (count None) where `white_rows` does, and where there are fewer than 100 held rows.

    Costs O((first + held) rows n d) for read-outs and O(1 280 n (n + d)) for the decodings.

    Args:
        x: the rows that directions were learned from; where none are given they are taken from its first half by
            `cumulant_rank`, and the second half is held.
        directions: candidates, positive activity along them; norms do not matter. The bias, if any, is where activity
            begins.
        held: rows that neither directions nor anything else were chosen by.
        alpha: false discovery rate.
        margin: share of rows above that the null allows, in [1/2, 1).
        judged: rows of largest read-out that a direction is judged on. Fewer cost less, and certify fewer directions.
        seed: of `cumulant_rank`.

    Raises:
        ShapeError: if rows and directions differ in d.
        ValueError: if only one of directions and held is given, or alpha or margin is out of range.

    Source:
        e-values: Wang and Ramdas, "False discovery rate control with e-values", 2022. The null and the e-value are
        ours; the knockoff test of SAE latents (arXiv 2511.11711) asks a related question.

    Example:
        >>> x = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)) ** 8
        >>> certified_count(x)["certified_count"].value
        3.0
    """
    if not 0.5 <= margin < 1:
        raise ValueError(f"certified_count: margin must be in [1/2, 1); got {margin}.")
    if not 0 < alpha < 1:
        raise ValueError(f"certified_count: alpha must be in (0, 1); got {alpha}.")
    if (directions is None) != (held is None):
        raise ValueError("certified_count: give directions with rows that were held out from them, or neither.")
    if directions is None or held is None:
        half = len(x) // 2
        x, held = x[:half], x[half:]
        directions = Dictionary(cumulant_rank(x, seed=seed).directions)
    if not x.shape[-1] == held.shape[-1] == directions.d:
        raise ShapeError(
            f"certified_count: rows of d = {x.shape[-1]}, held rows of {held.shape[-1]} and directions of "
            f"{directions.d}; one d is needed."
        )
    white = white_rows(x)
    if isinstance(white, str) or len(held) < _FEWEST:
        reason = white if isinstance(white, str) else f"{len(held)} held-out rows are too few: {_FEWEST} are needed"
        none = torch.zeros(directions.n)
        return Certificates((_abstained(len(held), f"{reason}."),), none - math.inf, none.bool())
    judge = _Judge.of(white, directions)
    first = white.y
    later = ((held.double().to(white.mean.device) - white.mean) @ white.to_white).float()
    ordinary = judge.ordinary(first) if len(judge.candidates) else 0.0
    log_e = torch.full((directions.n,), -math.inf)
    # Products of a few hundred rows are too small to be shared: two threads take twice as long over them as one.
    with torch_threads(1):
        for place in range(len(judge.candidates)):
            rows, signs = judge.speaking(first, place, min(judged, _CHOOSING), 0.0, ordinary)
            chosen = _chosen(rows, signs, margin)
            if chosen is None:
                log_e[judge.tried[place]] = 0.0
                continue
            tau, q = chosen
            _, signs = judge.speaking(later, place, judged, tau, ordinary)
            above, below = int((signs > 0).sum()), int((signs < 0).sum())
            log_e[judge.tried[place]] = above * math.log(q / margin) + below * math.log((1 - q) / (1 - margin))
    certified = torch.zeros(directions.n, dtype=torch.bool)
    certified[judge.tried] = e_benjamini_hochberg(log_e[judge.tried], alpha)
    count = int(certified.sum())
    tried = len(judge.tried)
    common = {"n": len(held), "of": "held-out rows", "caution": "; ".join(white.cautions)}
    return Certificates(
        (
            Measurement(
                name="certified_count",
                value=float(count),
                unit="features",
                how=f"no interval: at least so many, at most {alpha:.0%} of them expected to be false",
                chance=0.0,
                chance_is="Gaussian or elliptical rows",
                **common,
            ),
            Measurement(
                name="certified_candidates",
                value=float(tried),
                unit="directions",
                **common,
            ),
        ),
        log_e,
        certified,
    )


def _chosen(size: Tensor, signs: Tensor, margin: float) -> tuple[float, float] | None:
    """tau and q under which the first rows' e-value is largest; None where none speaks for the direction."""
    if not len(size):
        return None
    order = size.argsort(descending=True)
    above = (signs[order] > 0).double().cumsum(0)
    count = torch.arange(1, len(order) + 1).double()
    q = ((above + 1) / (count + 2)).clamp(max=0.99)
    growth = above * (q / margin).log() + (count - above) * ((1 - q) / (1 - margin)).log()
    growth = torch.where(q > margin, growth, -math.inf)
    best = int(growth.argmax())
    if not float(growth[best]) > 0:
        return None
    return float(size[order][best]), float(q[best])


@dataclass(frozen=True, eq=False)
class _Judge:
    """The candidates in white coordinates."""

    candidates: Float[Tensor, "m r"]
    gram: Float[Tensor, "m m"]
    tried: Tensor
    origin: Float[Tensor, "r"]

    @classmethod
    def of(cls, white: WhiteRows, directions: Dictionary) -> _Judge:
        atoms = directions.atoms.detach().double().to(white.mean.device)
        atoms = torch.nn.functional.normalize(atoms @ white.to_white, dim=1).float()
        there = (atoms.norm(dim=1) > 0).nonzero().squeeze(1)
        near = (atoms[there] @ atoms[there].T > _SAME).cpu()
        kept: list[int] = []
        for row in range(len(there)):
            if not bool(near[row, kept].any()):
                kept.append(row)
        tried = there[kept]
        candidates = atoms[tried]
        origin = (
            torch.zeros_like(white.mean) if directions.bias is None else directions.bias.to(white.mean) - white.mean
        )
        return cls(candidates, candidates @ candidates.T, tried.cpu(), (origin @ white.to_white).float())

    def ordinary(self, y: Float[Tensor, "rows r"]) -> float:
        """Squared length of what all candidates leave of a usual row."""
        some = y[:: max(len(y) // 2048, 1)]
        overlaps = self.gram.new_zeros(len(self.candidates))
        left, _ = self._decoded(some - self.origin, overlaps, torch.full((len(some),), _LEAST).to(some), None)
        return float(left.median())

    def speaking(
        self, y: Float[Tensor, "rows r"], place: int, most: int, least: float, ordinary: float
    ) -> tuple[Float[Tensor, "speaking"], Float[Tensor, "speaking"]]:
        """|u| and sign of u for the rows that speak for or against one candidate."""
        c = self.candidates[place]
        u = y @ c
        size, rows = u.abs().topk(min(most, len(u)))
        rows = rows[size >= max(least, _LEAST)]
        u, overlaps = u[rows], self.gram[place]
        rest = y[rows] - u[:, None] * c
        origin = self.origin - (self.origin @ c) * c
        left, explained = self._decoded(rest - origin, overlaps, u.abs() / 3, place)
        speaks = (explained.abs() <= u.abs() / 2) & (left - ordinary <= u.square())
        return u[speaks].abs().cpu(), u[speaks].sign().cpu()

    def _decoded(
        self, rest: Float[Tensor, "b r"], overlaps: Float[Tensor, "m"], least: Float[Tensor, "b"], without: int | None
    ) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"]]:
        """Squared length of what the candidates, seen across c, leave of each row, and what they predict along c."""
        squares = (1 - overlaps.square()).clamp(min=1e-3)
        weights = squares.rsqrt()
        if without is not None:
            weights[without] = 0.0
        products = rest @ self.candidates.T
        left = rest.square().sum(1)
        explained = torch.zeros_like(left)
        going = torch.arange(len(rest), device=rest.device)
        for _ in range(_STEPS):
            best, atom = (products * weights).max(1)
            more = best > least[going]
            if not bool(more.any()):
                break
            # Rows that nothing more is found in stay as they are: only the others are decoded further.
            if not bool(more.all()):
                going, atom, products = going[more], atom[more], products[more]
            value = products.gather(1, atom[:, None])[:, 0] / squares[atom]
            left[going] -= value.square() * squares[atom]
            explained[going] += value * overlaps[atom]
            products.addcmul_(self.gram[atom], value[:, None], value=-1).addr_(value * overlaps[atom], overlaps)
        return left, explained


def _abstained(held: int, reason: str) -> Measurement:
    return Measurement(name="certified_count", value=None, unit="features", n=held, of="held-out rows", caution=reason)


class CertifiedCount(Counter):
    """`certified_count` on what was held out, of the directions that recur over seeds, on few rows for each.

    Args:
        alpha: false discovery rate.
        rows: read at most so many of those learned from, and of those held.
    """

    name: ClassVar[str] = "certified_count"

    def __init__(self, alpha: float = 0.05, rows: int = 16_384) -> None:
        self.alpha = alpha
        self.rows = rows

    def wants(self, n: int, k: int, seeds: tuple[int, ...]) -> tuple[Wanted, ...]:
        return tuple(Wanted(n, k, seed) for seed in seeds)

    def count(self, seen: Evidence, wanted: tuple[Wanted, ...]) -> Iterable[Measurement]:
        x, held = rows_of(seen.rows, self.rows), rows_of(seen.held, self.rows)
        recurring = Dictionary(seen.recurrence(wanted).directions, seen.learned[wanted[0]].dictionary.bias)
        return certified_count(x, recurring, held, alpha=self.alpha, judged=_QUICK, seed=seen.seed)
