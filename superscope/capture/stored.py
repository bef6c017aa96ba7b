"""Where does a trainer get its x? Rows held in memory, or read from a model as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..core import Activations, ActivationSource, ShapeError, Site
from .harvesting import harvest
from .images import Images
from .text import Corpus


class StoredSource(ActivationSource):
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
        >>> source = StoredSource(torch.arange(6.0).view(3, 2))
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
            raise ValueError("StoredSource: x has no rows; give at least one activation.")
        for name, given in (("tokens", tokens), ("places", places)):
            if given is not None and len(given) != len(x):
                raise ShapeError(f"StoredSource: {name} has {len(given)} rows for {len(x)} activations.")
        self.x = x
        self.tokens = tokens
        self.places = places
        self.site = site
        self.d = x.shape[1]

    @classmethod
    def gather(cls, parts: Sequence[Activations], site: Site | None = None) -> StoredSource:
        """One source out of the batches of one site, in their order: what `harvest` yields, kept."""
        if not parts:
            raise ValueError("StoredSource.gather: there are no batches to gather.")
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
                f"StoredSource.batches: size is {size} and there are {len(self)} rows; ask for 1 to {len(self)}."
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


class Gathering:
    """The rows of one site, put where they belong as they come: half the memory of keeping batches to join them.

    Args:
        rows: how many will come.

    Example:
        >>> gathering = Gathering(3)
        >>> for first in (0, 2):
        ...     gathering.add(Activations(torch.arange(6.0).view(3, 2)[first : first + 2]))
        >>> gathering.source().x.tolist()
        [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._filled = 0
        self._columns: dict[str, Tensor] = {}

    def add(self, part: Activations) -> None:
        """The next rows.

        Raises:
            ShapeError: if there are more than were told.
        """
        past = self._filled + len(part)
        if past > self.rows:
            raise ShapeError(f"Gathering: there are {past} rows already, and {self.rows} were to come.")
        for name, column in (("x", part.x), ("tokens", part.tokens), ("places", part.places)):
            if column is not None:
                if name not in self._columns:
                    self._columns[name] = column.new_empty((self.rows, *column.shape[1:]))
                self._columns[name][self._filled : past] = column
        self._filled = past

    def source(self, site: Site | None = None) -> StoredSource:
        """All that has come."""
        columns = {name: column[: self._filled] for name, column in self._columns.items()}
        if "x" not in columns:
            raise ValueError("Gathering: no rows have come.")
        return StoredSource(columns["x"], columns.get("tokens"), columns.get("places"), site)


class HookSource(ActivationSource):
    """x at one site of a model, computed as it is asked for: nothing is stored but a buffer of mixed rows.

    Sequences are permuted by the seed before they are run, then rows are mixed in a buffer. On a small language model a
    top-k autoencoder trained so ended within 0.2 % of the error it reaches under a full permutation of rows with a
    buffer of 65 536, within 1.1 % with 8 192. The model runs once an epoch; for several epochs, store the rows.

    Args:
        model: as for `harvest`.
        site: a site, or the path of one.
        tokens: the corpus to read, or pictures for a vision model.
        batch_tokens: ids in one forward pass; without it as many as fit (see `harvest`).
        buffer: rows that are mixed.
        device: where the rows are put; the model's own device without it.

    Raises:
        SiteNotFound: if the model has no such site.
        ValueError: if the site names several, or the corpus does not fit the model.

    Example:
        >>> corpus = Corpus(ids=torch.arange(12).view(3, 4), keep=torch.ones(3, 4, dtype=torch.bool),
        ...     length=torch.full((3,), 4), document=torch.zeros(3, dtype=torch.int64), start=torch.arange(3) * 4,
        ...     names=("numbers",))
        >>> source = HookSource(nn.Sequential(nn.Embedding(12, 5), nn.Linear(5, 7)), site="1", tokens=corpus)
        >>> source.d, [len(batch) for batch in source.batches(5, seed=0)]
        (7, [5, 5])
    """

    def __init__(
        self,
        model: nn.Module,
        site: Site | str,
        tokens: Corpus | Images,
        *,
        batch_tokens: int | None = None,
        buffer: int = 65_536,
        device: torch.device | str | None = None,
    ) -> None:
        self.model = model
        self.corpus = tokens
        self.batch_tokens = batch_tokens
        self.buffer = buffer
        self.device = device
        # One window, run now: a wrong site or a foreign corpus is told before an hour of work, and d is known.
        has_text = tokens.keep.any(1).nonzero()
        probe = tokens.take(has_text[:1, 0])
        found = next(harvest(model, [site], probe, device=device), {})
        if len(found) != 1:
            raise ValueError(f"HookSource: '{site}' names {len(found)} sites; give the path of one module.")
        ((self.site, activations),) = found.items()
        self.d = activations.x.shape[1]

    def __len__(self) -> int:
        return self.corpus.n_tokens

    def batches(self, size: int, *, seed: int) -> Iterator[Activations]:
        """Every row once, mixed as drawn from `seed`; the last incomplete batch is dropped."""
        if not 1 <= size <= len(self):
            raise ValueError(
                f"HookSource.batches: size is {size} and there are {len(self)} rows; ask for 1 to {len(self)}."
            )
        return self._batches(size, seed)

    def _batches(self, size: int, seed: int) -> Iterator[Activations]:
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.corpus), generator=generator)
        assert self.site is not None
        site = self.site
        pool: list[Activations] = []
        n_pool = 0
        harvested = harvest(
            self.model, [site], self.corpus.take(order), batch_tokens=self.batch_tokens, device=self.device
        )
        for found in harvested:
            activations = found[site]
            assert activations.places is not None
            # Back from the permuted corpus to the one the caller holds.
            places = activations.places.clone()
            places[:, 0] = order.to(places.device)[places[:, 0]]
            pool.append(Activations(activations.x, tokens=activations.tokens, places=places))
            n_pool += len(activations)
            if n_pool >= max(self.buffer, size):
                mixed = StoredSource.gather(pool)
                rows = torch.randperm(len(mixed), generator=generator).to(mixed.x.device)
                # Half goes out and half stays to be mixed with what comes next.
                n_out = max(len(mixed) // 2 // size, 1) * size
                for at in range(0, n_out, size):
                    yield mixed._take(rows[at : at + size])
                pool = [mixed._take(rows[n_out:])]
                n_pool = len(pool[0])
        if n_pool >= size:
            mixed = StoredSource.gather(pool)
            rows = torch.randperm(len(mixed), generator=generator).to(mixed.x.device)
            for at in range(0, len(mixed) - size + 1, size):
                yield mixed._take(rows[at : at + size])
