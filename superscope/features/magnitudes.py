"""How strongly is an active feature active? Laws of one magnitude, by their quantile function."""

from __future__ import annotations

import itertools
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


@dataclass(frozen=True)
class Exponential(Magnitude):
    r"""$m \sim \mathrm{Exp}(1 / scale)$: most magnitudes small, none 0, and no largest one.

    Args:
        scale: mean, above 0.

    Raises:
        ValueError: if scale is not positive and finite.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        _check_scale("Exponential", self.scale)

    def quantile(self, q: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        # A quantile of 0 would be a feature that is on and off at once.
        return -self.scale * torch.log1p(-q.clamp(2**-25, 1 - 2**-24))

    @property
    def mean(self) -> float:
        return self.scale

    @property
    def square(self) -> float:
        return 2 * self.scale**2


@dataclass(frozen=True)
class LogNormal(Magnitude):
    r"""$\ln m \sim N(\ln centre, spread^2)$: magnitudes over orders of magnitude.

    Args:
        centre: median, above 0.
        spread: standard deviation of ln m, above 0.

    Raises:
        ValueError: if a number is not positive and finite.
    """

    centre: float = 1.0
    spread: float = 0.5

    def __post_init__(self) -> None:
        _check_scale("LogNormal", self.centre, "centre")
        _check_scale("LogNormal", self.spread, "spread")

    def quantile(self, q: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        return self.centre * torch.exp(self.spread * torch.special.ndtri(q.clamp(2**-25, 1 - 2**-24)))

    @property
    def mean(self) -> float:
        return self.centre * math.exp(self.spread**2 / 2)

    @property
    def square(self) -> float:
        return self.centre**2 * math.exp(2 * self.spread**2)


@dataclass(frozen=True)
class FoldedNormal(Magnitude):
    r"""$m = |z|$, $z \sim N(centre, scale^2)$.

    Args:
        centre: mean of z, at least 0; 0 is the half-normal law.
        scale: standard deviation of z, above 0.

    Raises:
        ValueError: if centre is negative, scale not positive, or a number not finite.
    """

    centre: float = 1.0
    scale: float = 0.5

    def __post_init__(self) -> None:
        _check_scale("FoldedNormal", self.scale)
        if not (math.isfinite(self.centre) and self.centre >= 0):
            raise ValueError(f"FoldedNormal: centre must be finite and at least 0; got {self.centre}.")

    def quantile(self, q: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        # No closed form but at centre 0: the sign of z has probability 1/2 given |z| only there. Drawing z from q and
        # folding it is another map of a uniform, with the same law.
        return (self.centre + self.scale * torch.special.ndtri(q.clamp(2**-25, 1 - 2**-24))).abs()

    @property
    def mean(self) -> float:
        ratio = self.centre / self.scale
        half = self.scale * math.sqrt(2 / math.pi) * math.exp(-(ratio**2) / 2)
        return half + self.centre * math.erf(ratio / math.sqrt(2))

    @property
    def square(self) -> float:
        return self.centre**2 + self.scale**2


@dataclass(frozen=True)
class Tabulated(Magnitude):
    r"""Quantiles at equal steps from 0 to 1, straight lines between them: the law of magnitudes that were observed.

    Args:
        quantiles: two or more, none negative or below the one before it, the last above 0.

    Raises:
        ValueError: if they are not such.
    """

    quantiles: tuple[float, ...] = (0.5, 1.5)

    def __post_init__(self) -> None:
        rising = all(a <= b for a, b in itertools.pairwise(self.quantiles))
        if len(self.quantiles) < 2 or not rising or self.quantiles[0] < 0 or not 0 < self.quantiles[-1] < math.inf:
            raise ValueError(
                "Tabulated: give two quantiles or more, in rising order, none negative, the last finite and above 0."
            )

    def quantile(self, q: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        table = torch.tensor(self.quantiles, dtype=q.dtype, device=q.device)
        place = q.clamp(0, 1) * (len(table) - 1)
        below = place.floor().long().clamp(max=len(table) - 2)
        return torch.lerp(table[below], table[below + 1], place - below)

    @property
    def mean(self) -> float:
        return sum(a + b for a, b in itertools.pairwise(self.quantiles)) / 2 / (len(self.quantiles) - 1)

    @property
    def square(self) -> float:
        parts = (a * a + a * b + b * b for a, b in itertools.pairwise(self.quantiles))
        return sum(parts) / 3 / (len(self.quantiles) - 1)


def _check_scale(law: str, value: float, name: str = "scale") -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{law}: {name} must be finite and above 0; got {value}.")


UNIT = Uniform()
"""U[0, 1], the default of every law: the toy paper's magnitudes."""

WELL_ABOVE_ZERO = Uniform(0.5, 1.5)
"""U[1/2, 3/2], the default of every world: magnitudes that no threshold has to guess at."""

ONE = Fixed(1.0)
"""Always 1: booleans, and no scale at all."""
