"""What was read from a model once, kept on disk to be read many times: units of rows, and the order they come in."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ..core import Activations, ActivationSource, FormatError, Site, files
from ..core.errors import nearest
from .permutation import Bijection
from .places import Local, Place, hash_tensors, place

SCHEMA = 2
ORIGIN = ("token", "document", "offset", "sequence", "position")
"""What is kept with every row: its token; its document and the token's place there; its window and the place in it.

A row of a picture has the token -1; its document and window are the picture, its place there the patch.
"""

_BLOCK = 64
_UNREFERENCED = 3600.0
"""Seconds after which rows without a record are a dead writer's, not one's who is about to write the record."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that decides what the rows of a store are: a unit is a function of this and its number.

    Args:
        model: name or folder.
        weights: hash of its weights.
        tokenizer: hash of its tokenizer.
        attention: its implementation of attention.
        sites: by the name that was asked for, the module path and how many coordinates.
        dtype: of the rows on disk.
        computed: dtype the model ran in.
        policy: how windows were made and what was left out; see `Policy`.
        text: hash of the windows.
        seed: of the order of windows.
        sequences: windows in all.
        per_unit: windows in a unit.
        batch_tokens: ids in one forward pass; in short types the batch's shape changes the last bits.
        hashed: what units are hashed by.
        versions: of the packages that wrote it.
        schema: of this format.
    """

    model: str
    weights: str
    tokenizer: str
    attention: str
    sites: Mapping[str, Mapping[str, Any]]
    dtype: str
    computed: str
    policy: Mapping[str, Any]
    text: str
    seed: int
    sequences: int
    per_unit: int
    batch_tokens: int
    hashed: str = "sha256"
    versions: Mapping[str, str] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def n_units(self) -> int:
        """Units that make the store whole."""
        return -(-self.sequences // self.per_unit)

    def windows(self, unit: int) -> tuple[int, int]:
        """The places, first and past the last, that a unit holds of the permuted windows."""
        return unit * self.per_unit, min((unit + 1) * self.per_unit, self.sequences)

    def differences(self, other: Manifest) -> list[str]:
        """What would make other rows, in words; versions and hashes of files are no difference."""
        found = []
        for name in (f.name for f in dataclasses.fields(self)):
            mine, theirs = getattr(self, name), getattr(other, name)
            if name in ("versions", "hashed") or mine == theirs:
                continue
            if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
                keys = [key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)]
                found += [f"{name} {key} is {mine.get(key)!r} there and {theirs.get(key)!r} here" for key in keys]
            else:
                found.append(f"{name} is {mine!r} there and {theirs!r} here")
        return found

    @classmethod
    def read(cls, found: Any, where: str) -> Manifest:
        """The manifest in a file's JSON.

        Raises:
            FormatError: if it is of another schema, or keys are unknown or missing.
        """
        if not isinstance(found, dict) or found.get("schema") != SCHEMA:
            schema = found.get("schema") if isinstance(found, dict) else None
            raise FormatError(f"{where} is no manifest of schema {SCHEMA} (it says {schema!r}). Harvest again.")
        names = tuple(f.name for f in dataclasses.fields(cls))
        files.refuse_unknown(found, names, where)
        missing = [name for name in names if name not in found]
        if missing:
            raise FormatError(f"{where} lacks {', '.join(missing)}. Harvest again.")
        return cls(**found)


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of a unit without reading its rows; its file is written last, the mark that the unit is there.

    Args:
        unit: its number.
        file: name of its rows.
        bytes: size of that file.
        hash: of its content.
        rows: rows kept.
        dropped: rows left out for their norm, by the site that made them outliers.
        dropped_norms: the largest of those norms, by site.
        mean_square: mean of |x|^2 by site.
    """

    unit: int
    file: str
    bytes: int
    hash: str
    rows: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    dropped_norms: Mapping[str, list[float]] = field(default_factory=dict)
    mean_square: Mapping[str, float] = field(default_factory=dict)


