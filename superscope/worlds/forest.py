"""Features in trees of exclusive children, with correlated gates and Zipf densities: the law of SynthSAEBench."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core import SparseCode


@dataclass(frozen=True)
class Forest:
    r"""Trees of features: $f_i = m_i\, g_i\, f_{parent(i)} / \mu_{parent(i)}$, at most one child of a parent active.

    In this order:

    - Densities: $p_i = p_{min} + (p_{max} - p_{min}) (i^{-\alpha} - n^{-\alpha}) / (1 - n^{-\alpha})$ for i = 1..n.
    - Trees: the first features are `roots`; each feature has `branching` children, `depth` generations of them,
      numbered generation by generation, so that parents are denser than children. Features left over are in no tree.
    - Compensation: a child's gate opens with $p_i / p_{parent} \cdot (1 + \sum_{siblings} p_j / p_{parent})$, at most
      1, so that after the two rules below its density is about $p_i$; `density` says what it really is.
    - Gates: $g_i = 1$ where $a_i \cdot \epsilon + \sqrt{1 - |a_i|^2}\, \eta_i$ exceeds the normal quantile: a copula
      with `rank` shared normals, $a_i \sim N(0, correlation^2)$ per entry.
    - Magnitudes: $m_i \sim \max(0, N(\mu_i, s_i^2))$, $\mu$ falling linearly over the features, $s_i = |N|$.
    - Exclusion: of the siblings whose gates are open one, drawn uniformly, stays.
    - A child is off where its parent is, and scales with it.

    Only the gates of features whose parents are on are drawn, which changes nothing of the law and most of the cost.

    Args:
        n: number of features.
        roots, branching, depth: of the trees; roots * (1 + branching + ... + branching^depth) <= n.
        p_max, p_min, alpha: densities of the first and the last feature before the rules, and the exponent.
        rank, correlation: of the copula; correlation 0 makes gates independent.
        magnitudes: mu of the first and of the last feature.
        spread: centre and standard deviation of the normal whose absolute value is s_i.
        scaled: whether a child's magnitude is multiplied by its parent's over mu; False leaves it.
        seed: of s and a, which are drawn once.

    Raises:
        ValueError: if the trees do not fit into n, or a number is out of its range.

    Source:
        Chanin and Garriga-Alonso, "SynthSAEBench", 2026 (arXiv 2602.14687), and the generator in SAELens that its world
        is made with.

    Example:
        >>> law = Forest(n=32, roots=2, branching=3, depth=2)
        >>> law.sample(1000, generator=torch.Generator().manual_seed(0)).n
        32
    """

    n: int
    roots: int
    branching: int = 4
    depth: int = 3
    p_max: float | int = 0.4
    p_min: float | int = 5e-4
    alpha: float | int = 0.5
    rank: int = 25
    correlation: float | int = 0.1
    magnitudes: tuple[float, float] = (5.0, 4.0)
    spread: tuple[float, float] = (0.5, 0.5)
    scaled: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (
            ("n", self.n, 2),
            ("roots", self.roots, 1),
            ("branching", self.branching, 2),
            ("depth", self.depth, 0),
            ("rank", self.rank, 1),
        ):
            if value < least:
                raise ValueError(f"Forest: {name} must be at least {least}; got {value}.")
        if self.trees > self.n:
            raise ValueError(
                f"Forest: {self.roots} trees of depth {self.depth} with {self.branching} children each hold "
                f"{self.trees} features, and n is {self.n}. Take fewer roots, or a larger n."
            )
        if not 0 < self.p_min <= self.p_max <= 1:
            raise ValueError(f"Forest: 0 < p_min <= p_max <= 1 is needed; got {self.p_min} and {self.p_max}.")
        if not (self.alpha > 0 and self.correlation >= 0 and self.rank * self.correlation**2 < 1):
            raise ValueError(
                f"Forest: alpha must be positive, correlation at least 0 and rank * correlation^2 below 1, since it is "
                f"the variance that gates share; got {self.alpha}, {self.correlation} and rank {self.rank}."
            )
        if min(self.magnitudes) <= 0 or min(self.spread) < 0:
            raise ValueError(
                f"Forest: magnitudes must be positive and spread at least 0; got {self.magnitudes} and {self.spread}."
            )

    @property
    def trees(self) -> int:
        """Features in trees; they come first."""
        return sum(self.generations)

    @property
    def generations(self) -> tuple[int, ...]:
        """Features of each generation, roots first."""
        return tuple(self.roots * self.branching**g for g in range(self.depth + 1))

    @cached_property
    def parents(self) -> Int[Tensor, "n"]:
        """The parent of each feature; -1 for a root and outside the trees."""
        parents = torch.full((self.n,), -1)
        first = 0
        for size, children in zip(self.generations, self.generations[1:]):
            begin = first + size
            parents[begin : begin + children] = first + torch.arange(children) // self.branching
            first = begin
        return parents

    @cached_property
    def nominal(self) -> Float[Tensor, "n"]:
        """p_i, in float64: the densities that compensation aims at."""
        power = torch.arange(1, self.n + 1, dtype=torch.float64) ** -self.alpha
        return self.p_min + (self.p_max - self.p_min) * (power - power[-1]) / (1 - power[-1])

    @cached_property
    def gates(self) -> Float[Tensor, "n"]:
        """P(g_i = 1), compensated, in float64."""
        p, child = self.nominal, self.parents >= 0
        opening = p.clone()
        parent = p[self.parents[child]]
        family = torch.zeros(self.n, dtype=torch.float64).index_add_(0, self.parents[child], p[child])
        others = (family[self.parents[child]] - p[child]).clamp(min=0)
        opening[child] = p[child] / parent * (1 + others / parent)
        return opening.clamp(max=1)

    @cached_property
    def means(self) -> Float[Tensor, "n"]:
        """mu."""
        return torch.linspace(*self.magnitudes, self.n)

    @cached_property
    def deviations(self) -> Float[Tensor, "n"]:
        """s."""
        centre, scale = self.spread
        generator = torch.Generator().manual_seed(self.seed)
        return (centre + scale * torch.randn(self.n, generator=generator)).abs()

    @cached_property
    def _copula(self) -> tuple[Float[Tensor, "n rank"], Float[Tensor, "n"], Float[Tensor, "n"]]:
        """a, sqrt(1 - |a|^2) and the thresholds."""
        # Another stream than the deviations', whose first numbers would otherwise be these.
        generator = torch.Generator().manual_seed(self.seed + 2**20)
        a = self.correlation * torch.randn(self.n, self.rank, generator=generator)
        # Rows that share nearly all their variance are shortened, as in the source.
        a *= (0.99 / a.square().sum(1, keepdim=True).clamp(min=1e-12)).sqrt().clamp(max=1)
        return a, (1 - a.square().sum(1)).sqrt(), -torch.special.ndtri(self.gates).float()

    @cached_property
    def density(self) -> Float[Tensor, "n"]:
        """P(f_i != 0), in float64: exact where correlation is 0, and near it for small ones."""
        spread = self.deviations.double()
        positive = torch.where(spread > 0, torch.special.ndtr(self.means.double() / spread), torch.ones(()).double())
        on = self.gates * positive
        first = self.roots
        for children in self.generations[1:]:
            family = on[first : first + children].view(-1, self.branching)
            parent = on[self.parents[first : first + children : self.branching]]
            on[first : first + children] = (parent[:, None] * _survives(family)).flatten()
            first += children
        return on

    @property
    def l0(self) -> float:
        """Expected number of active features, the sum of densities."""
        return float(self.density.sum())

    @torch.no_grad()
    def sample(self, count: int, *, generator: torch.Generator | None = None) -> SparseCode:
        """`count` rows of f.

        Raises:
            ValueError: if count is not positive.
        """
        if count < 1:
            raise ValueError(f"Forest.sample: count must be at least 1; got {count}.")
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        device = generator.device
        a, own, threshold = (number.to(device) for number in self._copula)
        means, deviations = self.means.to(device), self.deviations.to(device)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, device=device)

        shared = normal(count, self.rank)
        always = torch.cat([torch.arange(self.roots), torch.arange(self.trees, self.n)]).to(device)
        z = torch.addmm(-threshold[always], shared, a[always].T).addcmul_(normal(count, len(always)), own[always])
        row, place = (z > 0).nonzero(as_tuple=True)
        feature = always[place]
        value = means[feature] + deviations[feature] * normal(len(feature))
        on = value > 0
        row, feature, value = row[on], feature[on], value[on]
        entries = [(row, feature, value)]
        first = 0
        for size in self.generations[:-1]:
            living = (feature >= first) & (feature < first + size)
            row, parent, strength = row[living], feature[living], value[living]
            # Children of one parent are neighbours, so their numbers are gathered a family at a time.
            family, at = slice(first + size, first + size * (1 + self.branching)), parent - first
            child = family.start + at[:, None] * self.branching + torch.arange(self.branching, device=device)
            mu, s, noise, bar = (
                number[family].view(size, self.branching).index_select(0, at)
                for number in (means, deviations, own, threshold)
            )
            loads = a[family].view(size, self.branching, self.rank).index_select(0, at)
            common = torch.bmm(loads, shared.index_select(0, row)[:, :, None])[:, :, 0]
            z = common + noise * normal(*child.shape) - bar
            drawn = mu + s * normal(*child.shape)
            lot = torch.rand(child.shape, generator=generator, device=device)
            # The highest lot among open siblings stays; -1 is below every lot.
            lot = torch.where((z > 0) & (drawn > 0), lot, lot.new_full((), -1))
            best, winner = lot.max(1)
            born = best >= 0
            winner = winner[born, None]
            factor = strength / means[parent] if self.scaled else torch.ones_like(strength)
            row, value = row[born], (drawn[born].gather(1, winner)[:, 0] * factor[born])
            feature = child[born].gather(1, winner)[:, 0]
            entries.append((row, feature, value))
            first += size
        rows, features, values = (torch.cat(parts) for parts in zip(*entries, strict=True))
        return SparseCode.from_entries(rows, features, values, (count, self.n))


def _survives(p: Float[Tensor, "groups siblings"]) -> Float[Tensor, "groups siblings"]:
    r"""P(i open and drawn) where one of the open siblings is drawn uniformly: $p_i E[1 / (1 + \#others)]$."""
    siblings = p.shape[1]
    answer = torch.empty_like(p)
    for i in range(siblings):
        law = torch.ones(len(p), 1, dtype=p.dtype)
        for j in range(siblings):
            if j != i:
                law = torch.nn.functional.pad(law * (1 - p[:, j : j + 1]), (0, 1)) + torch.nn.functional.pad(
                    law * p[:, j : j + 1], (1, 0)
                )
        answer[:, i] = p[:, i] * (law / torch.arange(1, siblings + 1)).sum(1)
    return answer
