"""How many latents come again with another seed, and how many different ones do all seeds have together?"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar

import torch

from ....core import Measurement
from ...evidence import Evidence, Wanted
from ..base import Counter


class StableLatents(Counter):
    r"""$\#\{i : s_i \ge \theta\}$, $s_i$ the share of other dictionaries with an atom of cosine above 0.7 to atom i.

    Estimand: features that training finds reliably at this width and k. No interval. Null: not nothing; 16 of 64
    latents on white noise in 16 dimensions with k = 2 and three seeds. The chance level is that of recurrence in all
    dictionaries, of random directions with the rows' covariance. Atoms are matched one to one in clusters, as
    `recurring_features` does, which is the same with theta = 1.

    Args:
        threshold: theta.

    Source:
        "Unstable features, reproducible subspaces", 2026 (arXiv 2606.12138), stability of a feature over independent
        runs, from its abstract: the matching threshold is ours.
    """

    name: ClassVar[str] = "stable_latents"

    def __init__(self, threshold: float = 0.5) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(f"StableLatents: threshold must be in (0, 1]; got {threshold}.")
        self.threshold = threshold

    def wants(self, n: int, k: int, seeds: tuple[int, ...]) -> tuple[Wanted, ...]:
        return tuple(Wanted(n, k, seed) for seed in seeds)

    def count(self, seen: Evidence, wanted: tuple[Wanted, ...]) -> Iterable[Measurement]:
        others = len(wanted) - 1
        if others < 1:
            return [_one_seed(self.name)]
        recurrence = seen.recurrence(wanted)
        # An atom's count includes its own dictionary.
        least = 1 + math.ceil(self.threshold * others - 1e-9)
        whole = recurrence["recurring_features"]
        return [
            Measurement(
                name=self.name,
                value=float((recurrence.counts >= least).sum()),
                unit="latents",
                n=len(wanted),
                of="dictionaries",
                how="no interval: one count over the seeds",
                chance=whole.chance,
                chance_is=f"recurrence in all, {whole.chance_is}",
            )
        ]


class PooledDictionary(Counter):
    """Directions in the dictionaries of all seeds together, each counted once, that occur in at least two of them.

    Estimand: features that training finds at all at this width and k; it grows with the number of seeds. No interval.

    Source:
        "Unstable features, reproducible subspaces", 2026 (arXiv 2606.12138): pooling the unique features of several
        seeds, from its abstract.
    """

    name: ClassVar[str] = "pooled_features"

    def wants(self, n: int, k: int, seeds: tuple[int, ...]) -> tuple[Wanted, ...]:
        return tuple(Wanted(n, k, seed) for seed in seeds)

    def count(self, seen: Evidence, wanted: tuple[Wanted, ...]) -> Iterable[Measurement]:
        if len(wanted) < 2:
            return [_one_seed(self.name)]
        recurrence = seen.recurrence(wanted)
        occurs = (recurrence.members >= 0).sum(1)
        return [
            Measurement(
                name=self.name,
                value=float(torch.as_tensor(occurs >= 2).sum()),
                unit="directions",
                n=len(wanted),
                of="dictionaries",
                how="no interval: one count over the seeds",
            )
        ]


def _one_seed(name: str) -> Measurement:
    reason = "one seed: stability needs dictionaries from at least 2."
    return Measurement(name=name, value=None, unit="latents", n=1, of="dictionaries", caution=reason)
