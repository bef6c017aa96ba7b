"""What if a direction were added to x?"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ..gates import check_direction, fitting
from .edit import Edit


@dataclass(frozen=True, eq=False)
class Add(Edit):
    r"""$x \leftarrow x + s v$.

    Args:
        direction: v, as long as strength 1 is to be. `dose.mean_norm` gives it the length of an average x.

    Raises:
        ShapeError: if the direction is no vector.
        ValueError: if it is zero, or NaN or infinite somewhere.

    Source:
        Turner et al., "Activation addition: steering language models without optimization", 2023; Rimsky et al.,
        "Steering Llama 2 via contrastive activation addition", 2023.
    """

    direction: Float[Tensor, "d"]

    def check(self) -> None:
        check_direction(type(self).__name__, self.direction)

    @property
    def d(self) -> int:
        return len(self.direction)

    def change(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "d"]:
        return fitting(self.direction, x)
