"""The three exceptions of our own; everything else is a plain ValueError or TypeError. Each message carries its fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ShapeError(ValueError):
    """Two things that must fit do not: the message names both shapes and says which way round is meant."""


class SiteNotFound(ValueError):
    """No module of the model answers to a site's path or pattern; the nearest names are offered."""


class FormatError(ValueError):
    """A file is not what its reader understands: damaged, of another kind, or with unknown keys."""


def nearest(name: str, known: Iterable[str], most: int = 3) -> str:
    """A ' Did you mean a, b?' clause for a misspelt `name`, or '' when nothing known is near.

    Example:
        >>> nearest("gini_indx", ["gini_index", "hoyer"])
        ' Did you mean gini_index?'
    """
    near = difflib.get_close_matches(name, list(known), n=most, cutoff=0.5)
    return f" Did you mean {', '.join(near)}?" if near else ""
