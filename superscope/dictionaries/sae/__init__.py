"""Sparse autoencoders: W and f from x alone, by descent."""

from __future__ import annotations

from pathlib import Path

from ...core import FormatError
from ...core.errors import nearest
from ...core.registry import members
from .abs_topk import AbsTopK as AbsTopK
from .archetypal import Archetypal as Archetypal
from .base import SAE as SAE
from .base import Fit as Fit
from .base import read_about
from .batch_topk import BatchTopK as BatchTopK
from .gated import Gated as Gated
from .interference_penalised import InterferencePenalised as InterferencePenalised
from .jumprelu import JumpReLU as JumpReLU
from .matching_pursuit import MatchingPursuit as MatchingPursuit
from .matryoshka import Matryoshka as Matryoshka
from .p_annealed import PAnnealed as PAnnealed
from .relu import ReLU as ReLU
from .topk import TopK as TopK

ARCHITECTURES: tuple[type[SAE], ...] = members(SAE, globals())
"""Every architecture: those imported above. Commands, formats, docs and tests read this tuple."""


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
