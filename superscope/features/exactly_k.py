"""Rows with exactly k active features."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import SparseCode
from .distribution import FeatureDistribution, check_count
from .magnitudes import UNIT, Magnitude


@dataclass(frozen=True)
class ExactlyK(FeatureDistribution):
    r"""A uniformly drawn set of k of n features is active: $p = k/n$, $P(i, j) = \frac{k(k-1)}{n(n-1)}$.

    The gates are slightly anti-correlated. The law of compressed sensing.

    Args:
        n: number of features.
        k: active features in every row, in [1, n].
        magnitude: the law of an active feature.

    Raises:
        ValueError: if n < 1 or k is outside [1, n].

    Example:
        >>> ExactlyK(n=100, k=4).sample(3).l0
        tensor([4, 4, 4])
    """

    n: int
    k: int
    magnitude: Magnitude = UNIT

    def __post_init__(self) -> None:
        check_count("ExactlyK", "n", self.n)
        if not 1 <= self.k <= self.n:
            raise ValueError(f"ExactlyK: k must lie in [1, n = {self.n}]; got {self.k}.")

    @property
    def noise(self) -> int:
        return 2 * self.n

    def knobs(self) -> tuple[Float[Tensor, "..."], ...]:
        return ()

    def structure(self) -> tuple[object, ...]:
        return (*super().structure(), self.k)

    def draw(
        self, u: Float[Tensor, "*batch noise"], knobs: tuple[Float[Tensor, "..."], ...] | None = None
    ) -> Float[Tensor, "*drawn n"]:
        order, q = u[..., : self.n], u[..., self.n :]
        # Ties between uniforms have no effect but to prefer one of two equal features.
        active = order.topk(self.k, dim=-1, largest=False).indices
        return torch.zeros_like(q).scatter(-1, active, self.magnitude.quantile(q.gather(-1, active)))

    def sample(self, count: int, *, generator: torch.Generator | None = None) -> SparseCode:
        if self.k * self.k > self.n:
            return super().sample(count, generator=generator)
        check_count("ExactlyK.sample", "count", count)
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        indices = torch.randint(self.n, (count, self.k), generator=generator, device=generator.device)
        while len(repeated := (indices.sort(-1).values.diff(dim=-1) == 0).any(-1).nonzero()[:, 0]):
            # A row with a repeat is drawn anew as a whole, so that every set of k stays equally likely.
            indices[repeated] = torch.randint(
                self.n, (len(repeated), self.k), generator=generator, device=generator.device
            )
        q = torch.rand(count, self.k, generator=generator, device=generator.device)
        return SparseCode(self.magnitude.quantile(q), indices, self.n)

    def gates(self) -> Float[Tensor, "n n"]:
        pair = self.k * (self.k - 1) / (self.n * (self.n - 1)) if self.n > 1 else 1.0
        joint = torch.full((self.n, self.n), pair, dtype=torch.float64)
        joint.diagonal().fill_(self.k / self.n)
        return joint

    def _supports(self) -> Float[Tensor, "sets"]:
        sizes = torch.tensor([s.bit_count() for s in range(2**self.n)])
        return (sizes == self.k).double() / math.comb(self.n, self.k)
