"""The ten figures of a dictionary's theory page, each with the bound or the chance level it must be read against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..core import Report, Table
from ..recovery import SOLVERS
from ..theory import weak_threshold
from .style import COLOURS, plain_ticks

_OURS, _CHANCE, _BOUND = COLOURS[4], "0.45", COLOURS[5]
_LIMITS = ("best coherence there could be", "RIP ceiling", "unique for all", "unique for nearly all", "rate bound")
_LABELS = {solver.__name__: solver.label for solver in SOLVERS}


def cosines(report: Report) -> Figure:
    """Signed cosines of all pairs of atoms, beside those of a random frame.

    Args:
        report: of a `Theory` study.

    Raises:
        KeyError: if it is another report.
    """
    figure, axes = _panel(report)
    low, high = _steps(axes, report.tables["cosines"], "pairs of atoms")
    marks = dict(zip(report.tables["marks"]["name"], report.tables["marks"]["cosine"], strict=True))
    welch, random = marks["Welch bound"], marks["random coherence, 95 %"]
    for sign in (-1, 1):
        axes.axvline(
            sign * random, color=_CHANCE, lw=1, ls=":", label="random frames stay inside (95 %)" if sign > 0 else None
        )
        if welch > 0:
            axes.axvline(
                sign * welch, color=_BOUND, lw=1, ls="--", label="Welch: coherence at least" if sign > 0 else None
            )
    reach = max(abs(low), abs(high), random) * 1.05
    axes.set(xlim=(-min(reach, 1.02), min(reach, 1.02)), xlabel="cosine of two atoms (negative: nearly opposite)")
    axes.legend(fontsize=8)
    return figure


def nearest_atoms(report: Report) -> Figure:
    """How near each atom's nearest neighbour is, beside a random frame.

    Args:
        report: of a `Theory` study.

    Raises:
        KeyError: if it is another report.
    """
    figure, axes = _panel(report)
    _steps(axes, report.tables["nearest"], "atoms")
    marks = dict(zip(report.tables["marks"]["name"], report.tables["marks"]["cosine"], strict=True))
    axes.axvline(marks["random coherence, 95 %"], color=_CHANCE, lw=1, ls=":", label="beyond: a true neighbour")
    if marks["Welch bound"] > 0:
        axes.axvline(marks["Welch bound"], color=_BOUND, lw=1, ls="--", label="Welch: all atoms here at best")
    axes.set(xlim=(0, 1.01), xlabel="largest |cosine| with another atom")
    axes.legend(fontsize=8)
    return figure


def babel_function(report: Report) -> Figure:
    """Summed overlap with the m nearest atoms: the worst atom, the median one, and chance.

    Args:
        report: of a `Theory` study.

    Raises:
        KeyError: if it is another report.
    """
    babel = report.tables["babel"]
    figure, axes = _panel(report)
    axes.plot(babel["m"], babel["largest"], color=_OURS, lw=1.8, marker=_dot(babel["m"]), label="worst atom")
    axes.plot(babel["m"], babel["median"], color=_OURS, lw=1.2, ls="--", marker=_dot(babel["m"]), label="median atom")
    axes.plot(
        babel["m"], babel["chance"], color=_CHANCE, lw=1.2, marker=_dot(babel["m"]), label="typical atom, random frame"
    )
    axes.axhline(0.5, color=_BOUND, lw=1, ls=":", label="about here guarantees end (sum near 1/2)")
    positive = min((v for name in ("largest", "median", "chance") for v in babel[name] if v > 0), default=0.0)
    if positive > 0:
        axes.set(xscale="log", yscale="log", ylim=(min(positive, 0.5) / 1.5, None))
        plain_ticks(axes.xaxis, axes.yaxis)
    axes.set(xlabel="neighbours m", ylabel="sum of the m largest |cosines|")
    axes.legend(fontsize=8)
    return figure


def capacity_ladder(report: Report) -> Figure:
    """How many features may be active at once, by every criterion, with the SAE's own l0 across.

    Args:
        report: of a `Theory` study, or of `Bounds`.

    Raises:
        KeyError: if it is another report.
    """
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.set_title(report.title, fontsize=9)
    if "ladder" not in report.tables:
        report.tables["marks"]
        return _nothing(figure, axes, "n <= d: atoms can be independent, and no bound applies")
    ladder = report.tables["ladder"]
    names, k = list(ladder["criterion"]), [max(value, 0.0) for value in ladder["k"]]
    kinds = {
        "every": (COLOURS[5], "found for every code"),
        "nearly": (COLOURS[4], "found for nearly every code"),
        "limit": ("0.55", "a limit that nobody passes or is known to reach"),
        "none": ("0.85", "not a bound"),
    }
    for place, (value, holds, reader) in enumerate(zip(k, ladder["holds_for"], ladder["reader"], strict=True)):
        kind = "nearly" if holds.startswith("nearly") else "every"
        kind = "limit" if names[place] in _LIMITS else "none" if reader == "none" else kind
        axes.barh(place, value, color=kinds[kind][0], height=0.7)
        axes.text(value * 1.06, place, f"{value:.0f}", va="center", fontsize=8)
    if "l0" in report.tables:
        l0 = np.repeat(report.tables["l0"]["l0"], report.tables["l0"]["rows"])
        low, middle, high = np.quantile(l0, [0.05, 0.5, 0.95])
        axes.axvspan(low, high, color=COLOURS[2], alpha=0.25, lw=0)
        axes.axvline(middle, color=COLOURS[2], lw=1.5, label="l0 of the codes of data (5 to 95 %)")
    for colour, label in kinds.values():
        axes.barh([0], [0], color=colour, label=label)
    axes.set(xscale="log", yticks=range(len(names)), yticklabels=names, xlabel="active features k")
    axes.set_xlim(0.7, max(k) * 2.5)
    plain_ticks(axes.xaxis)
    axes.invert_yaxis()
    # Beside the bars: inside the panel it would cover the longest of them.
    figure.legend(*axes.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=2)
    return figure


def recovery_curves(report: Report) -> Figure:
    """The share of codes found exactly against k, for each solver, beside theory.

    Args:
        report: of a `Theory` or a `Recover` study.

    Raises:
        KeyError: if it is another report.
    """
    table = report.tables["recovery"]
    kinds = list(dict.fromkeys(table["supports"]))
    figure = Figure(figsize=(6.4 if len(kinds) < 2 else 9.6, 4.4), layout="constrained")
    for axes, supports in zip(np.atleast_1d(figure.subplots(1, max(len(kinds), 1), sharey=True)), kinds, strict=False):
        for number, solver in enumerate(dict.fromkeys(table["solver"])):
            rows = _rows(table, supports=supports, solver=solver)
            if not rows:
                continue
            colour, label = COLOURS[number % len(COLOURS)], _LABELS.get(solver) or solver
            k, share, low, high = (np.array([table[c][i] for i in rows]) for c in ("k", "share", "low", "high"))
            axes.plot(k, share, color=colour, marker="o", ms=3.5, lw=1.5, label=label)
            axes.fill_between(k, low, high, color=colour, alpha=0.2, lw=0)
        for name, k, style in _lines(report):
            axes.axvline(k, color=_CHANCE if "random" in name else _BOUND, lw=1, ls=style, label=name)
        axes.axhline(0.5, color="0.85", lw=0.8, zorder=0)
        axes.set(xscale="log", ylim=(-0.03, 1.03), xlabel="active features k", title=f"{supports} supports")
        plain_ticks(axes.xaxis)
    figure.axes[0].set_ylabel("codes found exactly (band: 95 %)")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=2)
    figure.suptitle(report.title, fontsize=9)
    return figure


def interference(report: Report) -> Figure:
    """Measured against predicted interference of each atom's read-out; off the diagonal features fire together.

    Args:
        report: of a `Theory` study.

    Raises:
        KeyError: if it is another report.
    """
    table = report.tables["interference"]
    kinds = list(dict.fromkeys(table["series"]))
    figure = Figure(figsize=(max(6.4, 4.6 * len(kinds)), 4.6), layout="constrained")
    for axes, series in zip(np.atleast_1d(figure.subplots(1, max(len(kinds), 1))), kinds, strict=False):
        rows = _rows(table, series=series)
        x, y = (np.array([table[c][i] for i in rows]) for c in ("predicted_variance", "measured_variance"))
        shown = (x > 0) & (y > 0)
        if not shown.any():
            _nothing(figure, axes, "no atom overlaps with another active one")
            continue
        x, y = x[shown], y[shown]
        ends = [min(x.min(), y.min()) / 1.3, max(x.max(), y.max()) * 1.3]
        axes.plot(ends, ends, color=_CHANCE, lw=1, label="independent features")
        floor = [
            m.reference
            for m in report.measurements
            if m.name == "interference_variance" and m.at.get("codes") == series and m.reference
        ]
        if floor:
            axes.axvline(floor[0], color=_BOUND, lw=1, ls="--", label="least possible mean (tight frame)")
        axes.scatter(x, y, s=5, color=_OURS, alpha=0.35, linewidths=0)
        # Over the features that are ever active, as the report says it; an atom that never fires is disturbed too.
        ratio = next(
            (
                m.value
                for m in report.measurements
                if m.name == "interference_ratio" and m.at.get("codes") == series and m.value is not None
            ),
            float(np.sum(y) / np.sum(x)),
        )
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="predicted variance, if independent",
            ylabel="measured variance",
            title=f"{series}: {ratio:.2f} times the prediction",
        )
        plain_ticks(axes.xaxis, axes.yaxis)
        axes.legend(fontsize=8)
    figure.suptitle(report.title, fontsize=9)
    return figure


def dimensions(report: Report) -> Figure:
    """Spectrum of the frame operator, and the capacity of each atom, beside a random frame.

    Args:
        report: of a `Theory` study.

    Raises:
        KeyError: if it is another report.
    """
    table, capacity = report.tables["spectrum"], np.array(report.tables["capacity"]["capacity"])
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = {"atoms": _OURS, "random frame": _CHANCE}
    for series in dict.fromkeys(table["series"]):
        rows = [i for i in _rows(table, series=series) if table["share"][i] > 1e-9]
        left.plot(
            [table["rank"][i] for i in rows],
            [table["share"][i] for i in rows],
            color=colours.get(series, COLOURS[1]),
            marker=_dot(rows),
            label=f"weighted by {series}" if series not in colours else series,
        )
    d = max(table["rank"], default=1)
    left.axhline(1 / d, color=_BOUND, lw=1, ls="--", label="tight frame")
    left.set(yscale="log", xlabel="eigenvalue of the frame operator, by rank", ylabel="share of the total")
    left.legend(fontsize=8)
    top = min(1.0, max(1.2 * float(capacity.max()), 1.5 * d / max(len(capacity), d)))
    right.hist(capacity, bins=np.linspace(0, top * (1 + 1e-9), 51).tolist(), color=_OURS)
    used = next((m for m in report.measurements if m.name == "capacity_used"), None)
    if used is not None and used.value is not None and used.chance is not None:
        right.axvline(
            used.chance * d / used.n, color=_CHANCE, lw=1.2, label=f"mean of random atoms (sum {used.chance:.2f} d)"
        )
        right.axvline(
            used.value * d / used.n, color=_OURS, lw=1.2, ls="--", label=f"mean here (sum {used.value:.2f} d)"
        )
        right.legend(fontsize=8)
    right.set(xlabel="capacity of an atom (1: a dimension of its own)", ylabel="atoms", xlim=(0, top * 1.02))
    figure.suptitle(report.title, fontsize=9)
    return figure


def certificates(report: Report) -> Figure:
    """The share of supports on which basis pursuit provably succeeds, and how well conditioned they are.

    Args:
        report: of a `Theory` study.

    Raises:
        KeyError: if it is another report.
    """
    table = report.tables["certificates"]
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for colour, supports in zip((_CHANCE, _OURS), dict.fromkeys(table["supports"]), strict=False):
        rows = _rows(table, supports=supports)
        k = [table["k"][i] for i in rows]
        low, high = ([table[name][i] for i in rows] for name in ("low", "high"))
        left.plot(
            k, [table["certified"][i] for i in rows], color=colour, marker="o", ms=3.5, label=f"{supports} supports"
        )
        left.fill_between(k, low, high, color=colour, alpha=0.2, lw=0)
        exact = [math.nan if table["exact_recovery"][i] is None else table["exact_recovery"][i] for i in rows]
        left.plot(k, exact, color=colour, ls="--", lw=1.2, label=f"{supports} supports, whatever the signs")
        right.plot(
            k,
            [math.nan if table["condition"][i] is None else table["condition"][i] for i in rows],
            color=colour,
            marker="o",
            ms=3.5,
            label=f"{supports} supports",
        )
    whole = next((m for m in report.measurements if m.name == "certified_codes"), None)
    if whole is not None and whole.value is not None:
        left.errorbar(
            [float(whole.at["l0"])],
            [whole.value],
            yerr=[[whole.value - (whole.low or 0)], [(whole.high or 1) - whole.value]],
            color=COLOURS[5],
            marker="s",
            ls="",
            label="whole codes of data",
        )
    for name, k, style in _lines(report):
        if "weak" in name or "coherence" in name:
            left.axvline(k, color=_CHANCE if "random" in name else _BOUND, lw=1, ls=style, label=name)
    left.set(xscale="log", ylim=(-0.03, 1.03), xlabel="active features k", ylabel="certified (band: 95 %)")
    right.set(xscale="log", yscale="log", xlabel="active features k", ylabel="condition number of W_S, median")
    right.axhline(1, color=_BOUND, lw=1, ls="--", label="orthogonal atoms")
    plain_ticks(left.xaxis, right.xaxis, right.yaxis)
    figure.legend(*left.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=3)
    right.legend(fontsize=8)
    figure.suptitle(report.title, fontsize=9)
    return figure


def amortisation(report: Report) -> Figure:
    """What the encoder leaves unexplained, and how far its supports agree, beside pursuit on the same atoms.

    Args:
        report: of a `Theory` study.

    Raises:
        KeyError: if it is another report.
    """
    table = report.tables["amortisation"]
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    places = range(len(table["coder"]))
    colours = [COLOURS[1], COLOURS[6], COLOURS[2]]
    for axes, column, label in (
        (left, "fraction_variance_unexplained", "variance unexplained (0 is perfect)"),
        (right, "overlap", f"Jaccard overlap with\n{table['overlap_with'][0]}"),
    ):
        axes.barh(places, table[column], color=colours, height=0.6)
        for place, value in zip(places, table[column], strict=True):
            axes.text(value, place, f" {value:.3f}", va="center", fontsize=8)
        axes.set(xlabel=label)
        axes.set_xlim(0, max(1e-3, *table[column]) * 1.25)
    left.xaxis.set_major_locator(MaxNLocator(4))
    right.set_xlim(0, 1.2)
    right.set_xticks([0, 0.25, 0.5, 0.75, 1])
    # One clause a line: long names would leave the bars no room.
    names = [name.replace(", ", ",\n") for name in table["coder"]]
    left.set(yticks=places, yticklabels=[f"{c}\nl0 {l0:.1f}" for c, l0 in zip(names, table["l0"], strict=True)])
    left.invert_yaxis()
    figure.suptitle(report.title, fontsize=9)
    return figure


def recovery_phase(report: Report) -> Figure:
    """Where basis pursuit succeeds on random parts of the dictionary, with the Donoho-Tanner curves over it.

    Args:
        report: of a `Theory` study.

    Raises:
        KeyError: if it is another report.
    """
    table = report.tables["phase"]
    figure, axes = _panel(report)
    if not table["k"]:
        return _nothing(figure, axes, "too few atoms above d for a phase diagram")
    d = round(table["k"][0] / table["rho"][0])
    whole = d / next(m.n for m in report.measurements if m.name == "coherence")
    l0 = next((m for m in report.measurements if m.name == "l0"), None)
    # As far as the star of the whole dictionary, of which only parts may have been tried.
    shown = [*table["delta"], whole] if l0 is not None else table["delta"]
    delta = np.geomspace(min(shown) * 0.8, 1, 200)
    for nonnegative, style in ((True, "-"), (False, "--")):
        label = "Donoho-Tanner, nonnegative" if nonnegative else "Donoho-Tanner, signed"
        axes.plot(
            delta,
            [weak_threshold(x, nonnegative=nonnegative) for x in delta],
            color="black",
            ls=style,
            lw=1.2,
            label=label,
        )
    points = axes.scatter(
        table["delta"], table["rho"], c=table["share"], cmap="viridis", vmin=0, vmax=1, s=60, edgecolors="0.3", lw=0.5
    )
    figure.colorbar(points, label="codes found exactly")
    if l0 is not None and l0.value is not None:
        axes.plot([whole], [l0.value / d], marker="*", ms=14, color=_BOUND, ls="", label="l0 of the codes of data")
    axes.set(
        xscale="log", yscale="log", xlabel="delta = dimensions / atoms of the part", ylabel="rho = active features / d"
    )
    plain_ticks(axes.xaxis, axes.yaxis)
    axes.legend(fontsize=8, loc="upper left")
    return figure


FIGURES_DICTIONARY = (
    cosines,
    nearest_atoms,
    babel_function,
    capacity_ladder,
    recovery_curves,
    interference,
    dimensions,
    certificates,
    amortisation,
    recovery_phase,
)


def _panel(report: Report) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.set_title(report.title, fontsize=9)
    return figure, axes


def _nothing(figure: Figure, axes: Axes, why: str) -> Figure:
    axes.text(0.5, 0.5, why, ha="center", va="center", transform=axes.transAxes)
    axes.set(xticks=[], yticks=[])
    return figure


def _rows(table: Table, **wanted: str) -> list[int]:
    """Numbers of the rows whose cells are as wanted."""
    columns = [(table[name], value) for name, value in wanted.items()]
    return [i for i in range(len(next(iter(table.values())))) if all(cells[i] == value for cells, value in columns)]


def _dot(points: Sequence[Any]) -> str:
    """A marker where a line alone would be invisible or pretend to be smooth."""
    return "o" if len(points) < 12 else ""


def _steps(axes: Axes, table: Table, of: str) -> tuple[float, float]:
    """Histograms as steps, the dictionary's first; returns where it has anything."""
    ends = (0.0, 0.0)
    kinds = (("dictionary", _OURS, True), ("random frame", _CHANCE, False), ("same spectrum", COLOURS[1], False))
    for series, colour, fill in kinds:
        rows = _rows(table, series=series)
        if not rows:
            continue
        edges = [table["low"][i] for i in rows] + [table["high"][rows[-1]]]
        counts = np.array([table["count"][i] for i in rows], dtype=float)
        label = "random, same spectrum" if series == "same spectrum" else series
        axes.stairs(counts, edges, fill=fill, color=colour, alpha=0.55 if fill else 1.0, lw=1.3, label=label)
        held = counts.nonzero()[0]
        if fill and len(held):
            ends = float(edges[held[0]]), float(edges[held[-1] + 1])
    # Expectations far below one pair say that there is none; the axis ends where half a pair is expected.
    axes.set(yscale="log", ylabel=of, ylim=(0.5, 3 * max(1.0, *table["count"])))
    return ends


def _lines(report: Report) -> list[tuple[str, float, str]]:
    """Vertical lines of theory for the recovery figures: name, k, line style."""
    found = []
    for m in report.measurements:
        if m.name == "coherence_guarantee" and m.value:
            found.append(("guaranteed by coherence", m.value, "--"))
            break
    for solver, label, style in (
        ("Thresholding", "random dictionary, one step (equal magnitudes)", ":"),
        ("", "random dictionary, l1 (weak Donoho-Tanner)", "-."),
    ):
        for m in report.measurements:
            one_step = m.at.get("solver") == "Thresholding"
            if m.name == "recovery_threshold" and m.chance is not None and one_step == bool(solver):
                found.append((label, m.chance, style))
                break
    return found
