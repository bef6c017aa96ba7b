"""Features that are active only where their parent is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .distribution import FeatureDistribution, check_count, check_density
from .independent import gated
from .magnitudes import UNIT, Magnitude


@dataclass(frozen=True)
class Hierarchical(FeatureDistribution):
    r"""$g_i = h_i\, g_{parent(i)}$, $h_i \sim \mathrm{Bernoulli}(p_i)$: $P(A \text{ all active}) = \prod_{j \in
    \text{ancestors of } A} p_j$.

    Densities are conditional on the parent: a child of density 0.5 under a parent of density 0.2 is active in 0.1 of
    rows.

    Args:
        parents: for each feature the number of its parent, smaller than its own, or -1 for a root.
        p: P(active given that the parent is), one number or one per feature.
        magnitude: the law of an active feature.

    Raises:
        ValueError: if there is no feature, a parent does not come before its child, p is outside (0, 1] or has another
            length than parents.

    Example:
        >>> Hierarchical(parents=(-1, 0, 0), p=0.5).density
        tensor([0.5000, 0.2500, 0.2500], dtype=torch.float64)
    """

    parents: tuple[int, ...]
    p: float | tuple[float, ...]
    magnitude: Magnitude = UNIT

    def __post_init__(self) -> None:
        check_count("Hierarchical", "the number of parents", len(self.parents))
        for child, parent in enumerate(self.parents):
            if not -1 <= parent < child:
                raise ValueError(
                    f"Hierarchical: the parent of feature {child} must be -1 or come before it; got {parent}. "
                    "Number parents first."
                )
        for density in self.p if isinstance(self.p, tuple) else (self.p,):
            check_density("Hierarchical", density, "p")
        if isinstance(self.p, tuple) and len(self.p) != self.n:
            raise ValueError(f"Hierarchical: p has {len(self.p)} entries for {self.n} features. Give one, or one each.")

    @property
    def n(self) -> int:  # type: ignore[override]
        return len(self.parents)

    @property
    def noise(self) -> int:
        return self.n

    def structure(self) -> tuple[object, ...]:
        return (*super().structure(), self.parents)

    def knobs(self) -> tuple[Float[Tensor, "n"]]:
        return (torch.as_tensor(self.p, dtype=torch.float32).expand(self.n).clone(),)

    def draw(
        self, u: Float[Tensor, "*batch noise"], knobs: tuple[Float[Tensor, "..."], ...] | None = None
    ) -> Float[Tensor, "*drawn n"]:
        (p,) = (own.to(u) for own in self.knobs()) if knobs is None else knobs
        open_ = u < p
        for children in self._generations:
            children = children.to(u.device)
            parents = torch.tensor(self.parents, device=u.device)[children]
            open_[..., children] &= open_[..., parents]
        return gated(u, p, self.magnitude) * open_

    @cached_property
    def _generations(self) -> tuple[Int[Tensor, "_"], ...]:
        """Numbers of the children, of the grandchildren, and so on."""
        depth: list[int] = []
        for parent in self.parents:
            depth.append(depth[parent] + 1 if parent >= 0 else 0)
        at = torch.tensor(depth)
        return tuple((at == generation).nonzero()[:, 0] for generation in range(1, int(at.max()) + 1))

    def _chain(self, feature: int) -> frozenset[int]:
        chain = set()
        while feature >= 0:
            chain.add(feature)
            feature = self.parents[feature]
        return frozenset(chain)

    @property
    def density(self) -> Float[Tensor, "n"]:
        density = torch.as_tensor(self.p, dtype=torch.float64).expand(self.n).tolist()
        for child, parent in enumerate(self.parents):
            if parent >= 0:
                density[child] *= density[parent]
        return torch.tensor(density, dtype=torch.float64)

    def gates(self) -> Float[Tensor, "n n"]:
        p = torch.as_tensor(self.p, dtype=torch.float64).expand(self.n)
        chains = [self._chain(i) for i in range(self.n)]
        joint = torch.empty(self.n, self.n, dtype=torch.float64)
        for i in range(self.n):
            for j in range(self.n):
                joint[i, j] = p[list(chains[i] | chains[j])].prod()
        return joint

    def _supports(self) -> Float[Tensor, "sets"]:
        p = torch.as_tensor(self.p, dtype=torch.float64).expand(self.n).tolist()
        law = torch.zeros(2**self.n, dtype=torch.float64)
        for s in range(2**self.n):
            probability = 1.0
            for i, parent in enumerate(self.parents):
                can = parent < 0 or bool(s >> parent & 1)
                chance = p[i] if can else 0.0
                probability *= chance if s >> i & 1 else 1 - chance
            law[s] = probability
        return law
