"""Features of several dimensions: a point of a circle, a sphere, a cluster or a subspace, or nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import SparseCode
from ..features import WELL_ABOVE_ZERO, Independent, Magnitude

Shape = Literal["sphere", "gaussian", "orthant", "clusters"]


@dataclass(frozen=True)
class Blocks:
    r"""$f_{block} = g\, m\, u$: a gate, one magnitude for the whole block, and a point u of m dimensions.

    | shape | u | inside, a basis is |
    |---|---|---|
    | sphere | uniform on the unit sphere; a ring where size is 2 | arbitrary |
    | gaussian | normal, of variance 1 / size in each coordinate | arbitrary |
    | orthant | independent uniforms on [1/2, 3/2], over the root of size | the true one |
    | clusters | one of `clusters` points evenly round the circle (size 2), with a spread of angles | arbitrary |

    All atoms of a block are active in the same rows, and blocks are neighbours in number.

    Args:
        blocks: number of blocks.
        size: dimensions of each, so that n = blocks * size.
        p: P(block active), one number or one for each.
        shape: of u.
        clusters: points on the circle, at least 2.
        spread: standard deviation of the angle about its point, in shares of the way to the next point.
        magnitude: the law of m.

    Raises:
        ValueError: if a number is out of its range, or clusters are not in a plane.

    Example:
        >>> ring = Blocks(blocks=3, size=2, p=0.5).sample(100, generator=torch.Generator().manual_seed(0)).dense()
        >>> norms = ring.view(100, 3, 2).norm(dim=2)
        >>> bool(((norms == 0) | ((norms >= 0.5) & (norms <= 1.5))).all())
        True
    """

    blocks: int
    size: int
    p: float | tuple[float, ...]
    shape: Shape = "sphere"
    clusters: int = 7
    spread: float | int = 0.0
    magnitude: Magnitude = WELL_ABOVE_ZERO

    def __post_init__(self) -> None:
        if self.shape not in get_args(Shape):
            raise ValueError(f"Blocks: shape is one of {', '.join(get_args(Shape))}; got {self.shape!r}.")
        if self.size < 1:
            raise ValueError(f"Blocks: size must be at least 1; got {self.size}.")
        if self.shape == "clusters" and (self.size != 2 or self.clusters < 2):
            raise ValueError(
                f"Blocks: at least 2 clusters lie round a circle, so size is 2; got {self.clusters} and {self.size}."
            )
        if not (math.isfinite(self.spread) and self.spread >= 0):
            raise ValueError(f"Blocks: spread must be finite and at least 0; got {self.spread}.")
        _ = self._gates  # its constructor checks blocks and p

    @property
    def _gates(self) -> Independent:
        return Independent(self.blocks, self.p, self.magnitude)

    @property
    def n(self) -> int:
        """Number of coordinates."""
        return self.blocks * self.size

    @property
    def density(self) -> Float[Tensor, "n"]:
        """P(block active), of each coordinate, in float64."""
        return self._gates.density.repeat_interleave(self.size)

    @property
    def l0(self) -> float:
        """Expected number of active coordinates: size times that of active blocks."""
        return float(self.density.sum())

    @property
    def covariance(self) -> Float[Tensor, "n n"]:
        """Cov(f), in float64."""
        own = torch.eye(self.size, dtype=torch.float64) / self.size
        mean = torch.zeros(self.size, dtype=torch.float64)
        if self.shape == "orthant":
            own, mean = own / 12 + torch.full_like(own, 1 / self.size), mean + self.size**-0.5
        if self.shape == "clusters" and self.clusters == 2:
            # Two opposite points fill no circle: the first axis has the variance of the cosine.
            wobble = math.exp(-2 * self._wobble**2)
            own = torch.diag(torch.tensor([(1 + wobble) / 2, (1 - wobble) / 2], dtype=torch.float64))
        p = self._gates.density
        second, first = self.magnitude.square, self.magnitude.mean
        parts = [q * second * own - (q * first) ** 2 * torch.outer(mean, mean) for q in p.tolist()]
        return torch.block_diag(*parts)

    @property
    def _wobble(self) -> float:
        return self.spread * 2 * math.pi / self.clusters

    def sample(self, count: int, *, generator: torch.Generator | None = None) -> SparseCode:
        """`count` rows of f.

        Raises:
            ValueError: if count is not positive.
        """
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        gates = self._gates.sample(count, generator=generator)
        row, slot = (gates.values != 0).nonzero(as_tuple=True)
        block, strength = gates.indices[row, slot], gates.values[row, slot]
        value = strength[:, None] * self._points(len(row), generator)
        index = block[:, None] * self.size + torch.arange(self.size, device=block.device)
        rows = row[:, None].expand_as(index)
        return SparseCode.from_entries(rows.flatten(), index.flatten(), value.flatten(), (count, self.n))

    def _points(self, count: int, generator: torch.Generator) -> Float[Tensor, "count size"]:
        device = generator.device
        if self.shape == "clusters":
            point = torch.randint(self.clusters, (count,), generator=generator, device=device)
            angle = point * (2 * math.pi / self.clusters)
            angle = angle + self._wobble * torch.randn(count, generator=generator, device=device)
            return torch.stack([angle.cos(), angle.sin()], 1)
        if self.shape == "orthant":
            return (torch.rand(count, self.size, generator=generator, device=device) + 0.5) * self.size**-0.5
        normal = torch.randn(count, self.size, generator=generator, device=device)
        return normal * self.size**-0.5 if self.shape == "gaussian" else torch.nn.functional.normalize(normal, dim=1)
