"""The atoms of W as directions, and every pair of them block by block: the n x n Gram matrix is never held."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core import Dictionary, ShapeError

_CANDIDATES = 2**20
"""Pairs that are kept at once while the closest are looked for."""


@dataclass(frozen=True, eq=False)
class Directions:
    """The nonzero atoms, as given and normalised, and where they stood."""

    atoms: Float[Tensor, "m d"]
    unit: Float[Tensor, "m d"]
    index: Int[Tensor, "m"]
    caution: str

    @classmethod
    def of(cls, W: Dictionary, caller: str, least: int = 2) -> Directions:
        atoms = working_atoms(W, caller)
        # Scaled by the largest entry first, so that norms of tiny or huge atoms neither underflow nor overflow.
        peak = torch.linalg.vector_norm(atoms, ord=math.inf, dim=1)
        index = peak.nonzero()[:, 0]
        zeros = W.n - len(index)
        if len(index) < least:
            raise ValueError(
                f"{caller}: W must have at least {least} nonzero atoms; it has {len(index)} of {W.n}. "
                "An overlap needs two directions."
            )
        if zeros:
            atoms, peak = atoms[index], peak[index]
        unit = atoms / peak[:, None]
        unit /= torch.linalg.vector_norm(unit, dim=1, keepdim=True)
        caution = f"{zeros} zero atom{'s' if zeros > 1 else ''} left out" if zeros else ""
        return cls(atoms, unit, index, caution)


def working_atoms(W: Dictionary, caller: str) -> Float[Tensor, "n d"]:
    """The atoms in float32 or float64."""
    if not isinstance(W, Dictionary):
        shape = f" of shape {tuple(W.shape)}" if isinstance(W, Tensor) else ""
        raise TypeError(
            f"{caller}: W must be a Dictionary; got {type(W).__name__}{shape}. "
            "Write Dictionary(matrix) with one atom per row: n x d, not the formula's d x n."
        )
    atoms = W.atoms.detach()
    return atoms if atoms.dtype in (torch.float32, torch.float64) else atoms.float()


def per_atom(W: Dictionary, given: Tensor, caller: str, name: str) -> Float[Tensor, "n"]:
    if given.shape != (W.n,):
        raise ShapeError(f"{caller}: {name} must have n = {W.n} entries, one per atom; got shape {tuple(given.shape)}.")
    given = given.detach().to(W.atoms.device).double()
    if not bool(torch.isfinite(given).all()) or bool((given < 0).any()):
        raise ValueError(f"{caller}: {name} must be finite and at least 0.")
    if not bool((given * (W.atoms.detach() != 0).any(1)).any()):
        raise ValueError(f"{caller}: {name} must not be 0 for every nonzero atom.")
    return given


def whole(caller: str, name: str, value: int, least: int) -> int:
    if not hasattr(value, "__index__"):
        raise TypeError(f"{caller}: {name} must be a whole number; got {value!r}. Pass an int.")
    if value < least:
        raise ValueError(f"{caller}: {name} must be at least {least}; got {value}.")
    return int(value)


def block_size(unit: Tensor, block: int | None) -> int:
    if block is not None:
        return whole("geometry", "block", block, 1)
    # 2048: a float32 block (16 MB) still mostly in cache, and GEMM at its peak; GPUs need larger tiles to fill up.
    return 2048 if unit.device.type == "cpu" else 8192


def cosine_blocks(unit: Float[Tensor, "n d"], block: int) -> Iterator[tuple[int, int, Float[Tensor, "rows columns"]]]:
    """(first row, first column, cosines) over the upper triangle of blocks. The tensor is reused."""
    n = len(unit)
    buffer = unit.new_empty(min(block, n) ** 2)
    for first in range(0, n, block):
        rows = unit[first : first + block]
        for second in range(first, n, block):
            columns = unit[second : second + block]
            cosines = buffer[: len(rows) * len(columns)].view(len(rows), len(columns))
            torch.mm(rows, columns.T, out=cosines)
            yield first, second, cosines


def largest_overlaps(unit: Float[Tensor, "n d"], block: int) -> tuple[Float[Tensor, "n"], Int[Tensor, "n"]]:
    """Per atom the largest |cosine| and the first atom of the block that holds its partner.

    Only values are reduced here: a maximum with its index costs 7 (rows) to 35 ms (columns) per 2048^2 block where the
    bare maximum costs 1 and 2.5, beside 48 for the product itself. `partners` then looks in one block per atom.
    """
    best = unit.new_full((len(unit),), -1.0)
    where = torch.zeros(len(unit), dtype=torch.int64, device=unit.device)

    def update(start: int, values: Tensor, held_by: int) -> None:
        stretch = slice(start, start + len(values))
        where[stretch] = torch.where(values > best[stretch], held_by, where[stretch])
        best[stretch] = torch.maximum(best[stretch], values)

    for first, second, cosines in cosine_blocks(unit, block):
        cosines.abs_()
        if first == second:
            cosines.fill_diagonal_(-1.0)
        update(first, cosines.amax(1), second)
        if first != second:
            update(second, cosines.amax(0), first)
    return best, where


def partners(
    unit: Float[Tensor, "n d"], rows: Int[Tensor, "m"], where: Int[Tensor, "m"], block: int
) -> Int[Tensor, "m"]:
    """For each of `rows`, the atom in the block starting at `where` with the largest |cosine|, itself excepted."""
    partner = torch.empty_like(rows)
    for start in where.unique().tolist():
        for part in (where == start).nonzero()[:, 0].split(block):
            cosines = (unit[rows[part]] @ unit[start : start + block].T).abs_()
            own = rows[part] - start
            inside = ((own >= 0) & (own < cosines.shape[1])).nonzero()[:, 0]
            cosines[inside, own[inside]] = -1.0
            partner[part] = cosines.argmax(1) + start
    return partner


def exact_cosines(
    atoms: Float[Tensor, "n d"], first: Int[Tensor, "pairs"], second: Int[Tensor, "pairs"]
) -> Float[Tensor, "pairs"]:
    """Cosines of listed pairs in float64, from the atoms as given."""
    cosines = []
    for i, j in zip(first.split(4096), second.split(4096)):
        a, b = atoms[i].double(), atoms[j].double()
        a /= torch.linalg.vector_norm(a, ord=math.inf, dim=1, keepdim=True)
        b /= torch.linalg.vector_norm(b, ord=math.inf, dim=1, keepdim=True)
        cosines.append((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)))
    return torch.cat(cosines).clamp_(-1, 1)


def pairs_above(
    unit: Float[Tensor, "n d"], most: int, block: int, slack: float
) -> tuple[Int[Tensor, "pairs"], Int[Tensor, "pairs"]] | None:
    """Every pair within `slack` of the `most`-th largest |cosine|; None where that is too many to keep.

    A block's entries are looked at only where the block's row maxima exceed what has been found.
    """
    values = unit.new_zeros(0)
    first = torch.zeros(0, dtype=torch.int64, device=unit.device)
    second = first.clone()
    bar = -math.inf
    for start, other, cosines in cosine_blocks(unit, block):
        cosines.abs_()
        if start == other:
            # Each pair once, an atom never with itself.
            cosines.masked_fill_(torch.ones_like(cosines, dtype=torch.bool).tril_(), -1.0)
        # At slack 0 strictly above: a frame whose cosines are all equal would otherwise keep every pair.
        rows = (cosines.amax(1) > max(bar - slack, -0.5)).nonzero()[:, 0]
        if not len(rows):
            continue
        some = cosines[rows]
        if math.isinf(bar):
            # Nothing to compare with yet: the block's own `most`-th sets the bar.
            best = some.flatten().topk(min(most, some.numel())).values
            level = float(best[-1]) - slack if len(best) == most else -0.5
            where = (some >= max(level, -0.5)).nonzero()
            if slack == 0.0 and len(where) > most:
                where = where[some[where[:, 0], where[:, 1]].argsort(descending=True)[:most]]
        else:
            where = (some > bar - slack).nonzero()
        values = torch.cat([values, some[where[:, 0], where[:, 1]]])
        first = torch.cat([first, rows[where[:, 0]] + start])
        second = torch.cat([second, where[:, 1] + other])
        if len(values) >= most:
            order = values.argsort(descending=True)
            bar = float(values[order[most - 1]])
            order = order[:most] if slack == 0.0 else order[values[order] >= bar - slack]
            values, first, second = values[order], first[order], second[order]
        if len(values) > _CANDIDATES + most:
            return None
    return first, second


def gram_of_smaller_side(rows: Float[Tensor, "n d"]) -> Float[Tensor, "m m"]:
    """A matrix with the nonzero eigenvalues of W W^T: d x d, or n x n where n < d. Summed in float64 over chunks."""
    n, d = rows.shape
    matrix = torch.zeros(min(n, d), min(n, d), dtype=torch.float64, device=rows.device)
    if n <= d:
        for part in rows.T.split(8192):
            matrix += (part.T @ part).double()
    else:
        for part in rows.split(8192):
            matrix += (part.T @ part).double()
    return matrix
