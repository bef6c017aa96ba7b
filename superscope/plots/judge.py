"""What a dictionary found of a known truth: by how rare it is, what its other latents are, and where it was lost."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from ..core import Report
from .style import COLOURS, plain_ticks

_KINDS = ("feature", "duplicate", "composite", "other", "dead")


def detected_by_density(report: Report) -> Figure:
    """Share of features with an atom of their own over how often they are active, with 95 % intervals; chance dotted.

    Args:
        report: of a `Judge` study.

    Raises:
        KeyError: if it is another report.
    """
    table = {name: np.array(column, dtype=float) for name, column in report.tables["detection"].items()}
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    middle = np.sqrt(table["density_from"] * table["density_to"])
    reach = np.stack([table["detected"] - table["low"], table["high"] - table["detected"]]).clip(min=0)
    axes.errorbar(middle, table["detected"], yerr=reach, marker="o", capsize=3, color=COLOURS[4])
    axes.plot(middle, table["chance"], ls=":", marker=".", color="0.45", label="random directions")
    for x, y, n in zip(middle, table["detected"], table["features"], strict=True):
        axes.annotate(f"{n:g}", (x, y), textcoords="offset points", xytext=(6, 6), fontsize=8)
    axes.set(xscale="log", ylim=(-0.03, 1.08), xlabel="share of rows on which the feature is active")
    axes.set_xlim(table["density_from"].min(), table["density_to"].max())
    axes.set_ylabel("share detected (numbers: features)")
    plain_ticks(axes.xaxis)
    axes.set_title(report.title, fontsize=10)
    axes.legend(fontsize=8)
    return figure


def kinds_of_latents(report: Report) -> Figure:
    """Cosine of every latent with its nearest feature, and F1 as its detector, by what kind of latent it is.

    Args:
        report: of a `Judge` study.

    Raises:
        KeyError: if it is another report.
    """
    table = report.tables["latents"]
    kind = np.array(table["kind"])
    cosine, f1 = (np.array(table[name], dtype=float) for name in ("cosine", "f1"))
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for colour, name in zip(COLOURS[1:], _KINDS, strict=False):
        if (chosen := kind == name).any():
            label = f"{name} ({int(chosen.sum())})"
            axes.scatter(cosine[chosen], f1[chosen], s=14, color=colour, alpha=0.7, label=label)
    axes.set(xlabel="cosine with the nearest feature's atom", ylabel="F1 as a detector of it", ylim=(-0.03, 1.03))
    axes.set_title(report.title, fontsize=10)
    axes.legend(fontsize=8)
    return figure


def where_it_is_lost(report: Report) -> Figure:
    """Mean F1 of the features with the learned and the true atoms, read by the own encoder and by the best inference.

    Args:
        report: of a `Judge` study with ceilings.

    Raises:
        KeyError: if it is another report.
        ValueError: if it has no ceilings.
    """
    bars = {
        (str(m.at.get("dictionary", "learned")), str(m.at.get("inference", "own"))): m
        for m in report["feature_f1"]
        if m.value is not None
    }
    if len(bars) < 2:
        raise ValueError("this report has no ceilings.")
    figure = Figure(figsize=(6.4, 2.6), layout="constrained")
    axes = figure.subplots()
    names = [f"{dictionary} atoms, {inference} inference" for dictionary, inference in bars]
    values = [m.value or 0.0 for m in bars.values()]
    lows, highs = ([getattr(m, end) for m in bars.values()] for end in ("low", "high"))
    below = [0.0 if low is None else v - low for v, low in zip(values, lows, strict=True)]
    above = [0.0 if high is None else high - v for v, high in zip(values, highs, strict=True)]
    reach = np.array([below, above]).clip(min=0)
    axes.barh(names, values, xerr=reach, color=[COLOURS[4], *[COLOURS[0]] * (len(values) - 1)], height=0.6)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.05), xlabel="F1, averaged over features")
    for place, value in enumerate(values):
        axes.annotate(f"{value:.2f}", (0.01, place), va="center", fontsize=9, color="white")
    axes.set_title(report.title, fontsize=10)
    return figure
