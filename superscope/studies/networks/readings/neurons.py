"""Which neurons mix which features?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from .... import measure
from ....core import Findings, Site
from .base import TRAINED, Reading, View
from .stretch import AFTER, BEFORE, stretch

_SHOWN_NEURONS = 100
_FEATURES_PER_NEURON = 16
_TAKEN_APART = 40
"""Neurons of each site whose values are taken apart at examples."""


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
                "purer_directions": [_share_below(mixing.rotated, float(number)) for number in numbers[order]],
                "selectivity": _cells(tuning.selectivity[order]),
                "told": [None if feature < 0 else feature for feature in tuning.told[order].tolist()],
                "features": mixing.features[order].tolist(),
                "shares": mixing.shares[order].tolist(),
                "signs": mixing.signs[order].tolist(),
            },
            at=seen.at,
        )
        self._apart(seen, order[:_TAKEN_APART], findings)
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

    def _apart(self, seen: View, neurons: Tensor, findings: Findings) -> None:
        """What the values of some neurons are made of, on average and at examples."""
        if not len(neurons):
            return
        found = measure.mixtures(seen.reader, seen.held, neurons, documents=seen.documents, before=BEFORE, after=AFTER)
        columns: dict[str, list] = {
            name: [] for name in ("neuron", "above", "rows", "value", "explained", "features", "parts")
        }
        for j, neuron in enumerate(found.neurons.tolist()):
            for b, quantile in enumerate(measure.QUANTILES):
                if int(found.rows[j, b]):
                    row = (
                        neuron,
                        quantile,
                        int(found.rows[j, b]),
                        float(found.value[j, b]),
                        float(found.explained[j, b]),
                    )
                    parts = (found.features[j, b].tolist(), found.parts[j, b].tolist())
                    for name, cell in zip(columns, (*row, *parts), strict=True):
                        columns[name].append(cell)
        findings.rows("neuron_bands", columns, at=seen.at)
        if not seen.has("tokens") or any(batch.places is None for batch in seen.held):
            return
        places = torch.cat([batch.places.cpu() for batch in seen.held if batch.places is not None])
        names = [
            "neuron",
            "rank",
            "value",
            "explained",
            "features",
            "parts",
            "document",
            "position",
            "tokens",
            "activations",
        ]
        columns = {name: [] for name in names}
        for j, neuron in enumerate(found.neurons.tolist()):
            for rank, row in enumerate(found.examples[j].tolist()):
                if row < 0:
                    continue
                text, inside = stretch(seen, seen.held_out, *places[row].tolist())
                used = found.example_features[j, rank] >= 0
                cells = {
                    "neuron": neuron,
                    "rank": rank,
                    "value": float(found.example_value[j, rank]),
                    "explained": float(found.example_explained[j, rank]),
                    "features": found.example_features[j, rank][used].tolist(),
                    "parts": found.example_parts[j, rank][used].tolist(),
                    **text,
                    "activations": _cells(found.around[j, rank, inside]),
                }
                for name in names:
                    columns[name].append(cells[name])
        findings.rows("neuron_contexts", columns, at=seen.at)

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


def _share_below(values: Tensor, value: float) -> float | None:
    """The share of random directions that mix fewer features."""
    known = values[values.isfinite()]
    return float((known < value).double().mean()) if len(known) else None


def _cells(values: Tensor) -> list[float | None]:
    """None for what is not defined."""
    return [None if value != value else value for value in values.tolist()]
