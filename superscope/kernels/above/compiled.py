"""One pass over a row while it is in the first cache: sixteen comparisons at once, a closer look where one holds."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..loops import compiled, in_threads

# Entries that are tested together, and the share of them that room is made for.
_GROUP, _ROOM = 64, 16


def above(
    pre: Float[Tensor, "b n"], floor: Float[Tensor, "..."]
) -> tuple[Int[Tensor, "m"], Int[Tensor, "m"], Float[Tensor, "m"]] | None:
    """As the reference; None where more than one entry in 16 is above, for which this is not made."""
    floors = floor.expand(pre.shape[1]).contiguous().numpy()

    def work(part: slice) -> tuple[Tensor, Tensor, Tensor] | None:
        given = pre[part]
        room = given.numel() // _ROOM + _GROUP
        rows, columns = torch.empty(2, room, dtype=torch.int64)
        values = pre.new_empty(room)
        found = _above(given.numpy(), floors, part.start, rows.numpy(), columns.numpy(), values.numpy())
        # Copies, so that the room that was left over is given back.
        return None if found < 0 else (rows[:found].clone(), columns[:found].clone(), values[:found].clone())

    parts = in_threads(work, len(pre))
    whole = [part for part in parts if part is not None]
    if len(whole) < len(parts):
        return None
    if len(whole) == 1:
        return whole[0]
    rows, columns, values = (torch.cat(given) for given in zip(*whole, strict=True))
    return rows, columns, values


@compiled
def _above(
    pre: np.ndarray, floors: np.ndarray, first: int, rows: np.ndarray, columns: np.ndarray, values: np.ndarray
) -> int:
    """How many are above; -1 where there is no room for them."""
    n, found = pre.shape[1], 0
    for b in range(pre.shape[0]):
        row = pre[b]
        for start in range(0, n, _GROUP):
            part, low = row[start : start + _GROUP], floors[start : start + _GROUP]
            width = part.shape[0]
            some = np.int32(0)
            # A constant length is what lets the comparisons be made side by side.
            if width == _GROUP:
                for i in range(_GROUP):
                    some += np.int32(part[i] > low[i])
                if some == 0:
                    continue
            if found + width > rows.shape[0]:
                return -1
            for i in range(width):
                if part[i] > low[i]:
                    rows[found] = first + b
                    columns[found] = start + i
                    values[found] = part[i]
                    found += 1
    return found
