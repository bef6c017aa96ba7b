"""In which plane do these points look most like a ring? Chosen on discovery rows, judged on others."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .indices import mixture_index, separability_index
from .shapes import Contest, contest

_DIMENSIONS = 5
"""Principal components that planes are looked for in."""
_LEAST = 0.05
"""Share of the first component's variance that the last must have."""
_STEPS, _STARTS = 60, 8
_ROUND = 0.7
"""Relative variance of the squared radius below which shapes are held against each other: 1 for a Gaussian."""
_FLAT = 0.4
"""Largest variance that the angle may explain outside of the plane, over that in it. Points of a simplex lie on a ring
in some plane, but then they do so in others too: five give 1, four 1/2."""
_FEWEST = 60


@dataclass(frozen=True, eq=False)
class Shape:
    """What was found of one group of rows.

    Args:
        verdict: "ring", "clusters on a ring", "line", "mixture", "blob", or "too few rows".
        dimensions: principal components looked at.
        components: the pair of principal components that the plane is nearest to, as numbers from 1.
        roundness: relative variance of the squared radius on the test rows: 0 on a circle, 1 for a Gaussian.
        outside: variance that the angle explains outside of the plane, over the variance in it.
        mixture, separability: `mixture_index` and `separability_index` in the plane, on the test rows.
        contest: of the shapes; None where the points are no rounder than a Gaussian's, or too few.
        points: the test rows in the plane.
        basis: the plane in the space of the rows, orthonormal.
    """

    verdict: str
    dimensions: int = 0
    components: tuple[int, int] = (0, 0)
    roundness: float = 1.0
    outside: float = 0.0
    mixture: float = 0.0
    separability: float = 0.0
    contest: Contest | None = None
    points: np.ndarray | None = None
    basis: Tensor | None = None

    @property
    def is_circular(self) -> bool:
        """Whether a circle won."""
        return self.verdict in ("ring", "clusters on a ring")

    @property
    def clusters(self) -> int:
        """On the ring; 0 where there are none."""
        known = self.contest is not None and self.verdict == "clusters on a ring"
        return self.contest.fitted[self.verdict].clusters if known and self.contest is not None else 0


@torch.no_grad()
def shape(discovery: Float[Tensor, "rows d"], test: Float[Tensor, "more d"], *, seed: int = 0) -> Shape:
    r"""The shape of rows in the plane where discovery rows are roundest.

    Whitened in the first principal components, so that no direction counts for its variance alone: a ring beside a
    linear factor as strong as it is found, which the first two components mix. The plane Q minimises
    $\mathrm{Var}(\rho^2) / \bar{\rho^2}^2$, $\rho = |Q^T y|$, by descent from every pair of components and from random
    planes. Everything is fitted on discovery rows; what is said holds on the test rows.

    Args:
        discovery, test: different rows.
        seed: of starts.
    """
    if len(discovery) < _FEWEST or len(test) < _FEWEST:
        return Shape("too few rows")
    mean = discovery.double().mean(0)
    values, axes = torch.linalg.eigh(torch.cov((discovery.double() - mean).T).reshape(len(mean), len(mean)))
    values, axes = values.flip(0), axes.flip(1)
    kept = int((values > _LEAST * values[0].clamp(min=1e-300)).sum().clamp(max=_DIMENSIONS))
    if kept < 2 or float(values[0]) <= 0:
        return Shape("line", dimensions=kept)
    deviations = values[:kept].sqrt()
    y, held = ((rows.double() - mean) @ axes[:, :kept] / deviations for rows in (discovery, test))
    plane = roundest(y, seed=seed)
    pair = tuple(sorted((plane.square().sum(1).topk(2).indices + 1).tolist()))
    squared = (held @ plane).square().sum(1)
    roundness = float(squared.var() / squared.mean().square())
    found, points = (y @ plane).numpy(), (held @ plane).numpy()
    outside = _outside(held, plane, deviations)
    separability, doubt = separability_index(points, seed=seed)
    # The plane among the rows' own coordinates: whitening is undone.
    basis = torch.linalg.qr(axes[:, :kept] * deviations @ plane).Q
    about = {
        "dimensions": kept,
        "components": (pair[0], pair[1]),
        "roundness": roundness,
        "outside": outside,
        "mixture": mixture_index(points),
        "separability": separability,
        "points": points,
        "basis": basis,
    }
    if roundness > _ROUND:
        return Shape("blob", **about)
    judged = contest(found, points, seed=seed)
    # Four corners of a square lie on a circle too, and are two independent features.
    reducible = outside > _FLAT or separability < doubt
    verdict = "mixture" if judged.is_circular and reducible else judged.verdict
    return Shape(verdict, contest=judged, **about)


def roundest(y: Float[Tensor, "rows m"], *, seed: int = 0) -> Float[Tensor, "m 2"]:
    """The orthonormal frame in whitened rows whose squared radius varies least."""
    m = y.shape[1]
    if m == 2:
        return torch.eye(2, dtype=y.dtype)
    random = torch.Generator().manual_seed(seed)
    pairs = [torch.eye(m, dtype=y.dtype)[:, list(pair)] for pair in itertools.combinations(range(m), 2)]
    others = [torch.randn(m, 2, generator=random, dtype=y.dtype) for _ in range(_STARTS)]
    start = torch.stack([*pairs, *others])
    # A start at a pair of components may be a saddle.
    raw = (start + 0.01 * torch.randn(start.shape, generator=random, dtype=y.dtype)).requires_grad_()
    adam = torch.optim.Adam([raw], lr=0.1)
    with torch.enable_grad():
        for _ in range(_STEPS):
            loss = _spread(y, _frame(raw))
            adam.zero_grad()
            loss.sum().backward()
            adam.step()
    with torch.no_grad():
        frames = _frame(raw)
        return frames[int(_spread(y, frames).argmin())]


def _frame(raw: Float[Tensor, "s m 2"]) -> Float[Tensor, "s m 2"]:
    first = torch.nn.functional.normalize(raw[..., 0], dim=1)
    second = raw[..., 1] - (raw[..., 1] * first).sum(1, keepdim=True) * first
    return torch.stack([first, torch.nn.functional.normalize(second, dim=1)], 2)


def _spread(y: Float[Tensor, "rows m"], frames: Float[Tensor, "s m 2"]) -> Float[Tensor, "s"]:
    squared = torch.einsum("rm,smi->sri", y, frames).square().sum(2)
    return squared.var(1) / squared.mean(1).square()


def _outside(held: Float[Tensor, "rows m"], plane: Float[Tensor, "m 2"], deviations: Float[Tensor, "m"]) -> float:
    """Variance of bin means by angle outside of the plane, less what chance gives, over the variance in it."""
    u, v = (held @ plane).T
    number = ((torch.atan2(v, u) / (2 * torch.pi) + 0.5) * 12).long().clamp(0, 11)
    rest = (held - held @ plane @ plane.T) * deviations
    inside = float(((held @ plane @ plane.T) * deviations).var(0).sum())
    between = 0.0
    for each in range(12):
        part = rest[number == each]
        if len(part) > 1:
            noise = float(part.var(0).sum()) / len(part)
            between += len(part) / len(rest) * (float((part.mean(0) - rest.mean(0)).square().sum()) - noise)
    return max(between, 0.0) / max(inside, 1e-300)
