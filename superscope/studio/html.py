"""One self-contained HTML file per run: the built front end with the run's report inside it.

The page needs no server, no network and no second file. Its data travel as JSON, compressed and written in letters and
digits: a third of its size, and nothing that an HTML parser could see. Corpus text is hostile input: the page shows it
through text nodes only, and the page's content security policy lets nothing run but the front end itself.
"""

from __future__ import annotations

import base64
import dataclasses
import gzip
import html as markup
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core import Report, RunFolder
from ..core.files import read_json, write_text
from ..measure.words import WORDS

# A page opens at once up to about ten megabytes; a scan of a large model has gigabytes of rows. Each table gets this
# much room, and its most telling rows fill it; the rest stays in the run's Parquet files, and the page says so.
ROOM = {
    "contexts": 4_500_000,
    "latents": 3_000_000,
    "neurons": 1_000_000,
    "cells": 2_000_000,
    # Every point of a map, so that nobody takes a part for the whole.
    "atlas": 10_000_000,
    "neuron_contexts": 2_000_000,
    "partners": 1_200_000,
}
OTHER_ROOM = 1_000_000
LONG = 4_096
"""Rows beyond which a column of numbers travels as an array: a quarter of the time to read, and no more room."""
ARRAYS_ROOM = 3_000_000
FIGURES_ROOM = 6_000_000

_TITLE = "superscope:title"
_RUN = "superscope:run"
# "<", ">" and "&" so that no parser sees markup; U+2028/9 because old JavaScript took them for line ends; lone
# surrogates because UTF-8 has no way to write them.
_UNSAFE = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


def html(run: RunFolder | Path | str | Report) -> str:
    """The page of a finished run, as text.

    Numbers in tables are written in float32 precision (the shortest decimal that reads back as the same float32);
    measurements keep every digit. Tables larger than their room keep their most telling rows; the page says how many.
    Arrays, in float32 precision too, and the figures that were drawn into the run's folder stand in the page as far as
    there is room for them.

    Args:
        run: a finished run folder, its path, or a report in memory.

    Raises:
        FileNotFoundError: if there is no such run, or the front end was not built; the message says how to build it.
        FormatError: if the run is unfinished or damaged.

    Example:
        >>> from superscope.core import Measurement
        >>> one = Measurement(name="coherence", value=0.5, unit="cosine", n=3, of="atoms")
        >>> page = html(Report(title="Three atoms & a bound", kind="superposition", measurements=(one,)))
        >>> "<title>Three atoms &amp; a bound</title>" in page
        True
    """
    if isinstance(run, Report):
        report, drawn = run, []
    else:
        folder = run.path if isinstance(run, RunFolder) else Path(run)
        report, drawn = Report.load(folder), figures(folder / "figures")
    return page(report.title, in_lines(payload(report) | {"figures": drawn}))


def page(title: str, run: str) -> str:
    """The built page under a title, with a run as `embed` writes it, or with the word of where else it is to ask.

    Raises:
        FileNotFoundError: if the front end was not built; the message says how to build it.
    """
    before, rest = template().split(_TITLE, 1)
    between, after = rest.split(_RUN, 1)
    return "".join((before, markup.escape(_printable(title)), between, run, after))


def write_html(run: RunFolder | Path | str) -> Path:
    """Writes `report.html` into a finished run's folder, atomically, and returns its path.

    The page is a view of the folder and can be made again from it, so it is not listed in about.json.

    Raises:
        FileNotFoundError: if there is no such run, or the front end was not built.
        FormatError: if the run is unfinished or damaged.
        OSError: if the disk is full; an older page is then as it was.
    """
    folder = run.path if isinstance(run, RunFolder) else Path(run)
    path = folder / "report.html"
    write_text(path, html(folder))
    return path


def template() -> str:
    """The built page, without data.

    Raises:
        FileNotFoundError: if the front end was not built, with the command that builds it.
    """
    text = _built("report.html")
    if text.count(_RUN) != 1 or text.index(_TITLE) > text.index(_RUN):
        raise FileNotFoundError(
            "superscope/studio/static/report.html is not a page of this version. Build it again with "
            "`python hatch_build.py`."
        )
    return text


def _built(name: str) -> str:
    file = resources.files("superscope.studio") / "static" / name
    if not file.is_file():
        raise FileNotFoundError(
            f"The front end is not built: superscope/studio/static/{name} is missing. In a checkout run "
            "`python hatch_build.py` (it needs hatchling and Node 20.19 or later), or install the package with "
            "`pip install .`."
        )
    return file.read_text(encoding="utf-8")


