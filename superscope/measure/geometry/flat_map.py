"""Where does each atom stand on a map of two dimensions, and which of its neighbours stay beside it there?

Directions in d dimensions do not fit a plane. So a map never goes without the share of neighbours that it keeps, of
each atom and of all, beside what a random map would keep.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from ...core import Dictionary, Measured, Measurement
from .blocks import Directions

_BLOCK = 2**24
"""Cosines at once."""
_STRANGERS, _PUSH, _RATE = 5, 7.0, 4.0
"""Strangers that an atom is pushed from for each neighbour that it is drawn to, how hard, and the first step.

On a dictionary of the pocket model (block 2, 1 536 atoms) these keep .253 of neighbours in .9 s; a push of 1 keeps .16,
the two leading principal axes .027, a random map .008; scikit-learn's t-SNE keeps .252 of block 0's in 6.4 s.
"""


@dataclass(frozen=True, eq=False)
class FlatMap(Measured):
    """Atoms in the plane; iterating gives the measurement.

    Args:
        measurements: `map_neighbours_kept`, the mean over atoms of `kept`.
        places: x and y of every atom; NaN for a zero atom.
        kept: of each atom's nearest ones by cosine, the share that are among as many nearest on the map.
    """

    measurements: tuple[Measurement, ...]
    places: Float[Tensor, "n 2"]
    kept: Float[Tensor, "n"]

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements)


@torch.no_grad()
def nearest_atoms(unit: Float[Tensor, "n d"], count: int) -> Int[Tensor, "n count"]:
    """The `count` atoms of largest cosine with each, itself left out, nearest first. O(n^2 d) time."""
    found = []
    size = max(1, _BLOCK // len(unit))
    for start in range(0, len(unit), size):
        cosines = unit[start : start + size] @ unit.T
        rows = torch.arange(len(cosines))
        cosines[rows, start + rows] = -2.0
        found.append(cosines.topk(count, dim=1).indices.cpu())
    return torch.cat(found)


@torch.no_grad()
def flat_map(
    W: Dictionary,
    *,
    neighbours: int = 12,
    epochs: int = 120,
    seed: int = 0,
    start: Float[Tensor, "n 2"] | None = None,
) -> FlatMap:
    r"""Places $y_i$ in the plane that draw each atom to its neighbours and push it from strangers; and what that keeps.

    Neighbours are the atoms of largest cosine. From the two leading principal axes, `epochs` steps of gradient ascent
    on

        sum over neighbours of ln q(i, j) + 7 sum over random pairs of ln(1 - q(i, j)),

    q(i, j) = 1 / (1 + |y_i - y_j|^2), the objective of LargeVis. Distances between clusters mean nothing, nor do the
    axes; whether a neighbour on the map is one by cosine, `kept` says. One thread gives the same map for one seed.

    Args:
        W: atoms; norms do not matter, signs do.
        neighbours: of each atom; `kept` is counted over as many.
        epochs: steps.
        seed: of the strangers.
        start: places to begin at in stead of the axes, of another map of the same atoms; only their shape counts.

    Raises:
        ValueError: if there are fewer than three nonzero atoms.

    Source:
        Tang et al., "Visualizing large-scale and high-dimensional data", 2016 (LargeVis); McInnes et al., "UMAP:
        uniform manifold approximation and projection", 2018. The share kept is the trustworthiness of Venna and Kaski,
        2001, without its ranks.

    Example:
        >>> found = flat_map(Dictionary(torch.eye(3)), neighbours=2)
        >>> found.kept.tolist()
        [1.0, 1.0, 1.0]
    """
    directions = Directions.of(W, "flat_map")
    unit = directions.unit.detach().float()
    m = len(unit)
    if m < 3:
        raise ValueError(f"flat_map: {m} atoms are nonzero, and a map needs three.")
    count = min(neighbours, m - 1)
    near = nearest_atoms(unit, count).numpy()
    first = _axes(unit) if start is None else _spread(start[directions.index].double().cpu().numpy())
    y = _placed(first, near, epochs, np.random.default_rng(seed))
    # The nearest point of all is the atom itself.
    _, beside = cKDTree(y).query(y, k=count + 1)
    own = np.arange(m)[:, None]
    beside = np.where(beside == own, -1, beside)
    kept = np.array([len(np.intersect1d(a, b)) for a, b in zip(near, beside, strict=True)]) / count
    places, share = torch.full((W.n, 2), torch.nan), torch.full((W.n,), torch.nan)
    places[directions.index.cpu()] = torch.from_numpy(y).float()
    share[directions.index.cpu()] = torch.from_numpy(kept).float()
    return FlatMap((_measured(kept, count, seed, directions.caution),), places, share)


def _axes(unit: Float[Tensor, "n d"]) -> np.ndarray:
    """The two leading principal axes, scaled to a spread of 1."""
    centred = (unit - unit.mean(0)).double()
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    y = (centred @ vectors[:, -2:].flip(1)).cpu().numpy()
    if y.shape[1] < 2:
        y = np.column_stack([y, np.zeros(len(y))])
    return _spread(y)


def _spread(y: np.ndarray) -> np.ndarray:
    """About its mean, with a spread of 1."""
    return (y - y.mean(0)) / max(float(y.std()), 1e-12)


def _placed(y: np.ndarray, near: np.ndarray, epochs: int, random: np.random.Generator) -> np.ndarray:
    m, count = near.shape
    first = np.repeat(np.arange(m), count)
    second = near.ravel()
    # A spread that grows with n leaves each cluster its room.
    y = y * np.sqrt(m) / 8
    crowd = np.bincount(second, minlength=m) + count
    for epoch in range(epochs):
        step = 1.0 - epoch / epochs
        move = np.zeros_like(y)
        apart = y[first] - y[second]
        pull = (-2 * apart / (1 + (apart**2).sum(1, keepdims=True))).clip(-4, 4)
        for axis in (0, 1):
            move[:, axis] += np.bincount(first, pull[:, axis], m) - np.bincount(second, pull[:, axis], m)
        for _ in range(_STRANGERS):
            stranger = random.integers(0, m, len(first))
            apart = y[first] - y[stranger]
            square = (apart**2).sum(1, keepdims=True)
            push = (2 * _PUSH * apart / ((0.001 + square) * (1 + square))).clip(-4, 4)
            for axis in (0, 1):
                move[:, axis] += np.bincount(first, push[:, axis], m)
        # All pulls of an epoch act at once: their mean, not their sum, so that a popular atom does not leap.
        y = y + step * move / crowd[:, None] * _RATE
    return y


def _measured(kept: np.ndarray, count: int, seed: int, caution: str) -> Measurement:
    random = np.random.default_rng(seed)
    draws = random.choice(kept, size=(200, len(kept))).mean(1) if len(kept) < 20_000 else None
    half = 1.96 * kept.std() / np.sqrt(len(kept))
    low, high = np.quantile(draws, (0.025, 0.975)) if draws is not None else (kept.mean() - half, kept.mean() + half)
    return Measurement(
        name="map_neighbours_kept",
        value=float(kept.mean()),
        unit="share of neighbours",
        n=len(kept),
        of="atoms",
        low=float(low),
        high=float(high),
        how="95% bootstrap over atoms, 200 draws" if draws is not None else "95%, normal, over atoms",
        reference=1.0,
        reference_is="every neighbour kept",
        chance=count / max(len(kept) - 1, 1),
        chance_is="a random map",
        caution=caution,
    )
