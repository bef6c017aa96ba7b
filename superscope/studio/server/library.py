"""Which runs are there, and what is in them? Run folders below one root, read piece by piece and trusted in nothing.

A run is found by its place in a list that is made by looking, never by joining what was asked for to a path; links are
not followed, and whatever cannot be read is a sentence.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
import safetensors
import torch

from ...core import FormatError, Report, RunFolder
from ...core.errors import nearest
from ...core.files import read_json, sha256
from ..html import embed, figures, pack, plain, words
from . import shapes
from .finding import Answer, Asked, Finder
from .reading import can_read

LISTED = 500
"""Most runs that are listed."""
LOOKED_AT = 5_000
"""Most folders that are looked into for them."""
DEPTH = 3
"""Folders below the root that are looked into."""
JSON_BYTES = 64_000_000
"""Of a run's about.json or report.json: a page could not show more."""
TABLE_BYTES = 1_000_000_000
"""Of a table in memory."""
ROWS = 100_000
"""Most rows in one answer."""
ARRAY_NUMBERS = 8_000_000
"""Most numbers of an array in one answer."""

PACKAGE = Path(__file__).resolve().parents[2]

_SAVED_BELOW = ("saes/*", "saes/*/*", "saes/*/*/*")
"""Where studies of networks keep the dictionaries that they learn."""
DICTIONARY_BYTES = 200_000_000
"""Of a dictionary that the server itself reads."""

_FRESH = 1.0
"""Seconds for which a list of runs is believed."""
_LONE = re.compile(r"\\ud[89a-f][0-9a-f]{2}")
Unreadable = (OSError, ValueError, KeyError, TypeError, RecursionError, FormatError, pyarrow.ArrowException)
"""Whatever a damaged or hostile folder may raise."""


