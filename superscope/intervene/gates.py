"""Where does an edit act? In every row, or only where the feature it is about seems to be present."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..core import ShapeError, SparseCoder


class Gate(ABC):
    """From rows of x to the rows in which an edit acts.

    Source:
        MidSteer (2605.05220) clips its read-out at 0, CAST (Lee et al., "Programming refusal with conditional
        activation steering", 2024) acts above a threshold; docs/steering.md measures what a gate spares.
    """

    @abstractmethod
    def open(self, x: Float[Tensor, "rows d"]) -> Bool[Tensor, "rows"] | None:
        """Which rows are edited; None for all of them."""


@dataclass(frozen=True)
class Always(Gate):
    """Every row is edited."""

    def open(self, x: Float[Tensor, "rows d"]) -> None:
        return None


ALWAYS = Always()


@dataclass(frozen=True, eq=False)
class Threshold(Gate):
    r"""Open where $g \cdot x + b > c$.

    Args:
        direction: g, the read-out.
        threshold: c.
        offset: b, so that g . x + b is the feature's estimated value.

    Raises:
        ValueError: if a number is NaN or infinite, or g is zero.
    """

    direction: Float[Tensor, "d"]
    threshold: float | int = 0.0
    offset: float | int = 0.0

    def __post_init__(self) -> None:
        check_direction(type(self).__name__, self.direction)
        for name in ("threshold", "offset"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{type(self).__name__}: {name} is {getattr(self, name)}; give a finite number.")

    def read(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows"]:
        """The read-out of each row."""
        return x @ fitting(self.direction, x) + self.offset

    def open(self, x: Float[Tensor, "rows d"]) -> Bool[Tensor, "rows"]:
        return self.read(x) > self.threshold


@dataclass(frozen=True, eq=False)
class Clip(Threshold):
    r"""Open where $g \cdot x + b > 0$: an edit in proportion to the read-out becomes one to its positive part."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold != 0:
            raise ValueError(f"Clip: its threshold is 0; got {self.threshold}. Use Threshold.")


@dataclass(frozen=True, eq=False)
class Lmmse(Threshold):
    r"""Open where the best linear read-out of a feature, $\bar f + \Sigma^{-1} s \cdot (x - \mu) / R^2$, is above c.

    $s = \mathrm{Cov}(x, f)$, $\Sigma = \mathrm{Cov}(x)$, $R^2$ the share of f's variance that the estimate explains:
    divided by it the read-out rises one for one with f, where the estimate of least error shrinks to its mean. Unlike a
    matched filter it discounts what other features add, so that it opens falsely less often.
    """

    @classmethod
    def fit(cls, x: Float[Tensor, "rows d"], f: Float[Tensor, "rows"], *, threshold: float = 0.5) -> Lmmse:
        """From rows of x with the feature's value, or its label in {0, 1}, in each.

        Args:
            x: rows, more of them than d.
            f: the feature.
            threshold: c, in units of f's mean where f is not 0.

        Raises:
            ValueError: if f is the same in every row, rows are too few, or x says nothing of f.
        """
        x, f = x.double(), f.double()
        if len(x) <= x.shape[1]:
            raise ValueError(f"Lmmse.fit: {len(x)} rows cannot tell {x.shape[1]} dimensions; give more rows.")
        if not bool((f != f[0]).any()):
            raise ValueError("Lmmse.fit: the feature is the same in every row; give rows with and without it.")
        mean, middle = x.mean(0), f.mean()
        centred = x - mean
        g = torch.linalg.lstsq(centred, (f - middle)[:, None], driver="gelsd").solution[:, 0]
        explained = float((centred @ g).square().mean() / (f - middle).square().mean())
        if not explained > 1e-12:
            raise ValueError("Lmmse.fit: x says nothing of the feature; give another site or feature.")
        g = g / explained
        return cls(g, threshold * float(f[f != 0].mean()), float(middle - g @ mean))


@dataclass(frozen=True, eq=False)
class LatentActive(Gate):
    """Open where a latent of a dictionary is on.

    Args:
        coder: reads x.
        latent: its number.
        threshold: on is above this.

    Raises:
        ValueError: if the dictionary has no such latent.
    """

    coder: SparseCoder
    latent: int
    threshold: float | int = 0.0

    def __post_init__(self) -> None:
        check_latent(type(self).__name__, self.coder, self.latent)

    def open(self, x: Float[Tensor, "rows d"]) -> Bool[Tensor, "rows"]:
        return latent_values(self.coder, self.latent, x) > self.threshold


GATES: tuple[type[Gate], ...] = (Always, Clip, Threshold, LatentActive, Lmmse)
"""Every gate; the laws of edits run over them, and docs/steering.md lists them."""


def fitting(tensor: Tensor, x: Tensor) -> Tensor:
    """The tensor where x is and as x is."""
    return tensor.to(device=x.device, dtype=x.dtype)


def check_direction(owner: str, direction: Tensor) -> None:
    """Raise a sentence unless it is a finite vector with a direction."""
    if direction.ndim != 1:
        raise ShapeError(f"{owner}: a direction is one vector of d numbers; got shape {tuple(direction.shape)}.")
    if not bool(torch.isfinite(direction).all()):
        raise ValueError(f"{owner}: the direction has a NaN or infinite entry; find it again on sound rows.")
    if not bool((direction != 0).any()):
        raise ValueError(f"{owner}: the direction is zero, so it points nowhere; give another.")


def check_latent(owner: str, coder: SparseCoder, latent: int) -> None:
    """Raise a sentence unless the dictionary has the latent."""
    if not 0 <= latent < coder.dictionary.n:
        raise ValueError(
            f"{owner}: there is no latent {latent} in a dictionary of {coder.dictionary.n}; they are numbered from 0."
        )


def latent_values(coder: SparseCoder, latent: int, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows"]:
    """f of one latent in each row."""
    code = coder.encode(fitting(x, coder.dictionary.atoms))
    return fitting(torch.where(code.indices == latent, code.values, 0.0).sum(-1), x)
