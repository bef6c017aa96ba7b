"""Sets of features that come together, or that exclude each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .distribution import FeatureDistribution, check_count, check_density, product_supports, spread
from .magnitudes import UNIT, Magnitude


@dataclass(frozen=True)
class Correlated(FeatureDistribution):
    r"""Sets of `size` features with a shared gate: $g_i = c_i s + (1 - c_i) h_i$, $c_i \sim
    \mathrm{Bernoulli}(\sqrt\rho)$.

    s is the set's gate and h_i a feature's own, both of density p. Two gates of one set have correlation $\rho$; at
    $\rho = 1$, the toy paper's case, a set is active as a whole. Magnitudes are independent. Features of one set are
    neighbours in number.

    Args:
        sets: number of sets.
        size: features per set, so that n = sets * size.
        p: density of every feature.
        correlation: $\rho$ of two gates of one set, in [0, 1].
        magnitude: the law of an active feature.

    Raises:
        ValueError: if a count is below 1, p is outside (0, 1] or correlation outside [0, 1].

    Source:
        Elhage et al., "Toy models of superposition", 2022, section "Correlated features" (the case correlation = 1).

    Example:
        >>> Correlated(sets=2, size=2, p=0.3).gates()[0]
        tensor([0.3000, 0.3000, 0.0900, 0.0900], dtype=torch.float64)
    """

    sets: int
    size: int
    p: float
    correlation: float = 1.0
    magnitude: Magnitude = UNIT

    def __post_init__(self) -> None:
        check_count("Correlated", "sets", self.sets)
        check_count("Correlated", "size", self.size)
        check_density("Correlated", self.p, "p")
        if not 0 <= self.correlation <= 1:
            raise ValueError(f"Correlated: correlation must lie in [0, 1]; got {self.correlation}.")

    @property
    def n(self) -> int:  # type: ignore[override]
        return self.sets * self.size

    @property
    def noise(self) -> int:
        return self.sets + 2 * self.n

    def structure(self) -> tuple[object, ...]:
        return (*super().structure(), self.sets)

    def knobs(self) -> tuple[Float[Tensor, "..."], ...]:
        return torch.tensor([self.p]), torch.tensor([math.sqrt(self.correlation)])

    def draw(
        self, u: Float[Tensor, "*batch noise"], knobs: tuple[Float[Tensor, "..."], ...] | None = None
    ) -> Float[Tensor, "*drawn n"]:
        p, share = (own.to(u) for own in self.knobs()) if knobs is None else knobs
        together, choice, own = u.split([self.sets, self.n, self.n], dim=-1)
        shared = choice < share
        gate = torch.where(shared, (together < p).repeat_interleave(self.size, -1), own < p)
        # A feature's own uniform is its magnitude where the set decides, and u / p where it decided itself.
        q = torch.where(shared, own, (own / p).clamp(max=1 - 2**-24))
        return torch.where(gate, self.magnitude.quantile(q), u.new_zeros(()))

    def gates(self) -> Float[Tensor, "n n"]:
        p, rho = self.p, self.correlation
        joint = torch.full((self.n, self.n), p * p, dtype=torch.float64)
        for block in torch.arange(self.n).split(self.size):
            joint[block[:, None], block] = p * p + rho * p * (1 - p)
        joint.diagonal().fill_(p)
        return joint

    def _supports(self) -> Float[Tensor, "sets"]:
        share, p = math.sqrt(self.correlation), self.p
        on, off = (
            product_supports([share + (1 - share) * p] * self.size),
            product_supports([(1 - share) * p] * self.size),
        )
        return spread([p * on + (1 - p) * off] * self.sets)


@dataclass(frozen=True)
class Anticorrelated(FeatureDistribution):
    r"""Sets of which one random member is active with probability `p`, else none: $P(f_i \ne 0) = p / size$.

    The toy paper's convention: p is the set's. Others give each *feature* density p and so need p * size <= 1; that is
    `Anticorrelated.with_density`.

    Args:
        sets: number of sets.
        size: features per set, so that n = sets * size.
        p: P(a set is active).
        magnitude: the law of an active feature.

    Raises:
        ValueError: if a count is below 1 or p is outside (0, 1].

    Source:
        Elhage et al., "Toy models of superposition", 2022, section "Correlated features".

    Example:
        >>> Anticorrelated(sets=1, size=2, p=0.3).density
        tensor([0.1500, 0.1500], dtype=torch.float64)
    """

    sets: int
    size: int
    p: float
    magnitude: Magnitude = UNIT

    def __post_init__(self) -> None:
        check_count("Anticorrelated", "sets", self.sets)
        check_count("Anticorrelated", "size", self.size)
        check_density("Anticorrelated", self.p, "p")

    @classmethod
    def with_density(cls, *, sets: int, size: int, density: float, magnitude: Magnitude = UNIT) -> Anticorrelated:
        """The law under which every feature has this density.

        Raises:
            ValueError: if density * size > 1: members that exclude each other cannot be active that often.
        """
        check_density("Anticorrelated.with_density", density)
        if density * size > 1:
            raise ValueError(
                f"Anticorrelated.with_density: {size} features that exclude each other allow a density of at most "
                f"{1 / size:.4g} each; got {density}."
            )
        return cls(sets, size, density * size, magnitude)

    @property
    def n(self) -> int:  # type: ignore[override]
        return self.sets * self.size

    @property
    def noise(self) -> int:
        return 2 * self.sets

    def structure(self) -> tuple[object, ...]:
        return (*super().structure(), self.sets)

    def knobs(self) -> tuple[Float[Tensor, "..."], ...]:
        return (torch.tensor([self.p]),)

    def draw(
        self, u: Float[Tensor, "*batch noise"], knobs: tuple[Float[Tensor, "..."], ...] | None = None
    ) -> Float[Tensor, "*drawn n"]:
        (p,) = (own.to(u) for own in self.knobs()) if knobs is None else knobs
        gate, q = u.split(self.sets, dim=-1)
        # Given gate < p, gate / p is uniform again and picks the member; `size` and above is "none".
        member = (gate / p * self.size).floor()
        active = member[..., None] == torch.arange(self.size, device=u.device)
        value = torch.where(active, self.magnitude.quantile(q)[..., None], u.new_zeros(()))
        return value.flatten(-2)

    def gates(self) -> Float[Tensor, "n n"]:
        one = self.p / self.size
        joint = torch.full((self.n, self.n), one * one, dtype=torch.float64)
        for block in torch.arange(self.n).split(self.size):
            joint[block[:, None], block] = 0
        joint.diagonal().fill_(one)
        return joint

    def _supports(self) -> Float[Tensor, "sets"]:
        law = torch.zeros(2**self.size, dtype=torch.float64)
        law[0] = 1 - self.p
        law[[2**member for member in range(self.size)]] = self.p / self.size
        return spread([law] * self.sets)
