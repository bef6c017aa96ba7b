"""Where do findings gather? Measurements and rows of tables as they come, and the look-up by name and place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .measurement import Measurement
from .report import Table


class Measured(ABC):
    """Anything that iterates over measurements: they are looked up by name, and by place where there are several."""

    @abstractmethod
    def __iter__(self) -> Iterator[Measurement]: ...

    def get(self, name: str, *places: object) -> Measurement | None:
        """The first measurement of a name whose place holds all of `places`; None where there is none.

        Args:
            name: the quantity.
            places: values of `at`, whatever their keys: a site, a model, a number.
        """
        wanted = {str(place) for place in places}
        for measurement in self:
            if measurement.name == name and wanted <= {str(value) for value in measurement.at.values()}:
                return measurement
        return None

    def __getitem__(self, asked: str | tuple[Any, ...]) -> Measurement:
        """`measured["l0"]`, or `measured["l0", site]` where there are several.

        Raises:
            KeyError: if there is none; the names that there are are listed.
        """
        name, *places = (asked,) if isinstance(asked, str) else asked
        measurement = self.get(name, *places)
        if measurement is None:
            where = f" at {', '.join(map(str, places))}" if places else ""
            names = dict.fromkeys(m.name for m in self)
            raise KeyError(f"no measurement {name!r}{where} here; there are {', '.join(names) or 'none'}.")
        return measurement


class Findings(Measured):
    """What a study has found so far.

    Example:
        >>> findings = Findings()
        >>> findings.add(Measurement(name="l0", value=4.0, unit="latents", n=9, of="rows"), at={"site": "h.2"})
        >>> findings.row("sites", site="h.2", d=64)
        >>> findings["l0", "h.2"].value, findings.tables
        (4.0, {'sites': {'site': ['h.2'], 'd': [64]}})
    """

    def __init__(self, measurements: Iterable[Measurement] = (), tables: Mapping[str, Table] | None = None) -> None:
        self.measurements: list[Measurement] = list(measurements)
        self.tables: dict[str, dict[str, list[Any]]] = {
            name: {column: list(cells) for column, cells in table.items()} for name, table in (tables or {}).items()
        }

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements)

    def add(
        self, measured: Measurement | Iterable[Measurement], *, at: Mapping[str, str | int | float] | None = None
    ) -> None:
        """Adds a measurement, or all of several, with more said about where they were made."""
        several = (measured,) if isinstance(measured, Measurement) else measured
        self.measurements += [measurement.at_site(**at) if at else measurement for measurement in several]

    def row(self, table: str, **cells: Any) -> None:
        """Adds one row to a table."""
        self.rows(table, {name: [cell] for name, cell in cells.items()})

    def rows(
        self, table: str, columns: Mapping[str, Sequence[Any]], *, at: Mapping[str, str | int | float] | None = None
    ) -> None:
        """Adds rows to a table; `at` fills further columns, in front, with one value.

        Raises:
            ValueError: if columns differ in length, or are not those that the table has.
        """
        count = len(next(iter(columns.values()), ()))
        whole: dict[str, Sequence[Any]] = {name: [value] * count for name, value in (at or {}).items()} | dict(columns)
        lengths = {name: len(cells) for name, cells in whole.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"table {table}: columns differ in length, {lengths}. Give as many cells in each.")
        standing = self.tables.setdefault(table, {name: [] for name in whole})
        if set(standing) != set(whole):
            raise ValueError(f"table {table} has the columns {', '.join(standing)}; got {', '.join(whole)}.")
        for name, cells in whole.items():
            standing[name].extend(cells)
