"""Features that know nothing of each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import SparseCode
from .distribution import FeatureDistribution, check_count, check_density, product_supports
from .magnitudes import UNIT, Magnitude


@dataclass(frozen=True)
class Independent(FeatureDistribution):
    r"""$f_i = g_i m_i$, $g_i \sim \mathrm{Bernoulli}(p_i)$, all independent.

    One uniform serves gate and magnitude: given $u < p$, $u / p$ is uniform again. In float32 that leaves
    $24 + \log_2 p$ bits of the magnitude, enough for p >= 1e-4.

    Args:
        n: number of features.
        p: P(f_i != 0), one number or n of them; `density` is the same as a tensor.
        magnitude: the law of an active feature.

    Raises:
        ValueError: if n < 1, a density is outside (0, 1] or there are not n of them.

    Source:
        Elhage et al., "Toy models of superposition", 2022 (its 1 - S is p).

    Example:
        >>> Independent(n=3, p=0.5).sample(2, generator=torch.Generator().manual_seed(0)).dense().shape
        torch.Size([2, 3])
    """

    n: int
    p: float | tuple[float, ...]
    magnitude: Magnitude = UNIT

    def __post_init__(self) -> None:
        check_count("Independent", "n", self.n)
        densities = self.p if isinstance(self.p, tuple) else (self.p,)
        for density in densities:
            check_density("Independent", density, "p")
        if isinstance(self.p, tuple) and len(self.p) != self.n:
            raise ValueError(
                f"Independent: p has {len(self.p)} entries for n = {self.n} features. Give one, or one each."
            )

    @property
    def noise(self) -> int:
        return self.n

    def knobs(self) -> tuple[Float[Tensor, "_"]]:
        return (torch.tensor(self.p if isinstance(self.p, tuple) else [self.p], dtype=torch.float32),)

    def structure(self) -> tuple[object, ...]:
        return (*super().structure(), isinstance(self.p, tuple))

    @property
    def density(self) -> Float[Tensor, "n"]:
        return torch.as_tensor(self.p, dtype=torch.float64).expand(self.n).clone()

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


def gated(
    u: Float[Tensor, "*batch n"],
    p: Float[Tensor, "*some"],
    magnitude: Magnitude,
) -> Float[Tensor, "*drawn n"]:
    """m if u < p else 0, with the magnitude made of what u leaves: u / p."""
    if magnitude == UNIT:
        # relu(1 - u/p) is uniform on [0, 1] where u < p and 0 elsewhere. One or two passes: ten times the speed of a
        # mask and a division, and this is the innermost line of every sweep.
        if p.numel() == 1:
            u = u.expand(torch.broadcast_shapes(u.shape, p.shape))
            return torch.rsub(u, 1.0, alpha=1 / float(p)).relu_()
        return torch.mul(u, -1 / p).add_(1).relu_()
    active = u < p
    return torch.where(active, magnitude.quantile((u / p).clamp(max=1 - 2**-24)), u.new_zeros(()))


def independent_gates(density: Float[Tensor, "n"]) -> Float[Tensor, "n n"]:
    """P(both active) of independent gates."""
    joint = torch.outer(density, density)
    joint.diagonal().copy_(density)
    return joint


def is_rare(law: FeatureDistribution, count: int) -> bool:
    return law.n >= 512 and count >= 2 and law.l0 < law.n / 32 and float(law.density.max()) <= 0.5


def sample_independent(law: FeatureDistribution, count: int, generator: torch.Generator | None) -> SparseCode:
    """The same law by its events: each feature's number of active rows is binomial, the rows a uniform subset.

    Costs O(active entries) where `draw` costs O(rows n).
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    density = law.density.to(generator.device)
    wanted = torch.binomial(torch.full_like(density, float(count)), density, generator=generator).long()
    events = torch.empty(0, dtype=torch.long, device=density.device)
    missing = wanted
    while int(missing.sum()):
        # Rows drawn twice for one feature are drawn again. No row is preferred, so the final set is a uniform one.
        features = torch.arange(law.n, device=density.device).repeat_interleave(missing)
        rows = torch.randint(count, (len(features),), generator=generator, device=density.device)
        events = torch.unique(torch.cat([events, rows * law.n + features]))
        missing = wanted - torch.bincount(events % law.n, minlength=law.n)
    rows, features = events // law.n, events % law.n
    q = torch.rand(len(events), generator=generator, device=density.device)
    return SparseCode.from_entries(rows, features, law.magnitude.quantile(q), (count, law.n))
