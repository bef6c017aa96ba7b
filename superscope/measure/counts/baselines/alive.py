"""How many latents are ever active?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from ....core import Measurement
from ...evidence import Evidence, Wanted
from ..base import Counter


class AliveLatents(Counter):
    """`alive_latents` of the first dictionary: those nonzero on at least one held-out row.

    Estimand: none; it is what is often quoted as a number of features. No interval. Its null is the width: on Gaussian
    rows every latent is alive. It rises with the width on real worlds too (61 to 123 of 384 for 48 features).
    """

    name: ClassVar[str] = "alive_latents"

    def wants(self, n: int, k: int, seeds: tuple[int, ...]) -> tuple[Wanted, ...]:
        return (Wanted(n, k, seeds[0]),)

    def count(self, seen: Evidence, wanted: tuple[Wanted, ...]) -> Iterable[Measurement]:
        return [seen.evaluations[wanted[0]][self.name]]
