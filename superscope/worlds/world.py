"""Where truth is known: activations composed from a law of features, a dictionary, noise and nuisance."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core import Activations, Dictionary, ShapeError, SparseCode
from ..theory import regime
from .drawn import DrawnSource
from .truth import Truth

_ROWS = 2**16
"""Rows that densities are measured on where the law does not say them."""


@runtime_checkable
class FeatureLaw(Protocol):
    """What a world asks of a law of f: every distribution of `features/` has it, and so may any class of your own.

    Where it has a `density` too, P(f_i != 0) of each feature, the world's truth takes it from there; else it is
    measured.
    """

    @property
    def n(self) -> int:
        """Number of features."""
        ...

    @property
    def l0(self) -> float:
        """Expected number of active features."""
        ...

    def sample(self, count: int, *, generator: torch.Generator | None = None) -> SparseCode:
        """`count` rows of f."""
        ...


@dataclass(frozen=True, eq=False)
class World(DrawnSource):
    r"""$x = W f + b + V g + \sigma \varepsilon$: f from a law, g and epsilon standard normal.

    An unbounded source whose batches carry the f that made them.

    Args:
        features: law of f.
        dictionary: W and b: the truth that a learner is to find.
        noise: sigma, the standard deviation of white noise in each coordinate.
        nuisance: V, one row per direction: variance of x that is nobody's feature, dense and Gaussian, of the length
            of the row in that direction. None is none.
        component: which component each atom belongs to, numbered from 0; -1 is none, for an atom that is not to be
            found. Atoms of one component are active in the same rows. None: each atom is one.
        network: what the network that holds x makes of it, rows of x to rows of outputs; None where there is none.

    Raises:
        ShapeError: if features and dictionary differ in n, nuisance and dictionary in d, or component and dictionary
            in n.
        ValueError: if noise is negative or not finite.

    Example:
        >>> from superscope.features import ExactlyK
        >>> from superscope.frames import random_unit
        >>> world = World(ExactlyK(n=32, k=2), random_unit(n=32, d=8))
        >>> batch = next(world.batches(4, seed=0))
        >>> torch.equal(batch.x, world.dictionary.compose(batch.code))
        True
    """

    features: FeatureLaw
    dictionary: Dictionary
    noise: float | int = 0.0
    nuisance: Dictionary | None = None
    component: Int[Tensor, "n"] | None = None
    network: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if self.features.n != self.dictionary.n:
            raise ShapeError(
                f"World: the law has {self.features.n} features and the dictionary {self.dictionary.n} atoms. "
                "Give one atom per feature."
            )
        if self.nuisance is not None and self.nuisance.d != self.dictionary.d:
            raise ShapeError(
                f"World: nuisance lives in d = {self.nuisance.d} and the dictionary in d = {self.dictionary.d}. "
                "Give directions of the same space."
            )
        if self.component is not None and len(self.component) != self.dictionary.n:
            raise ShapeError(
                f"World: {len(self.component)} components for {self.dictionary.n} atoms. Give one per atom, or none."
            )
        if not (math.isfinite(self.noise) and self.noise >= 0):
            raise ValueError(f"World: noise must be a finite standard deviation, at least 0; got {self.noise}.")

    @property
    def d(self) -> int:  # type: ignore[override]
        """Dimension of x."""
        return self.dictionary.d

    @property
    def n(self) -> int:
        """Number of features."""
        return self.dictionary.n

    @property
    def device(self) -> torch.device:
        """Where rows are drawn: the dictionary's."""
        return self.dictionary.atoms.device

    @property
    def kappa_cs(self) -> float:
        """`theory.kappa_cs` of all features: below 1 a sparse f can be read back; above 1 nobody can."""
        return regime.kappa_cs(self.n, self.d, self.features.l0)

    @property
    def kappa_lin(self) -> float:
        """`theory.kappa_lin` of all features: where it is large no linear read-out is exact."""
        return regime.kappa_lin(self.n, self.d, self.features.l0)

    @cached_property
    def density(self) -> Float[Tensor, "n"]:
        """P(f_i != 0): the law's own, else measured on 65 536 rows."""
        own = getattr(self.features, "density", None)
        if isinstance(own, Tensor):
            return own.double().cpu()
        code = self.features.sample(_ROWS, generator=torch.Generator(self.device).manual_seed(0))
        return code.uses.double().cpu() / _ROWS

    @cached_property
    def truth(self) -> Truth:
        """The components, and which atoms span them."""
        component = torch.arange(self.n) if self.component is None else self.component.cpu()
        rows = (component >= 0).nonzero()[:, 0]
        numbers, component = component[rows].unique(return_inverse=True)
        density = torch.zeros(len(numbers), dtype=torch.float64).scatter_reduce_(
            0, component, self.density[rows], "amax"
        )
        # Where no atom is left out, rows are numbered as atoms are.
        own = self.dictionary
        found = Dictionary(own.atoms.cpu()[rows], None if own.bias is None else own.bias.cpu())
        return Truth(found, component, density, float(self.density[rows].sum()), rows if len(rows) < self.n else None)

    @torch.no_grad()
    def draw(self, rows: int, *, generator: torch.Generator) -> Activations:
        """Rows of x with the f that made them, from a generator on the dictionary's device.

        Raises:
            ValueError: if rows is below 1.
        """
        if rows < 1:
            raise ValueError(f"World: a batch needs at least 1 row; got {rows}.")
        atoms = self.dictionary.atoms
        code = self.features.sample(rows, generator=generator)
        code = SparseCode(code.values.to(atoms.dtype), code.indices, code.n)
        x = self.dictionary.compose(code)
        if self.nuisance is not None:
            x = x + self._normal(rows, self.nuisance.n, generator) @ self.nuisance.atoms.to(atoms)
        if self.noise:
            x = x + self.noise * self._normal(rows, self.d, generator)
        return Activations(x, code=code)

    def _normal(self, rows: int, columns: int, generator: torch.Generator) -> Float[Tensor, "rows columns"]:
        return torch.randn(rows, columns, generator=generator, device=generator.device).to(self.dictionary.atoms)
