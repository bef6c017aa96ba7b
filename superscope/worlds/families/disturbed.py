"""Plain features, and one thing that real activations have beside them."""

from __future__ import annotations

import torch

from ...core import Dictionary
from ...features import Independent, LogNormal, Magnitude
from ...frames import random_unit
from ..alter import Planted, Sinks
from ..token_norms import TokenNorms
from ..world import World
from .independent import uniform, zipf


def bias(n: int = 256, d: int = 64, l0: float | int = 4.0, *, times: float | int = 3.0, seed: int = 0) -> World:
    """A constant added to every row.

    Args:
        n: features.
        d: dimensions.
        l0: active features in a row on average.
        times: length of the constant over the root mean square of what varies.
        seed: of the directions.

    Raises:
        ValueError: if a number is out of its range.
    """
    world = uniform(n, d, l0, seed=seed)
    constant = random_unit(n=1, d=d, seed=seed + 2**20).atoms[0]
    return World(world.features, Dictionary(world.dictionary.atoms, times * variance(world) ** 0.5 * constant))


def noise(n: int = 256, d: int = 64, l0: float | int = 4.0, *, share: float | int = 0.1, seed: int = 0) -> World:
    """White noise beside the features.

    Args:
        n: features.
        d: dimensions.
        l0: active features in a row on average.
        share: variance of the noise over that of what the features make, at least 0.
        seed: of the directions.

    Raises:
        ValueError: if a number is out of its range.
    """
    if not share >= 0:
        raise ValueError(f"noise: share is the noise's variance over the features', at least 0; got {share}.")
    world = uniform(n, d, l0, seed=seed)
    return World(world.features, world.dictionary, noise=(share * variance(world) / d) ** 0.5)


def token_norms(n: int = 256, d: int = 64, l0: float | int = 4.0, *, spread: float | int = 0.5, seed: int = 0) -> World:
    """All features of a row scaled together, by a log-normal factor of median 1.

    Args:
        n: features.
        d: dimensions.
        l0: active features in a row on average.
        spread: standard deviation of the factor's logarithm, above 0.
        seed: of the directions.

    Raises:
        ValueError: if a number is out of its range.
    """
    world = uniform(n, d, l0, seed=seed)
    return World(TokenNorms(world.features, LogNormal(1.0, spread)), world.dictionary)


def sinks(
    n: int = 256,
    d: int = 64,
    l0: float | int = 4.0,
    *,
    share: float | int = 0.001,
    times: float | int = 70.0,
    coordinates: int = 2,
    seed: int = 0,
) -> Sinks:
    """One row in a thousand replaced by an enormous one, the same each time.

    Args:
        n: features.
        d: dimensions.
        l0: active features in a row on average.
        share: P(a row is a sink).
        times: norm of a sink over the median norm.
        coordinates: how many coordinates hold it.
        seed: of the directions, the coordinates and the rows.

    Raises:
        ValueError: if a number is out of its range.
    """
    return Sinks(uniform(n, d, l0, seed=seed), share, times, min(coordinates, d), seed)


def outlier_coordinates(
    n: int = 256, d: int = 64, l0: float | int = 4.0, *, coordinates: int = 2, times: float | int = 10.0, seed: int = 0
) -> World:
    """Coordinates with ten times the deviation of the others, by something dense and Gaussian that is no feature.

    They lie off 0 by as much again, as they do in language models.

    Args:
        n: features.
        d: dimensions.
        l0: active features in a row on average.
        coordinates: how many, at most d.
        times: their deviation over that of a coordinate without it, at least 1.
        seed: of the directions and of which coordinates.

    Raises:
        ValueError: if a number is out of its range.
    """
    if not (1 <= coordinates <= d and times >= 1):
        raise ValueError(
            f"outlier_coordinates: 1 to d = {d} coordinates and times of at least 1 are wanted; got {coordinates} and "
            f"{times}."
        )
    world = uniform(n, d, l0, seed=seed)
    deviation = (variance(world) / d) ** 0.5
    which = torch.randperm(d, generator=torch.Generator().manual_seed(seed + 2**20))[:coordinates]
    axes = torch.eye(d)[which]
    nuisance = Dictionary(deviation * (times**2 - 1) ** 0.5 * axes)
    dictionary = Dictionary(world.dictionary.atoms, times * deviation * axes.sum(0))
    return World(world.features, dictionary, nuisance=nuisance)


def planted(
    n: int = 256, d: int = 64, l0: float | int = 4.0, *, plants: int = 16, density: float | int = 0.01, seed: int = 0
) -> Planted:
    """Known directions added to a Zipf world, whose features are to be found as well.

    Args:
        n: features of the world.
        d: dimensions.
        l0: active features of the world in a row on average.
        plants: directions added; they count too.
        density: of each plant.
        seed: of the directions.

    Raises:
        ValueError: if a number is out of its range, or the plants carry over 15 % of the variance.
    """
    return Planted(zipf(n, d, l0, seed=seed), random_unit(n=plants, d=d, seed=seed + 2**20), density, seed=seed)


def variance(world: World) -> float:
    r"""$\sum_i |w_i|^2 Var(f_i)$: the variance of W f over all coordinates, for independent features."""
    law = world.features
    assert isinstance(law, Independent)
    magnitude: Magnitude = law.magnitude
    own = law.density * magnitude.square - (law.density * magnitude.mean) ** 2
    return float((world.dictionary.norms.double().square() * own).sum())
