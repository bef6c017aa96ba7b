"""Where x comes from: batches of activations, with the truth beside them where it is known."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from .code import SparseCode
from .errors import ShapeError

_SITE = re.compile(
    r"(?P<path>.*?)(?P<io>:in|:out)?(?::(?P<item>\d+))?(?:\[(?P<columns>\d+:\d+(?:,\d+:\d+)*)\])?", re.DOTALL
)


@dataclass(frozen=True)
class Site:
    """A place in a model: the input or output of one module, by its torch path, or some coordinates of it.

    Written `path` (its output) or `path:in` (its input), as in `transformer.h.3` or `transformer.h.3.mlp.c_proj:in`;
    `path:in[16:24]` are coordinates 16 to 23 alone, `[0:8,24:32]` two ranges in a row, and `path:1` the second of
    several things the module returns.

    Args:
        path: the module's name in `model.named_modules()`.
        io: which side of the module.
        model: name or folder of the model, where known.
        columns: ranges (first, past the last) of coordinates; none means all of them.
        item: which of several outputs.
    """

    path: str
    io: Literal["in", "out"] = "out"
    model: str = ""
    columns: tuple[tuple[int, int], ...] = ()
    item: int = 0

    def __str__(self) -> str:
        item = f":{self.item}" if self.item else ""
        columns = f"[{','.join(f'{first}:{past}' for first, past in self.columns)}]" if self.columns else ""
        return f"{self.path}{':in' if self.io == 'in' else ''}{item}{columns}"

    @classmethod
    def read(cls, written: str, model: str = "") -> Site:
        """The site that `str(site)` wrote.

        Raises:
            ValueError: if a range is empty.

        Example:
            >>> Site.read("h.3.attn.c_proj:in[16:24]")
            Site(path='h.3.attn.c_proj', io='in', model='', columns=((16, 24),), item=0)
        """
        match = _SITE.fullmatch(written)
        assert match is not None  # the pattern takes any text: what is no suffix is path
        ranges = (match["columns"] or "").split(",")
        columns = tuple((int(first), int(past)) for first, _, past in (each.partition(":") for each in ranges if each))
        for first, past in columns:
            if first >= past:
                raise ValueError(f"the site '{written}' has the empty range {first}:{past}; write first:past the last.")
        io = "in" if match["io"] == ":in" else "out"
        return cls(match["path"], io, model, columns, int(match["item"] or 0))


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

    def batches_from(self, start: int, size: int, *, seed: int) -> Iterator[Activations]:
        """The batches of `batches(size, seed=seed)` from the one numbered `start`, for a training that goes on.

        A source that can skip without computing does so; here the batches before `start` are made and dropped.
        """
        return islice(self.batches(size, seed=seed), start, None)


def only(caller: str, sources: Sequence[ActivationSource]) -> ActivationSource:
    """The one source there is, for what learns of one.

    Raises:
        ValueError: if there are several, or none.
    """
    if len(sources) != 1:
        raise ValueError(
            f"{caller} learns of one site; got {len(sources)}. Name one, or take a transcoder, which predicts a second "
            "from the first, or a crosscoder, which learns of all of them at once."
        )
    return sources[0]
