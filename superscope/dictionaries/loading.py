"""Whatever this folder saved, read back: SAEs, transcoders and classical dictionaries alike."""

from __future__ import annotations

from pathlib import Path

from ..core import FormatError, SparseCoder
from ..core.errors import nearest
from . import sae
from .classical import CLASSICAL
from .classical.learner import KIND
from .sae import ARCHITECTURES, SAE
from .sae.base import read_about
from .transcoders import TRANSCODERS


def load(folder: Path | str) -> SAE:
    """The SAE, transcoder or crosscoder saved in a folder.

    Raises:
        FileNotFoundError: if a file is missing.
        FormatError: if a file is damaged, has unknown keys, or names an unknown architecture.
    """
    return sae.load(folder, (*ARCHITECTURES, *TRANSCODERS))


def load_coder(folder: Path | str) -> SparseCoder:
    """Whatever was learned and saved in a folder: what `load` reads, or a classical learner's dictionary.

    Raises:
        FileNotFoundError: if a file is missing.
        FormatError: if a file is damaged, has unknown keys, or names what is not known.
    """
    about = read_about(folder)
    if about["kind"] != KIND:
        return load(folder)
    known = {learner.__name__: learner for learner in CLASSICAL}
    name = str(about["architecture"])
    if name not in known:
        raise FormatError(
            f"{Path(folder) / 'about.json'} names an unknown learner {name!r}.{nearest(name, list(known))} "
            f"Known ones: {', '.join(known)}."
        )
    return known[name].load(folder)
