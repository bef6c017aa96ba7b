"""Which read-out tells the sides apart best, if each is Gaussian and they spread alike?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from .finder import Finder, class_covariance
from .reading import ContrastRows


@final
@dataclass(frozen=True)
class Lda(Finder):
    r"""$v = \Sigma^{-1}(\mu_+ - \mu_-)$, $\Sigma = (1 - a) S + a\, m I$: S within sides, m its mean variance.

    Args:
        shrinkage: a in [0, 1]; None takes Ledoit and Wolf's, least in expected squared error.

    Source:
        Fisher, "The use of multiple measurements in taxonomic problems", 1936; Ledoit and Wolf, "A well-conditioned
        estimator for large-dimensional covariance matrices", 2004.
    """

    shrinkage: float | None = None

    name = "lda"

    def __post_init__(self) -> None:
        if self.shrinkage is not None and not 0 <= self.shrinkage <= 1:
            raise ValueError(f"Lda: shrinkage is {self.shrinkage}; give a share, 0 to 1.")

    def vector(self, rows: ContrastRows) -> Float[Tensor, "d"]:
        S = class_covariance(rows)
        mean = S.diagonal().mean()
        a = ledoit_wolf(rows) if self.shrinkage is None else self.shrinkage
        shrunk = (1 - a) * S + a * mean * torch.eye(rows.d, dtype=S.dtype)
        difference = rows.positive.mean(0) - rows.negative.mean(0)
        return torch.linalg.lstsq(shrunk, difference[:, None], driver="gelsd").solution[:, 0]


def ledoit_wolf(rows: ContrastRows) -> float:
    r"""$a = \min(1, b^2 / d^2)$, $d^2 = \|S - mI\|_F^2$, $b^2 = \frac1{n^2}\sum_i \|x_i x_i^\top - S\|_F^2$.

    Rows are centred on their side.
    """
    centred = torch.cat([rows.positive - rows.positive.mean(0), rows.negative - rows.negative.mean(0)])
    S, n = class_covariance(rows), len(centred)
    d2 = float(S.square().sum() - S.diagonal().mean() ** 2 * rows.d)
    b2 = float(centred.square().sum(1).square().sum() - n * S.square().sum()) / n**2
    return min(max(b2 / d2, 0.0), 1.0) if d2 > 0 else 1.0
