"""Which rows of a table hold these words and lie within these bounds, in this order? As fast as one types.

A table of the run is read, ordered and spelled in small letters once; a keystroke then costs one pass over its texts.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute

from ...core import FormatError
from ...core.errors import nearest

KEPT = 4
"""Tables in memory, the last ones asked for."""
WORDS = 200
"""Characters sought at most."""


@dataclass(frozen=True)
class Asked:
    """What is sought in a table.

    Args:
        words: sought in the texts, small letters and capitals alike; a number is the key of one row too.
        texts: columns of texts, or of lists of texts.
        key: the column of whole numbers that names a row.
        between: the lowest and the highest value of a column, None where there is no bound.
        order: columns, the first the most important; "-" before it is downwards, "~" upwards with zeros last.
        limit: rows in the answer.
        offset: rows before them.
    """

    words: str = ""
    texts: tuple[str, ...] = ()
    key: str = ""
    between: tuple[tuple[str, float | None, float | None], ...] = ()
    order: tuple[str, ...] = ()
    limit: int = 60
    offset: int = 0


@dataclass(frozen=True, eq=False)
class Answer:
    """What was found: how many rows of how many, their keys in order, and the first of them whole."""

    matching: int
    of: int
    keys: np.ndarray
    rows: pyarrow.Table


class Finder:
    """The tables that are searched, the last few in memory in the order that was asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[Any, tuple[pyarrow.Table, pyarrow.Array]] = OrderedDict()

    def find(self, name: Any, read: Callable[[], pyarrow.Table], asked: Asked) -> Answer:
        """The rows that are sought.

        Args:
            name: of what `read` gives; it must change when that does.
            read: the table.

        Raises:
            LookupError: if the table has no such column.
            FormatError: if a column cannot be searched so.
        """
        table, texts = self._table((name, asked.order, asked.texts), read, asked)
        mask: Any = None
        if asked.words:
            mask = pyarrow.compute.match_substring(texts, asked.words.lower())
            if asked.key and asked.words.isdigit() and len(asked.words) < 18:
                own = pyarrow.compute.equal(table.column(asked.key), int(asked.words))
                mask = pyarrow.compute.or_(mask, own.combine_chunks())
        for column, low, high in asked.between:
            values = _column(table, column)
            for bound, holds in ((low, pyarrow.compute.greater_equal), (high, pyarrow.compute.less_equal)):
                if bound is not None:
                    one = holds(values, bound).combine_chunks()
                    mask = one if mask is None else pyarrow.compute.and_(mask, one)
        # A missing value lies within no bounds.
        found = table if mask is None else table.filter(mask, null_selection_behavior="drop")
        keys = found.column(asked.key).to_numpy() if asked.key else np.zeros(0, dtype=np.int32)
        return Answer(found.num_rows, table.num_rows, keys, found.slice(asked.offset, asked.limit))

    def _table(self, name: Any, read: Callable[[], pyarrow.Table], asked: Asked) -> tuple[pyarrow.Table, pyarrow.Array]:
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name]
        table = read().combine_chunks()
        for column in (*asked.texts, *([asked.key] if asked.key else []), *(o.lstrip("-~") for o in asked.order)):
            _column(table, column)
        if asked.key and not pyarrow.types.is_integer(table.schema.field(asked.key).type):
            raise FormatError(f"{asked.key} is no column of whole numbers, which name rows.")
        ordered = _ordered(table, asked.order).combine_chunks()
        made = (ordered, _spelled(ordered, asked.texts))
        with self._lock:
            self._kept[name] = made
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return made


def _column(table: pyarrow.Table, name: str) -> pyarrow.ChunkedArray:
    if name not in table.schema.names:
        raise LookupError(f"the table has no column {name[:80]!r}.{nearest(name[:80], table.schema.names)}")
    return table.column(name)


def _ordered(table: pyarrow.Table, order: Sequence[str]) -> pyarrow.Table:
    if not order or not table.num_rows:
        return table
    keys: dict[str, Any] = {}
    directions = []
    for place, name in enumerate(order):
        values = table.column(name.lstrip("-~"))
        if name.startswith("~"):
            values = pyarrow.compute.if_else(pyarrow.compute.greater(values, 0), values, None)
        keys[str(place)] = values
        directions.append((str(place), "descending" if name.startswith("-") else "ascending"))
    # What is missing stands last, whichever way the rest is ordered: so pyarrow sorts unless told otherwise.
    return table.take(pyarrow.compute.sort_indices(pyarrow.table(keys), directions))


def _spelled(table: pyarrow.Table, columns: Sequence[str]) -> pyarrow.Array:
    """All texts of each row in small letters, with a sign between them that no one types."""
    parts: list[Any] = []
    for name in columns:
        values: Any = table.column(name).combine_chunks()
        kind = values.type
        if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
            if not (pyarrow.types.is_string(kind.value_type) or pyarrow.types.is_null(kind.value_type)):
                raise FormatError(f"{name[:80]} holds no texts that could be searched.")
            values = pyarrow.compute.binary_join(values.cast(pyarrow.list_(pyarrow.string())), "\x1f")
        elif not pyarrow.types.is_string(kind):
            raise FormatError(f"{name[:80]} holds no texts that could be searched.")
        parts.append(pyarrow.compute.fill_null(values, ""))
    if not parts:
        return pyarrow.array([""] * table.num_rows, pyarrow.string())
    whole = parts[0] if len(parts) == 1 else pyarrow.compute.binary_join_element_wise(*parts, "\x1f")
    return pyarrow.compute.utf8_lower(whole)


def parse_asked(given: Mapping[str, Any], *, limit: int = 60, offset: int = 0) -> Asked:
    """What a request asks for.

    Raises:
        FormatError: if it is no such question.
    """
    try:
        between = tuple(
            (str(column), None if low is None else float(low), None if high is None else float(high))
            for column, (low, high) in dict(given.get("between", {})).items()
        )
        return Asked(
            words=str(given.get("words", ""))[:WORDS],
            texts=tuple(map(str, given.get("texts", ()))),
            key=str(given.get("key", "")),
            between=between,
            order=tuple(map(str, given.get("order", ()))),
            limit=limit,
            offset=offset,
        )
    except (TypeError, ValueError) as error:
        raise FormatError("the question must name words, texts, key, between and order.") from error
