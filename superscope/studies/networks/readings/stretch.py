"""How does a place in the text read? The stretch about it, as columns of a table."""

from __future__ import annotations

from typing import Any

from ....capture import Corpus, pieces
from .base import View

BEFORE, AFTER = 12, 8
"""Tokens shown on either side of a place."""


def stretch(seen: View, corpus: Corpus, sequence: int, position: int) -> tuple[dict[str, Any], slice]:
    """The columns `document`, `position` and `tokens` of a place; and where those tokens stand in a window of
    BEFORE + 1 + AFTER about it."""
    low, high = max(position - BEFORE, 0), min(position + AFTER + 1, int(corpus.length[sequence]))
    first = low - (position - BEFORE)
    # Where the token stands in its document: added special tokens at the window's head do not count.
    added = int(corpus.keep[sequence].int().argmax())
    columns = {
        "document": corpus.names[int(corpus.document[sequence])],
        "position": int(corpus.start[sequence]) + position - added,
        "tokens": pieces(seen.subject.tokenizer, corpus.ids[sequence, low:high].tolist(), seen.texts),
    }
    return columns, slice(first, first + high - low)
