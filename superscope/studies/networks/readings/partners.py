"""Who disturbs a feature, how often and at what cost; and what fires when it does?"""

from __future__ import annotations

from typing import ClassVar

import torch

from .... import measure
from ....core import Findings
from .base import Reading, View

_SHOWN = 400
"""Latents of each site whose partners are kept: those whose contexts are."""
_MOST = 6


class Partners(Reading):
    """The table of pairs: each shown latent with those that interfere with it the most, and those that come with it."""

    name: ClassVar[str] = "who disturbs whom"

    def read(self, seen: View, findings: Findings) -> None:
        # The latents' own order, where text was read: what every seed found first.
        table = findings.tables.get("latents", {})
        places = zip(*(table.get(key, ()) for key in ("latent", *seen.at)), strict=True)
        shown = [latent for latent, *at in places if at == list(seen.at.values())]
        if not shown:
            shown = seen.recurrence(seen.wanted).counts.argsort(descending=True, stable=True).tolist()
        codes = (seen.reader.encode(batch.x) for batch in seen.held)
        found = measure.company(seen.sae.dictionary, codes, torch.tensor(shown[:_SHOWN]), most=_MOST)
        columns: dict[str, list] = {
            name: []
            for name in [
                "latent",
                "why",
                "other",
                "cosine",
                "fires",
                "other_fires",
                "both",
                "rows",
                "energy",
                "energy_share",
                "while_on",
            ]
        }
        for why, partners in (("interference", found.disturbers), ("together", found.companions)):
            for place, latent in enumerate(partners.features.tolist()):
                whole = float(found.energy[place])
                for slot in range(partners.others.shape[1]):
                    other = int(partners.others[place, slot])
                    if other < 0:
                        continue
                    energy = float(partners.energy[place, slot])
                    row = {
                        "latent": latent,
                        "why": why,
                        "other": other,
                        "cosine": float(partners.cosine[place, slot]),
                        "fires": int(found.on[latent]),
                        "other_fires": int(found.on[other]),
                        "both": int(partners.both[place, slot]),
                        "rows": found.rows,
                        "energy": energy,
                        "energy_share": energy / whole if whole else None,
                        "while_on": float(partners.while_on[place, slot]),
                    }
                    for name, cell in row.items():
                        columns[name].append(cell)
        findings.rows("partners", columns, at=seen.at)
