"""What do these runs and dictionaries say beside each other? `superscope.studies.Compare`, the last answers kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from ...core import Report
from ...core.files import read_json
from . import shapes
from .bench import places
from .library import Library

ANSWERS = 4
"""Answers that are kept."""
_ROWS, _TOKENS, _WORLD = 8_000, 1_500, 4_096
"""Rows and tokens that are read while a page waits, and the largest number of a world that is made for it."""


class Comparisons:
    """Comparisons that pages ask for, one at a time.

    Args:
        library: whose runs can be compared.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self._lock = threading.Lock()
        self._answers: OrderedDict[tuple[object, ...], Report] = OrderedDict()

    def sources(self) -> shapes.Comparable:
        """What can be compared: finished runs, and the dictionaries in them."""
        runs = [
            shapes.Place(id=run.id, title=f"{run.id}: {run.title}"[:200], site=run.kind)
            for run in self.library.runs().runs
            if run.state == "finished"
        ]
        return shapes.Comparable(sources=runs + places(self.library))

    def answer(self, names: Sequence[str], threshold: float) -> Report:
        """The comparison of the first with the others.

        Raises:
            LookupError: if there is no such run or dictionary.
            ValueError: if they are too few, too many, or cannot be read.
        """
        from ...studies.learning.compare import Compare

        if len(set(names)) != len(names):
            raise ValueError("one of them is named twice; name each once.")
        paths = [self.library.source(name) for name in names]
        for path in paths:
            _check(path)
        stamps = tuple((path / "about.json").stat().st_mtime_ns for path in paths)
        key = (tuple(names), threshold, stamps)
        with self._lock:
            if key not in self._answers:
                study = Compare(tuple(map(str, paths)), threshold=threshold, rows=_ROWS, tokens=_TOKENS)
                self._answers[key] = self.library.portable(study.run(), paths)
                while len(self._answers) > ANSWERS:
                    self._answers.popitem(last=False)
            self._answers.move_to_end(key)
            return self._answers[key]


def _check(path: Path) -> None:
    """Refuses what a page should not wait for: models that would be fetched, worlds that would fill the memory."""
    abouts = [read_json(each) for each in (path / "about.json", path / "sae" / "about.json") if each.is_file()]
    outside = path.parent / "about.json"
    if not (path / "report.json").is_file() and outside.is_file():
        abouts.append(read_json(outside))
    for about in abouts:
        notes, settings = (part if isinstance(part := about.get(name), dict) else {} for name in ("notes", "settings"))
        model = str(notes.get("model") or notes.get("source") or "")
        if model not in ("", "pocket") and not model.startswith("world:") and not Path(model).expanduser().exists():
            raise ValueError(
                f"{path.name} was learned of {model[:80]!r}, which is not on this machine. Run superscope compare."
            )
        world = settings.get("world")
        for each in world if isinstance(world, list) else ():
            number = str(each).partition("=")[2]
            if number.replace(".", "", 1).isdecimal() and float(number) > _WORLD:
                raise ValueError(
                    f"{path.name} is of a world of {number[:20]}, too large for a page. Run superscope compare."
                )
