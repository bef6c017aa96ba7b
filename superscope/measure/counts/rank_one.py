r"""Which unit vectors v have $v v^\top$ in a given subspace of symmetric matrices, and which of them hang together?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_ITERATIONS = 100
_STARTS_PER_DIMENSION = 8
_STARTS_BY_CHANCE = 128
_AT_ONCE = 512
# Two vectors nearer than this are one, however often it was climbed to.
_SAME = 0.8


@dataclass(frozen=True, eq=False)
class SymmetricBasis:
    r"""$e_i e_i^\top$ and $(e_i e_j^\top + e_j e_i^\top)/\sqrt 2$: orthonormal coordinates of symmetric r x r matrices.

    Args:
        r: of the matrices.
    """

    r: int

    @property
    def m(self) -> int:
        """r (r + 1) / 2."""
        return self.r * (self.r + 1) // 2

    @property
    def pairs(self) -> tuple[Int[Tensor, "m"], Int[Tensor, "m"]]:
        """i <= j of each coordinate."""
        i, j = torch.triu_indices(self.r, self.r)
        return i, j

    def products(self, a: Float[Tensor, "b r"], b: Float[Tensor, "b r"]) -> Float[Tensor, "b m"]:
        r"""Coordinates of $(a b^\top + b a^\top)/2$, row by row."""
        i, j = (index.to(a.device) for index in self.pairs)
        weight = torch.where(i == j, 0.5, 0.5**0.5).to(a)
        return (a[:, i] * b[:, j] + a[:, j] * b[:, i]) * weight

    def squares(self, a: Float[Tensor, "b r"]) -> Float[Tensor, "b m"]:
        r"""Coordinates of $a a^\top$, row by row."""
        i, j = (index.to(a.device) for index in self.pairs)
        return a[:, i] * a[:, j] * torch.where(i == j, 1.0, 2.0**0.5).to(a)

    def matrices(self, coordinates: Float[Tensor, "b m"]) -> Float[Tensor, "b r r"]:
        """The matrices of some coordinates."""
        i, j = self.pairs
        entries = coordinates * torch.where(i == j, 1.0, 0.5**0.5).to(coordinates)
        whole = coordinates.new_zeros(len(coordinates), self.r, self.r)
        whole[:, i, j] = entries
        whole[:, j, i] = entries
        return whole


@dataclass(frozen=True, eq=False)
class RankOne:
    r"""The vectors found, the clearest first.

    Args:
        vectors: unit v, sign free.
        fit: $\|P (v v^\top)\|^2$, 1 inside the subspace.
        chance: the best fit that random subspaces of the same dimension hold.
        isolated: whether no tangent $(v t^\top + t v^\top)/\sqrt 2$ is in the subspace as well, so that v cannot turn.
        component: vectors that are joined by tangents have one number; isolated ones a number each.
    """

    vectors: Float[Tensor, "n r"]
    fit: Float[Tensor, "n"]
    chance: float
    isolated: Bool[Tensor, "n"]
    component: Int[Tensor, "n"]

    @property
    def components(self) -> int:
        """Isolated vectors and groups that hang together."""
        return len(self.component.unique())

    @property
    def threshold(self) -> float:
        """Fit from which a vector counts: half way between chance and a perfect one."""
        return (1 + self.chance) / 2


def rank_one_directions(basis: SymmetricBasis, span: Float[Tensor, "m rank"], generator: torch.Generator) -> RankOne:
    r"""Maxima of $\|P (v v^\top)\|$ over unit v, P the projection on the span, climbed to from random starts.

    The span of $b_1 b_1^\top, \dots, b_n b_n^\top$ in general position holds no other rank-one matrices as long as n is
    well below r (r + 1) / 2, so that the maxima near 1 are the $b_j$. Where it holds $b_1 b_2^\top + b_2 b_1^\top$ too
    it holds the squares of all mixtures of the two, and v moves along them freely: those are joined to one component.

    Costs O(r^2 rank) for each start and step, 8 starts for each dimension of the span.

    Args:
        basis: of the matrices.
        span: orthonormal columns.
        generator: of starts and of the random subspaces.

    Source:
        Kileel and Pereira, "Subspace power method for symmetric tensor decomposition and generalized PCA", 2019
        (arXiv 1912.04007). Chance level and components are ours.
    """
    rank = span.shape[1]
    if not rank:
        none = torch.zeros(0)
        return RankOne(torch.zeros(0, basis.r), none, 0.0, none.bool(), none.long())
    span = span.float()
    random, _ = torch.linalg.qr(torch.randn(basis.m, rank, generator=generator, dtype=torch.float64))
    random = random.float().to(span.device)
    by_chance, fits = _climb(basis, random, _STARTS_BY_CHANCE, generator)
    chance = float(fits.max())
    v, fit = _climb(basis, span, max(_STARTS_PER_DIMENSION * rank, _STARTS_BY_CHANCE), generator)
    order = fit.argsort(descending=True)
    clear = order[fit[order] > (1 + chance) / 2]
    v, fit = v[clear], fit[clear]
    near = ((v @ v.T).abs() > _SAME).cpu()
    kept: list[int] = []
    for row in range(len(v)):
        if not bool(near[row, kept].any()):
            kept.append(row)
    v, fit = v[kept], fit[kept]
    moves = (1 + max(_freest_tangent(basis, random, by_chance[:32]), default=0.0)) / 2
    isolated = torch.tensor([free < moves for free in _freest_tangent(basis, span, v)], dtype=torch.bool)
    return RankOne(v, fit, chance, isolated, _components(basis, span, v, isolated, moves))


def _climb(
    basis: SymmetricBasis, span: Float[Tensor, "m rank"], starts: int, generator: torch.Generator
) -> tuple[Float[Tensor, "starts r"], Float[Tensor, "starts"]]:
    """Fixed points of v <- P(v v^T) v, and their fits."""
    v = torch.nn.functional.normalize(torch.randn(starts, basis.r, generator=generator).to(span), dim=1)
    for rows in torch.arange(starts, device=v.device).split(_AT_ONCE):
        for _ in range(_ITERATIONS):
            now = v[rows]
            inside = basis.squares(now) @ span
            new = torch.bmm(basis.matrices(inside @ span.T), now[:, :, None])[:, :, 0]
            v[rows] = torch.nn.functional.normalize(new, dim=1)
            rows = rows[(v[rows] * now).sum(1) < 1 - 1e-6]
            if not len(rows):
                break
    fits = torch.cat([(basis.squares(part) @ span).square().sum(1) for part in v.split(_AT_ONCE)])
    return v, fits


def _freest_tangent(basis: SymmetricBasis, span: Float[Tensor, "m rank"], v: Float[Tensor, "n r"]) -> list[float]:
    r"""For each v the largest $\|P (v t^\top + t v^\top)\|^2 / 2$ over unit t orthogonal to it."""
    freest = []
    for each in v:
        start = torch.cat([each[:, None], torch.eye(basis.r).to(v)], 1)
        across = torch.linalg.qr(start)[0][:, 1:].T
        inside = 2**0.5 * basis.products(each.expand_as(across), across) @ span
        freest.append(float(torch.linalg.eigvalsh(inside @ inside.T)[-1]))
    return freest


def _components(
    basis: SymmetricBasis, span: Tensor, v: Tensor, isolated: Bool[Tensor, "n"], moves: float
) -> Int[Tensor, "n"]:
    """Which vectors are joined by tangents of the subspace; isolated ones stay alone."""
    free = (~isolated).nonzero().squeeze(1)
    component = torch.arange(len(v))
    w = v[free.to(v.device)]
    for row, each in enumerate(w):
        towards = w - (w @ each)[:, None] * each
        towards = torch.nn.functional.normalize(towards, dim=1)
        joined = (2 * (basis.products(each.expand_as(towards), towards) @ span).square().sum(1) > moves).cpu()
        joined[row] = True
        numbers = component[free[joined]].unique()
        component[torch.isin(component, numbers)] = int(numbers.min())
    return component
