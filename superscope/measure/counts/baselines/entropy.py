"""Over how many latents does the code of a learned dictionary spread?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from ....core import Measurement
from ...evidence import Evidence, Wanted
from ..base import Counter


class EntropyNumber(Counter):
    r"""$F = \exp(-\sum_i p_i \ln p_i)$, $p_i = E|f_i| / \sum_j E|f_j|$ on held-out rows, of the first dictionary.

    Estimand: the Hill number of order 1 of activation mass, which is n only where all features carry the same. Interval
    of the jackknife over documents, which does not know of other seeds or widths. Its null is the width: above 0.9 n on
    Gaussian rows with a top-k code. The measure of Bereska et al. on a top-k autoencoder instead of theirs, which is
    `TiedEntropy`.

    Source:
        Bereska et al., "Superposition as lossy compression", 2025 (arXiv 2512.13568).
    """

    name: ClassVar[str] = "entropy_effective_latents"

    def wants(self, n: int, k: int, seeds: tuple[int, ...]) -> tuple[Wanted, ...]:
        return (Wanted(n, k, seeds[0]),)

    def count(self, seen: Evidence, wanted: tuple[Wanted, ...]) -> Iterable[Measurement]:
        return [seen.evaluations[wanted[0]][self.name]]
