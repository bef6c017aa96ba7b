"""Sparse autoencoders: W and f from x alone, by descent."""

from __future__ import annotations

from pathlib import Path

from ...core import FormatError
from ...core.errors import nearest
from .abs_topk import AbsTopK
from .archetypal import Archetypal
from .base import SAE, Fit, read_about
from .batch_topk import BatchTopK
from .gated import Gated
from .interference_penalised import InterferencePenalised
from .jumprelu import JumpReLU
from .matching_pursuit import MatchingPursuit
from .matryoshka import Matryoshka
from .p_annealed import PAnnealed
from .relu import ReLU
from .topk import TopK

ARCHITECTURES: tuple[type[SAE], ...] = (
    AbsTopK,
    Archetypal,
    BatchTopK,
    Gated,
    InterferencePenalised,
    JumpReLU,
    MatchingPursuit,
    Matryoshka,
    PAnnealed,
    ReLU,
    TopK,
)
"""Every architecture; tests, formats and menus read this tuple."""


def load(folder: Path | str, among: tuple[type[SAE], ...] = ARCHITECTURES) -> SAE:
    """The SAE saved in a folder, of whichever architecture in `among`.

    Raises:
        FileNotFoundError: if a file is missing.
        FormatError: if a file is damaged, has unknown keys, or names an unknown architecture.
    """
    name = read_about(folder)["architecture"]
    for architecture in among:
        if architecture.__name__ == name:
            return architecture.load(folder)
    known = [architecture.__name__ for architecture in among]
    raise FormatError(
        f"{Path(folder) / 'about.json'} names an unknown architecture {name!r}.{nearest(str(name), known)} "
        f"Known ones: {', '.join(known)}."
    )


__all__ = [
    "ARCHITECTURES",
    "SAE",
    "AbsTopK",
    "Archetypal",
    "BatchTopK",
    "Fit",
    "Gated",
    "InterferencePenalised",
    "JumpReLU",
    "MatchingPursuit",
    "Matryoshka",
    "PAnnealed",
    "ReLU",
    "TopK",
    "load",
]
