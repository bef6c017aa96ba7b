"""Where does a trainer get its x? Rows held in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core import Activations, ActivationSource, ShapeError, Site


class MemorySource(ActivationSource):
    """Rows of x in memory; each epoch is a permutation of all rows drawn from its seed.

    Args:
        x: one activation per row.
        tokens: the token each row was read at.
        places: (sequence, position) of each row.
        site: where x is from.

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
        self.d = x.shape[1]

    @classmethod
    def gather(cls, parts: Sequence[Activations], site: Site | None = None) -> MemorySource:
        """One source out of the batches of one site, in their order: what `harvest` yields, kept."""
        if not parts:
            raise ValueError("MemorySource.gather: there are no batches to gather.")
        tokens = [part.tokens for part in parts if part.tokens is not None]
        places = [part.places for part in parts if part.places is not None]
        return cls(
            torch.cat([part.x for part in parts]),
            torch.cat(tokens) if len(tokens) == len(parts) else None,
            torch.cat(places) if len(places) == len(parts) else None,
            site,
        )

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
        return Activations(
            self.x[rows],
            tokens=None if self.tokens is None else self.tokens[rows],
            places=None if self.places is None else self.places[rows],
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

    def add(self, part: Activations) -> None:
        """The next rows.

        Raises:
            ShapeError: if more come than `rows`.
        """
        past = self._filled + len(part)
        if past > self.rows:
            raise ShapeError(f"RowBuffer: there are {past} rows already, and {self.rows} were to come.")
        for name, column in (("x", part.x), ("tokens", part.tokens), ("places", part.places)):
            if column is not None:
                if name not in self._columns:
                    self._columns[name] = column.new_empty((self.rows, *column.shape[1:]))
                self._columns[name][self._filled : past] = column
        self._filled = past

    def source(self, site: Site | None = None) -> MemorySource:
        """All that has come."""
        columns = {name: column[: self._filled] for name, column in self._columns.items()}
        if "x" not in columns:
            raise ValueError("RowBuffer: no rows have come.")
        return MemorySource(columns["x"], columns.get("tokens"), columns.get("places"), site)
