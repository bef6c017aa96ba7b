"""Features that come together: correlated, in trees, or laid out by what they come with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import Dictionary
from ...features import WELL_ABOVE_ZERO, Hierarchical, Magnitude
from ...frames import random_unit
from ..copula import Copula
from ..forest import Forest
from ..presets import on_random_directions
from ..world import World
from .independent import share_active


def copula(
    n: int = 256,
    d: int = 64,
    l0: float | int = 4.0,
    *,
    correlation: float | int = 0.5,
    rank: int = 4,
    magnitude: Magnitude = WELL_ABOVE_ZERO,
    seed: int = 0,
) -> World:
    """Gates that share some normals, so that features tend to come together or to avoid each other.

    Args:
        n: features.
        d: dimensions.
        l0: active features in a row on average.
        correlation: share of the variance behind each gate that it has in common with others, in [0, 1).
        rank: normals shared; the fewer, the more alike.
        magnitude: the law of an active feature.
        seed: of the directions and of who shares what.

    Raises:
        ValueError: if a number is out of its range.
    """
    if not 0 <= correlation < 1 or rank < 1:
        raise ValueError(
            f"copula: correlation is a share of variance in [0, 1) and rank at least 1; got {correlation} and {rank}."
        )
    p = share_active("copula", n, l0)
    loadings = correlation**0.5 * random_unit(n=n, d=rank, seed=seed + 2**20).atoms
    return on_random_directions(Copula(torch.full((n,), p), loadings, magnitude), d, seed=seed)


def hierarchy(
    n: int = 256, d: int = 64, l0: float | int = 4.0, *, roots: int | None = None, scaled: bool = True, seed: int = 0
) -> World:
    """Trees: a child only where its parent is, one of its siblings at most, and in proportion to the parent.

    Each root has three children and nine grandchildren; features left over are in no tree. Densities fall as the root
    of the rank, over a factor of 100.

    Args:
        n: features.
        d: dimensions.
        l0: active features in a row on average.
        roots: trees; one for 16 features where none is said.
        scaled: whether a child's magnitude is in proportion to its parent's.
        seed: of the directions and magnitudes.

    Raises:
        ValueError: if a number is out of its range, or so many cannot be active in trees.
    """
    share_active("hierarchy", n, l0)
    law = Forest(
        n, roots or max(1, n // 16), branching=3, depth=2, correlation=0.0, scaled=scaled, magnitudes=(1.2, 0.8),
        spread=(0.1, 0.1), seed=seed,
    )  # fmt: skip

    def at(p: float) -> Forest:
        return replace(law, p_max=p, p_min=p / 100)

    p = solved(lambda p: at(p).l0, l0, "hierarchy", 1.0)
    return on_random_directions(at(p), d, seed=seed)


def gated(
    n: int = 256,
    d: int = 64,
    l0: float | int = 4.0,
    *,
    p_child: float | int = 0.3,
    magnitude: Magnitude = WELL_ABOVE_ZERO,
    seed: int = 0,
) -> World:
    """Trees whose siblings do not exclude each other: one parent in four features, its three children only with it.

    Args:
        n: features.
        d: dimensions.
        l0: active features in a row on average.
        p_child: P(a child is active given that its parent is).
        magnitude: the law of an active feature.
        seed: of the directions.

    Raises:
        ValueError: if a number is out of its range, or the parents would need a density above 1.
    """
    share_active("gated", n, l0)
    parents = math.ceil(n / 4)
    p = l0 / (parents + (n - parents) * p_child) if p_child > 0 else math.inf
    if p > 1:
        raise ValueError(
            f"gated: {l0} active features of {n} with children at {p_child} need a density of {p:.3g} for parents. "
            "Lower l0, or raise p_child."
        )
    law = Hierarchical(
        (-1,) * parents + tuple(child % parents for child in range(n - parents)),
        (p,) * parents + (p_child,) * (n - parents),
        magnitude,
    )
    return on_random_directions(law, d, seed=seed)


def bows(
    n: int = 256,
    d: int = 64,
    l0: float | int = 4.0,
    *,
    layout: Literal["circle", "figure8", "sphere"] = "circle",
    group: int = 12,
    plane: float | int = 0.4,
    correlation: float | int = 0.8,
    magnitude: Magnitude = WELL_ABOVE_ZERO,
    seed: int = 0,
) -> World:
    r"""Features placed by what they come with, as months lie on a circle: $w_i = \sqrt c\, y_i + \sqrt{1-c}\, u_i$.

    y is the place on a circle, a figure of eight on a sphere (Viviani's curve), or a sphere, the same for the normals
    behind the gates and for the directions; u is a feature's own. Neighbours come together and their directions
    overlap, so that what they add to each other helps. Every feature is a component of its own.

    Args:
        n: features.
        d: dimensions, at least 4 (3 for a circle).
        l0: active features in a row on average.
        layout: where the features of a group lie.
        group: features of one group.
        plane: c, share of a direction's square that lies on the layout, in [0, 1).
        correlation: of the normals behind the gates of two features at one place, in [0, 1).
        magnitude: the law of an active feature.
        seed: of the directions.

    Raises:
        ValueError: if a number is out of its range.

    Source:
        Prieto et al., "Correlations in the data lead to semantically rich feature geometry under superposition", 2026
        (arXiv 2603.09972): circular, figure-8 and spherical structures of 12 features.
    """
    p = share_active("bows", n, l0)
    size = 2 if layout == "circle" else 3
    if d <= size:
        raise ValueError(f"bows: a {layout} takes {size} dimensions and a feature one of its own; d is {d}, too few.")
    if group < 1 or not (0 <= plane < 1 and 0 <= correlation < 1):
        raise ValueError(
            f"bows: group is at least 1, plane and correlation in [0, 1); got {group}, {plane} and {correlation}."
        )
    own = random_unit(n=n, d=d, seed=seed, dtype=torch.float64).atoms
    random = torch.Generator().manual_seed(seed + 2**20)
    groups = torch.arange(n).tensor_split(max(1, round(n / group)))
    loadings = torch.zeros(n, size * len(groups))
    atoms = torch.empty(n, d, dtype=torch.float64)
    for g, members in enumerate(groups):
        places = _places(layout, len(members))
        axes = torch.linalg.qr(torch.randn(d, size, generator=random, dtype=torch.float64)).Q.T
        rest = own[members] - own[members] @ axes.T @ axes
        rest = torch.nn.functional.normalize(rest, dim=1)
        atoms[members] = plane**0.5 * places @ axes + (1 - plane) ** 0.5 * rest
        loadings[members, g * size : (g + 1) * size] = (correlation**0.5 * places).float()
    return World(Copula(torch.full((n,), p), loadings, magnitude), Dictionary(atoms.float()))


def _places(layout: str, count: int) -> Float[Tensor, "count dims"]:
    """Unit vectors, one for each feature of a group."""
    t = 2 * math.pi * torch.arange(count, dtype=torch.float64) / count
    if layout == "circle":
        return torch.stack([t.cos(), t.sin()], 1)
    if layout == "figure8":
        return torch.stack([t.cos().square(), t.cos() * t.sin(), t.sin()], 1)
    # Points of a spiral from pole to pole, each with the same area: Fibonacci's lattice on the sphere.
    height = 1 - (2 * torch.arange(count, dtype=torch.float64) + 1) / count
    turn = math.pi * (3 - 5**0.5) * torch.arange(count, dtype=torch.float64)
    ring = (1 - height.square()).sqrt()
    return torch.stack([ring * turn.cos(), ring * turn.sin(), height], 1)


def solved(l0_of: Callable[[float], float], l0: float | int, family: str, most: float) -> float:
    """The density at which so many features are active, by halving; l0_of rises with it."""
    low, high = 0.0, most
    if (reached := l0_of(most)) < l0:
        raise ValueError(f"{family}: at most {reached:.3g} features can be active on average here; got l0 = {l0}.")
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if l0_of(middle) < l0 else (low, middle)
    return high
