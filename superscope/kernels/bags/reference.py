"""The slow, obvious forms that judge the others. They hold (m, d)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def rows_of(offsets: Int[Tensor, "b1"], uses: int | None = None) -> Int[Tensor, "m"]:
    """The row of each use: row b holds uses offsets[b] to offsets[b + 1]. A GPU is not waited for if `uses` says m."""
    rows = torch.arange(len(offsets) - 1, device=offsets.device)
    return torch.repeat_interleave(rows, offsets.diff(), output_size=uses)


def bag_sum(
    values: Float[Tensor, "m"], columns: Int[Tensor, "m"], offsets: Int[Tensor, "b1"], atoms: Float[Tensor, "n d"]
) -> Float[Tensor, "b d"]:
    """x_b = sum of values_m atoms_{column(m)} over the uses m of row b."""
    return atoms.new_zeros(len(offsets) - 1, atoms.shape[1]).index_add(
        0, rows_of(offsets), values[:, None] * atoms[columns]
    )


def bag_dot(
    rows: Float[Tensor, "b d"], columns: Int[Tensor, "m"], offsets: Int[Tensor, "b1"], atoms: Float[Tensor, "n d"]
) -> Float[Tensor, "m"]:
    """v_m = <rows_{row(m)}, atoms_{column(m)}>."""
    return (rows[rows_of(offsets)] * atoms[columns]).sum(1)


def atom_sum(
    values: Float[Tensor, "m"],
    columns: Int[Tensor, "m"],
    offsets: Int[Tensor, "b1"],
    rows: Float[Tensor, "b d"],
    n: int,
) -> Float[Tensor, "n d"]:
    """g_i = sum of values_m rows_{row(m)} over the uses m of atom i."""
    return rows.new_zeros(n, rows.shape[1]).index_add(0, columns, values[:, None] * rows[rows_of(offsets)])