class Library:
    """The runs below a root, and those that travel in the package.

    Args:
        root: the folder; it need not be there yet.
        bundled: folder whose runs are listed as examples.
        only: the one run of the root that is shown; None shows all.
    """

    def __init__(self, root: Path, bundled: Path | None = None, only: Path | None = None) -> None:
        self.root, self.bundled, self.only = root, bundled, only
        self._lock = threading.Lock()
        self._seen: dict[str, Path] = {}
        self._looked = -_FRESH
        self._finder = Finder()

    def runs(self) -> shapes.RunList:
        """All runs, newest first, those in the package last."""
        places = self._places()
        entries = [self._entry(name, path) for name, path in places.items()]
        entries.sort(key=lambda entry: entry.created, reverse=True)
        entries.sort(key=lambda entry: entry.bundled)
        return shapes.RunList(runs=entries[:LISTED], left_out=max(len(entries) - LISTED, 0))

    def path(self, run: str) -> Path:
        """The folder of a run.

        Raises:
            LookupError: if there is none of this id.
        """
        for fresh in (False, True):
            places = self._places(fresh=fresh)
            if run in places:
                return places[run]
        raise LookupError(f"there is no run {run[:80]!r}.{nearest(run[:80], list(places))}")

    def id_of(self, path: Path) -> str:
        """The id of the run in a folder below the root."""
        return "~".join(path.resolve().relative_to(self.root.resolve()).parts)

    def dictionaries(self) -> dict[str, Path]:
        """The folders of the dictionaries inside runs, by id: the run, a colon and the folder in it."""
        found: dict[str, Path] = {}
        for run, path in self._places().items():
            for inside in ("sae", "dictionary", *_SAVED_BELOW):
                for folder in sorted(path.glob(inside)):
                    if len(found) < LISTED and _is_dictionary(folder, path):
                        found[f"{run}:{folder.relative_to(path).as_posix()}"] = folder
        return found

    def source(self, name: str) -> Path:
        """The folder of a run, or of a dictionary inside one.

        Raises:
            LookupError: if there is none of this id.
        """
        if ":" not in name:
            return self.path(name)
        found = self.dictionaries()
        if name not in found:
            raise LookupError(f"there is no dictionary {name[:80]!r}.{nearest(name[:80], list(found))}")
        return found[name]

    def portable(self, report: Report, sources: Sequence[Path]) -> Report:
        """The report of a study of sources, which may travel: they are named by their place in the studio's folder, or
        in the package, and by the hash of what they hold, and not by where this machine has them.

        A dictionary is hashed by its weights, a run by its about.json, which has the hashes of its files.
        """
        names: dict[str, str] = {}
        hashes: dict[str, str] = {}
        for path in sources:
            place = path.resolve()
            inside = place.is_relative_to(self.root.resolve())
            name = place.relative_to(self.root.resolve() if inside else PACKAGE.parent).as_posix()
            weights = path / "weights.safetensors"
            names[str(path)] = name
            hashes[f"sha256 of {name}"] = sha256(weights if weights.is_file() else path / "about.json")
        named = lambda values: {key: _named(value, names) for key, value in values.items()}  # noqa: E731
        return dataclasses.replace(
            report,
            settings=named(report.settings),
            environment=dict(report.environment) | hashes,
            tables={table: named(columns) for table, columns in report.tables.items()},
        )

    def head(self, run: str) -> str:
        """`shapes.Head` as JSON: the run but for rows and arrays.

        Of a run that goes on, what it has kept so far that a report will have too: tables and arrays.

        Raises:
            LookupError: if there is no such run.
            FormatError: if nothing of it can be shown.
        """
        folder = _open(self.path(run))
        body = _body(folder)
        problems: list[str] = []
        tables: dict[str, int] = {}
        columns: list[str] = []
        left_out: dict[str, Any] = {}
        for name in body["tables"]:
            try:
                about = _metadata(folder, name)
                tables[name] = about.num_rows
                columns += about.schema.to_arrow_schema().names
                if about.num_rows > ROWS:
                    left_out[name] = {"kept": ROWS, "of": about.num_rows}
            except Unreadable as error:
                problems.append(said(error))
        arrays = body["arrays"]
        if arrays:
            try:
                _listed(folder, "arrays.safetensors")
            except Unreadable as error:
                problems.append(said(error))
                arrays = {}
        try:
            drawn = figures(folder.path / "figures") if _inside(folder, "figures") else []
        except Unreadable as error:
            drawn = []
            problems.append(f"The figures cannot be read: {said(error)}")
        try:
            head = {
                "title": body["title"],
                "kind": body["kind"],
                "findings": body["findings"],
                "measurements": body["measurements"],
                "settings": folder.about["settings"],
                "environment": folder.about["environment"],
                "tables": tables,
                "arrays": arrays,
                "left_out": left_out,
                "figures": drawn,
                "words": words([m["name"] for m in body["measurements"]] + columns),
                "problems": problems,
                "finished": folder.about["state"] == "finished",
                "reads": _reads(folder, body),
            }
            text = embed(head)
            # Halves of characters are shown as such by the page, and are the one thing that pydantic has no word for.
            shapes.Head.model_validate_json(_LONE.sub(r"\\ufffd", text))
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(
                f"{folder / 'report.json'} is no report of ours ({_first_line(error)}). Make the run again."
            ) from error
        return text

    def rows(
        self,
        run: str,
        table: str,
        *,
        where: Mapping[str, Any] | None = None,
        sort: str = "",
        descending: bool = False,
        limit: int = ROWS,
        offset: int = 0,
    ) -> str:
        """`shapes.Rows` as JSON: the rows whose columns equal `where`, or one of a list there, sorted by one column.

        Raises:
            LookupError: if there is no such run, table or column.
            FormatError: if the table cannot be read.
        """
        found = _read(_open(self.path(run)), table, where or {}, [sort] if sort else [])
        if sort:
            found = found.sort_by([(sort, "descending" if descending else "ascending")])
        shown = found.slice(max(offset, 0), max(0, min(limit, ROWS)))
        return embed({"columns": _columns(table, shown), "matching": found.num_rows})

    def columns(self, run: str, table: str, names: Sequence[str], where: Mapping[str, Any]) -> shapes.Columns:
        """Columns of numbers of the rows whose columns equal `where`, or one of a list there.

        Raises:
            LookupError: if there is no such run, table or column.
            FormatError: if the table cannot be read, or a column holds no numbers.
        """
        found = _read(_open(self.path(run)), table, where, names, only=True)
        packed = {}
        for name in dict.fromkeys(names):
            column = found.column(name)
            if not (pyarrow.types.is_integer(column.type) or pyarrow.types.is_floating(column.type)):
                raise FormatError(f"The column {name[:80]} of the table {table} holds no numbers.")
            numbers = np.array(column.to_numpy(zero_copy_only=False))
            packed[name] = shapes.Packed(**pack(torch.from_numpy(numbers)))
        return shapes.Columns(columns=packed, matching=found.num_rows)

    def find(self, run: str, table: str, where: Mapping[str, Any], asked: Asked) -> tuple[Answer, dict[str, list[Any]]]:
        """The rows that a search finds among those whose columns equal `where`, and the first of them ready for JSON.

        Raises:
            LookupError: if there is no such run, table or column.
            FormatError: if the table cannot be read or searched.
        """
        folder = _open(self.path(run))
        # What is kept in memory must be what lies on the disk; a name that is none is refused where it is read.
        version = _version(folder / f"{table}.parquet") if re.fullmatch(r"[\w-]+", table) else None
        name = (folder.path, table, tuple(sorted((k, str(v)) for k, v in where.items())), version)
        answer = self._finder.find(name, lambda: _read(folder, table, where), asked)
        return answer, _columns(table, answer.rows)

    def folder(self, run: str) -> RunFolder:
        """A finished run, opened.

        Raises:
            LookupError: if there is none of this id.
            FormatError: if it is unfinished or damaged.
        """
        return _open(self.path(run))

    def array(self, run: str, name: str) -> shapes.Packed:
        """One array.

        Raises:
            LookupError: if there is no such run or array.
            FormatError: if it cannot be read or is too large.
        """
        folder = _open(self.path(run))
        known = _body(folder)["arrays"]
        if name not in known:
            raise LookupError(f"this run has no array {name[:80]!r}.{nearest(name[:80], list(known))}")
        path = _listed(folder, "arrays.safetensors")
        try:
            with safetensors.safe_open(path, "pt") as file:
                numbers = 1
                for size in file.get_slice(name).get_shape():
                    numbers *= size
                if numbers > ARRAY_NUMBERS:
                    raise FormatError(
                        f"The array {name} holds {numbers:,} numbers, more than a page can show. Read {path} with "
                        "safetensors."
                    )
                return shapes.Packed(**pack(file.get_tensor(name)))
        except safetensors.SafetensorError as error:
            raise FormatError(f"{path} cannot be read ({error}). Make the run again.") from error

    def _places(self, *, fresh: bool = False) -> dict[str, Path]:
        with self._lock:
            if fresh or time.monotonic() - self._looked > _FRESH:
                found = {f"@{path.name}": path for path in _runs_below(self.bundled)} if self.bundled else {}
                for path in [self.only] if self.only else _runs_below(self.root):
                    found.setdefault("~".join(path.relative_to(self.root).parts), path)
                self._seen, self._looked = found, time.monotonic()
            return self._seen

    def _entry(self, name: str, path: Path) -> shapes.RunEntry:
        entry = {"id": name, "title": "", "kind": "", "state": "damaged", "created": "", "finished": "", "error": ""}
        try:
            about = _open(path).about
            entry |= {key: _text(about[key] or "") for key in ("title", "kind", "created", "finished")}
            entry["state"] = "finished" if about["state"] == "finished" else "unfinished"
        except Unreadable as error:
            entry["error"] = said(error)
        return shapes.RunEntry.model_validate(entry | {"bundled": name.startswith("@")})


