"""Where does a trainer get its x? Rows of a store, read ahead and in an order drawn from a seed."""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ...core import Activations, ActivationSource, FormatError, Site
from ...core.errors import nearest
from ..inputs.permutation import Bijection
from ..store.places import Local
from ..store.store import OUTLIERS, Record, Store
from .in_memory import joined

_BLOCK = 64


class StoreSource(ActivationSource):
    """Rows of a harvest, mixed by the seed: `StoreSource("harvest/", site="resid_post.6")`.

    `ring` units, drawn by the seed, are open at a time; their rows come in blocks of 64 in an order drawn from the
    seed, then the next units follow. A unit's rows were shuffled when it was written, from windows drawn over the whole
    text, so a block is a sample of the text. No list of rows is kept and nothing is gathered row by row: a batch costs
    the same wherever it is, and `batches_from(start, ...)` begins at any batch at once.

    Args:
        where: the folder, or address, that `superscope harvest` (or `fill`) wrote.
        site: which, by the name it was harvested under or its module path; may be left out where there is but one.
        target: a second site of the same harvest that is to be predicted from the first, for transcoders.
        ring: units open at once. The memory taken where the store is not a folder of this machine.
        dtype: of x as given; the rows on disk may be narrower.
        device: where rows are put.
        partial: read what is there of an unfinished harvest.
        verify: check a unit's hash when it is first opened.

    Raises:
        FileNotFoundError: if there is no harvest.
        FormatError: if it is damaged, or unfinished and `partial` is not set.
        ValueError: if the site is not in it, or left out where there are several.
    """

    def __init__(
        self,
        where: str | Path | Store,
        site: str | Site | None = None,
        *,
        target: str | Site | None = None,
        ring: int = 16,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        partial: bool = False,
        verify: bool = True,
    ) -> None:
        if ring < 1:
            raise ValueError(f"StoreSource: ring is {ring}; give at least 1 unit to be open at a time.")
        self.store = where if isinstance(where, Store) else Store(where)
        self.name = self._named(site)
        self.target = None if target is None else self._named(target)
        self.site = self.store.sites[self.name]
        self._names = [self.name] if self.target is None else [self.name, self.target]
        self.d = int(self.store.manifest.sites[self.name]["d"])
        self.ring, self.dtype, self.device, self.verify = ring, dtype, device, verify
        self.records = [record for record in self.store.records() if record.rows]
        n_missing = self.store.manifest.n_units - len(self.store.records())
        if n_missing and not partial:
            raise FormatError(
                f"{self.store.place} lacks {n_missing} of {self.store.manifest.n_units} units: the harvest did not "
                "end, or units were lost. Run it again with the same settings, or read what is there with partial=True."
            )
        if not self.records:
            raise FormatError(f"{self.store.place} holds no rows yet. Run its harvest again with the same settings.")
        self._verified: set[int] = set()

    def _named(self, site: str | Site | None) -> str:
        sites = {name: str(found) for name, found in self.store.sites.items()}
        if site is None:
            if len(sites) > 1:
                raise ValueError(f"StoreSource: the store has several sites; choose one of {', '.join(sites)}.")
            return next(iter(sites))
        for name, path in sites.items():
            if str(site) in (name, path):
                return name
        raise ValueError(
            f"StoreSource: the store has no site '{site}'.{nearest(str(site), [*sites, *sites.values()])} "
            f"It has {', '.join(sites)}."
        )

    def __len__(self) -> int:
        return sum(record.rows for record in self.records)

    @property
    def limit(self) -> float:
        """The norm above which a row was an outlier at this site."""
        return float(self.store.manifest.limits.get(self.name, math.inf))

    @functools.cached_property
    def left_out(self) -> Activations | None:
        """Rows left out, for they or their fellows at another site are outliers; None where none was looked for, or
        the store is of a format that did not keep them."""
        if self.store.manifest.schema < 3 or self.store.manifest.policy["outlier"] is None:
            return None
        names = [f"{OUTLIERS}{name}" for name in self._names]
        units = [self.opened(index) for index, record in enumerate(self.records) if any(record.dropped.values())]
        return joined(
            [
                self._given([torch.empty(0, self.d) for _ in names], torch.empty(0, 5, dtype=torch.int32)),
                *(self._given([unit[name] for name in names], unit[f"{OUTLIERS}origin"]) for unit in units),
            ]
        )

    def batches(self, size: int, *, seed: int) -> Iterator[Activations]:
        """Every row once, in an order drawn from `seed`; the last incomplete batch is dropped."""
        return self.batches_from(0, size, seed=seed)

    def batches_from(self, start: int, size: int, *, seed: int) -> Iterator[Activations]:
        """The batches of `batches` from the one numbered `start`; nothing before it is read."""
        if not 1 <= size <= len(self):
            raise ValueError(
                f"StoreSource.batches: size is {size} and there are {len(self)} rows; ask for 1 to {len(self)}."
            )
        if start < 0:
            raise ValueError(f"StoreSource.batches_from: start is {start}; the first batch is 0.")
        return self._batches(start, size, seed)

    def rows(self, size: int = 4096) -> Iterator[Activations]:
        """Every row once, as they lie on disk: none dropped, the last batch of a unit being what is left of it."""
        for index in range(len(self.records)):
            unit = self.opened(index)
            for at in range(0, self.records[index].rows, size):
                part = slice(at, at + size)
                yield self._given([unit[name][part] for name in self._names], unit["origin"][part])

    def _batches(self, start: int, size: int, seed: int) -> Iterator[Activations]:
        for columns, origin in self._read(start, size, seed, self._names):
            yield self._given(columns, origin)

    def _given(self, columns: list[Tensor], origin: Tensor) -> Activations:
        columns = [column.to(self.device, self.dtype) for column in columns]
        origin = origin.to(self.device)
        target = columns[1] if len(columns) > 1 else None
        tokens, places = origin[:, 0].long(), origin[:, 3:].long()
        return Activations(columns[0], tokens=tokens, places=places, target=target)

    def aligned(self, size: int, *, seed: int, start: int = 0) -> Iterator[dict[str, Activations]]:
        """Batches of all sites, by name, in the order of `batches`: row i is the same token at every site."""
        names = list(self.store.sites)
        for columns, origin in self._read(start, size, seed, names):
            yield {name: self._given([x], origin) for name, x in zip(names, columns)}

    def origins(self, size: int, *, seed: int) -> Iterator[Int[Tensor, "b 5"]]:
        """Where the rows of each batch are from, in the order of `batches`: the columns are `ORIGIN`."""
        for _, origin in self._read(0, size, seed, []):
            yield origin

    def _read(self, start: int, size: int, seed: int, names: list[str]) -> Iterator[tuple[list[Tensor], Tensor]]:
        order = Bijection(len(self.records), seed)(torch.arange(len(self.records))).tolist()
        groups = [order[at : at + self.ring] for at in range(0, len(order), self.ring)]
        ends = list(itertools.accumulate(sum(self.records[i].rows for i in group) for group in groups))
        row, last = start * size, len(self) // size * size
        number, ring = -1, None
        with _Ahead(self, names) as ahead:
            while row < last:
                pieces: list[tuple[dict[str, Tensor], int, int]] = []
                wanted = size
                while wanted:
                    needed = bisect.bisect_right(ends, row)
                    if needed != number:
                        number = needed
                        following = groups[number + 1] if number + 1 < len(groups) else []
                        ring = _Ring(self.records, groups[number], ahead.take(groups[number], following), seed, number)
                    assert ring is not None
                    begin = ends[number - 1] if number else 0
                    count = min(wanted, ends[number] - row)
                    pieces += ring.pieces(row - begin, count)
                    row, wanted = row + count, wanted - count
                columns = [torch.cat([unit[name][a:b] for unit, a, b in pieces]) for name in names]
                yield columns, torch.cat([unit["origin"][a:b] for unit, a, b in pieces])

    def opened(self, index: int) -> dict[str, Tensor]:
        """A unit's tensors, verified the first time."""
        tensors = self.store.read(self.records[index], verify=self.verify and index not in self._verified)
        self._verified.add(index)
        return tensors


