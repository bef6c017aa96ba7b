"""What do the trainings of time_to_quality.py say? Tables and a plot of its lines; nothing is trained here."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peers
from crossings import Ratio, crossing, middle, ratio
from quality_forms import ALIKE, BATCH, CONSTANT, DECAYING, OURS, ROUNDED, SILENT, WHEN, Form, K

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "time-to-quality.png"


@dataclass(frozen=True)
class Curve:
    """All that a contestant did at one place with one seed.

    Args:
        points: by steps: what is left, and the seconds.
        ends: the lines of its whole runs, by their steps.
        lr: its rate.
    """

    points: list[dict[str, float]]
    ends: dict[int, Mapping[str, Any]]
    lr: float

    def column(self, name: str) -> list[float]:
        if name == "with harvest":
            return [point["cpu"] + point["harvest"] for point in self.points]
        return [point[name] for point in self.points]


Curves = dict[tuple[str, int], dict[str, Curve]]


def curves(form: Form, found: Sequence[Mapping[str, Any]]) -> Curves:
    """The newest trainings of a form, by place and seed, then by contestant."""
    names = [place.name for place in form.places]
    newest: dict[tuple[str, str], tuple[Any, ...]] = {}
    fitting = []
    for line in found:
        lengths = line["tool"] in DECAYING
        marks = [line["steps"]] if lengths else list(form.marks)
        wanted = form.lengths if lengths else (form.steps,)
        if line["place"] in names and line["seed"] < form.seeds and line["marks"] == marks and line["steps"] in wanted:
            newest[line["tool"], line["place"]] = (line["by"], line["lr"])
            fitting.append(line)
    whole: Curves = {}
    for line in fitting:
        if (line["by"], line["lr"]) == newest[line["tool"], line["place"]]:
            tools = whole.setdefault((line["place"], line["seed"]), {})
            curve = tools.setdefault(line["tool"], Curve([], {}, line["lr"]))
            if line["steps"] not in curve.ends:
                curve.points.extend(line["points"])
                curve.points.sort(key=lambda point: point["step"])
                curve.ends[line["steps"]] = line
    return dict(sorted(whole.items(), key=lambda each: (names.index(each[0][0]), each[0][1])))


def is_peer(name: str) -> bool:
    return peers.package_of(name) is not None


def family(name: str) -> str:
    """sparsify, whichever its optimiser."""
    return name.partition(",")[0] if is_peer(name) else name


FASTEST = "the fastest of them"
CLOCKS = ("cpu", "wall", "with harvest")


@dataclass(frozen=True)
class Met:
    """How a target was met at one place with one seed.

    Args:
        target: what is left there.
        seconds: by contestant and clock, with its bound.
        ratios: each contestant's over ours, by contestant and clock.
        recovered: cross entropy recovered there, ours and the best peer's.
    """

    target: float
    seconds: dict[str, dict[str, tuple[float, str]]]
    ratios: dict[str, dict[str, Ratio]]
    recovered: tuple[float, float]


def met(form: Form, tools: Mapping[str, Curve]) -> list[Met]:
    """Each target in turn; nothing where ours or all peers are missing."""
    rivals = {name: curve for name, curve in tools.items() if is_peer(name)}
    if OURS not in tools or not rivals:
        return []
    found = []
    for step in form.targets:
        at = {name: next(p for p in curve.points if p["step"] == step) for name, curve in rivals.items()}
        best = min(at, key=lambda name: at[name]["unexplained"])
        target = at[best]["unexplained"]
        seconds: dict[str, dict[str, tuple[float, str]]] = {}
        for name, curve in tools.items():
            where = crossing(curve.column("unexplained"), target)
            seconds[family(name)] = {clock: (where.seconds(curve.column(clock)), where.bound) for clock in CLOCKS}
        own = seconds[OURS]
        ratios = {
            name: {clock: ratio(spent[clock], own[clock]) for clock in CLOCKS}
            for name, spent in seconds.items()
            if name != OURS
        }
        ratios[FASTEST] = {
            clock: min((ratios[family(name)][clock] for name in rivals), key=lambda each: each.value)
            for clock in CLOCKS
        }
        where = crossing(tools[OURS].column("unexplained"), target)
        found.append(Met(target, seconds, ratios, (where.at(tools[OURS].column("recovered")), at[best]["recovered"])))
    return found


def spread(ratios: Sequence[Ratio]) -> str:
    """The median and, of more than one, the range."""
    known = [each for each in ratios if each.bound is not None]
    if not known:
        return "–"
    if len(known) == 1:
        return str(known[0])
    low, high = (choose(known, key=lambda each: each.value) for choose in (min, max))
    return f"{middle(known)} ({low.value:.1f} to {high.value:.1f})"


@dataclass(frozen=True)
class Summary:
    """One number for each contestant: the median over targets, places and seeds.

    Args:
        ratios: by contestant and clock.
        cells: how many targets, places and seeds.
        recovered: the median of cross entropy recovered at equal error, ours less the best peer's.
    """

    ratios: dict[str, dict[str, list[Ratio]]]
    cells: int
    recovered: float


def summary(form: Form, whole: Curves) -> Summary | None:
    """Nothing while ours or all peers are missing."""
    every = [each for tools in whole.values() for each in met(form, tools)]
    if not every:
        return None
    names = dict.fromkeys(name for each in every for name in each.ratios)
    ratios = {
        name: {clock: [each.ratios[name][clock] for each in every if name in each.ratios] for clock in CLOCKS}
        for name in names
    }
    return Summary(ratios, len(every), statistics.median(each.recovered[0] - each.recovered[1] for each in every))


def page(form: Form, found: Sequence[Mapping[str, Any]]) -> str:
    """The tables of a form."""
    whole = curves(form, found)
    total = summary(form, whole)
    if total is None:
        return "Nothing can be compared: ours, or all of the peers, have no finished trainings.\n"
    used = [line for tools in whole.values() for curve in tools.values() for line in curve.ends.values()]
    names = dict.fromkeys(name for tools in whole.values() for name in tools)
    made = {family(line["tool"]): line["by"] for line in used if is_peer(line["tool"])}
    products = [1e3 * line["product"] for line in used if line["n"] == used[0]["n"]]
    recipe = next(line["by"].partition(" ") for line in used if line["tool"] == OURS)
    text = [
        f"{used[-1]['when']}, commits {', '.join(dict.fromkeys(line['commit'] for line in used))}; "
        + ", ".join(f"{name} {version}" for name, version in made.items())
        + ".",
        "",
        f"Ours: `train(TopK(d, n, k={K}), rows, ...)` with {recipe[2]} (sources {recipe[0]}), at the rate of the table "
        "below. "
        f"k = {K}, batches of {BATCH:,}, {form.steps} steps of each peer; ours in runs of "
        f"{', '.join(map(str, form.lengths))} steps. One encoder product of the first site took {min(products):.0f} to "
        f"{max(products):.0f} ms while it ran.",
        "",
        "## Seconds to equal held-out error, peer over ours",
        "",
        f"Medians over targets, sites and seeds ({total.cells} of them), and the range of all. ≥: some runs of the "
        "peer ended before they came so far.",
        "",
        "| | CPU seconds | by the clock | CPU seconds, harvest included |",
        "|---|--:|--:|--:|",
    ]
    order = sorted(total.ratios, key=lambda name: (name != FASTEST, not is_peer(name), name))
    for name in order:
        text.append(f"| {name} | " + " | ".join(spread(total.ratios[name][clock]) for clock in CLOCKS) + " |")
    rivals = [name for name in order if name == FASTEST or is_peer(name)]
    text += ["", "CPU seconds, each site by itself:", "", "| site | seeds | " + " | ".join(rivals) + " |"]
    text.append("|---|--:|" + "--:|" * len(rivals))
    for place in dict.fromkeys(place for place, _ in whole):
        here = {key: tools for key, tools in whole.items() if key[0] == place}
        if (part := summary(form, here)) is not None:
            cells = [spread(part.ratios[name]["cpu"]) if name in part.ratios else "–" for name in rivals]
            text.append(f"| {place} | {len(here)} | {' | '.join(cells)} |")
    text += [
        "",
        f"Cross entropy recovered at equal error, ours less that of the best peer: {total.recovered:+.4f} (median).",
        "",
        "## Each target",
        "",
        "CPU seconds, median over seeds; in brackets ratios to ours, their median and range over seeds. The last "
        "column: cross entropy recovered where the target is met, ours and the best peer's.",
        "",
    ]
    shown = [family(name) for name in names]
    text += [
        "| site | target | unexplained | " + " | ".join(shown) + " | recovered |",
        "|---|---|--:|" + "--:|" * (len(shown) + 1),
    ]
    for place in dict.fromkeys(place for place, _ in whole):
        each_seed = [met(form, tools) for (at, _), tools in whole.items() if at == place]
        for when, each in zip(WHEN, zip(*filter(None, each_seed), strict=True), strict=False):
            cells = []
            for name in shown:
                here = [one for one in each if name in one.seconds]
                if not here:
                    cells.append("–")
                    continue
                mark = "≥ " if any(one.seconds[name]["cpu"][1] == "at least" for one in here) else ""
                cell = f"{mark}{statistics.median(one.seconds[name]['cpu'][0] for one in here):.1f}"
                if name != OURS:
                    cell += f" [{spread([one.ratios[name]['cpu'] for one in here])}]"
                cells.append(cell)
            recovered = [statistics.median(one.recovered[i] for one in each) for i in (0, 1)]
            text.append(
                f"| {place} | {when} | {statistics.median(one.target for one in each):.4f} | {' | '.join(cells)} "
                f"| {recovered[0]:.3f}, {recovered[1]:.3f} |"
            )
    text += [
        "",
        "## What each ends with",
        "",
        f"Medians over seeds. Dead: on in none of {SILENT} batches; duplicates: living, with a cosine above {ALIKE} to "
        "another.",
        "",
        "| site | | rate | steps | unexplained | recovered | dead | duplicates | CPU s | with harvest |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for place in dict.fromkeys(place for place, _ in whole):
        for name in names:
            here = [tools[name] for (at, _), tools in whole.items() if at == place and name in tools]
            for steps in sorted({steps for curve in here for steps in curve.ends}):
                if name in DECAYING and steps < form.steps // 4:
                    continue
                ends = [curve.ends[steps] for curve in here if steps in curve.ends]
                n = ends[0]["n"]
                points = [next(p for p in line["points"] if p["step"] == steps) for line in ends]
                at = {key: statistics.median(p[key] for p in points) for key in ("unexplained", "cpu", "harvest")}
                recovered = [p["recovered"] for p in points if "recovered" in p]
                said = f"{statistics.median(recovered):.3f}" if recovered else "–"
                dead, alike = (statistics.median(line[key] for line in ends) / n for key in ("dead", "duplicates"))
                text.append(
                    f"| {place} | {name} | {here[0].lr:.2g} | {steps} | {at['unexplained']:.4f} | {said} "
                    f"| {dead:.1%} | {alike:.1%} | {at['cpu']:.1f} | {at['cpu'] + at['harvest']:.1f} |"
                )
    tuned = {(f"{place.name}, other documents", place.tuning) for place in form.places}
    rates = sorted(
        {
            (line["place"], line["tool"], line["lr"], line["points"][-1]["unexplained"])
            for line in found
            if (line["place"], line["steps"]) in tuned and (is_peer(line["tool"]) or line["by"] == "".join(recipe))
        }
    )
    text += [
        "",
        "## Rates tried",
        "",
        "Unexplained on other documents, after half the steps or fewer.",
        "",
    ]
    for place, name in dict.fromkeys(each[:2] for each in rates):
        tried = ", ".join(f"{lr:.2g}: {left:.4f}" for at, tool, lr, left in rates if (at, tool) == (place, name))
        text.append(f"- {place.partition(',')[0]}, {name}: {tried}")
    return "\n".join(text) + "\n"


def picture(form: Form, found: Sequence[Mapping[str, Any]]) -> None:
    """Curves of the median seed: error by CPU seconds, the same with the harvest, and cross entropy recovered."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from superscope.plots.style import COLOURS, plain_ticks

    whole = curves(form, found)
    places = list(dict.fromkeys(place for place, _ in whole))
    names = list(dict.fromkeys(name for tools in whole.values() for name in tools))
    rows = (
        ("cpu", "unexplained", "CPU seconds", "unexplained"),
        ("with harvest", "unexplained", "CPU seconds, harvest included", "unexplained"),
        ("cpu", "recovered", "CPU seconds", "cross entropy not recovered"),
    )
    figure = Figure(figsize=(3.6 * len(places), 9), layout="constrained")
    axes = figure.subplots(len(rows), len(places), squeeze=False)
    for column, place in enumerate(places):
        for row, (clock, what, below, beside) in enumerate(rows):
            ax = axes[row, column]
            for name, colour in zip(names, COLOURS, strict=False):
                seeds = [tools[name] for (at, _), tools in whole.items() if at == place and name in tools]
                points = medians(seeds, clock, what)
                if len(points) > 1:
                    style = ":" if name == CONSTANT else "--" if name == ROUNDED else "-"
                    ax.plot(*zip(*points, strict=True), style, color=colour, marker="o", ms=3, label=family(name))
            targets = [met(form, tools) for (at, _), tools in whole.items() if at == place]
            if what == "unexplained":
                for each in zip(*filter(None, targets), strict=True):
                    ax.axhline(statistics.median(one.target for one in each), color="0.8", lw=0.8, zorder=0)
            ax.set(xscale="log", yscale="log", xlabel=below)
            if column == 0:
                ax.set_ylabel(beside)
            if row == 0:
                ax.set_title(place, fontsize=10)
            plain_ticks(ax.xaxis, ax.yaxis)
            ax.tick_params(labelsize=8)
            ax.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    FigureCanvasAgg(figure)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=110)


def medians(seeds: Sequence[Curve], clock: str, what: str) -> list[tuple[float, float]]:
    """(seconds, number) of each step at which it was measured, medians over seeds."""
    found = []
    for step in sorted({int(point["step"]) for curve in seeds for point in curve.points}):
        at = []
        for curve in seeds:
            for seconds, point in zip(curve.column(clock), curve.points, strict=True):
                if point["step"] == step and what in point:
                    at.append((seconds, 1 - point[what] if what == "recovered" else point[what]))
        if at:
            found.append((statistics.median(a for a, _ in at), statistics.median(b for _, b in at)))
    return found
