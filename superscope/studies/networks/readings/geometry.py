"""How much do the dictionary's atoms overlap?"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from .... import measure
from ....core import Findings
from .base import Reading, View


class Geometry(Reading):
    """W of the first seed, beside random frames."""

    name: ClassVar[str] = "geometry"

    def read(self, seen: View, findings: Findings) -> None:
        W = seen.sae.dictionary
        # The pair that attains the coherence is in the table of latents, as everybody's nearest atom is.
        coherence = dataclasses.replace(measure.coherence(W), at={})
        findings.add([coherence, measure.mean_max_cosine(W), measure.interference_energy(W)], at=seen.at)
        findings.add(measure.weight_sparsity(W, seed=seen.seed), at=seen.at)
        for what, histogram in (
            ("nearest cosine", measure.nearest_histogram(W)),
            ("interference", measure.cosine_histogram(W)),
        ):
            findings.rows("histograms", histogram.table(), at={**seen.at, "what": what})
