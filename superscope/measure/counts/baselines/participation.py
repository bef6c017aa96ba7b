"""In how many dimensions do the rows spread?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from ....core import Measurement
from ...activations.spread import activation_sparsity
from ...evidence import Evidence, Wanted
from ..base import Counter


class ParticipationRatio(Counter):
    r"""$(\mathrm{tr}\, C)^2 / \mathrm{tr}\, C^2$ of the held-out rows' covariance: at most d, and so blind.

    Interval of the jackknife over documents. On white Gaussian rows it is d, which is its chance level here.
    """

    name: ClassVar[str] = "participation_ratio"

    def wants(self, n: int, k: int, seeds: tuple[int, ...]) -> tuple[Wanted, ...]:
        return ()

    def count(self, seen: Evidence, wanted: tuple[Wanted, ...]) -> Iterable[Measurement]:
        if seen.held[0].x.shape[1] < 2:
            reason = "x has 1 dimension: there is nothing to spread over."
            rows = sum(len(batch) for batch in seen.held)
            return [Measurement(name=self.name, value=None, unit="dimensions", n=rows, of="tokens", caution=reason)]
        found = activation_sparsity(seen.held, documents=seen.documents, seed=seen.seed)
        return [m for m in found if m.name == self.name]
