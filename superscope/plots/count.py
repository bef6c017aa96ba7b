"""How the count of features was come by, look by look; and how counts of worlds compare with their truth."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ..core import Report
from .style import COLOURS, plain_ticks


def looks(report: Report) -> Figure:
    """Directions that recur (open) and that are kept (filled) over k, a line for each width and length of training.

    Args:
        report: of a `CountFeatures` study.

    Raises:
        KeyError: if it is another report.
    """
    table = {name: np.array(column, dtype=float) for name, column in report.tables["looks"].items()}
    (count,) = report["feature_count"]
    figure = Figure(figsize=(6.8, 4.2), layout="constrained")
    axes = figure.subplots()
    if count.low is not None and count.high is not None:
        axes.axhspan(count.low, count.high, color="0.9", label="interval of the answer")
    if count.value is not None:
        axes.axhline(count.value, color="0.5", lw=1, label=f"answer: {count.value:,.0f}")
    settings = sorted({(n, steps) for n, steps in zip(table["n"], table["steps"], strict=True)})
    for number, (n, steps) in enumerate(settings):
        own = np.flatnonzero((table["n"] == n) & (table["steps"] == steps))
        own = own[np.argsort(table["k"][own])]
        colour = COLOURS[1 + number % (len(COLOURS) - 1)]
        axes.plot(table["k"][own], table["directions"][own], ls=":", marker="o", mfc="none", color=colour)
        name = f"{n:,.0f} latents, {steps:,.0f} steps"
        axes.plot(table["k"][own], table["counted"][own], marker="o", color=colour, label=name)
    axes.set(xscale="log", xlabel="k, latents active in a row", ylim=(0, 1.08 * table["directions"].max()))
    axes.set_ylabel("directions: recurring (open), kept (filled)")
    ks = sorted(set(table["k"]))
    axes.set_xticks(ks, [f"{k:g}" for k in ks])
    axes.minorticks_off()
    axes.set_title(report.title, fontsize=10)
    axes.legend(fontsize=8)
    return figure


def counted_and_true(report: Report) -> Figure:
    """Count of every world over its truth, with the interval; held-out families filled, "at least" as arrows.

    Args:
        report: of a `Calibrate` study.

    Raises:
        KeyError: if it is another report.
    """
    table = report.tables["worlds"]
    n = np.array(table["n"], dtype=float)
    value, low, high = (np.array(table[name], dtype=float) for name in ("count", "low", "high"))
    held = np.array(table["held_out"], dtype=bool)
    shown = (n > 0) & (value > 0)
    figure = Figure(figsize=(6.8, 5.2), layout="constrained")
    axes = figure.subplots()
    ends = np.array([20, 1.6 * max(n.max(), value.max(), 30)])
    axes.plot(ends, ends, color="0.6", lw=1)
    # Worlds of one size stand at one place: a little apart they can be told from each other.
    apart = n * np.exp(np.linspace(-0.12, 0.12, len(n)))
    for group, colour, name in ((~held, COLOURS[1], "families for tuning"), (held, COLOURS[2], "held-out families")):
        own = shown & group
        bounded, open_ = own & (high > 0), own & (high <= 0)
        reach = np.stack([value - low, high - value])[:, bounded].clip(min=0)
        axes.errorbar(apart[bounded], value[bounded], yerr=reach, fmt="o", ms=4, lw=1, color=colour, label=name)
        axes.scatter(apart[open_], low[open_], marker="^", s=30, color=colour, label=f"{name}: at least")
    axes.set(xscale="log", yscale="log", xlabel="true number of features", ylabel="counted, with 90 % interval")
    for axis in (axes.xaxis, axes.yaxis):
        plain_ticks(axis)
    axes.set_title(report.title, fontsize=10)
    axes.legend(fontsize=8)
    return figure
