"""How does a dictionary hold features of several dimensions: by their span, by tiles, or diluted between the two?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...core import Measurement, ShapeError, SparseCode, SparseCoder
from ...worlds import Truth
from ..interval import bootstrap
from ..stream import Rows, read

_OWN = 0.5
"""Share of an atom's square that must lie in a component's span for the latent to be one of its own."""
_TILE = 0.1
"""Share of its largest value from which a latent counts as on, for the width of its tile."""


@dataclass(frozen=True, eq=False)
class Captured:
    """What became of each planted component of two dimensions or more.

    Args:
        measurements: `manifold_span`, `manifold_tiling` and `manifold_dilution`, medians over components.
        span, tiling, dilution: each component's own; NaN where no latent is its own.
        latents: latents of each.
    """

    measurements: tuple[Measurement, ...]
    span: Float[Tensor, "components"]
    tiling: Float[Tensor, "components"]
    dilution: Float[Tensor, "components"]
    latents: Float[Tensor, "components"]


@torch.no_grad()
def captured(
    coder: SparseCoder, rows: Rows, truth: Truth, *, batches: int | None = None, size: int = 4096, seed: int = 0
) -> Captured:
    r"""Span, tiling and dilution of planted components S of m >= 2 dimensions.

    A latent belongs to S if $|P_S \hat w|^2 > 1/2$. Of those latents:

    - span: the largest $\mathrm{tr}(P_S P_A) / m$ over m of them, chosen one after the other: 1 where as few atoms as
      there are dimensions span S.
    - tiling: the mean share of the circle on which one of them is on (above a tenth of its largest value), in planes;
      1/2 for a half-wave, small where many tile it.
    - dilution: latents of S on at once in rows where S is, less m. 0 or below where they are no more than its
      dimensions.

    Span near 1 with dilution near 0 is capture by the span, small tiling with dilution below 0 capture by tiles, and
    positive dilution the case between, in which a feature is spread over latents of which none means anything alone.

    Args:
        coder: what is judged.
        rows: of a world, with their code.
        truth: of that world.
        batches: read at most so many of them.
        size: rows per batch.
        seed: of the rows.

    Raises:
        ShapeError: if the rows carry no code, or the truth is of other dimensions.
        ValueError: if the truth has no component of two dimensions or more.

    Source:
        The distinction: "Do sparse autoencoders capture concept manifolds?", 2026 (arXiv 2604.28119). The formulas are
        our own.
    """
    W = coder.dictionary
    if W.d != truth.d:
        raise ShapeError(f"captured: the dictionary has d = {W.d} and the truth d = {truth.d}; give one of the same d.")
    many = (truth.dimensions >= 2).nonzero().flatten().tolist()
    if not many:
        raise ValueError("captured: the world has no component of two dimensions or more. Give one, such as rings.")
    unit = W.unit().atoms.double().cpu()
    places = [(truth.component == c).nonzero().flatten() for c in many]
    bases = [torch.linalg.qr(truth.dictionary.atoms[at].double().T).Q for at in places]
    own = [((unit @ basis).square().sum(1) > _OWN).nonzero().flatten() for basis in bases]
    codes, truths = [], []
    for batch in read(rows, size=size, most=batches or 4, seed=seed):
        if batch.code is None:
            raise ShapeError("captured: the rows carry no code, so it is not known where a component is active.")
        codes.append(coder.encode(batch.x))
        truths.append(batch.code)
    found = torch.full((4, len(many)), float("nan"), dtype=torch.float64)
    for j, (at, basis, latents) in enumerate(zip(places, bases, own, strict=True)):
        found[3, j] = len(latents)
        if not len(latents):
            continue
        m = len(at)
        found[0, j] = _span(unit[latents], basis, m)
        points = torch.cat([_columns(code, at) for code in truths])
        values = torch.cat([_columns(code, latents) for code in codes])
        there = (points != 0).any(1)
        if not bool(there.any()):
            continue
        on = values[there] != 0
        found[2, j] = float(on.double().sum(1).mean()) - m
        if m == 2:
            atoms = truth.dictionary.atoms[at].double() @ basis
            found[1, j] = _tiling(points[there] @ atoms, values[there])
    table = found[:3].numpy()
    return Captured(tuple(_medians(table)), found[0], found[1], found[2], found[3])


def _columns(code: SparseCode, wanted: Tensor) -> Float[Tensor, "rows m"]:
    place = torch.full((code.n,), -1, dtype=torch.long)
    place[wanted] = torch.arange(len(wanted))
    own = place[code.indices]
    dense = torch.zeros(len(code.indices), len(wanted), dtype=torch.float64)
    values = torch.where(own >= 0, code.values, 0.0).double()
    return dense.scatter_add_(1, own.clamp(min=0), values) if len(wanted) else dense


def _span(atoms: Float[Tensor, "a d"], basis: Float[Tensor, "d m"], m: int) -> float:
    chosen: list[int] = []
    best = 0.0
    for _ in range(min(m, len(atoms))):
        scores = []
        for each in range(len(atoms)):
            q = torch.linalg.qr(atoms[[*chosen, each]].T).Q
            scores.append(-1.0 if each in chosen else float((basis.T @ q).square().sum()) / m)
        at = int(np.argmax(scores))
        chosen.append(at)
        best = scores[at]
    return best


def _tiling(points: Float[Tensor, "rows 2"], values: Float[Tensor, "rows a"]) -> float:
    """Mean share of 24 equal angles, of those that were seen, at which a latent is on."""
    angle = ((torch.atan2(points[:, 1], points[:, 0]) / (2 * torch.pi) + 0.5) * 24).long().clamp(0, 23)
    seen = torch.bincount(angle, minlength=24) > 0
    sums = torch.zeros(24, values.shape[1], dtype=torch.float64).index_add_(0, angle, values.abs())
    mean = sums[seen] / torch.bincount(angle, minlength=24)[seen, None]
    largest = mean.amax(0)
    alive = largest > 0
    return float((mean[:, alive] > _TILE * largest[alive]).double().mean()) if bool(alive.any()) else float("nan")


def _medians(table: np.ndarray) -> list[Measurement]:
    found = []
    for row, (name, unit) in zip(
        table,
        (
            ("manifold_span", "share of the span"),
            ("manifold_tiling", "share of the circle"),
            ("manifold_dilution", "latents beyond its dimensions"),
        ),
        strict=True,
    ):
        known = row[np.isfinite(row)]
        if not len(known):
            why = "no component has a latent of its own that is ever on" if name != "manifold_tiling" else "no planes"
            found.append(Measurement(name=name, value=None, unit=unit, n=0, of="components", caution=why))
            continue

        def median(counts: np.ndarray, values: np.ndarray = known) -> np.ndarray:
            order = np.argsort(values)
            return values[order][(np.cumsum(counts[:, order], 1) >= counts.sum(1, keepdims=True) / 2).argmax(1)]

        interval = bootstrap(median, np.eye(len(known)), of="components", draws=200)
        value = float(median(np.ones((1, len(known))))[0])
        found.append(Measurement(name=name, value=value, unit=unit, n=len(known), of="components", **interval.fields))
    return found
