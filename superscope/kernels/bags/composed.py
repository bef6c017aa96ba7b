"""The three sums from torch's own pieces, for any device: nothing of m x d is held.

`F.embedding_bag` sums in both directions, one bag per row or, with the uses sorted by atom, one bag per atom; products
of rows with atoms are its own gradient by the weights.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from .reference import rows_of


class Plan:
    """The uses in order of atom: what any version of `atom_sum` goes through.

    Args:
        columns: the atom of each use.
        offsets: where each row's uses begin, and where the last one's end.
        n: number of atoms.
        rows: the row of each use, where that is known; else made of offsets.

    Attributes:
        order: the uses, sorted by atom; stable, so that sums are made in one order on every run.
        rows: their rows.
        starts: where each atom's uses begin, and where the last one's end.
    """

    def __init__(
        self,
        columns: Int[Tensor, "m"],
        offsets: Int[Tensor, "b1"],
        n: int,
        *,
        rows: Int[Tensor, "m"] | None = None,
    ) -> None:
        # Stable, so that sums are made in one order on every run; short numbers sort in fewer passes.
        short = torch.int16 if n < 2**15 else torch.int32
        used, self.order = columns.to(short).sort(stable=True)
        self.rows = (rows_of(offsets, len(columns)) if rows is None else rows)[self.order]
        if columns.is_cuda:
            # A count would wait for the device, to learn how many numbers it has to count.
            self.starts = torch.searchsorted(used, torch.arange(n + 1, dtype=short, device=columns.device))
            return
        self.starts = torch.zeros(n + 1, dtype=torch.long, device=columns.device)
        torch.cumsum(torch.bincount(columns, minlength=n), 0, out=self.starts[1:])

    def part(self, first: int, past: int, begin: int, end: int) -> Plan:
        """The uses of atoms `first` to `past` alone, which stand from `begin` to `end`."""
        plan = object.__new__(Plan)
        plan.order, plan.rows = self.order[begin:end], self.rows[begin:end]
        plan.starts = self.starts[first : past + 1] - begin
        return plan


def bag_sum(
    values: Float[Tensor, "m"], columns: Int[Tensor, "m"], offsets: Int[Tensor, "b1"], atoms: Float[Tensor, "n d"]
) -> Float[Tensor, "b d"]:
    """As the reference, without gradients of its own to offer."""
    return F.embedding_bag(columns, atoms, offsets, per_sample_weights=values, mode="sum", include_last_offset=True)


def bag_dot(
    rows: Float[Tensor, "b d"], columns: Int[Tensor, "m"], offsets: Int[Tensor, "b1"], atoms: Float[Tensor, "n d"]
) -> Float[Tensor, "m"]:
    """As the reference; torch's gradient of the bag by its weights is this very product."""
    if rows.is_cuda and rows.dtype == torch.bfloat16:
        # Torch has it there in float16, float32 and float64 only.
        return bag_dot(rows.float(), columns, offsets, atoms.float()).to(rows.dtype)
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        rows.contiguous(), atoms, columns, offsets, rows_of(offsets, len(columns)), 0
    )


def atom_sum(values: Float[Tensor, "m"], rows: Float[Tensor, "b d"], plan: Any) -> Float[Tensor, "n d"]:
    """As the reference, over a plan."""
    return F.embedding_bag(
        plan.rows, rows, plan.starts, per_sample_weights=values[plan.order], mode="sum", include_last_offset=True
    )
