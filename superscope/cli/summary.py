"""A report in the terminal: findings first, then the main figures with their chance levels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ..core import Measurement, Report
from ..measure.words import WORDS, word_for

_HEADLINES = {name: known.heading for name, known in WORDS.items() if known.headline}

_GAP = 2
_LONG, _EACH = 44, 6
"""Figures that a list may have, and how many of one quantity are left where it has more."""


def show(report: Report, page: Path, console: Console) -> None:
    """Prints the findings, the main figures of each place beside their chance levels, and where the report is."""
    console.print()
    console.print(Text(report.title, style="bold"))
    for finding in report.findings:
        for number, line in enumerate(Text(finding).wrap(console, max(console.width - 4, 20))):
            line.rstrip()
            console.print(Text("    " if number else "  - ").append_text(line), no_wrap=True, soft_wrap=True)
    console.print()
    figures = averaged(report)
    headlines = _headlines(figures)
    table = _overview(figures, headlines, console.width) if headlines else None
    for line in table or _listing(figures, console.width):
        console.print(line, no_wrap=True, soft_wrap=True)
    console.print()
    if table and any(m.low is not None for m in report):
        console.print(
            "Intervals, bounds, the number of tokens behind each figure, contexts and charts are in the report."
        )
    console.print(f"Report: {page}", soft_wrap=True, markup=False)


@dataclass(frozen=True)
class Figure:
    """One quantity at one place, as it is printed: a measurement, or the mean of several that differ by their seed.

    Args:
        seeds: whose mean it is; `low` and `high` are then the least and the most of them. 0: a measurement by itself.
        lost: seeds among them that have no value.
        why: there is no value.
    """

    name: str
    at: Mapping[str, str | int | float]
    value: float | None
    low: float | None
    high: float | None
    reference: float | None
    chance: float | None
    unit: str
    seeds: int = 0
    lost: int = 0
    why: str = ""


def averaged(measurements: Iterable[Measurement]) -> list[Figure]:
    """The measurements, those that differ in nothing but `seed` as one."""
    groups: dict[tuple[str, tuple[tuple[str, str | int | float], ...]], list[Measurement]] = {}
    for m in measurements:
        place = tuple((key, value) for key, value in m.at.items() if key != "seed")
        groups.setdefault((m.name, place), []).append(m)
    figures = []
    for (name, place), group in groups.items():
        first = group[0]
        if len(group) == 1 or any("seed" not in m.at for m in group):
            figures += [
                Figure(name, dict(m.at), m.value, m.low, m.high, m.reference, m.chance, m.unit, why=_why(m))
                for m in group
            ]
            continue
        values = [m.value for m in group if m.value is not None]
        figures.append(
            Figure(
                name,
                dict(place),
                _mean(values),
                min(values, default=None),
                max(values, default=None),
                _mean([m.reference for m in group if m.reference is not None]),
                _mean([m.chance for m in group if m.chance is not None]),
                first.unit,
                seeds=len(group),
                lost=len(group) - len(values),
                why="" if values else _why(first),
            )
        )
    return figures


def _why(m: Measurement) -> str:
    return m.caution if m.value is None else ""


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _headlines(figures: Sequence[Figure]) -> dict[str, str]:
    """The columns of an overview, or none where a list reads better: one place, or too many quantities."""
    names = {f.name: word_for(f.name).heading for f in figures}
    chosen = {name: label for name, label in _HEADLINES.items() if name in names}
    places = {_place(f) for f in figures if f.name in chosen}
    # One of them alone is a figure among others, not an overview; without a place there is nothing to look over.
    if len(chosen) > 1 and places - {""} and (len(places) > 1 or len(chosen) == len(_HEADLINES)):
        return chosen
    return names if len(names) <= 6 and all(sum(f.name == name for f in figures) > 1 for name in names) else {}


def _overview(figures: Sequence[Figure], headlines: Mapping[str, str], width: int) -> list[Text] | None:
    """A line for each place and a column for each headline; None where that is too wide."""
    places: dict[str, dict[str, Figure]] = {}
    for f in figures:
        if f.name in headlines:
            places.setdefault(_place(f), {})[f.name] = f
    shared = _shared_prefix([str(f.at.get("site", "")) for f in figures])
    models = {f.at.get("model") for f in figures}
    rows = []
    for place, measured in places.items():
        label = place.removeprefix(shared)
        # One model needs no label.
        label = label.removesuffix(", trained") if len(models) == 1 else label
        rows.append((label, [_cell(measured.get(name)) for name in headlines]))
    heads = [_stacked(label) for label in headlines.values()]
    depth = max(len(head) for head in heads)
    heads = [[""] * (depth - len(head)) + head for head in heads]
    label_width = max(len(label) for label, _ in rows)
    columns = [
        max(*(len(cells[i].plain) for _, cells in rows), *(len(word) for word in heads[i])) for i in range(len(heads))
    ]
    if label_width + sum(columns) + _GAP * len(columns) > width:
        return None
    lines = [_line("", [Text(head[i]) for head in heads], label_width, columns, "bold") for i in range(depth)]
    lines += [_line(label, cells, label_width, columns) for label, cells in rows]
    shown = [f for measured in places.values() for f in measured.values()]
    notes = [f"Sites under {shared.removesuffix('.')}."] if shared else []
    notes += ["In brackets: what chance gives."] if any(f.chance is not None for f in shown) else []
    notes += ["In brackets: the range over seeds."] if any(f.seeds for f in shown) else []
    lines += [Text(" ".join(notes), style="italic dim")] if notes else []
    return lines + _undefined(shown, width)


def _cell(f: Figure | None) -> Text:
    if f is None:
        return Text("")
    beside = f" ({f.chance:.2g})" if f.chance is not None else ""
    if f.seeds:
        beside = f" ({_range(f)})"
    return Text(_value(f)).append(beside, style="dim")


def _value(f: Figure) -> str:
    return "—" if f.value is None else number(f.value)


def _undefined(figures: Iterable[Figure], width: int) -> list[Text]:
    """Why some figures have no value, each reason once."""
    reasons = dict.fromkeys(f"— {word_for(f.name).label}: {f.why.rstrip('.')}." for f in figures if f.value is None)
    return [Text(line.plain, style="italic dim") for reason in reasons for line in _folded(reason, width)]


def _range(f: Figure) -> str:
    return "" if f.low is None or f.high is None else f"{number(f.low)} to {number(f.high)}"


def _stacked(label: str, room: int = 13) -> list[str]:
    """A heading in as few lines of at most `room` columns as its words allow."""
    lines: list[str] = []
    for word in label.split():
        if lines and len(lines[-1]) + 1 + len(word) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _shared_prefix(sites: list[str]) -> str:
    """The dotted path that all sites begin with, up to its last dot; none where there is but one site."""
    if len(set(sites) - {""}) < 2:
        return ""
    shared = []
    for steps in zip(*(site.split(".")[:-1] for site in sites), strict=False):
        if len(set(steps)) > 1:
            break
        shared.append(steps[0])
    return "".join(f"{step}." for step in shared)


def _listing(figures: Sequence[Figure], width: int) -> list[Text]:
    """Figures, those of one name together; columns that nothing fills are left out, and no cell is wrapped."""
    figures, cut = _main(figures)
    everywhere = _shared(figures)
    figures = [dataclasses.replace(f, at={k: v for k, v in f.at.items() if k not in everywhere}) for f in figures]
    groups: dict[str, list[Figure]] = {}
    for f in figures:
        groups.setdefault(f.name, []).append(f)
    kinds: dict[str, Callable[[Figure], str]] = {
        "mean" if all(f.seeds for f in figures) else "value": _value,
        "range of seeds": lambda f: _range(f) if f.seeds else "",
        "interval": lambda f: "" if f.seeds else _range(f),
        "bound": lambda f: number(f.reference),
        "chance": lambda f: number(f.chance),
    }
    kinds = {heading: cell for heading, cell in kinds.items() if any(cell(f) for f in figures)}
    columns = [max(len(heading), *(len(cell(f)) for f in figures)) for heading, cell in kinds.items()]
    # (label, figure, unit): a label with no figure is a heading, and has its line for itself.
    rows: list[tuple[str, Figure | None, str]] = []
    for name, group in groups.items():
        title, unit = word_for(name).label, group[0].unit
        unit = "" if unit == title.lower() else unit
        if len(group) == 1:
            place = _place(group[0])
            rows.append((title + (f" ({place})" if place else ""), group[0], unit))
            continue
        # What all of a group share is said once, in its title.
        shared = _shared(group)
        said = _words(dataclasses.replace(group[0], at=shared, lost=0))
        rows.append((_joined(f"{title} ({said})" if said else title, unit), None, ""))
        for f in group:
            place = _words(dataclasses.replace(f, at={k: v for k, v in f.at.items() if k not in shared}))
            rows.append((f"  {place or '-'}", f, "" if f.unit == group[0].unit else f.unit))
    # A label or unit that has no room beside the figures stands above them: as few of these as can be.
    room = width - sum(columns) - _GAP * len(columns)
    sizes = [(len(label), len(unit) + _GAP if unit else 0) for label, f, unit in rows if f is not None]
    label_width = min(
        (label for label, _ in sizes if label <= room),
        key=lambda wide: (sum(label > wide or unit > room - wide for label, unit in sizes), wide),
        default=0,
    )
    lines = [_line("", [Text(heading) for heading in kinds], label_width, columns, "bold")]
    for label, f, unit in rows:
        if f is None:
            lines += _folded(label, width)
            continue
        cells = [Text(cell(f)) for cell in kinds.values()]
        if len(label) > label_width or label_width + (len(unit) + _GAP if unit else 0) > room:
            lines += _folded(_joined(label, unit), width)
            label, unit = "", ""
        lines.append(_line(label, [*cells, Text(unit)], label_width, [*columns, 0]))
    if everywhere:
        where = _place(dataclasses.replace(figures[0], at=everywhere, lost=0))
        lines += [Text(line.plain, style="italic dim") for line in _folded(f"Place of all figures: {where}.", width)]
    lines += [Text(line.plain, style="italic dim") for line in (_folded(cut, width) if cut else [])]
    return lines + _undefined(figures, width)


def _main(figures: Sequence[Figure]) -> tuple[list[Figure], str]:
    """Of a long list what a reader begins with, and a sentence about the rest.

    Of a quantity that has many figures those at the middle of what was varied in numbers (a rank, a size); where that
    is still too long, the first few of them.
    """
    if len(figures) <= _LONG:
        return list(figures), ""
    groups: dict[str, list[Figure]] = {}
    for f in figures:
        groups.setdefault(f.name, []).append(f)
    kept: list[Figure] = []
    middles: dict[str, str] = {}
    for group in groups.values():
        some = group
        for key in dict.fromkeys(key for f in group for key in f.at):
            varied = sorted({value for f in some if isinstance(value := f.at.get(key), int | float)})
            if len(some) > _EACH and len(varied) > 1:
                middle = varied[len(varied) // 2]
                some = [f for f in some if key not in f.at or f.at[key] == middle]
                middles[key] = f"{key} {number(middle)}"
        kept += some
    if len(kept) > _LONG:
        places = {name: [f for f in kept if f.name == name][:_EACH] for name in groups}
        kept = [f for some in places.values() for f in some]
    where = f"those at {', '.join(middles.values())}" if middles else "the first of each quantity"
    return kept, f"Shown are {len(kept)} of {len(figures)} figures, {where}; the report has all."


def _joined(label: str, unit: str) -> str:
    return f"{label}, {unit}" if unit else label


def _shared(figures: Sequence[Figure]) -> dict[str, str | int | float]:
    """What the places of all these have in common; nothing where there is but one."""
    if len(figures) < 2:
        return {}
    return {key: value for key, value in figures[0].at.items() if all(f.at.get(key) == value for f in figures)}


def _folded(label: str, width: int) -> list[Text]:
    """A line that stands for itself; the rest of one that is too long is indented."""
    indent = " " * (len(label) - len(label.lstrip()))
    lines: list[str] = []
    for word in label.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(f"{indent}{'    ' if lines else ''}{word}")
    return [Text(line) for line in lines]


def _line(label: str, cells: Sequence[Text], label_width: int, columns: Sequence[int], style: str = "") -> Text:
    """Cells right-justified in their columns, one that is wider, as a unit is, as it is."""
    line = Text(label.ljust(label_width), style=style)
    for cell, column in zip(cells, columns, strict=True):
        line.append(" " * (_GAP + max(column - len(cell.plain), 0)))
        line.append_text(cell)
    line.rstrip()
    return line


def _words(f: Figure) -> str:
    """A place in the fewest words: names speak for themselves, numbers need their key."""
    words = [value if isinstance(value, str) else f"{key} {number(value)}" for key, value in f.at.items()]
    return ", ".join(words + _losses(f))


def _place(f: Figure) -> str:
    words = [
        f"{value}" if key in ("site", "model") else f"{key} {value if isinstance(value, str) else number(value)}"
        for key, value in f.at.items()
    ]
    return ", ".join(words + _losses(f))


def _losses(f: Figure) -> list[str]:
    return [f"{f.seeds - f.lost} of {f.seeds} seeds"] if f.lost else []


def number(value: float | int | None) -> str:
    """Three significant digits, and whole counts whole."""
    if value is None:
        return ""
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
