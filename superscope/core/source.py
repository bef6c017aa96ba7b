"""Where x comes from: batches of activations, with the truth beside them where it is known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from .code import SparseCode
from .errors import ShapeError


@dataclass(frozen=True)
class Site:
    """A place in a model: the input or output of one module, by its torch path.

    Written `path` (its output) or `path:in` (its input), as in `transformer.h.3` or `transformer.h.3.mlp.c_proj:in`.

    Args:
        path: the module's name in `model.named_modules()`.
        io: which side of the module.
        model: name or folder of the model, where known.
    """

    path: str
    io: Literal["in", "out"] = "out"
    model: str = ""

    def __str__(self) -> str:
        return self.path if self.io == "out" else f"{self.path}:in"


@dataclass(frozen=True, eq=False)
class Activations:
    """A batch of x, with what is known about each row.

    Args:
        x: one activation per row.
        code: the true f, only where it is known (worlds, toys).
        tokens: the token each row was read at.
        places: (sequence, position) of each row in the text.
        target: what is to be predicted from x, where that is not x itself (transcoders).
    """

    x: Float[Tensor, "b d"]
    code: SparseCode | None = None
    tokens: Int[Tensor, "b"] | None = None
    places: Int[Tensor, "b 2"] | None = None
    target: Float[Tensor, "b e"] | None = None

    def __post_init__(self) -> None:
        beside = {"code": self.code, "tokens": self.tokens, "places": self.places, "target": self.target}
        for name, rows in beside.items():
            if rows is not None and len(rows) != len(self.x):
                raise ShapeError(f"Activations: {name} has {len(rows)} rows for {len(self.x)} activations.")

    def __len__(self) -> int:
        return len(self.x)


class ActivationSource(ABC):
    """Batches of activations. One seed gives one sequence of batches, however often it is asked for."""

    d: int
    site: Site | None = None

    @abstractmethod
    def batches(self, size: int, *, seed: int) -> Iterator[Activations]:
        """Batches of `size` rows in an order drawn from `seed`.

        A finite source yields every row once, dropping the last incomplete batch, and stops: a caller who wants more
        asks again with another seed. An unbounded source (a world) never stops.
        """
