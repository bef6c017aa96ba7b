"""What does a measurement's name mean? One word for each: its label, its unit, what it is, and how to read it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """What terminal, page and docs say of the measurements of one name.

    Args:
        name: of the measurements.
        label: what a reader sees, a few words.
        unit: in words.
        definition: what it is, in one sentence.
        reading: how to read a high or a low value, and what it must not be taken for.
        by: the function or study below `superscope` that makes it; formula and source are in its docstring.
        short: the heading of a column, where the label is too long for one.
        headline: whether it stands in an overview of many places.
        group: what it speaks of; given by the collection.
    """

    name: str
    label: str
    unit: str
    definition: str
    reading: str
    by: str
    short: str = ""
    headline: bool = False
    group: str = ""

    @property
    def heading(self) -> str:
        """The heading of a column."""
        return self.short or self.label
