"""How strongly is an active feature active? Laws of one magnitude, by their quantile function."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


class Magnitude(ABC):
    """The law of f_i given that it is active. Moments are closed forms."""

    @abstractmethod
    def quantile(self, q: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """The value below which a share q in [0, 1) of magnitudes lies: a uniform q gives a draw."""

    @property
    @abstractmethod
    def mean(self) -> float:
        """First moment, E m."""

    @property
    @abstractmethod
    def square(self) -> float:
        """Second moment, E m^2."""


@dataclass(frozen=True)
class Uniform(Magnitude):
    r"""$m \sim U[low, high]$; the toy paper's law is U[0, 1], and U[-1, 1] for its absolute values.

    Args:
        low: smallest value.
        high: largest value, above `low`.

    Raises:
        ValueError: if high <= low, or one is not finite.
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"Uniform: low must be below high, both finite; got low = {self.low}, high = {self.high}.")

    def quantile(self, q: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return q if (self.low, self.high) == (0.0, 1.0) else self.low + (self.high - self.low) * q

    @property
    def mean(self) -> float:
        return (self.low + self.high) / 2

    @property
    def square(self) -> float:
        return (self.low**2 + self.low * self.high + self.high**2) / 3


@dataclass(frozen=True)
class Gaussian(Magnitude):
    r"""$m \sim N(centre, scale^2)$.

    Args:
        centre: mean.
        scale: standard deviation, above 0.

    Raises:
        ValueError: if scale is not positive, or a number is not finite.
    """

    centre: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.centre) and math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"Gaussian: scale must be above 0 and centre finite; got {self.scale} and {self.centre}.")

    def quantile(self, q: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        # float32 uniforms reach 0 once in 2^24 draws; the infinity there would end a training run.
        return self.centre + self.scale * torch.special.ndtri(q.clamp(2**-25, 1 - 2**-24))

    @property
    def mean(self) -> float:
        return self.centre

    @property
    def square(self) -> float:
        return self.centre**2 + self.scale**2


@dataclass(frozen=True)
class Fixed(Magnitude):
    """m is always `value`: booleans, with value 1.

    Args:
        value: not 0, for an active feature of value 0 is not active.

    Raises:
        ValueError: if value is 0 or not finite.
    """

    value: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.value) or self.value == 0:
            raise ValueError(f"Fixed: value must be finite and not 0; got {self.value}.")

    def quantile(self, q: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return torch.full_like(q, self.value)

    @property
    def mean(self) -> float:
        return self.value

    @property
    def square(self) -> float:
        return self.value**2


UNIT = Uniform()
"""U[0, 1], the default of every law: the toy paper's magnitudes."""
