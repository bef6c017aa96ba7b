"""What does each measurement mean? Writes docs/measurements.md from the words that terminal and page use.

python scripts/measurements_page.py
"""

from __future__ import annotations

import inspect
import pkgutil
from itertools import groupby
from pathlib import Path

from superscope.measure.words import WORDS, Word

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "measurements.md"

_OPENING = """# Measurements

What each number is, and how to read a high or a low one. Every number also comes with its n, an interval or the reason
why there is none, and, where there are any, a bound and a chance level:
[how to read a number](report.md#how-to-read-a-number). Formula, cost, errors and source stand in the docstring of the
function named, whose arguments say what can be chosen.

This page is made from `superscope/measure/words/` by `python scripts/measurements_page.py`; the terminal and the report
quote the same words.
"""


def page() -> str:
    """The page's text."""
    parts = [_OPENING]
    for group, words in groupby(WORDS.values(), key=lambda word: word.group):
        parts.append(f"## {group}\n")
        parts += map(_entry, words)
    return "\n".join(parts)


def _entry(word: Word) -> str:
    maker = inspect.unwrap(pkgutil.resolve_name(f"superscope.{word.by}"))
    file = Path(inspect.getfile(maker)).resolve().relative_to(REPOSITORY)
    return (
        f"**{word.label}**, `{word.name}`, in {word.unit}. {word.definition} *{word.reading}* "
        f"By [`{word.by}`](../{file.as_posix()}).\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.relative_to(REPOSITORY)}: {len(WORDS)} measurements.")
