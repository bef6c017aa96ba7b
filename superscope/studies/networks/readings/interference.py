"""What do active features add to each other's read-outs?"""

from __future__ import annotations

from typing import ClassVar

import torch

from .... import measure
from ....core import Findings
from .base import Reading, View


class Interference(Reading):
    """Signed interference of the first seed's dictionary, beside random directions that carry the same codes."""

    name: ClassVar[str] = "signed interference"

    def read(self, seen: View, findings: Findings) -> None:
        found = measure.signed_interference(seen.reader, seen.held, documents=seen.documents, seed=seen.seed)
        findings.add(found, at=seen.at)
        findings.rows(
            "interference",
            {
                "latent": found.features.tolist(),
                **{name: getattr(found.each, name).tolist() for name in found.each._fields},
                **{
                    f"{name}_{end}": [None if value != value else value for value in getattr(bound, name).tolist()]
                    for name in ("while_on", "false_alarm")
                    for end, bound in (("low", found.low), ("high", found.high))
                },
            },
            at=seen.at,
        )
        for name, what in (("while_on", "interference while on"), ("false_alarm", "false alarm power")):
            if not len(found.features):
                continue
            series = {"features": getattr(found.each, name), "random directions": getattr(found.random, name)}
            both = torch.cat(list(series.values()))
            low, high = (float(both.quantile(q)) for q in (0.005, 0.995))
            edges = torch.linspace(low, max(high, low + 1e-9), 41, dtype=torch.float64)
            for label, values in series.items():
                # What lies beyond is counted at the ends.
                counts = torch.histogram(values.clamp(low, high), edges).hist
                findings.rows(
                    "histograms",
                    {"low": edges[:-1].tolist(), "high": edges[1:].tolist(), "count": counts.tolist()},
                    at={**seen.at, "what": what, "series": label},
                )
