"""Which neurons mix which features?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from .... import measure
from ....core import Findings, Site
from .base import TRAINED, Reading, View

_SHOWN_NEURONS = 100
_FEATURES_PER_NEURON = 16


class Neurons(Reading):
    """Polysemanticity of every coordinate beside random directions; the most polysemantic ones as a table."""

    name: ClassVar[str] = "neurons"

    def read(self, seen: View, findings: Findings) -> None:
        mixing = measure.polysemanticity(
            seen.reader, seen.held, documents=seen.documents, top=_FEATURES_PER_NEURON, seed=seen.seed
        )
        findings.add(mixing, at=seen.at)
        tuning = measure.neuron_tuning(seen.reader, seen.held, documents=seen.documents, seed=seen.seed)
        findings.add(tuning, at=seen.at)
        findings.rows(
            "strong_features",
            {
                "threshold": tuning.thresholds.tolist(),
                "features": tuning.strong.tolist(),
                "low": _cells(tuning.low),
                "high": _cells(tuning.high),
                "random_directions": tuning.rotated.tolist(),
            },
            at=seen.at,
        )
        numbers = mixing.effective_features.nan_to_num(-1.0)
        order = numbers.argsort(descending=True, stable=True)[:_SHOWN_NEURONS]
        order = order[numbers[order] > 0]
        findings.rows(
            "neurons",
            {
                "neuron": order.tolist(),
                "effective_features": mixing.effective_features[order].tolist(),
                "explained": _cells(mixing.explained[order]),
                "selectivity": _cells(tuning.selectivity[order]),
                "told": [None if feature < 0 else feature for feature in tuning.told[order].tolist()],
                "features": mixing.features[order].tolist(),
                "shares": mixing.shares[order].tolist(),
                "signs": mixing.signs[order].tolist(),
            },
            at=seen.at,
        )
        series = {"neurons": mixing.effective_features, "random rotation": mixing.rotated}
        top = max(
            (float(values[values.isfinite()].max()) for values in series.values() if values.isfinite().any()),
            default=1.0,
        )
        edges = torch.linspace(0, top * (1 + 1e-6), 41, dtype=torch.float64)
        for name, values in series.items():
            values = values[values.isfinite()]
            if len(values):
                # Random directions may be more or fewer than neurons: scaled to as many, so that the bars compare.
                scale = len(series["neurons"]) / len(values)
                counts = torch.histogram(values.double(), edges).hist * scale
                findings.rows(
                    "histograms",
                    {"low": edges[:-1].tolist(), "high": edges[1:].tolist(), "count": counts.tolist()},
                    at={**seen.at, "what": "features per neuron", "series": name},
                )

    def sentences(self, findings: Findings, sites: Sequence[Site]) -> Iterable[str]:
        table = findings.tables["sites"]
        kinds = dict(zip(table["site"], table["kind"], strict=True))
        for site in sites:
            mixing = findings.get("polysemanticity", site, TRAINED)
            if kinds[str(site)] == "neurons" and mixing is not None and mixing.value is not None:
                yield (
                    f"At {site} the median neuron mixes {mixing.value:.0f} features, where a random direction of the "
                    f"same space mixes {mixing.chance:.0f}."
                )


def _cells(values: Tensor) -> list[float | None]:
    """None for what is not defined."""
    return [None if value != value else value for value in values.tolist()]
