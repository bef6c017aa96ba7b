"""A report in the terminal: findings first, then the main figures with their chance levels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

from ..core import Measurement, Report

_HEADLINES = {
    "recurring_features": "recurring",
    "recurring_per_dimension": "per dim.",
    "fraction_variance_unexplained": "unexplained",
    "l0": "l0",
    "cross_entropy_recovered": "CE kept",
}


def show(report: Report, page: Path, console: Console) -> None:
    """Prints the findings, the main figures of each place beside their chance levels, and where the report is."""
    console.print()
    console.print(f"[bold]{escape(report.title)}[/bold]")
    for finding in report.findings:
        console.print(f"  - {escape(finding)}")
    console.print()
    headlines = _headlines(report)
    console.print(_overview(report, headlines) if headlines else _listing(report))
    console.print()
    if headlines and any(m.low is not None for m in report):
        console.print(
            "Intervals, bounds, the number of tokens behind each figure, contexts and charts are in the report."
        )
    console.print(f"Report: {page}", soft_wrap=True, markup=False)


def _headlines(report: Report) -> dict[str, str]:
    """The columns of an overview, or none where a list reads better: one place, or too many quantities."""
    names = {m.name: m.name.replace("_", " ") for m in report}
    chosen = {name: label for name, label in _HEADLINES.items() if name in names}
    # One of them alone is a figure among others, not an overview; without a place there is nothing to look over.
    if len(chosen) > 1 and any(m.at for m in report if m.name in chosen):
        return chosen
    return names if len(names) <= 6 and all(len(report[name]) > 1 for name in names) else {}


def _overview(report: Report, headlines: dict[str, str]) -> Group:
    places: dict[str, dict[str, Measurement]] = {}
    for m in report:
        if m.name in headlines:
            places.setdefault(_place(m), {})[m.name] = m
    shared = _shared_prefix([str(m.at.get("site", "")) for m in report])
    models = {m.at.get("model") for m in report}
    under = f"Sites under {shared.removesuffix('.')}. " if shared else ""
    judged = any(m.chance is not None for measured in places.values() for m in measured.values())
    caption = f"{under}{'In brackets: what chance gives.' if judged else ''}".strip()
    table = Table(box=None, pad_edge=False)
    table.add_column("", overflow="fold")
    for label in headlines.values():
        table.add_column(label, justify="right")
    for place, measured in places.items():
        name = place.removeprefix(shared)
        # One model needs no label.
        name = name.removesuffix(", trained") if len(models) == 1 else name
        cells = [_cell(measured.get(name)) for name in headlines]
        table.add_row(escape(name), *cells)
    return Group(table, f"[italic dim]{escape(caption)}[/]") if caption else Group(table)


def _cell(m: Measurement | None) -> str:
    if m is None:
        return ""
    return number(m.value) + (f" [dim]({m.chance:.2g})[/dim]" if m.chance is not None else "")


def _shared_prefix(sites: list[str]) -> str:
    """The dotted path that all sites begin with, up to its last dot."""
    shared = []
    for steps in zip(*(site.split(".")[:-1] for site in sites), strict=False):
        if len(set(steps)) > 1:
            break
        shared.append(steps[0])
    return "".join(f"{step}." for step in shared)


def _listing(report: Report) -> Table:
    """Every measurement, those of one name together; columns that nothing fills are left out."""
    groups: dict[str, list[Measurement]] = {}
    for m in report:
        groups.setdefault(m.name, []).append(m)
    columns: dict[str, Callable[[Measurement], str]] = {
        "value": lambda m: number(m.value),
        "interval": lambda m: "" if m.low is None or m.high is None else f"{number(m.low)} to {number(m.high)}",
        "bound": lambda m: number(m.reference),
        "chance": lambda m: number(m.chance),
    }
    columns = {heading: cell for heading, cell in columns.items() if any(cell(m) for m in report)}
    table = Table(box=None, pad_edge=False)
    table.add_column("", overflow="fold")
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("unit", overflow="fold")
    for name, group in groups.items():
        title, unit = name.replace("_", " "), group[0].unit
        # What all of a group share is said once, in its title.
        shared = {
            key: value
            for key, value in group[0].at.items()
            if all(m.at.get(key) == value for m in group) and len(group) > 1
        }
        if len(group) == 1:
            place = _place(group[0])
            table.add_row(
                escape(title + (f" ({place})" if place else "")),
                *(cell(group[0]) for cell in columns.values()),
                escape(unit),
            )
            continue
        said = ", ".join(_words(key, value) for key, value in shared.items())
        table.add_row(escape(title + (f" ({said})" if said else "")), *("" for _ in columns), escape(unit))
        for m in group:
            place = ", ".join(_words(key, value) for key, value in m.at.items() if key not in shared)
            own = "" if m.unit == unit else m.unit
            table.add_row(escape(f"  {place or '-'}"), *(cell(m) for cell in columns.values()), escape(own))
    return table


def _words(key: str, value: str | int | float) -> str:
    """A place in the fewest words: names speak for themselves, numbers need their key."""
    return value if isinstance(value, str) else f"{key} {number(value)}"


def _place(m: Measurement) -> str:
    return ", ".join(f"{value}" if key in ("site", "model") else f"{key} {value}" for key, value in m.at.items())


def number(value: float | None) -> str:
    """Three significant digits, and whole counts whole."""
    if value is None:
        return ""
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