def shell() -> tuple[str, str]:
    """The page of the live studio, which asks the server for its data, and its content security policy.

    Raises:
        FileNotFoundError: if the front end was not built, with the command that builds it.
    """
    text = _built("studio.html")
    policy = re.search('http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    return text, policy[1]


def embed(value: Any) -> str:
    """JSON that can stand inside a <script> element, whatever text it holds.

    Raises:
        ValueError: if a number is NaN or infinite.

    Example:
        >>> embed({"token": "</script>"})
        '{"token":"\\\\u003c/script\\\\u003e"}'
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def in_lines(run: Mapping[str, Any]) -> str:
    """A run as `EmbedSource.fromPage` of the front end reads it: all but the rows of tables, then a line a table.

    A page opens with its first line; a table is unpacked when a view first asks for it.

    Args:
        run: as `payload` makes it.
    """
    tables = run["tables"]
    rows = {name: next(iter(table.values()), []) for name, table in tables.items()}
    counts = {name: cells["shape"][0] if isinstance(cells, Mapping) else len(cells) for name, cells in rows.items()}
    first = {**run, "tables": counts, "names": list(tables)}
    return "\n".join(compressed(embed(part)) for part in (first, *tables.values()))


def compressed(text: str) -> str:
    """Text as gzip in base64, alike for alike text.

    Example:
        >>> gzip.decompress(base64.b64decode(compressed("a" * 1000))).decode() == "a" * 1000
        True
    """
    # Level 9 takes three times as long for 2 % less.
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode("ascii")


def payload(report: Report) -> dict[str, Any]:
    """What the page holds of a report, ready for JSON."""
    tables, left_out = {}, {}
    order = _trusted(report.tables.get("latents", {}))
    for name, table in report.tables.items():
        # A context's activations only choose a colour: three digits are what it shows of them.
        digits = {"activations": 3} if name in ("contexts", "neuron_contexts") else {}
        columns = {column: [plain(cell, digits.get(column, 9)) for cell in cells] for column, cells in table.items()}
        rows = len(next(iter(columns.values()), ()))
        kept = _within(columns, rows, _importance(name, columns, order), ROOM.get(name, OTHER_ROOM))
        if len(kept) < rows:
            columns = {column: [cells[row] for row in kept] for column, cells in columns.items()}
            left_out[name] = {"kept": len(kept), "of": rows}
        tables[name] = {
            column: _numbers(cells) if len(kept) > LONG and _is_numbers(cells) else cells
            for column, cells in columns.items()
        }
    return {
        "title": _printable(report.title),
        "kind": report.kind,
        "findings": list(report.findings),
        "measurements": [dataclasses.asdict(m) for m in report.measurements],
        "settings": _settings(report.settings),
        "environment": _settings(report.environment),
        "tables": tables,
        "arrays": {name: list(tensor.shape) for name, tensor in report.arrays.items()},
        "packed": _packed(report.arrays),
        "left_out": left_out,
        "problems": [],
        "finished": True,
        "reads": [],
        "words": words(
            [m.name for m in report.measurements] + [column for table in report.tables.values() for column in table]
        ),
    }


def _is_numbers(cells: Sequence[Any]) -> bool:
    return all(cell is None or (isinstance(cell, int | float) and not isinstance(cell, bool)) for cell in cells)


def _numbers(cells: Sequence[int | float | None]) -> dict[str, Any]:
    """A column as an array; NaN where a number is missing."""
    if all(isinstance(cell, int) for cell in cells):
        return pack(torch.tensor(cells))
    return pack(torch.tensor([math.nan if cell is None else float(cell) for cell in cells]))


def _packed(arrays: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    """The arrays that there is room for, the smallest first."""
    found, used = {}, 0
    for name, tensor in sorted(arrays.items(), key=lambda item: item[1].numel()):
        # Four bytes a number, four characters for three bytes.
        used += tensor.numel() * 16 // 3
        if used > ARRAYS_ROOM:
            break
        found[name] = pack(tensor)
    return found


def pack(tensor: Tensor) -> dict[str, Any]:
    """An array as JSON has it: dtype, shape, and its numbers, little-endian, in base64.

    Flags become uint8; whole numbers int32, or float64 where they are too large for it; all others float32.

    Example:
        >>> pack(torch.tensor([[1, 2]]))
        {'dtype': 'int32', 'shape': [1, 2], 'base64': 'AQAAAAIAAAA='}
    """
    kind = torch.float32
    if tensor.dtype in (torch.bool, torch.uint8):
        kind = torch.uint8
    elif not tensor.is_floating_point():
        largest = int(tensor.abs().max()) if tensor.numel() else 0
        kind = torch.int32 if largest < 2**31 else torch.float64
    numbers = tensor.detach().to("cpu", kind).contiguous().numpy()
    numbers = numbers.astype(numbers.dtype.newbyteorder("<"))
    return {
        "dtype": str(kind).removeprefix("torch."),
        "shape": list(tensor.shape),
        "base64": base64.b64encode(numbers.tobytes()).decode("ascii"),
    }


def words(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """What names of measurements, and of columns of the like, are called and mean: those that are known."""
    fields = ("label", "heading", "definition", "reading")
    known = (WORDS[name] for name in dict.fromkeys(names) if name in WORDS)
    return {word.name: {field: getattr(word, field) for field in fields} for word in known}


def figures(folder: Path) -> list[dict[str, str]]:
    """The drawings that a folder's index.json names, in its order: name, what it shows, and the SVG in base64.

    One that has been taken away is left out.
    """
    if not (folder / "index.json").is_file():
        return []
    found, used = [], 0
    for entry in read_json(folder / "index.json"):
        file = folder / f"{Path(entry['name']).name}.svg"
        if not file.is_file():
            continue
        drawing = base64.b64encode(file.read_bytes()).decode("ascii")
        used += len(drawing)
        if used > FIGURES_ROOM:
            break
        found.append({"name": entry["name"], "shows": entry["shows"], "svg": drawing})
    return found


def plain(cell: Any, digits: int = 9) -> Any:
    """A table's cell as JSON has it: float32 precision, whole numbers without a point, NaN and infinities as null.

    Example:
        >>> plain([0.1 + 0.2, 3.0, float("nan"), "a"])
        [0.3, 3, None, 'a']
    """
    match cell:
        case None | bool() | int() | str():
            return cell
        case np.generic() | np.ndarray():
            return plain(cell.tolist(), digits)
        case float():
            if not math.isfinite(cell):
                return None
            if cell.is_integer() and abs(cell) < 2**53:
                return int(cell)
            # Beyond float32's range the float64 stands as it is.
            single = np.float32(cell) if 1e-37 < abs(cell) < 3e38 else cell
            return float(f"{cell:.{digits}g}" if digits < 9 else str(single))
        case Mapping():
            return {str(key): plain(value, digits) for key, value in cell.items()}
        case Sequence():
            return [plain(value, digits) for value in cell]
    return str(cell)


def _settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings keep their digits: a learning rate of 3e-4 is shown as it was given."""

    def exact(value: Any) -> Any:
        match value:
            case None | bool() | int() | str():
                return value
            case float():
                return value if math.isfinite(value) else str(value)
            case Mapping():
                return {str(key): exact(inner) for key, inner in value.items()}
            case list() | tuple():
                return [exact(inner) for inner in value]
        return str(value)

    return {str(key): exact(value) for key, value in values.items()}


def _printable(title: str) -> str:
    """A title for the <title> element: NUL and lone surrogates, which HTML and UTF-8 cannot hold, become U+FFFD."""
    return re.sub("[\x00\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", title)


def _trusted(latents: Mapping[str, Sequence[Any]]) -> dict[tuple[Any, Any, Any], int]:
    """The place of each latent of a site and model: those that most seeds found first, among them the clearest."""
    if not {"site", "model", "latent", "clarity", "recurs"} <= latents.keys():
        return {}
    recurs, clarity = latents["recurs"], latents["clarity"]
    rows = sorted(range(len(latents["latent"])), key=lambda row: (-(recurs[row] or 0), -(clarity[row] or 0.0)))
    places: dict[tuple[Any, Any, Any], int] = {}
    taken: dict[tuple[Any, Any], int] = {}
    for row in rows:
        group = (latents["site"][row], latents["model"][row])
        places[*group, latents["latent"][row]] = taken[group] = taken.get(group, -1) + 1
    return places


def _importance(
    name: str, columns: Mapping[str, Sequence[Any]], order: Mapping[tuple[Any, Any, Any], int]
) -> list[Any]:
    """A sort key per row: what goes in first when not all fits. Unknown tables keep their own order."""
    rows = range(len(next(iter(columns.values()), ())))
    if name in ("latents", "contexts") and order and {"site", "model", "latent"} <= columns.keys():
        rank = columns.get("rank", [0] * len(rows))
        place = [order.get((columns["site"][r], columns["model"][r], columns["latent"][r]), len(order)) for r in rows]
        # Every latent's best contexts before any latent's twentieth: a page of examples, not of one feature.
        return [(place[r] + 40 * (rank[r] // 5), place[r], rank[r]) for r in rows]
    if name == "neurons" and {"site", "model", "effective_features"} <= columns.keys():
        mixing = sorted(rows, key=lambda r: -(columns["effective_features"][r] or 0.0))
        seen: dict[tuple[Any, Any], int] = {}
        key = [0] * len(rows)
        for r in mixing:
            group = (columns["site"][r], columns["model"][r])
            key[r] = seen[group] = seen.get(group, -1) + 1
        return key
    return list(rows)


def _within(columns: Mapping[str, Sequence[Any]], rows: int, importance: Sequence[Any], room: int) -> list[int]:
    """The most important rows whose JSON fits the room, in the table's own order."""
    kept, used = [], 0
    for row in sorted(range(rows), key=lambda row: importance[row]):
        used += sum(_letters(cells[row]) + 1 for cells in columns.values())
        if used > room:
            break
        kept.append(row)
    return sorted(kept)


def _letters(cell: Any) -> int:
    """Bytes of a cell's JSON; of numbers, which are most cells, without writing it."""
    return 9 if isinstance(cell, float) else len(embed(cell).encode())
