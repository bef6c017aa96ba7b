"""Where do features stand beside each other? A map of all atoms, with what each keeps of its neighbours."""

from __future__ import annotations

from typing import ClassVar

import torch

from .... import measure
from ....core import Findings
from .base import Reading, View


class Map(Reading):
    """The table of all latents that the atlas draws, every column a number."""

    name: ClassVar[str] = "a map of the features"

    def read(self, seen: View, findings: Findings) -> None:
        W = seen.sae.dictionary
        if int((W.norms > 0).sum()) < 3:
            return
        found = measure.flat_map(W, seed=seen.seed)
        findings.add(found, at=seen.at)
        fires = torch.zeros(W.n, dtype=torch.float64)
        rows = 0
        for batch in seen.held:
            code = seen.reader.encode(batch.x)
            fires += code.uses.cpu()
            rows += len(batch)
        # Interference is read before: only features that fire often enough have any.
        energy = torch.full((W.n,), torch.nan, dtype=torch.float64)
        table = findings.tables.get("interference", {})
        for row, latent in enumerate(table.get("latent", ())):
            if all(table[key][row] == value for key, value in seen.at.items()):
                energy[latent] = table["energy"][row]
        findings.rows(
            "atlas",
            {
                "latent": list(range(W.n)),
                "x": _cells(found.places[:, 0]),
                "y": _cells(found.places[:, 1]),
                "kept": _cells(found.kept),
                "density": (fires / max(rows, 1)).tolist(),
                "recurs": seen.recurrence(seen.wanted).counts.tolist(),
                "overlap": _cells(seen.nearest.magnitude),
                "energy": _cells(energy),
            },
            at=seen.at,
        )


def _cells(values: torch.Tensor) -> list[float | None]:
    """None for what is not defined."""
    return [None if value != value else value for value in values.tolist()]
