"""Every figure that a report can be drawn as, in its run folder."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ..core import Report, files


def draw(report: Report, figures: Sequence[Callable[[Report], Figure]], folder: Path) -> tuple[Path, ...]:
    """Writes each figure as SVG and PNG, atomically, and `index.json`: their names and what each shows; the SVG paths.

    A figure that this report has not the data for (another d, no snapshots) raises, and is left out.

    Args:
        report: a study's.
        figures: those of its kind, from `FIGURES`.
        folder: made if it is not there.
    """
    written, index = [], []
    for figure in figures:
        try:
            drawn = figure(report)
        except (KeyError, ValueError):
            continue
        for kind in ("png", "svg"):
            path = folder / f"{figure.__name__}.{kind}"
            with files.atomic(path) as temporary:
                drawn.savefig(temporary, format=kind, dpi=150)
        written.append(path)
        shows = " ".join(inspect.cleandoc(figure.__doc__ or "").split("\n\n")[0].split())
        index.append({"name": figure.__name__, "shows": shows})
    if written:
        files.write_json(folder / "index.json", index)
    return tuple(written)
