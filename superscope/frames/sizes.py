"""The check that all constructions share: sizes are whole numbers."""

from __future__ import annotations


def check_whole(caller: str, **sizes: object) -> None:
    """Refuses a size that is no whole number, with a sentence that names it."""
    for name, size in sizes.items():
        if not hasattr(size, "__index__"):
            raise TypeError(f"{caller}: {name} must be a whole number; got {size!r}. Pass an int.")
