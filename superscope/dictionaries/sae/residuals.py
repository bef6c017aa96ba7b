"""With which atoms to begin? Directions of rows, each drawn where the atoms before it leave most."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

# Shares of the atoms that are drawn in one round, from the residuals that the rounds before leave.
_ROUNDS = (1 / 8, 1 / 8, 1 / 4, 1 / 2)
# Rows of a round, at least, and for each atom drawn from them.
_ROWS, _PER_ATOM = 2048, 2
_PURSUIT = 8
# Rows that are coded at once.
_AT_ONCE = 256
# The share of a mean row's energy below which a residual is nothing but rounding.
_NOTHING = 1e-9


@torch.no_grad()
def residual_atoms(
    atoms: Float[Tensor, "n d"], centre: Float[Tensor, "d"], batches: Iterator[Tensor], random: torch.Generator
) -> None:
    r"""Sets atoms to $r_b / |r_b|$, rows drawn without repetition with probability proportional to $|r_b|^2$.

    In four rounds of n/8, n/8, n/4 and n/2 atoms. Each reads rows of its own and codes them with the atoms so far, by
    eight steps of matching pursuit with positive values; r is what is left, in the first round the row about its
    centre. So every atom begins where some row needs it, and frequent directions are not taken many times over as by
    rows drawn evenly. Where r is nothing but rounding, the atom stays as it is.

    Costs the rows of about five batches, and O(n^2 d) time and O(n^2) memory for the atoms' products.

    Args:
        atoms: changed in place.
        centre: what is taken from x.
        batches: of x, as many as are wanted.
        random: of the draws.
    """
    n = len(atoms)
    edges = [0, *(round(n * sum(_ROUNDS[: i + 1])) for i in range(len(_ROUNDS)))]
    for first, past in itertools.pairwise(edges):
        wanted = past - first
        if not wanted:
            continue
        rows: list[Tensor] = []
        while sum(map(len, rows)) < max(_ROWS, _PER_ATOM * wanted):
            rows.append(next(batches) - centre)
        x = torch.cat(rows)
        products = atoms[:first] @ atoms[:first].T
        # In parts that stay in a processor's cache: each step of pursuit goes through all products with the atoms.
        left = torch.cat([_pursued(part, atoms[:first], products) for part in x.split(_AT_ONCE)])
        energy = left.double().square().sum(1)
        least = _NOTHING * float(x.double().square().sum(1).mean())
        drawn = torch.multinomial((energy + least).clamp(min=1e-300).cpu(), wanted, generator=random).to(atoms.device)
        # Where nothing is left a direction would be rounding: the atom stays the random one that it is.
        needed = (energy[drawn] > least)[:, None]
        atoms[first:past] = torch.where(needed, torch.nn.functional.normalize(left[drawn], dim=1), atoms[first:past])


def _pursued(
    x: Float[Tensor, "b d"], atoms: Float[Tensor, "m d"], products: Float[Tensor, "m m"]
) -> Float[Tensor, "b d"]:
    """What matching pursuit with positive values leaves of rows."""
    if not len(atoms):
        return x
    left, along = x.clone(), x @ atoms.T
    for _ in range(_PURSUIT):
        value, which = along.max(1)
        value = value.clamp(min=0)[:, None]
        along.addcmul_(value, products[which], value=-1)
        left.addcmul_(value, atoms[which], value=-1)
    return left


__all__ = ["residual_atoms"]