def said(error: BaseException) -> str:
    """An error as one sentence of bounded length."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else _first_line(error)
    return _text(text)[:600] or type(error).__name__


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:400]


def _text(value: Any) -> str:
    """Text that UTF-8 can hold."""
    return re.sub("[\x00\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", str(value))


def _runs_below(root: Path) -> Iterator[Path]:
    """Folders with an about.json, none of them behind a link, none inside another run."""
    patience = LOOKED_AT
    folders = [(root, 0)]
    while folders and patience:
        folder, depth = folders.pop()
        patience -= 1
        try:
            with os.scandir(folder) as entries:
                inner = [e for e in entries if not e.name.startswith(".")]
            if depth and any(e.name == "about.json" for e in inner):
                yield folder
            elif depth < DEPTH:
                folders += [(Path(e.path), depth + 1) for e in inner if e.is_dir(follow_symlinks=False)]
        except OSError:
            # It has gone, or may not be read; the others stand.
            continue


def _is_dictionary(folder: Path, run: Path) -> bool:
    """Whether a folder of a run holds saved weights of bearable size, without links on the way."""
    parts = [folder, *folder.parents]
    inside = parts[: parts.index(run)] if run in parts else []
    files = [folder / name for name in ("weights.safetensors", "about.json")]
    try:
        return (
            not any(each.is_symlink() for each in (*inside, *files))
            and all(file.is_file() for file in files)
            and files[0].stat().st_size <= DICTIONARY_BYTES
        )
    except OSError:
        return False


def _inside(folder: RunFolder, name: str) -> Path | None:
    """A file of the run, if it is there and no link leads out of the run."""
    path = folder / name
    home = folder.path.resolve()
    if not path.exists():
        return None
    if not path.resolve().is_relative_to(home) or any(
        each.is_symlink() for each in (path, *path.parents) if each.is_relative_to(folder.path) and each != folder.path
    ):
        raise FormatError(f"{path} is a link, and links are not followed. Put the file itself there.")
    if path.is_dir() and any(file.is_symlink() for file in path.iterdir()):
        raise FormatError(f"{path} holds links, and links are not followed. Put the files themselves there.")
    return path


def _bounded(folder: RunFolder, name: str) -> Path:
    path = _inside(folder, name)
    if path is None:
        raise FormatError(f"{folder / name} is missing. Make the run again.")
    if not path.is_file():
        raise FormatError(f"{path} is no file. Make the run again.")
    if name.endswith(".json") and path.stat().st_size > JSON_BYTES:
        raise FormatError(
            f"{path} holds {path.stat().st_size / 1e6:.0f} MB of JSON, more than a page can show. "
            "Read it with Python: superscope.Report.load."
        )
    return path


def _open(path: Path) -> RunFolder:
    """The run in a folder, finished or not, once its about.json is known to be a file of bearable size."""
    _bounded(RunFolder(path, {}), "about.json")
    folder = RunFolder.open(path)
    if not all(isinstance(folder.about[key], dict) for key in ("settings", "environment", "files")):
        raise FormatError(f"{path / 'about.json'} does not describe a run.")
    return folder


def _listed(folder: RunFolder, name: str) -> Path:
    """A file that about.json lists, of the size that it says; a page does not wait for the hash of gigabytes."""
    path = _bounded(folder, name)
    listed = folder.about["files"].get(name)
    if folder.about["state"] != "finished" and listed:
        # It may be newer than about.json by now: each of the two is replaced whole, but one after the other.
        return path
    if not isinstance(listed, dict) or listed.get("bytes") != path.stat().st_size:
        raise FormatError(f"{path} has changed since the run wrote it. Make the run again.")
    return path


def _body(folder: RunFolder) -> dict[str, Any]:
    if folder.about["state"] != "finished":
        return _so_far(folder)
    path = _listed(folder, "report.json")
    body = read_json(path)
    kinds = {"title": str, "kind": str, "findings": list, "measurements": list, "tables": dict, "arrays": dict}
    if not isinstance(body, dict) or any(not isinstance(body.get(key), kind) for key, kind in kinds.items()):
        raise FormatError(f"{path} is no report of ours. Make the run again.")
    return body


def _so_far(folder: RunFolder) -> dict[str, Any]:
    """What a report will say, of a run that goes on: tables and arrays that it has kept under their names."""
    kept = [name for name in folder.about["files"] if (folder / name).is_file()]
    tables = {name.removesuffix(".parquet"): name for name in kept if re.fullmatch(r"[\w-]+\.parquet", name)}
    arrays: dict[str, list[int]] = {}
    if "arrays.safetensors" in kept:
        try:
            with safetensors.safe_open(_listed(folder, "arrays.safetensors"), "pt") as file:
                arrays = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (safetensors.SafetensorError, OSError) as error:
            raise FormatError(f"The arrays of {folder.path} cannot be read ({_first_line(error)}).") from error
    if not tables and not arrays:
        raise FormatError(
            f"The run in {folder.path} is unfinished and has kept nothing to show yet. If it no longer runs, resume it "
            "with the command that began it."
        )
    title = f"{folder.about['kind']}, not finished yet"
    return {"title": title, "kind": folder.about["kind"], "findings": [], "measurements": []} | {
        "tables": tables,
        "arrays": arrays,
    }


def _metadata(folder: RunFolder, table: str) -> pyarrow.parquet.FileMetaData:
    if not re.fullmatch(r"[\w-]+", table):
        raise FormatError(f"{table[:80]!r} is no name of a table. Make the run again.")
    path = _listed(folder, f"{table}.parquet")
    try:
        return pyarrow.parquet.read_metadata(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise FormatError(f"The table {table} cannot be read ({_first_line(error)}). Make the run again.") from error


def _read(
    folder: RunFolder, table: str, where: Mapping[str, Any], named: Sequence[str] = (), *, only: bool = False
) -> pyarrow.Table:
    """Rows of a table whose columns equal `where`; the named columns must be there, and may be all that is read."""
    tables = _body(folder)["tables"]
    if table not in tables:
        raise LookupError(f"this run has no table {table[:80]!r}.{nearest(table[:80], list(tables))}")
    about = _metadata(folder, table)
    size = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
    if size > TABLE_BYTES:
        raise FormatError(
            f"The table {table} takes {size / 1e9:.1f} GB in memory, more than a page may ask for. "
            f"Read {folder / f'{table}.parquet'} with pyarrow."
        )
    names = about.schema.to_arrow_schema().names
    for column in [*where, *named]:
        if column not in names:
            raise LookupError(f"the table {table} has no column {column[:80]!r}.{nearest(column[:80], names)}")
    condition = None
    for column, value in where.items():
        field = pyarrow.compute.field(column)
        if isinstance(value, list) and value and all(isinstance(each, str | int | float) for each in value):
            one = field.isin(value)
        elif isinstance(value, str | int | float | bool | None):
            one = field.is_null() if value is None else field == pyarrow.scalar(value)
        else:
            raise FormatError(f"{column} can be compared with a text, a number, a flag, null, or a list of them alone.")
        condition = one if condition is None else condition & one
    columns = list(dict.fromkeys(named)) if only else None
    try:
        return pyarrow.parquet.read_table(folder / f"{table}.parquet", columns=columns, filters=condition)
    except (pyarrow.ArrowException, OSError) as error:
        raise FormatError(f"The table {table} cannot be read so: {_first_line(error)}") from error


def _columns(table: str, rows: pyarrow.Table) -> dict[str, list[Any]]:
    """Rows as JSON has them."""
    digits = {"activations": 3} if table == "contexts" else {}
    return {
        name: [plain(cell, digits.get(name, 9)) for cell in rows.column(name).to_pylist()] for name in rows.schema.names
    }


def _named(value: Any, names: Mapping[str, str]) -> Any:
    """A value with other texts in place of some."""
    if isinstance(value, list | tuple):
        return [_named(each, names) for each in value]
    return names.get(value, value) if isinstance(value, str) else value


def _version(path: Path) -> tuple[int, int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino


def _reads(folder: RunFolder, body: Mapping[str, Any]) -> list[str]:
    """The sites at which a text can be read, each once."""
    places = [(str(m["at"]["site"]), str(m["at"].get("model", ""))) for m in body["measurements"] if "site" in m["at"]]
    return [f"{site} {model}" for site, model in dict.fromkeys(places) if can_read(folder, site, model)]


def parse_where(text: str) -> dict[str, Any]:
    """The conditions of a question: a JSON object of column and value.

    Raises:
        FormatError: if it is none.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError("where must be a JSON object of columns and values.") from error
    if not isinstance(found, dict):
        raise FormatError("where must be a JSON object of columns and values.")
    return found
