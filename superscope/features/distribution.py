"""What every law of features answers: draws, densities and moments."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import SparseCode
from .magnitudes import Magnitude


class FeatureDistribution(ABC):
    """The law of f: which features are active together, and how strongly. Magnitudes are independent given the gates.

    A law is a deterministic map of uniforms, `draw(u)`. So two laws that are fed the same u differ by nothing but
    themselves: sweeps over density compare models on common random numbers.
    """

    n: int
    magnitude: Magnitude

    @property
    @abstractmethod
    def noise(self) -> int:
        """Uniforms that one row of features takes."""

    @abstractmethod
    def knobs(self) -> tuple[Float[Tensor, "..."], ...]:
        """The numbers of the law as tensors, so that laws of one kind and shape can be drawn side by side."""

    @abstractmethod
    def draw(
        self, u: Float[Tensor, "*batch noise"], knobs: tuple[Float[Tensor, "..."], ...] | None = None
    ) -> Float[Tensor, "*drawn n"]:
        """f as a function of uniforms in [0, 1).

        Args:
            u: `noise` independent uniforms per row.
            knobs: the law's numbers; stacked ones broadcast over leading axes. None is this law's own.
        """

    @abstractmethod
    def gates(self) -> Float[Tensor, "n n"]:
        """P(f_i != 0 and f_j != 0), in float64; the diagonal is the density."""

    def structure(self) -> tuple[object, ...]:
        """What two laws must share to be drawn side by side: everything but the knobs."""
        return (type(self), self.n, self.noise, self.magnitude)

    def sample(self, count: int, *, generator: torch.Generator | None = None) -> SparseCode:
        """`count` rows of f.

        Args:
            count: rows, at least 1.
            generator: where randomness comes from; None is a new one seeded with 0.

        Raises:
            ValueError: if count is not positive.
        """
        if count < 1:
            raise ValueError(f"{type(self).__name__}.sample: count must be at least 1; got {count}.")
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        rows = max(1, 2**22 // max(self.noise, self.n))
        parts = []
        for start in range(0, count, rows):
            u = torch.rand(min(rows, count - start), self.noise, generator=generator, device=generator.device)
            parts.append(SparseCode.from_dense(self.draw(u)))
        return _join(parts)

    @property
    def density(self) -> Float[Tensor, "n"]:
        """P(f_i != 0), in float64."""
        return self.gates().diagonal().clone()

    @property
    def l0(self) -> float:
        """Expected number of active features, the sum of densities."""
        return float(self.density.sum())

    @property
    def mean(self) -> Float[Tensor, "n"]:
        """E f, in float64."""
        return self.density * self.magnitude.mean

    @property
    def covariance(self) -> Float[Tensor, "n n"]:
        """Cov(f), in float64."""
        joint = self.gates()
        second = joint * self.magnitude.mean**2
        second.diagonal().copy_(joint.diagonal() * self.magnitude.square)
        return second - torch.outer(self.mean, self.mean)

    def supports(self) -> Float[Tensor, "sets"]:
        """P(exactly the set A is active) for each of the 2^n sets, in float64; bit i of the index is feature i.

        Raises:
            ValueError: if n > 12.
        """
        if self.n > 12:
            raise ValueError(
                f"{type(self).__name__}.supports: n must be at most 12, for there are 2^n sets; got {self.n}."
            )
        return self._supports()

    @abstractmethod
    def _supports(self) -> Float[Tensor, "sets"]: ...


def product_supports(p: Sequence[float]) -> Float[Tensor, "sets"]:
    """P(A) of independent gates; bit i of the index is feature i."""
    law = torch.ones(1, dtype=torch.float64)
    for probability in p:
        law = torch.cat([law * (1 - probability), law * probability])
    return law


def spread(parts: Sequence[Float[Tensor, "_"]]) -> Float[Tensor, "sets"]:
    """P(A) over all features, from that of independent groups of consecutive features."""
    law = torch.ones(1, dtype=torch.float64)
    for part in parts:
        law = (part[:, None] * law).flatten()
    return law


def check_count(law: str, name: str, value: int, least: int = 1) -> None:
    """A count below `least` is an error that names the law and the argument."""
    if value < least:
        raise ValueError(f"{law}: {name} must be at least {least}; got {value}.")


def check_density(law: str, density: float, name: str = "density") -> None:
    """A density outside (0, 1] is an error that names the law."""
    if not (math.isfinite(density) and 0 < density <= 1):
        raise ValueError(f"{law}: {name} must lie in (0, 1], it is P(feature active); got {density}.")


def _join(parts: Sequence[SparseCode]) -> SparseCode:
    k = max(part.k for part in parts)
    values = torch.cat([torch.nn.functional.pad(part.values, (0, k - part.k)) for part in parts])
    indices = torch.cat([torch.nn.functional.pad(part.indices, (0, k - part.k)) for part in parts])
    return SparseCode(values, indices, parts[0].n)
