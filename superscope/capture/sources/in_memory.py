"""Where does a trainer get its x? Rows held in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...core import Activations, ActivationSource, ShapeError, Site


class MemorySource(ActivationSource):
    """Rows of x in memory; each epoch is a permutation of all rows drawn from its seed.

    Args:
        x: one activation per row.
        tokens: the token each row was read at.
        places: (sequence, position) of each row.
        site: where x is from.
        left_out: rows of the same text that are none of the source's, for they or their fellows at another site are
            outliers; None where none was looked for.
        limit: the norm above which a row was an outlier here.

    Raises:
        ShapeError: if tokens or places have another number of rows.
        ValueError: if there is no row.

    Example:
        >>> source = MemorySource(torch.arange(6.0).view(3, 2))
        >>> [tuple(batch.x.shape) for batch in source.batches(2, seed=0)]
        [(2, 2)]
        >>> len(source), source.d
        (3, 2)
    """

    def __init__(
        self,
        x: Float[Tensor, "rows d"],
        tokens: Int[Tensor, "rows"] | None = None,
        places: Int[Tensor, "rows 2"] | None = None,
        site: Site | None = None,
        *,
        left_out: Activations | None = None,
        limit: float = math.inf,
    ) -> None:
        if not len(x):
            raise ValueError("MemorySource: x has no rows; give at least one activation.")
        for name, given in (("tokens", tokens), ("places", places)):
            if given is not None and len(given) != len(x):
                raise ShapeError(f"MemorySource: {name} has {len(given)} rows for {len(x)} activations.")
        self.x = x
        self.tokens = tokens
        self.places = places
        self.site = site
        self.left_out = left_out
        self.limit = limit
        self.d = x.shape[1]

    @classmethod
    def gather(cls, parts: Sequence[Activations], site: Site | None = None) -> MemorySource:
        """One source out of the batches of one site, in their order: what `harvest` yields, kept."""
        if not parts:
            raise ValueError("MemorySource.gather: there are no batches to gather.")
        whole = joined(parts)
        return cls(whole.x, whole.tokens, whole.places, site)

    def __len__(self) -> int:
        return len(self.x)

    def batches(self, size: int, *, seed: int) -> Iterator[Activations]:
        """Every row once in an order drawn from `seed`; the last incomplete batch is dropped."""
        if not 1 <= size <= len(self):
            raise ValueError(
                f"MemorySource.batches: size is {size} and there are {len(self)} rows; ask for 1 to {len(self)}."
            )
        return self._batches(size, seed)

    def rows(self, size: int = 4096) -> Iterator[Activations]:
        """Every row once, in the order they were given, the last batch being what is left."""
        for at in range(0, len(self), size):
            yield self._take(slice(at, at + size))

    def _batches(self, size: int, seed: int) -> Iterator[Activations]:
        # Drawn on the CPU wherever x is: one seed, one order, on every device.
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)).to(self.x.device)
        for at in range(0, len(self) - size + 1, size):
            yield self._take(order[at : at + size])

    def _take(self, rows: Tensor | slice) -> Activations:
        return taken(Activations(self.x, tokens=self.tokens, places=self.places), rows)


def joined(parts: Sequence[Activations]) -> Activations:
    """Batches as one, with what is known about the rows of all."""
    tokens = [part.tokens for part in parts if part.tokens is not None]
    places = [part.places for part in parts if part.places is not None]
    return Activations(
        torch.cat([part.x for part in parts]),
        tokens=torch.cat(tokens) if len(tokens) == len(parts) else None,
        places=torch.cat(places) if len(places) == len(parts) else None,
    )


def taken(given: Activations, rows: Tensor | slice) -> Activations:
    """Some rows of x, with the token and place of each."""
    return Activations(
        given.x[rows],
        tokens=None if given.tokens is None else given.tokens[rows],
        places=None if given.places is None else given.places[rows],
    )


class RowBuffer:
    """The rows of one site, put where they belong as they come: half the memory of keeping batches to join them.

    Args:
        rows: how many will come.

    Example:
        >>> buffer = RowBuffer(3)
        >>> for first in (0, 2):
        ...     buffer.add(Activations(torch.arange(6.0).view(3, 2)[first : first + 2]))
        >>> buffer.source().x.tolist()
        [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._filled = 0
        self._columns: dict[str, Tensor] = {}
        self._left_out: list[Activations] | None = None

    def add(self, part: Activations, ordinary: Bool[Tensor, "rows"] | None = None) -> None:
        """The next rows.

        Args:
            part: rows.
            ordinary: which of them to keep; the others are kept apart.

        Raises:
            ShapeError: if more come than `rows`.
        """
        if ordinary is not None:
            self._left_out = self._left_out or []
            if not bool(ordinary.all()):
                self._left_out.append(taken(part, ~ordinary))
                part = taken(part, ordinary)
        past = self._filled + len(part)
        if past > self.rows:
            raise ShapeError(f"RowBuffer: there are {past} rows already, and {self.rows} were to come.")
        for name, column in (("x", part.x), ("tokens", part.tokens), ("places", part.places)):
            if column is not None:
                if name not in self._columns:
                    self._columns[name] = column.new_empty((self.rows, *column.shape[1:]))
                self._columns[name][self._filled : past] = column
        self._filled = past

    def source(self, site: Site | None = None, limit: float = math.inf) -> MemorySource:
        """All that has come.

        Args:
            site: where it is from.
            limit: the norm above which a row was left out.
        """
        columns = {name: column[: self._filled] for name, column in self._columns.items()}
        if "x" not in columns:
            raise ValueError("RowBuffer: no rows have come.")
        left_out = None
        if self._left_out is not None:
            whole = Activations(columns["x"], tokens=columns.get("tokens"), places=columns.get("places"))
            left_out = joined([taken(whole, slice(0, 0)), *self._left_out])
        return MemorySource(
            columns["x"], columns.get("tokens"), columns.get("places"), site, left_out=left_out, limit=limit
        )
