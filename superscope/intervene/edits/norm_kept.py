"""What if an edit turned x but did not lengthen or shorten it?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from .edit import Edit


@dataclass(frozen=True, eq=False)
class NormKept(Edit):
    r"""$x \leftarrow |x|\, y / |y|$, y what another edit makes of x, at s times its strength.

    Rows that the edit takes to 0 become 0: they have no direction to be given a length in.

    Args:
        edit: the other edit, with its own gate.

    Source:
        The magnitude-preserving orthogonalisation of the abliteration literature; rotations of x by an angle (angular
        steering) are `NormKept(Add(v))`.
    """

    reads: ClassVar[str] = "what its inner edit reads"

    edit: Edit

    @property
    def d(self) -> int:
        return self.edit.d

    def moved(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        y = self.edit.at(self.edit.strength * self.strength)(x)
        size = y.norm(dim=-1, keepdim=True)
        turned = torch.where(size > 0, y * (x.norm(dim=-1, keepdim=True) / size.clamp(min=1e-30)), y)
        # What the inner edit left alone keeps its very bits.
        same = (y == x).all(-1, keepdim=True)
        is_open = self.gate.open(x)
        return torch.where(same if is_open is None else same | ~is_open[:, None], x, turned)

    def change(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        return self.moved(x) - x
