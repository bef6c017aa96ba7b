"""What was read from a model once, kept on disk to be read many times: units of rows, and the order they come in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ...core import FormatError, Site, files
from .places import Place, hash_tensors, place

SCHEMA = 3
READABLE = (2, 3)
"""In a store of schema 2 outliers were judged by each unit's own median, and those left out were not kept."""
ORIGIN = ("token", "document", "offset", "sequence", "position")
"""What is kept with every row: its token; its document and the token's place there; its window and the place in it.

A row of a picture has the token -1; its document and window are the picture, its place there the patch.
"""

OUTLIERS = "outliers."
"""Before a tensor's name in a unit: of the rows left out, kept apart; a unit without such rows has none."""

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
        limits: by site, the norm above which a row is an outlier, decided once before the first unit was made; empty
            where the policy keeps all.
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
    limits: Mapping[str, float] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def n_units(self) -> int:
        """Units that make the store whole."""
        return -(-self.sequences // self.per_unit)

    def windows(self, unit: int) -> tuple[int, int]:
        """The places, first and past the last, that a unit holds of the permuted windows."""
        return unit * self.per_unit, min((unit + 1) * self.per_unit, self.sequences)

    def differences(self, other: Manifest) -> list[str]:
        """What would make other rows, in words; versions and hashes of files are no difference.

        Nor are limits: they follow from the rest, up to the last bits of another machine, and those that stand count.
        """
        found = []
        for name in (f.name for f in dataclasses.fields(self)):
            mine, theirs = getattr(self, name), getattr(other, name)
            if name in ("versions", "hashed", "limits") or mine == theirs:
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
        if not isinstance(found, dict) or found.get("schema") not in READABLE:
            schema = found.get("schema") if isinstance(found, dict) else None
            raise FormatError(f"{where} is no manifest of schema {SCHEMA} (it says {schema!r}). Harvest again.")
        if found["schema"] == 2:
            found = {"limits": {}} | found
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
