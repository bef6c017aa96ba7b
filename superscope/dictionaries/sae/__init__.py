"""Sparse autoencoders: W and f from x alone, by descent."""

from __future__ import annotations

from pathlib import Path

from ...core import FormatError
from ...core.errors import nearest
from .base import SAE, read_about
from .topk import TopK

ARCHITECTURES: tuple[type[SAE], ...] = (TopK,)
"""Every architecture; tests, formats and menus read this tuple."""


def load(folder: Path | str) -> SAE:
    """The SAE saved in a folder, of whichever architecture.

    Raises:
        FileNotFoundError: if a file is missing.
        FormatError: if a file is damaged, has unknown keys, or names an unknown architecture.
    """
    name = read_about(folder)["architecture"]
    for architecture in ARCHITECTURES:
        if architecture.__name__ == name:
            return architecture.load(folder)
    known = [architecture.__name__ for architecture in ARCHITECTURES]
    raise FormatError(
        f"{Path(folder) / 'about.json'} names an unknown architecture {name!r}.{nearest(str(name), known)} "
        f"Known ones: {', '.join(known)}."
    )


__all__ = ["ARCHITECTURES", "SAE", "TopK", "load"]
