"""A report in the terminal: findings first, then one table per kind of place, bounds beside values."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..core import Measurement, Report


def show(report: Report, page: Path, console: Console) -> None:
    """Prints the findings, every measurement with its interval, bound and chance level, and where the report is."""
    console.print()
    console.print(f"[bold]{escape(report.title)}[/bold]")
    for finding in report.findings:
        console.print(f"  - {escape(finding)}", soft_wrap=False)
    for place, measurements in _by_place(report).items():
        table = Table(title=escape(place) or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for heading, justify in (("measurement", "left"), ("value", "right"), ("interval", "right"), ("bound", "right"), ("chance", "right"), ("", "left")):
            table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
        for m in measurements:
            table.add_row(
                m.name.replace("_", " "),
                "undefined" if m.value is None else number(m.value),
                "" if m.low is None or m.high is None else f"{number(m.low)} to {number(m.high)}",
                number(m.reference),
                number(m.chance),
                escape(f"{m.unit}, n = {m.n:,} {m.of}"),
            )
        console.print()
        console.print(table)
    cautions = sorted({f"{m.name.replace('_', ' ')}: {m.caution}" for m in report if m.caution})
    if cautions:
        console.print()
        for caution in cautions:
            console.print(f"  Caution, {escape(caution)}")
    console.print()
    console.print(f"Report: {page}", soft_wrap=True, markup=False)


def number(value: float | None) -> str:
    """Four significant digits, and whole counts whole."""
    if value is None:
        return ""
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _by_place(report: Report) -> dict[str, list[Measurement]]:
    places: dict[str, list[Measurement]] = {}
    for m in report:
        places.setdefault(_place(m.at.items()), []).append(m)
    return places


def _place(items: Iterable[tuple[str, object]]) -> str:
    return ", ".join(f"{value}" if key in ("site", "model") else f"{key} {value}" for key, value in items)
