"""What a dictionary leaves unexplained against how many latents it uses, and what the criteria say of each k."""

from __future__ import annotations

from typing import Any, SupportsFloat

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ..core import Report
from .style import COLOURS

_CRITERIA = (
    ("description_length", "bits for a held-out row", "shortest decides"),
    ("decoder_projection", "background of decoder\nprojections", "low is better"),
    ("recurring_features", "directions that recur\nover seeds", "high is better"),
)


def frontier(report: Report) -> Figure:
    """Variance unexplained over L0 with the spread of seeds; the recommended k is filled, the truth a dotted line.

    Args:
        report: of a `Frontier` study.

    Raises:
        KeyError: if it is another report.
    """
    table, chosen, truth = _read(report)
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    _spread(axes, table, "l0", "fraction_variance_unexplained", chosen)
    for k, l0, unexplained in zip(table["k"], table["l0"], table["fraction_variance_unexplained"], strict=True):
        axes.annotate(f"k = {k}", (l0, unexplained), textcoords="offset points", xytext=(6, 6), fontsize=8)
    _truth(axes, truth)
    axes.set(xscale="log", yscale="log", xlabel="L0: latents active in a row", ylabel="share of variance unexplained")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(_plain))
        axis.set_minor_formatter(FuncFormatter(_plain))
    axes.margins(0.1)
    axes.set_title(report.title, fontsize=10)
    if truth is not None:
        axes.legend(fontsize=8)
    return figure


def criteria(report: Report) -> Figure:
    """The three criteria over k, one above the other.

    Args:
        report: of a `Frontier` study.

    Raises:
        KeyError: if it is another report.
    """
    table, chosen, truth = _read(report)
    figure = Figure(figsize=(6.4, 6.6), layout="constrained")
    panels = figure.subplots(len(_CRITERIA), 1, sharex=True)
    for axes, (name, label, reading) in zip(panels, _CRITERIA, strict=True):
        _spread(axes, table, "k", name, chosen)
        _truth(axes, truth)
        axes.set(xscale="log", ylabel=label)
        axes.set_title(reading, fontsize=8, loc="right")
    panels[-1].set(xlabel="k")
    panels[-1].xaxis.set_major_locator(FixedLocator(list(table["k"])))
    panels[-1].xaxis.set_minor_locator(NullLocator())
    panels[-1].xaxis.set_major_formatter(FuncFormatter(_plain))
    figure.suptitle(report.title, fontsize=10)
    return figure


def _read(report: Report) -> tuple[Any, int, float | None]:
    (recommended,) = report["recommended_k"]
    return report.tables["frontier"], int(recommended.value or 0), recommended.reference


def _spread(axes: Axes, table: Any, across: str, name: str, chosen: int) -> None:
    x, y = table[across], table[name]
    axes.plot(x, y, color=COLOURS[4], lw=1, zorder=1)
    if f"{name}_low" in table:
        axes.vlines(x, table[f"{name}_low"], table[f"{name}_high"], color=COLOURS[4], lw=3, alpha=0.4)
    colours = [COLOURS[4] if k == chosen else "white" for k in table["k"]]
    axes.scatter(x, y, c=colours, edgecolors=COLOURS[4], zorder=2)


def _plain(value: SupportsFloat, position: int | None) -> str:
    return f"{float(value):g}"


def _truth(axes: Axes, truth: float | None) -> None:
    if truth is not None:
        axes.axvline(truth, color="0.45", lw=1, ls=":", label="features truly active")
