"""What would any vector of this length do? Random, orthogonal, nearest-atom and reversed edits to compare with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import Dictionary, ShapeError
from ..edits import Edit
from ..gates import check_direction, fitting


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


@dataclass(frozen=True, eq=False)
class Elsewhere(Edit):
    r"""$x \leftarrow x + s\,c(x)\,r$, $c(x) = \mathrm{sign}(v \cdot \delta(x))\,|\delta(x)|$.

    What another edit writes, elsewhere: row by row as long as that edit's change, with its gate; of an edit that adds a
    vector, a vector as long.

    Args:
        edit: the other.
        axis: v, along which its changes have a sign.
        direction: r; its length does not matter.
    """

    reads: ClassVar[str] = "what the edit reads that it stands beside"

    edit: Edit
    axis: Float[Tensor, "d"]
    direction: Float[Tensor, "d"]

    def check(self) -> None:
        for vector in (self.axis, self.direction):
            check_direction("Elsewhere", vector)
            if len(vector) != self.edit.d:
                raise ShapeError(
                    f"Elsewhere: a direction of {len(vector)} numbers beside an edit of d = {self.edit.d}; both are of "
                    "x."
                )

    @property
    def d(self) -> int:
        return self.edit.d

    def change(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        delta = self.edit(x) - x
        size = delta.norm(dim=-1)
        amount = torch.where(delta @ fitting(self.axis, x) < 0, -size, size)
        return torch.outer(amount, fitting(self.direction / self.direction.norm(), x))


@dataclass(frozen=True, eq=False)
class ControlEdit:
    """An edit to compare another with.

    Args:
        kind, label: as of a `Control`.
        edit: does to each row as much as the other, elsewhere; the opposite one is the other at minus its strength.
        vector: what it adds where it adds one thing; else its main direction, as long as the root mean square change.
    """

    kind: str
    label: str
    edit: Edit
    vector: Float[Tensor, "d"]


def main_change(edit: Edit, x: Float[Tensor, "rows d"]) -> Float[Tensor, "d"]:
    """The direction along which an edit changes rows most, as long as the root mean square change; the way of the mean.

    Raises:
        ValueError: if it changes nothing in these rows.
    """
    delta = (edit(x) - x).double()
    size = float(delta.square().sum(1).mean().sqrt())
    if size == 0:
        raise ValueError(f"{type(edit).__name__}: it changes none of these rows; raise its strength, or open its gate.")
    axis = torch.linalg.eigh(delta.T @ delta)[1][:, -1]
    return size * (axis if float(axis @ delta.mean(0)) >= 0 else -axis)


def controls_of(
    edit: Edit,
    x: Float[Tensor, "rows d"],
    *,
    dictionary: Dictionary | None = None,
    random: int = 8,
    orthogonal: int = 8,
    best: Callable[[Edit], float] | None = None,
    seed: int = 0,
) -> tuple[ControlEdit, ...]:
    """The `control_band` of any edit: the same sizes row by row, written elsewhere, and the edit reversed.

    Args:
        edit: whose.
        x: rows that it edits.
        dictionary, random, orthogonal, seed: as for `control_band`.
        best: from an edit to its effect.

    Raises:
        ShapeError, ValueError: as for `control_band`, and if the edit changes none of the rows.
    """
    vector = main_change(edit, x)
    elsewhere = lambda direction: Elsewhere(edit, vector, direction)  # noqa: E731
    band = control_band(
        vector,
        dictionary=dictionary,
        random=random,
        orthogonal=orthogonal,
        best=None if best is None else lambda direction: best(elsewhere(direction)),
        seed=seed,
    )
    return tuple(
        ControlEdit(
            one.kind,
            one.label,
            edit.at(-edit.strength) if one.kind == "opposite" else elsewhere(one.vector),
            one.vector,
        )
        for one in band
    )