class _Ahead:
    """Opens units; those that are read over a network are fetched while the ones before them are served."""

    def __init__(self, source: StoreSource, names: list[str]) -> None:
        self.source = source
        # A map into memory costs nothing to open; only what is fetched is worth a thread.
        self.pool = None if isinstance(source.store.place, Local) else ThreadPoolExecutor(1)
        self.coming: dict[int, Future[dict[str, Tensor]]] = {}

    def __enter__(self) -> _Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def take(self, group: list[int], following: list[int]) -> list[dict[str, Tensor]]:
        units = [self.coming.pop(i).result() if i in self.coming else self.source.opened(i) for i in group]
        if self.pool is not None:
            self.coming = {i: self.pool.submit(self.source.opened, i) for i in following}
        return units


class _Ring:
    """Open units, and the order of their blocks."""

    def __init__(
        self, records: list[Record], group: list[int], units: list[dict[str, Tensor]], seed: int, number: int
    ) -> None:
        self.units = units
        rows = [records[i].rows for i in group]
        # Whole blocks are permuted; what is left over of each unit comes last.
        self.blocks = list(itertools.accumulate((n // _BLOCK for n in rows), initial=0))
        # A list, for it is short: one number for 64 rows of the open units.
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence((seed, number)).generate_state(1)[0]))
        self.order = torch.randperm(self.blocks[-1], generator=generator)
        self.rest = [(n // _BLOCK * _BLOCK, n) for n in rows]
        self.rest_ends = list(itertools.accumulate((n % _BLOCK for n in rows), initial=self.blocks[-1] * _BLOCK))

    def pieces(self, row: int, count: int) -> list[tuple[dict[str, Tensor], int, int]]:
        """(unit, first row, past the last) that make up `count` rows of the order from place `row`."""
        found: list[tuple[dict[str, Tensor], int, int]] = []
        whole = self.blocks[-1] * _BLOCK
        past = row + count
        if row < whole:
            first, last = row // _BLOCK, (min(past, whole) - 1) // _BLOCK
            for number, block in enumerate(self.order[first : last + 1].tolist(), start=first):
                unit = bisect.bisect_right(self.blocks, block) - 1
                at = (block - self.blocks[unit]) * _BLOCK
                a, b = max(row - number * _BLOCK, 0), min(past - number * _BLOCK, _BLOCK)
                found.append((self.units[unit], at + a, at + b))
        for unit, (begin, _) in enumerate(self.rest):
            a, b = max(row, self.rest_ends[unit]), min(past, self.rest_ends[unit + 1])
            if a < b:
                found.append((self.units[unit], begin + a - self.rest_ends[unit], begin + b - self.rest_ends[unit]))
        return found
