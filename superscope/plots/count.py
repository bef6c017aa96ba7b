"""How the count of features was come by, look by look; and how counts of worlds compare with their truth."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ..core import Report
from .style import COLOURS


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
    axes.set(xscale="log", xlabel="k, latents active in a row", ylim=(0, 1.08 * max(table["directions"].max(), 1)))
    axes.set_ylabel("directions: recurring (open), kept (filled)")
    ks = sorted(set(table["k"]))
    axes.set_xticks(ks, [f"{k:g}" for k in ks])
    axes.minorticks_off()
    axes.set_title(report.title, fontsize=10)
    axes.legend(fontsize=8)
    return figure


def counted_and_true(report: Report) -> Figure:
    """Count over truth of every world, with the interval; held-out families apart, "at least" as triangles.

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
    figure = Figure(figsize=(6.8, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.axhline(1, color="0.6", lw=1)
    # Worlds of one size stand at one place: a little apart they can be told from each other, and the ratio stays.
    apart = n * np.exp(np.linspace(-0.12, 0.12, len(n)))
    for group, colour, name in ((~held, COLOURS[1], "families for tuning"), (held, COLOURS[2], "held-out families")):
        bounded, open_ = shown & group & (high > 0), shown & group & (high <= 0)
        if bounded.any():
            reach = (np.stack([value - low, high - value]) / n.clip(min=1))[:, bounded].clip(min=0)
            axes.errorbar(
                apart[bounded],
                (value / n.clip(min=1))[bounded],
                yerr=reach,
                fmt="o",
                ms=4,
                lw=1,
                color=colour,
                label=name,
            )
        if open_.any():
            at_least = (low / n.clip(min=1))[open_]
            axes.scatter(apart[open_], at_least, marker="^", s=30, color=colour, label=f"{name}: at least")
    axes.set(xscale="log", yscale="log", ylabel="count over truth, with 90 % interval")
    axes.set_xlabel("true number of features (worlds of one size a little apart)")
    sizes = sorted(set(n[shown]))
    axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
    axes.minorticks_off()
    axes.set_yticks([0.5, 0.75, 1, 1.5, 2], ["0.5", "0.75", "1", "1.5", "2"])
    axes.set_title(report.title, fontsize=10)
    axes.legend(fontsize=8)
    return figure
