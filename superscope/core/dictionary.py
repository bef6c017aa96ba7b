"""The symbol W: the directions that a representation is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..kernels import gather_sum
from .code import SparseCode
from .errors import ShapeError, nearest


@dataclass(frozen=True, eq=False)
class Dictionary:
    """W: n atoms in R^d, one per row of `atoms`, so that x = f @ atoms + bias.

    Rows, not columns: taking k atoms is then a contiguous read and batch-first code reads `f @ atoms`. The formula's
    d x n matrix is the property `W`. Nothing is normalised silently; `unit()` returns a normalised copy.

    Args:
        atoms: one atom per row.
        bias: added to every composed x; None is zero.
        labels: a name per atom, for `dictionary["name"]`.

    Raises:
        ShapeError: if `atoms` is not a matrix, or bias or labels do not fit it.
        ValueError: if an entry is NaN or infinite, with the first such atom named.
    """

    atoms: Float[Tensor, "n d"]
    bias: Float[Tensor, "d"] | None = None
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.atoms.ndim != 2:
            raise ShapeError(
                f"Dictionary: atoms must be a matrix of n rows in R^d; got shape {tuple(self.atoms.shape)}."
            )
        if not self.atoms.is_floating_point():
            raise TypeError(f"Dictionary: atoms must be floating point; got {self.atoms.dtype}. Convert with .float().")
        finite = torch.isfinite(self.atoms.detach()).all(-1)
        if not bool(finite.all()):
            raise ValueError(
                f"Dictionary: atom {int((~finite).nonzero()[0])} has a NaN or infinite entry. Remove or repair it."
            )
        if self.bias is not None and self.bias.shape != (self.d,):
            raise ShapeError(f"Dictionary: bias must have d = {self.d} entries; got shape {tuple(self.bias.shape)}.")
        if self.labels is not None and len(self.labels) != self.n:
            raise ShapeError(f"Dictionary: {len(self.labels)} labels for {self.n} atoms. Give one label per atom.")

    @property
    def n(self) -> int:
        """Number of atoms."""
        return self.atoms.shape[0]

    @property
    def d(self) -> int:
        """Dimension of x."""
        return self.atoms.shape[1]

    @property
    def W(self) -> Float[Tensor, "d n"]:
        """The formula's matrix, one atom per column (a view)."""
        return self.atoms.T

    @property
    def norms(self) -> Float[Tensor, "n"]:
        """Euclidean norm of each atom."""
        return self.atoms.norm(dim=1)

    def unit(self) -> Dictionary:
        """The same directions with norm 1, in the same order.

        Raises:
            ValueError: if an atom is zero, since it has no direction.
        """
        norms = self.norms
        if bool((norms == 0).any()):
            raise ValueError(
                f"Dictionary.unit: atom {int((norms == 0).nonzero()[0])} is zero and has no direction. Drop it first."
            )
        return Dictionary(self.atoms / norms[:, None], self.bias, self.labels)

    def compose(self, code: SparseCode | Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch d"]:
        """x = W f + bias, for a sparse or a dense f.

        Raises:
            ShapeError: if f has another number of features than there are atoms.
        """
        features = code.n if isinstance(code, SparseCode) else code.shape[-1]
        if features != self.n:
            raise ShapeError(
                f"Dictionary.compose: code indexes {features} features but this dictionary has {self.n} atoms. "
                "Encode and compose with one dictionary."
            )
        x = gather_sum(code.values, code.indices, self.atoms) if isinstance(code, SparseCode) else code @ self.atoms
        return x if self.bias is None else x + self.bias

    def __getitem__(self, atom: int | str) -> Float[Tensor, "d"]:
        """One atom, by number or by label.

        Raises:
            KeyError: if no atom has that label; the nearest are offered.
            IndexError: if there are fewer atoms.
        """
        if isinstance(atom, str):
            if self.labels is None or atom not in self.labels:
                raise KeyError(f"no atom is labelled {atom!r}.{nearest(atom, self.labels or ())}")
            atom = self.labels.index(atom)
        return self.atoms[atom]

    def __len__(self) -> int:
        return self.n

    def __repr__(self) -> str:
        return f"Dictionary(n={self.n}, d={self.d}, {str(self.atoms.dtype).removeprefix('torch.')})"

    def to(self, *target: Any) -> Dictionary:
        """The same dictionary on another device or in another dtype, given as to `Tensor.to`."""
        return Dictionary(self.atoms.to(*target), None if self.bias is None else self.bias.to(*target), self.labels)
