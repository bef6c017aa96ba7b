"""Components of more than one dimension, which are counted once."""

from __future__ import annotations

import torch

from ...core import Dictionary
from ...features import WELL_ABOVE_ZERO, Magnitude
from ...frames import random_unit
from ..blocks import Blocks, Shape
from ..world import World


def rings(
    n: int = 64, d: int = 64, l0: float | int = 4.0, *, magnitude: Magnitude = WELL_ABOVE_ZERO, seed: int = 0
) -> World:
    """Each component is a plane, and active it is anywhere on a circle.

    Args:
        n: rings.
        d: dimensions, at least 2.
        l0: active dimensions in a row on average, two for an active ring.
        magnitude: the law of a ring's radius; `fixed:1` makes all active points as far from 0.
        seed: of the planes.

    Raises:
        ValueError: if a number is out of its range.
    """
    return _blocks("rings", n, d, l0, 2, "sphere", magnitude, seed)


def ring_clusters(
    n: int = 64,
    d: int = 64,
    l0: float | int = 4.0,
    *,
    clusters: int = 7,
    spread: float | int = 0.1,
    magnitude: Magnitude = WELL_ABOVE_ZERO,
    seed: int = 0,
) -> World:
    """Each component is a plane, and active it is near one of some points on a circle, as days of the week are.

    Args:
        n: rings.
        d: dimensions, at least 2.
        l0: active dimensions in a row on average, two for an active ring.
        clusters: points on each circle.
        spread: deviation of the angle about a point, in shares of the way to the next.
        magnitude: the law of a ring's radius.
        seed: of the planes.

    Raises:
        ValueError: if a number is out of its range.
    """
    return _blocks("ring_clusters", n, d, l0, 2, "clusters", magnitude, seed, clusters=clusters, spread=spread)


def group_sparse(
    n: int = 64,
    d: int = 64,
    l0: float | int = 4.0,
    *,
    size: int = 2,
    magnitude: Magnitude = WELL_ABOVE_ZERO,
    seed: int = 0,
) -> World:
    """Each component is a group of features, active as a whole and each of a strength of its own.

    Within a group the directions can be told apart, for their strengths are independent and not Gaussian; it is one
    component because none of its features ever comes alone.

    Args:
        n: groups.
        d: dimensions, at least size.
        l0: active features in a row on average, `size` for an active group.
        size: features of a group.
        magnitude: the law of a factor on the whole group.
        seed: of the directions.

    Raises:
        ValueError: if a number is out of its range.
    """
    return _blocks("group_sparse", n, d, l0, size, "orthant", magnitude, seed)


def basis_ambiguous(
    n: int = 64,
    d: int = 64,
    l0: float | int = 4.0,
    *,
    size: int = 3,
    magnitude: Magnitude = WELL_ABOVE_ZERO,
    seed: int = 0,
) -> World:
    """Each component is a subspace, and active it is a Gaussian point of it, so that no basis is the true one.

    Args:
        n: subspaces.
        d: dimensions, at least size.
        l0: active dimensions in a row on average, `size` for an active subspace.
        size: dimensions of each.
        magnitude: the law of a factor on the whole point.
        seed: of the subspaces.

    Raises:
        ValueError: if a number is out of its range.

    Source:
        "Unstable features, reproducible subspaces", 2026 (arXiv 2606.12138): latents of such a subspace differ from
        seed to seed, and the subspace does not.
    """
    return _blocks("basis_ambiguous", n, d, l0, size, "gaussian", magnitude, seed)


def _blocks(
    family: str,
    n: int,
    d: int,
    l0: float | int,
    size: int,
    shape: Shape,
    magnitude: Magnitude,
    seed: int,
    clusters: int = 7,
    spread: float | int = 0.0,
) -> World:
    if not 1 <= size <= d:
        raise ValueError(f"{family}: a component of {size} dimensions does not fit into d = {d}.")
    if n < 1 or not 0 < l0 <= n * size:
        raise ValueError(
            f"{family}: l0 of the {n} x {size} dimensions are active on average, so it lies in (0, {n * size}]; "
            f"got {l0}."
        )
    law = Blocks(n, size, l0 / (n * size), shape, clusters, spread, magnitude)
    own = random_unit(n=n * size, d=d, seed=seed, dtype=torch.float64).atoms.view(n, size, d)
    # An orthonormal basis of each: coordinates are then lengths, and a circle is round.
    atoms = torch.linalg.qr(own.mT).Q.mT.reshape(n * size, d)
    component = torch.arange(n).repeat_interleave(size)
    return World(law, Dictionary(atoms.float()), component=component)
