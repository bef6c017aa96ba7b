"""Nulls: rows with covariance, heavy tails or memory, and not one feature in them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import Activations, ActivationSource, ShapeError
from ..features import ONE, Magnitude
from .alter import first_rows
from .drawn import DrawnSource
from .truth import Truth


@dataclass(frozen=True, eq=False)
class Elliptical(DrawnSource):
    r"""$x_t = \mu + s_t z_t R$, $z_t = \phi z_{t-1} + \sqrt{1 - \phi^2}\, \varepsilon_t$, $\varepsilon$ normal.

    A Gaussian of covariance $R^\top R$ where s is 1 and phi 0; a Gaussian scale mixture, heavy in all directions
    alike, where s varies; rows that remember the one before, where phi is not 0. Memory runs within a batch: each
    batch begins anew from the same law. There is nothing to be found in any of them.

    Args:
        root: R.
        mean: mu; None is 0.
        scale: the law of s, one for each row.
        memory: phi, the correlation of a row with the one before, in (-1, 1).
        radii: lengths that z is given instead of its own, one drawn for each row; None leaves it its own.

    Raises:
        ShapeError: if root is not square, or the mean does not fit it.
        ValueError: if memory is outside (-1, 1), or there are no radii in the tensor of them.

    Example:
        >>> next(Elliptical(torch.eye(3)).batches(2, seed=0)).x.shape
        torch.Size([2, 3])
    """

    root: Float[Tensor, "m m2"]
    mean: Float[Tensor, "d"] | None = None
    scale: Magnitude = ONE
    memory: float | int = 0.0
    radii: Float[Tensor, "r"] | None = None

    def __post_init__(self) -> None:
        if self.root.shape[0] != self.root.shape[1] or (self.mean is not None and len(self.mean) != len(self.root)):
            raise ShapeError(
                f"Elliptical: root is (d, d) and the mean (d); got {tuple(self.root.shape)} and "
                f"{None if self.mean is None else tuple(self.mean.shape)}."
            )
        if not -1 < self.memory < 1:
            raise ValueError(f"Elliptical: memory is a correlation in (-1, 1); got {self.memory}.")
        if self.radii is not None and not len(self.radii):
            raise ValueError("Elliptical: radii is empty; give lengths to draw from, or None.")

    @property
    def d(self) -> int:  # type: ignore[override]
        """Dimension of x."""
        return len(self.root)

    @property
    def device(self) -> torch.device:
        """Where rows are drawn."""
        return self.root.device

    @cached_property
    def truth(self) -> Truth:
        """Nothing."""
        return Truth.none(self.d)

    @torch.no_grad()
    def draw(self, rows: int, *, generator: torch.Generator) -> Activations:
        """Rows of x; they carry no f, for there is none.

        Raises:
            ValueError: if rows is below 1.
        """
        if rows < 1:
            raise ValueError(f"Elliptical: a batch needs at least 1 row; got {rows}.")
        z = torch.randn(rows, self.d, generator=generator, device=self.device)
        if self.memory:
            z[1:] *= (1 - self.memory**2) ** 0.5
            for t in range(1, rows):
                z[t] += self.memory * z[t - 1]
        if self.radii is not None:
            lot = torch.randint(len(self.radii), (rows, 1), generator=generator, device=self.device)
            z *= self.radii[lot].to(z) / z.norm(dim=1, keepdim=True)
        if self.scale != ONE:
            z *= self.scale.quantile(torch.rand(rows, 1, generator=generator, device=self.device))
        x = z.to(self.root) @ self.root
        return Activations(x if self.mean is None else x + self.mean)


def surrogate(source: ActivationSource, *, rows: int = 65_536, seed: int = 0, keep_radii: bool = False) -> Elliptical:
    r"""Rows of the same mean and covariance as a source, and nothing else of it: what second moments alone show.

    Args:
        source: anything with rows.
        rows: of it that mean and covariance are taken from.
        seed: of these rows.
        keep_radii: whether whitened rows keep their lengths too, each in a direction drawn anew: then only the
            directions are lost, and tails are as heavy as they were.

    Raises:
        ValueError: if the source has fewer than two rows.
    """
    x = first_rows(source, rows, seed=seed).double()
    if len(x) < 2:
        raise ValueError(f"surrogate: a covariance needs at least 2 rows; the source gave {len(x)}.")
    mean = x.mean(0)
    values, axes = torch.linalg.eigh(torch.cov(x.T).reshape(x.shape[1], x.shape[1]))
    root = (axes * values.clamp(min=0).sqrt()) @ axes.T
    radii = None
    if keep_radii:
        # Directions without variance have nothing to say of a length.
        kept = values > 1e-10 * values[-1]
        white = (x - mean) @ axes[:, kept] / values[kept].sqrt()
        radii = (white.norm(dim=1) * (x.shape[1] / int(kept.sum())) ** 0.5).float()
    return Elliptical(root.float(), mean.float(), radii=radii)
