"""How does a run look in a notebook? Its pages, live, or a still picture of it where they cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core import Report, RunFolder
from .html import figures


def show(run: RunFolder | Path | str | Report, *, height: int = 720) -> Any:
    """A run in the cell of a notebook: the views of the studio, with all rows, read from the kernel.

    Needs the extra `notebook` (anywidget). Without it, the report is returned, which a notebook shows as a still table.

    Args:
        run: a finished run folder, its path, or a report in memory.
        height: of the cell's frame, in pixels.

    Raises:
        FileNotFoundError: if there is no such run.
        FormatError: if the run is unfinished or damaged.

    Example:
        >>> import superscope as ss
        >>> shown = ss.show(ss.analyze_superposition(n_features=4, n_hidden=2, sparsity=0.9, steps=20))
    """
    if isinstance(run, Report):
        report, drawn = run, []
    else:
        folder = run.path if isinstance(run, RunFolder) else Path(run)
        report, drawn = Report.load(folder), figures(folder / "figures")
    try:
        from .notebook import RunWidget
    except ModuleNotFoundError as error:
        if error.name not in ("anywidget", "traitlets"):
            raise
        return report
    return RunWidget(report, drawn, height=height)
