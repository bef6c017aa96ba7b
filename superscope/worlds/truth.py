"""What is there to be found? Irreducible components: how many, of how many dimensions, how dense, and could anybody."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core import Dictionary, ShapeError
from ..theory import regime


@dataclass(frozen=True, eq=False)
class Truth:
    """The components of a source, each spanned by atoms that are active together.

    A component is what cannot be taken apart further: mostly one feature of one atom; a ring is one component of two
    dimensions, however many directions a learner tiles it with, and a feature of m dimensions is one of m, whose basis
    is anybody's choice. Counting means counting components.

    Args:
        dictionary: the atoms, those of one component in any basis of it; none in a null.
        component: the component of each atom, numbered from 0 without gaps.
        density: P(active) of each component.
        l0: atoms active in a row on average.
        rows: number of each atom in the codes of the source's batches; None where these are numbered as the atoms are.

    Raises:
        ShapeError: if atoms, components, densities and rows disagree in number.
    """

    dictionary: Dictionary
    component: Int[Tensor, "n"]
    density: Float[Tensor, "components"]
    l0: float
    rows: Int[Tensor, "n"] | None = None

    def __post_init__(self) -> None:
        numbers = self.component.unique()
        if len(self.component) != self.dictionary.n or len(numbers) != len(self.density):
            raise ShapeError(
                f"Truth: {self.dictionary.n} atoms, a component for {len(self.component)} of them, and densities of "
                f"{len(self.density)} components for {len(numbers)} there are. Give one component per atom and one "
                "density per component."
            )
        if self.rows is not None and len(self.rows) != self.dictionary.n:
            raise ShapeError(f"Truth: {len(self.rows)} rows for {self.dictionary.n} atoms. Give one per atom.")

    @classmethod
    def none(cls, d: int) -> Truth:
        """Nothing to be found in d dimensions: a null."""
        empty = torch.empty(0, d)
        return cls(Dictionary(empty), torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.float64), 0.0)

    @property
    def n(self) -> int:
        """Number of components."""
        return len(self.density)

    @property
    def d(self) -> int:
        """Dimension of x."""
        return self.dictionary.d

    def count(self, p0: float | int = 0.0) -> int:
        """n(p0): components that are ever active, and with density p0 or more."""
        return int(((self.density > 0) & (self.density >= p0)).sum())

    @cached_property
    def dimensions(self) -> Int[Tensor, "components"]:
        """Atoms of each component."""
        return torch.bincount(self.component, minlength=self.n)

    @cached_property
    def interference(self) -> Float[Tensor, "n"]:
        r"""$I_i = \sum_j \langle \hat w_i, \hat w_j \rangle^2$ over atoms j of other components, in float64.

        What reading feature i by its own atom picks up, were all features active once. Costs O(n d^2).
        """
        if not self.n:
            return torch.empty(0, dtype=torch.float64)
        unit = self.dictionary.unit().atoms.double()
        everything = ((unit @ (unit.T @ unit)) * unit).sum(1)
        # Pairs within a component, found by rolling its atoms, which stand together after sorting.
        order = self.component.argsort(stable=True)
        own, component = unit[order], self.component[order]
        within = torch.ones(len(order), dtype=torch.float64)
        for step in range(1, int(self.dimensions.max())):
            same = component[step:] == component[:-step]
            squares = torch.where(same, (own[step:] * own[:-step]).sum(1).square(), 0.0)
            within[step:] += squares
            within[:-step] += squares
        return (everything - torch.empty_like(within).index_copy_(0, order, within)).clamp(min=0)

    @property
    def kappa_cs(self) -> float:
        """`theory.kappa_cs` of the atoms: above 1 nobody can read f back from x and W. 0 where there is nothing."""
        return regime.kappa_cs(self.dictionary.n, self.d, self.l0) if self.n and self.l0 else 0.0

    @property
    def kappa_lin(self) -> float:
        """`theory.kappa_lin` of the atoms: where it is large no linear read-out is exact. 0 where there is nothing."""
        return regime.kappa_lin(self.dictionary.n, self.d, self.l0) if self.n and self.l0 else 0.0

    def __str__(self) -> str:
        if not self.n:
            return f"nothing to be found in d = {self.d}: a null"
        sizes, counts = self.dimensions.unique(return_counts=True)
        what = ", ".join(
            f"{count} of {size} dimension{'s' * (size > 1)}"
            for size, count in zip(sizes.tolist(), counts.tolist(), strict=True)
        )
        if self.kappa_cs >= 1:
            verdict = "nobody can read them back, so a low score or an abstention is right"
        elif self.kappa_lin >= 1:
            verdict = "sparse decoding can read them back, a linear read-out cannot do so exactly"
        else:
            verdict = "even a linear read-out can read them back"
        return (
            f"{self.n} components ({what}) in d = {self.d}, densities {float(self.density.min()):.3g} to "
            f"{float(self.density.max()):.3g}, {self.l0:.3g} atoms active on average, interference "
            f"{float(self.interference.mean()):.3g}; kappa_cs = {self.kappa_cs:.2f}, kappa_lin = {self.kappa_lin:.2f}: "
            f"{verdict}"
        )
