"""A report in the terminal: findings first, then the main figures with their chance levels."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..core import Measurement, Report

_HEADLINES = {
    "recurring_features": "recurring features",
    "recurring_per_dimension": "per dimension",
    "fraction_variance_unexplained": "variance unexplained",
    "l0": "latents per token",
    "alive_latents": "alive latents",
    "cross_entropy_recovered": "cross entropy recovered",
    "coherence": "coherence",
    "polysemanticity": "features per neuron",
}


def show(report: Report, page: Path, console: Console) -> None:
    """Prints the findings, the main figures of each place beside their chance levels, and where the report is."""
    console.print()
    console.print(f"[bold]{escape(report.title)}[/bold]")
    for finding in report.findings:
        console.print(f"  - {escape(finding)}")
    console.print()
    headlines = {name: label for name, label in _HEADLINES.items() if any(m.name == name for m in report)}
    console.print(_overview(report, headlines) if headlines else _listing(report))
    console.print()
    if headlines:
        console.print(
            "Intervals, bounds, the number of tokens behind each figure, contexts and charts are in the report."
        )
    console.print(f"Report: {page}", soft_wrap=True, markup=False)


def _overview(report: Report, headlines: dict[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, caption="small: chance level", caption_justify="left")
    table.add_column("")
    for label in headlines.values():
        table.add_column(label, justify="right")
    places: dict[str, dict[str, Measurement]] = {}
    for m in report:
        places.setdefault(_place(m), {})[m.name] = m
    for place, measured in places.items():
        cells = []
        for name in headlines:
            m = measured.get(name)
            cells.append("" if m is None else f"{number(m.value)}\n[dim]{number(m.chance)}[/dim]")
        table.add_row(escape(place), *cells)
    return table


def _listing(report: Report) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "measurement", "value", "interval", "bound", "chance", ""):
        table.add_column(heading, overflow="fold")
    for m in report:
        table.add_row(
            escape(_place(m)),
            m.name.replace("_", " "),
            number(m.value),
            "" if m.low is None or m.high is None else f"{number(m.low)} to {number(m.high)}",
            number(m.reference),
            number(m.chance),
            escape(f"{m.unit}, n = {m.n:,} {m.of}"),
        )
    return table


def _place(m: Measurement) -> str:
    return ", ".join(f"{value}" if key in ("site", "model") else f"{key} {value}" for key, value in m.at.items())


def number(value: float | None) -> str:
    """Four significant digits, and whole counts whole."""
    if value is None:
        return ""
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
