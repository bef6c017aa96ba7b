"""The studio's pages in a cell of a notebook, which read a run from its kernel (extra `notebook`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

import anywidget
import traitlets

from ..core import Report
from .html import embed, pack, page, payload, plain, words

_HEIGHT = 720


class RunWidget(anywidget.AnyWidget):
    """A report as a widget: the views of the single file, but with all rows, asked for as they are shown.

    A notebook that is saved keeps the static picture of the report (`Report._repr_html_`) beside the widget, for
    whoever reads it without a kernel.

    Args:
        report: what is shown.
        figures: its drawings, as `studio.html.figures` reads them.
        height: of the cell's frame, in pixels.
    """

    _esm = (resources.files("superscope.studio") / "notebook.js").read_text(encoding="utf-8")
    height = traitlets.Int(_HEIGHT).tag(sync=True)

    def __init__(self, report: Report, figures: list[dict[str, str]] | None = None, *, height: int = _HEIGHT) -> None:
        super().__init__(height=height)
        self.report, self.figures = report, figures or []
        self.on_msg(self._hear)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        shown = super()._repr_mimebundle_(**kwargs)
        if shown is None:
            return None
        data, about = shown if isinstance(shown, tuple) else (shown, {})
        return {**data, "text/html": self.report._repr_html_(), "text/plain": repr(self.report)}, about

    def _hear(self, _: Any, question: Any, buffers: Any) -> None:
        if not isinstance(question, Mapping) or not isinstance(question.get("ask"), str):
            return
        answer = {name: question.get(name) for name in ("cell", "number")}
        try:
            self.send(answer | {"value": self.answer(question)})
        except (LookupError, TypeError, FileNotFoundError) as error:
            self.send(answer | {"error": str(error.args[0] if error.args else error)})

    def answer(self, question: Mapping[str, Any]) -> str:
        """What is asked for: the page itself, or JSON, as text, since a message cannot hold halves of characters.

        Raises:
            LookupError: if there is no such question, table or array.
            FileNotFoundError: if the front end was not built.
        """
        known: dict[str, Callable[[], Any]] = {
            "page": lambda: page(self.report.title, '"kernel"'),
            "head": lambda: embed(self._head()),
            "rows": lambda: embed(self._rows(question["table"], question.get("where", {}))),
            "array": lambda: embed(pack(self.report.arrays[question["name"]])),
        }
        if question["ask"] not in known:
            raise LookupError(f"there is no question {question['ask']!r}.")
        return known[question["ask"]]()

    def _head(self) -> dict[str, Any]:
        report = self.report
        names = [m.name for m in report.measurements] + [column for table in report.tables.values() for column in table]
        head = payload(dataclasses.replace(report, tables={}, arrays={})) | {
            "tables": {name: len(next(iter(table.values()), ())) for name, table in report.tables.items()},
            "arrays": {name: list(tensor.shape) for name, tensor in report.arrays.items()},
            "words": words(names),
            "figures": self.figures,
        }
        return head

    def _rows(self, name: str, where: Mapping[str, Any]) -> dict[str, list[Any]]:
        table = self.report.tables[name]
        rows = range(len(next(iter(table.values()), ())))
        for column, value in where.items():
            cells = table[column]
            several = value if isinstance(value, list) else [value]
            rows = [row for row in rows if cells[row] in several]
        return {column: [plain(cells[row]) for row in rows] for column, cells in table.items()}