class Store:
    """A folder of harvested rows: `manifest.json`, and for each unit its rows and, written last, its record.

    Several may write into one folder at once: what they write is the same, a file is there whole or not at all, and its
    name holds the hash of its content, so that no record ever stands beside other rows than its own.

    Args:
        where: a folder, or an address such as `s3://bucket/run` or `memory://run`.

    Raises:
        FileNotFoundError: if there is no store.
        FormatError: if its manifest is damaged.
    """

    def __init__(self, where: str | Path | Place) -> None:
        self.place = where if isinstance(where, Place) else place(where)
        try:
            found = self.place.read_json("manifest.json")
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{self.place} holds no harvest: there is no manifest.json. "
                f"Make one with `superscope harvest --store {self.place}`."
            ) from error
        self.manifest = Manifest.read(found, f"{self.place}/manifest.json")

    @classmethod
    def create(cls, where: str | Path | Place, manifest: Manifest) -> Store:
        """A new store, or the one that is already there and of the same manifest, to be filled on.

        Raises:
            ValueError: if the folder holds another harvest; the differences are named.
        """
        there = where if isinstance(where, Place) else place(where)
        there.write_new("manifest.json", dataclasses.asdict(manifest))
        store = cls(there)
        differences = store.manifest.differences(manifest)
        if differences:
            shown = "; ".join(differences[:3]) + (f"; and {len(differences) - 3} more" if len(differences) > 3 else "")
            raise ValueError(
                f"{there} already holds another harvest: {shown}. "
                "Harvest with its settings to go on with it, or into another folder."
            )
        return store

    @property
    def sites(self) -> dict[str, Site]:
        """Sites by the name they were asked for."""
        return {name: Site.read(said["site"], self.manifest.model) for name, said in self.manifest.sites.items()}

    def record(self, unit: int) -> Record | None:
        """A unit's record; None where it was never finished, is damaged, or its rows are gone or cut short."""
        try:
            found = self.place.read_json(self.record_file(unit))
            record = Record(**found)
        except (FileNotFoundError, FormatError, TypeError):
            return None
        return record if self.place.size(record.file) == record.bytes else None

    def records(self) -> list[Record]:
        """Records of all units that are there."""
        listed = (self.record(unit) for unit in range(self.manifest.n_units))
        return [record for record in listed if record is not None]

    def missing(self, *, verify: bool = False) -> list[int]:
        """Units that are not there, or damaged; with `verify`, every unit's content is read and hashed."""
        found = []
        for unit in range(self.manifest.n_units):
            record = self.record(unit)
            if record is None or (verify and not self.is_whole(record)):
                found.append(unit)
        return found

    def is_whole(self, record: Record) -> bool:
        """Whether a unit's content is what was written."""
        try:
            self.read(record, verify=True)
        except (FormatError, FileNotFoundError):
            return False
        return True

    def read(self, record: Record, *, verify: bool) -> dict[str, Tensor]:
        """A unit's rows by site, and `origin`; mapped into memory where the store is a folder of this machine.

        Raises:
            FormatError: if it is truncated or, when verified, has changed since it was written.
        """
        tensors = self.place.tensors(record.file)
        if verify and hash_tensors(tensors, record.hash.partition(":")[0]) != record.hash:
            raise FormatError(
                f"{self.place}/{record.file} has changed since it was written: a damaged disk or copy. Run the "
                "harvest again with the same settings; it makes this unit anew."
            )
        return tensors

    def write(self, unit: int, tensors: Mapping[str, Tensor], **facts: Any) -> Record:
        """Writes a unit: its rows, then its record.

        Args:
            facts: further fields of the record.
        """
        name, said, size = self.place.write_tensors(
            f"units/{unit:06d}-{{hash}}.safetensors", tensors, self.manifest.hashed
        )
        record = Record(
            unit=unit,
            file=name,
            bytes=size,
            hash=said,
            rows=len(tensors["origin"]),
            **facts,
        )
        self.place.write_json(self.record_file(unit), dataclasses.asdict(record))
        return record

    def record_file(self, unit: int) -> str:
        """The name of a unit's record."""
        return f"units/{unit:06d}.json"

    def claim(self, unit: int) -> Callable[[], object] | None:
        """Makes a unit this process's to write until it calls what is returned, or dies; None where another has it."""
        return self.place.claim(f"units/{unit:06d}.claim")

    def sweep(self) -> int:
        """Takes away rows that no record names, left by writers that died; how many. Recent ones are let be."""
        named = {record.file for record in self.records()}
        removed = 0
        for name in self.place.names("units"):
            if not name.endswith(".json") and name not in named and self.place.age(name) > _UNREFERENCED:
                self.place.remove(name)
                removed += 1
        return removed


class ShardSource(ActivationSource):
    """Rows of a harvest, mixed by the seed: `ShardSource("harvest/", site="resid_post.6")`.

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
            raise ValueError(f"ShardSource: ring is {ring}; give at least 1 unit to be open at a time.")
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
                raise ValueError(f"ShardSource: the store has several sites; choose one of {', '.join(sites)}.")
            return next(iter(sites))
        for name, path in sites.items():
            if str(site) in (name, path):
                return name
        raise ValueError(
            f"ShardSource: the store has no site '{site}'.{nearest(str(site), [*sites, *sites.values()])} "
            f"It has {', '.join(sites)}."
        )

    def __len__(self) -> int:
        return sum(record.rows for record in self.records)

    def batches(self, size: int, *, seed: int) -> Iterator[Activations]:
        """Every row once, in an order drawn from `seed`; the last incomplete batch is dropped."""
        return self.batches_from(0, size, seed=seed)

    def batches_from(self, start: int, size: int, *, seed: int) -> Iterator[Activations]:
        """The batches of `batches` from the one numbered `start`; nothing before it is read."""
        if not 1 <= size <= len(self):
            raise ValueError(
                f"ShardSource.batches: size is {size} and there are {len(self)} rows; ask for 1 to {len(self)}."
            )
        if start < 0:
            raise ValueError(f"ShardSource.batches_from: start is {start}; the first batch is 0.")
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

    def __init__(self, source: ShardSource, names: list[str]) -> None:
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
