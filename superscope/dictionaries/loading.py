"""Whatever this folder saved, read back: SAEs and transcoders alike."""

from __future__ import annotations

from pathlib import Path

from . import sae
from .sae import ARCHITECTURES, SAE
from .transcoders import TRANSCODERS


def load(folder: Path | str) -> SAE:
    """The SAE, transcoder or crosscoder saved in a folder.

    Raises:
        FileNotFoundError: if a file is missing.
        FormatError: if a file is damaged, has unknown keys, or names an unknown architecture.
    """
    return sae.load(folder, (*ARCHITECTURES, *TRANSCODERS))
