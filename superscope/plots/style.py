"""What all figures share: colours and the numbers along logarithmic axes."""

from __future__ import annotations

from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#F0E442")
"""Okabe and Ito's colours: told apart by every kind of colour vision, and in grey."""


def plain_ticks(*log_axes: Axis) -> None:
    """Ticks of logarithmic axes as plain numbers, 0.05 rather than a power of ten, few enough not to overlap."""
    for axis in log_axes:
        low, high = sorted(axis.get_view_interval())
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 150 * low else (1,)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
