"""What was found, beside what was possible: measurements with their spread and bound, tables, arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from torch import Tensor

from . import files
from .card import card
from .errors import FormatError, nearest
from .measurement import Measurement

Table = Mapping[str, Sequence[Any]]
"""Columns of equal length by name; a cell may be a list."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Report:
    """A study's answer. Saved as a folder: about.json, report.json, a Parquet file per table, arrays.safetensors.

    Args:
        title: one sentence.
        kind: the study's name ("scan").
        measurements: what was measured.
        settings: the study itself, as a dict of its fields.
        environment: versions, device, times.
        tables: further results by name.
        arrays: tensors by name.
        findings: the main results in plain sentences, most important first.
    """

    title: str
    kind: str
    measurements: tuple[Measurement, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)
    arrays: Mapping[str, Tensor] = field(default_factory=dict)
    findings: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> tuple[Measurement, ...]:
        """All measurements of one name.

        Raises:
            KeyError: if there are none; the nearest names are offered.
        """
        found = tuple(m for m in self.measurements if m.name == name)
        if not found:
            raise KeyError(
                f"this report has no measurement {name!r}.{nearest(name, {m.name for m in self.measurements})}"
            )
        return found

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements)

    def __repr__(self) -> str:
        counts = f"{len(self.measurements)} measurements, {len(self.tables)} tables, {len(self.arrays)} arrays"
        return f"Report({self.title!r}, kind={self.kind!r}: {counts})"

    def _repr_html_(self) -> str:
        beside = [f"{len(self.tables)} tables ({', '.join(self.tables)})"] * bool(self.tables)
        beside += [f"{len(self.arrays)} arrays ({', '.join(self.arrays)})"] * bool(self.arrays)
        return card(self.title, self.findings, self.measurements, beside)

    def __str__(self) -> str:
        return "\n".join([self.title, *(f"  {m}" for m in self.measurements)])

    def write(self, run: files.RunFolder) -> None:
        """Writes everything into a started run; the caller finishes the run."""
        body = {
            "title": self.title,
            "kind": self.kind,
            "findings": list(self.findings),
            "measurements": [dataclasses.asdict(m) for m in self.measurements],
            "tables": {name: f"{name}.parquet" for name in self.tables},
            "arrays": {name: list(tensor.shape) for name, tensor in self.arrays.items()},
        }
        for name, table in self.tables.items():
            files.write_table(run / f"{name}.parquet", pyarrow.table(dict(table)))
            run.keep(f"{name}.parquet")
        if self.arrays:
            files.write_tensors(run / "arrays.safetensors", self.arrays)
            run.keep("arrays.safetensors")
        files.write_json(run / "report.json", body)
        run.keep("report.json")

    def save(self, path: Path | str) -> files.RunFolder:
        """Writes the report as a finished run folder of its own.

        Raises:
            FileExistsError: if the folder already holds something.
        """
        now = str(self.environment.get("finished", ""))
        run = files.RunFolder.start(
            Path(path),
            kind=self.kind,
            settings=self.settings,
            environment=self.environment,
            version=str(self.environment.get("superscope", "")),
            created=str(self.environment.get("created", now)),
        )
        self.write(run)
        run.finish(self.title, now)
        return run

    @classmethod
    def load(cls, path: Path | str) -> Report:
        """The report in a run folder, its files checked against their hashes.

        Raises:
            FileNotFoundError: if the folder holds no run.
            FormatError: if the run is unfinished, damaged or has unknown keys.
        """
        run = files.RunFolder.open(Path(path))
        if run.about["state"] != "finished":
            raise FormatError(f"{path} holds an unfinished run. Resume it with the command that began it.")
        run.verify()
        body = files.read_json(run / "report.json")
        known = ("title", "kind", "findings", "measurements", "tables", "arrays")
        files.refuse_unknown(body, known, str(run / "report.json"))
        fields = {f.name for f in dataclasses.fields(Measurement)}
        for measurement in body["measurements"]:
            files.refuse_unknown(measurement, fields, str(run / "report.json"))
        return cls(
            title=body["title"],
            kind=body["kind"],
            measurements=tuple(Measurement(**m) for m in body["measurements"]),
            settings=run.about["settings"],
            environment=run.about["environment"],
            tables={name: pyarrow.parquet.read_table(run / file).to_pydict() for name, file in body["tables"].items()},
            arrays=files.read_tensors(run / "arrays.safetensors") if body["arrays"] else {},
            findings=tuple(body["findings"]),
        )
