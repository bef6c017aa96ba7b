"""Nothing to be found: what a counter says of these it makes up."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ...features import LogNormal
from ..alter import Shuffled
from ..elliptical import Elliptical
from ..elliptical import surrogate as surrogate_of
from .independent import uniform


def gaussian(d: int = 64) -> Elliptical:
    """White noise.

    Args:
        d: dimensions.
    """
    return Elliptical(torch.eye(_dimensions("gaussian", d)))


def coloured(d: int = 64, *, alpha: float | int = 1.0, seed: int = 0) -> Elliptical:
    """Gaussian rows whose variances fall as a power of the rank, along axes drawn at random.

    Args:
        d: dimensions.
        alpha: exponent of the variances.
        seed: of the axes.
    """
    return Elliptical(spectrum("coloured", d, alpha, seed))


def elliptical(d: int = 64, *, alpha: float | int = 1.0, spread: float | int = 0.5, seed: int = 0) -> Elliptical:
    """Gaussian rows, each times a log-normal factor: heavy tails in all directions alike.

    Args:
        d: dimensions.
        alpha: exponent of the variances.
        spread: standard deviation of the factor's logarithm, above 0.
        seed: of the axes.
    """
    return Elliptical(spectrum("elliptical", d, alpha, seed), scale=LogNormal(1.0, spread))


def autoregressive(d: int = 64, *, memory: float | int = 0.9, alpha: float | int = 1.0, seed: int = 0) -> Elliptical:
    """Gaussian rows that remember the one before; each batch begins anew.

    Args:
        d: dimensions.
        memory: correlation of a row with the one before, in (-1, 1).
        alpha: exponent of the variances.
        seed: of the axes.
    """
    return Elliptical(spectrum("autoregressive", d, alpha, seed), memory=memory)


def surrogate(
    n: int = 256, d: int = 64, l0: float | int = 4.0, *, keep_radii: bool = False, seed: int = 0
) -> Elliptical:
    """Gaussian rows with mean and covariance of a uniform world.

    Args:
        n: features of the world.
        d: dimensions.
        l0: active features of the world in a row on average.
        keep_radii: whether whitened rows keep their lengths too, in new directions.
        seed: of the world's directions.
    """
    return surrogate_of(uniform(n, d, l0, seed=seed), keep_radii=keep_radii)


def shuffled(n: int = 256, d: int = 64, l0: float | int = 4.0, *, seed: int = 0) -> Shuffled:
    """The rows of a uniform world with each coordinate shuffled among them by itself.

    Args:
        n: features of the world.
        d: dimensions.
        l0: active features of the world in a row on average.
        seed: of the world's directions and of the shuffle.
    """
    return Shuffled(uniform(n, d, l0, seed=seed), seed)


def spectrum(family: str, d: int, alpha: float, seed: int) -> Float[Tensor, "d d"]:
    """The symmetric root of a covariance with variances i^-alpha, of mean 1, along random axes."""
    variances = torch.arange(1, _dimensions(family, d) + 1, dtype=torch.float64) ** -alpha
    variances *= d / variances.sum()
    random = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(d, d, generator=random, dtype=torch.float64)).Q
    return ((axes * variances.sqrt()) @ axes.T).float()


def _dimensions(family: str, d: int) -> int:
    if d < 1:
        raise ValueError(f"{family}: d must be at least 1; got {d}.")
    return d
