"""Rows of different strength: whatever is active in a row is scaled together, as tokens differ in norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import SparseCode
from ..features import Magnitude
from .world import FeatureLaw


@dataclass(frozen=True)
class TokenNorms:
    r"""$f = s f'$: one scale s for all features of a row, independent of which are active.

    It makes every pair of active features dependent and gives any mixture heavy tails, so that what reads fourth
    cumulants without making norms alike is fooled.

    Args:
        features: the law of f'.
        scale: the law of s, never 0.

    Example:
        >>> from superscope.features import ExactlyK, Fixed, Uniform
        >>> law = TokenNorms(ExactlyK(n=8, k=2, magnitude=Fixed(1.0)), Uniform(0.5, 2.0))
        >>> values = law.sample(5, generator=torch.Generator().manual_seed(0)).values
        >>> torch.equal(values[:, 0], values[:, 1])
        True
    """

    features: FeatureLaw
    scale: Magnitude

    @property
    def n(self) -> int:
        """Number of features."""
        return self.features.n

    @property
    def l0(self) -> float:
        """Expected number of active features."""
        return self.features.l0

    @property
    def density(self) -> Float[Tensor, "n"] | None:
        """P(f_i != 0), where the law says it."""
        return getattr(self.features, "density", None)

    def sample(self, count: int, *, generator: torch.Generator | None = None) -> SparseCode:
        """`count` rows of f."""
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        code = self.features.sample(count, generator=generator)
        s = self.scale.quantile(torch.rand(count, generator=generator, device=generator.device))
        return SparseCode(code.values * s[:, None], code.indices, code.n)
