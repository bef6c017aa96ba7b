"""Features that tend to be active together, each as dense as it is told: a Gaussian copula of gates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..core import ShapeError, SparseCode
from ..features import WELL_ABOVE_ZERO, Magnitude

_CELLS = 2**22
"""Rows times features that are drawn at once."""


@dataclass(frozen=True, eq=False)
class Copula:
    r"""$f_i = m_i\, [a_i \cdot \varepsilon + \sqrt{1 - |a_i|^2}\, \eta_i > \Phi^{-1}(1 - p_i)]$, normals independent.

    The normals behind two gates have correlation $a_i \cdot a_j$; the gates themselves less, the rarer the less.

    Args:
        p: P(f_i != 0) of each feature.
        loadings: a, one row per feature, none longer than 1.
        magnitude: the law of an active feature, independent of everything else.

    Raises:
        ShapeError: if there are not as many densities as rows of loadings.
        ValueError: if a density is outside (0, 1) or a row of loadings longer than 1.

    Example:
        >>> law = Copula(torch.tensor([0.2, 0.2]), torch.tensor([[0.9], [0.9]]))
        >>> law.sample(1000, generator=torch.Generator().manual_seed(0)).n
        2
    """

    p: Float[Tensor, "n"]
    loadings: Float[Tensor, "n rank"]
    magnitude: Magnitude = WELL_ABOVE_ZERO

    def __post_init__(self) -> None:
        if len(self.p) != len(self.loadings):
            raise ShapeError(
                f"Copula: {len(self.p)} densities for {len(self.loadings)} rows of loadings. Make one each."
            )
        if not bool(((self.p > 0) & (self.p < 1)).all()):
            low, high = float(self.p.min()), float(self.p.max())
            raise ValueError(f"Copula: densities lie in (0, 1); they run from {low:.3g} to {high:.3g}.")
        if (longest := float(self.loadings.norm(dim=1).max())) > 1 + 1e-6:
            raise ValueError(
                f"Copula: a row of loadings has length {longest:.3g}, and its square is the share of variance that a "
                "gate has in common with others. Make it at most 1."
            )

    @property
    def n(self) -> int:
        """Number of features."""
        return len(self.p)

    @property
    def density(self) -> Float[Tensor, "n"]:
        """P(f_i != 0), in float64."""
        return self.p.double()

    @property
    def l0(self) -> float:
        """Expected number of active features."""
        return float(self.density.sum())

    @cached_property
    def _own(self) -> Float[Tensor, "n"]:
        return (1 - self.loadings.double().square().sum(1)).clamp(min=0).sqrt().float()

    @cached_property
    def _threshold(self) -> Float[Tensor, "n"]:
        return -torch.special.ndtri(self.density).float()

    @torch.no_grad()
    def sample(self, count: int, *, generator: torch.Generator | None = None) -> SparseCode:
        """`count` rows of f.

        Raises:
            ValueError: if count is not positive.
        """
        if count < 1:
            raise ValueError(f"Copula.sample: count must be at least 1; got {count}.")
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        device = generator.device
        a, own, threshold = (each.to(device) for each in (self.loadings.float(), self._own, self._threshold))
        rows, features = [], []
        size = max(1, _CELLS // self.n)
        for start in range(0, count, size):
            some = min(size, count - start)
            shared = torch.randn(some, a.shape[1], generator=generator, device=device)
            z = torch.addmm(-threshold, shared, a.T)
            z.addcmul_(torch.randn(some, self.n, generator=generator, device=device), own)
            row, feature = (z > 0).nonzero(as_tuple=True)
            rows.append(row + start)
            features.append(feature)
        row, feature = torch.cat(rows), torch.cat(features)
        q = torch.rand(len(row), generator=generator, device=device)
        return SparseCode.from_entries(row, feature, self.magnitude.quantile(q), (count, self.n))

    def gates(self) -> Float[Tensor, "n n"]:
        r"""P(f_i != 0 and f_j != 0), in float64; the diagonal is the density.

        $p_i p_j + \int_0^{\rho} \phi_2(t_i, t_j; r)\, dr$, by Gauss and Legendre's rule in the angle arcsin r, whose
        error is below 1e-9 for $|\rho| < 0.99$.

        Source:
            Plackett, "A reduction formula for normal multivariate integrals", 1954.
        """
        p, a = self.density, self.loadings.double()
        t = -torch.special.ndtri(p)
        angle = (a @ a.T).clamp(-1, 1).asin()
        squares, product = t.square()[:, None] + t.square(), torch.outer(t, t)
        joint = torch.outer(p, p)
        for node, weight in zip(*np.polynomial.legendre.leggauss(64), strict=True):
            at = angle * (float(node) + 1) / 2
            density = torch.exp(-(squares - 2 * product * at.sin()) / (2 * at.cos().square().clamp(min=1e-30)))
            joint += float(weight) / 2 * angle * density / (2 * torch.pi)
        joint.diagonal().copy_(p)
        return joint
