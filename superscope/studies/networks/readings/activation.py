"""How many rows, of how many dimensions, how unevenly spread?"""

from __future__ import annotations

from typing import ClassVar

from .... import measure
from ....core import Findings, Measurement
from .base import Reading, View


class Activation(Reading):
    """x itself, before any dictionary."""

    name: ClassVar[str] = "sparsity of activations"

    def read(self, seen: View, findings: Findings) -> None:
        rows = len(seen.source)
        tokens = Measurement(
            name="tokens", value=float(rows), unit="tokens", n=rows, of="tokens", how="no interval: a count of rows"
        )
        dimensions = Measurement(
            name="dimensions",
            value=float(seen.d),
            unit="dimensions",
            n=seen.d,
            of="coordinates",
            how="no interval: a property of the model",
        )
        spread = measure.activation_sparsity(seen.held, documents=seen.documents, seed=seen.seed)
        findings.add([tokens, dimensions, *spread], at=seen.at)
