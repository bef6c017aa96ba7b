"""The symbol f: which features are active in each row, and how strongly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .errors import ShapeError


@dataclass(frozen=True, eq=False)
class SparseCode:
    """f: at most k nonzeros in each row of n numbers; an unused slot holds value 0 (its index is then ignored).

    A dense code for 4 096 rows and 131 072 latents is 2 GiB in float32; its 64 nonzeros per row are 3 MB. No index
    occurs twice with a nonzero value in one row.

    Args:
        values: the nonzero entries.
        indices: where they stand, in [0, n).
        n: length of a dense row.

    Raises:
        ShapeError: if values and indices differ in shape.
        ValueError: if an index lies outside [0, n).
    """

    values: Float[Tensor, "*batch k"]
    indices: Int[Tensor, "*batch k"]
    n: int

    def __post_init__(self) -> None:
        if self.values.shape != self.indices.shape:
            raise ShapeError(
                f"SparseCode: values {tuple(self.values.shape)} and indices {tuple(self.indices.shape)} must agree."
            )
        if self.indices.numel() and not (0 <= int(self.indices.min()) and int(self.indices.max()) < self.n):
            raise ValueError(
                f"SparseCode: indices must lie in [0, {self.n}); they run from {int(self.indices.min())} "
                f"to {int(self.indices.max())}. Pass n = the number of atoms they index."
            )

    @classmethod
    def from_dense(cls, f: Float[Tensor, "*batch n"]) -> SparseCode:
        """The sparse form of dense rows, exact: k is the largest number of nonzeros of any row (at least 1).

        Example:
            >>> SparseCode.from_dense(torch.tensor([[0.0, 2.0, 0.0]])).indices
            tensor([[1]])
        """
        k = max(int((f != 0).sum(-1).max()), 1) if f.numel() else 1
        # Largest magnitudes first finds every nonzero, whatever its sign.
        indices = f.abs().topk(min(k, f.shape[-1]), dim=-1).indices
        return cls(f.gather(-1, indices), indices, f.shape[-1])

    @classmethod
    def from_entries(
        cls, rows: Int[Tensor, "e"], indices: Int[Tensor, "e"], values: Float[Tensor, "e"], shape: tuple[int, int]
    ) -> SparseCode:
        """Entries in any order, none of them twice; within a row they come to stand by index.

        Args:
            rows, indices, values: of the nonzeros.
            shape: number of rows, and n.

        Example:
            >>> one = torch.tensor([1.0])
            >>> SparseCode.from_entries(torch.tensor([1]), torch.tensor([2]), one, (2, 3)).dense()
            tensor([[0., 0., 0.],
                    [0., 0., 1.]])
        """
        count, n = shape
        order = (rows * n + indices).argsort()
        rows, indices, values = rows[order], indices[order], values[order]
        per_row = torch.bincount(rows, minlength=count)
        k = max(int(per_row.max()), 1)
        place = torch.arange(len(rows), device=rows.device) - (per_row.cumsum(0) - per_row)[rows]
        slots, at = values.new_zeros(count, k), indices.new_zeros(count, k)
        slots[rows, place], at[rows, place] = values, indices
        return cls(slots, at, n)

    def dense(self) -> Float[Tensor, "*batch n"]:
        """Rows of n numbers, zeros written out."""
        f = self.values.new_zeros(*self.values.shape[:-1], self.n)
        # scatter_add, since an unused slot may carry the index of a used one.
        return f.scatter_add(-1, self.indices, self.values)

    @property
    def k(self) -> int:
        """Slots per row: an upper bound on the nonzeros."""
        return self.values.shape[-1]

    @property
    def l0(self) -> Int[Tensor, "*batch"]:
        """Nonzeros per row."""
        return (self.values != 0).sum(-1)

    @property
    def uses(self) -> Int[Tensor, "n"]:
        """Rows in which each index is nonzero."""
        return self.indices[self.values != 0].bincount(minlength=self.n)

    @property
    def support(self) -> Bool[Tensor, "*batch n"]:
        """Where a row is nonzero, as a dense mask."""
        return self.dense() != 0

    def __len__(self) -> int:
        return self.values.shape[0]

    def __getitem__(self, rows: slice | Tensor) -> SparseCode:
        return SparseCode(self.values[rows], self.indices[rows], self.n)

    def to(self, device: torch.device | str) -> SparseCode:
        return SparseCode(self.values.to(device), self.indices.to(device), self.n)
