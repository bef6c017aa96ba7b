"""Which way do rows move, on average, when the concept comes in?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from .finder import Finder
from .reading import ContrastRows


@final
@dataclass(frozen=True)
class DiffMean(Finder):
    r"""$v = \mu_+ - \mu_-$: what adding 1 does to the mean of rows without the concept.

    Source:
        Marks and Tegmark, "The geometry of truth", 2023; Rimsky et al., "Steering Llama 2 via contrastive activation
        addition", 2023.
    """

    name = "diff-mean"

    def vector(self, rows: ContrastRows) -> Float[Tensor, "d"]:
        return rows.positive.mean(0) - rows.negative.mean(0)
