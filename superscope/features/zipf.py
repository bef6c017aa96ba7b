"""Features whose densities fall as a power of their rank, as words do."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import SparseCode
from .distribution import FeatureDistribution, check_count, product_supports
from .independent import gated, independent_gates, is_rare, sample_independent
from .magnitudes import UNIT, Magnitude


@dataclass(frozen=True)
class Zipf(FeatureDistribution):
    r"""Independent gates with $p_i = l_0\, i^{-\alpha} / \sum_j j^{-\alpha}$: `active` features per row on average.

    Args:
        n: number of features.
        alpha: exponent, at least 0; 0 is one density for all.
        active: sum of the densities, above 0.
        magnitude: the law of an active feature; Liu et al. use U[0, 2].

    Raises:
        ValueError: if n < 1, alpha < 0, active <= 0, or the densest feature would need a density above 1.

    Source:
        Liu, Liu and Gore, "Superposition yields robust neural scaling", 2025.

    Example:
        >>> Zipf(n=1000, alpha=1.0, active=1.0).density.sum()
        tensor(1.0000, dtype=torch.float64)
    """

    n: int
    alpha: float | int = 1.0
    active: float | int = 1.0
    magnitude: Magnitude = UNIT

    def __post_init__(self) -> None:
        check_count("Zipf", "n", self.n)
        if not self.alpha >= 0 or not self.active > 0:
            raise ValueError(f"Zipf: alpha must be >= 0 and active > 0; got {self.alpha} and {self.active}.")
        if (most := float(self.density.max())) > 1:
            raise ValueError(
                f"Zipf: {self.active} active features of {self.n} at alpha = {self.alpha} need a density of {most:.3g} "
                f"for the first. Lower active to {self.active / most:.3g} or less."
            )

    @property
    def density(self) -> Float[Tensor, "n"]:
        weights = torch.arange(1, self.n + 1, dtype=torch.float64) ** -self.alpha
        return self.active * weights / weights.sum()

    @property
    def noise(self) -> int:
        return self.n

    def knobs(self) -> tuple[Float[Tensor, "n"]]:
        return (self.density.float(),)

    def draw(
        self, u: Float[Tensor, "*batch noise"], knobs: tuple[Float[Tensor, "..."], ...] | None = None
    ) -> Float[Tensor, "*drawn n"]:
        (p,) = (own.to(u) for own in self.knobs()) if knobs is None else knobs
        return gated(u, p, self.magnitude)

    def sample(self, count: int, *, generator: torch.Generator | None = None) -> SparseCode:
        return (
            sample_independent(self, count, generator)
            if is_rare(self, count)
            else super().sample(count, generator=generator)
        )

    def gates(self) -> Float[Tensor, "n n"]:
        return independent_gates(self.density)

    def _supports(self) -> Float[Tensor, "sets"]:
        return product_supports(self.density.tolist())
