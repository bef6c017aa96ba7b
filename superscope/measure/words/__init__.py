"""What is each measurement called, and what does it mean? Terminal, page and docs/measurements.md quote these words.

A measurement's word stands in the file of its group here, beside those of its kind, and says which function makes the
number. A name without a word, of a counter from outside say, is shown as its name.
"""

from __future__ import annotations

from dataclasses import replace

from . import (
    agreement,
    bounds,
    changes,
    concepts,
    cost,
    counts,
    evaluations,
    geometry,
    interventions,
    maximised,
    networks,
    pursuit,
    recovery,
    sycophancy,
    toys,
)
from .word import Word

_GROUPS = (
    networks,
    changes,
    counts,
    geometry,
    agreement,
    evaluations,
    recovery,
    pursuit,
    interventions,
    concepts,
    bounds,
    toys,
    cost,
    sycophancy,
    maximised,
)

WORDS: dict[str, Word] = {
    word.name: replace(word, group=group)
    for module in _GROUPS
    for group, words in module.WORDS.items()
    for word in words
}
"""The word of each name, those of one group together."""


def word_for(name: str) -> Word:
    """The word of a measurement's name; of one that nobody has explained, its name in plain letters.

    Example:
        >>> word_for("l0").label, word_for("braid_index").label
        ('Active latents per token', 'Braid index')
    """
    if name in WORDS:
        return WORDS[name]
    plain = name.replace("_", " ")
    # n, d and k are the symbols themselves.
    label = plain if len(plain) == 1 else plain[:1].upper() + plain[1:]
    return Word(name, label, unit="", definition="", reading="", by="")
