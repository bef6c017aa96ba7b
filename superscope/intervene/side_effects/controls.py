"""What would any vector of this length do? Random, orthogonal, nearest-atom and reversed edits to compare with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import Dictionary, ShapeError
from ..gates import check_direction


@dataclass(frozen=True, eq=False)
class Control:
    """A vector to compare an edit with, as long as the edit's.

    Args:
        kind: "random", "orthogonal", "nearest atom" or "opposite".
        vector: what is added.
        label: which one, where there are several.
    """

    kind: str
    vector: Float[Tensor, "d"]
    label: str = ""


def control_band(
    direction: Float[Tensor, "d"],
    *,
    dictionary: Dictionary | None = None,
    random: int = 8,
    orthogonal: int = 8,
    best: Callable[[Tensor], float] | None = None,
    seed: int = 0,
) -> tuple[Control, ...]:
    """Vectors of the length of an edit's that are not the edit's.

    Args:
        direction: what the edit adds.
        dictionary: its atom nearest in |cosine| is one of them.
        random: random directions.
        orthogonal: random directions orthogonal to the edit's. With `best`, only the one with the largest effect is
            kept: the class of directions that do as well is seldom one.
        best: from a vector to its effect.
        seed: of the directions.

    Raises:
        ShapeError: if the dictionary has another dimension.
        ValueError: if the direction is zero, or d = 1 leaves nothing orthogonal.
    """
    check_direction("control_band", direction)
    v = direction.double().cpu()
    length = float(v.norm())
    unit = v / length
    generator = torch.Generator().manual_seed(seed)
    band = [Control("opposite", -v)]
    for i, row in enumerate(torch.randn(random, len(v), generator=generator, dtype=torch.float64)):
        band.append(Control("random", length * row / row.norm(), str(i)))
    if orthogonal:
        if len(v) < 2:
            raise ValueError("control_band: in one dimension nothing is orthogonal; ask for no orthogonal ones.")
        rows = torch.randn(orthogonal, len(v), generator=generator, dtype=torch.float64)
        rows = rows - torch.outer(rows @ unit, unit)
        rows = length * rows / rows.norm(dim=1, keepdim=True)
        if best is None:
            band += [Control("orthogonal", row, str(i)) for i, row in enumerate(rows)]
        else:
            row = max(rows, key=best)
            band.append(Control("orthogonal", row, f"best of {orthogonal}"))
    if dictionary is not None:
        if dictionary.d != len(v):
            raise ShapeError(
                f"control_band: atoms have {dictionary.d} numbers and the direction {len(v)}; give a dictionary of the "
                "same site."
            )
        atoms = dictionary.atoms.detach().double().cpu()
        cosine = (atoms @ unit) / atoms.norm(dim=1).clamp_min(1e-300)
        nearest = int(cosine.abs().argmax())
        atom = atoms[nearest] * (length / atoms[nearest].norm()) * torch.sign(cosine[nearest])
        band.append(Control("nearest atom", atom, str(nearest)))
    return tuple(band)
