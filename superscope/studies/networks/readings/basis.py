"""Do the axes of this layer mean anything?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from .... import measure
from ....core import Findings, Site
from .base import TRAINED, Reading, View

_ROWS, _ROTATIONS = 4096, 39


class Basis(Reading):
    """Heavy tails along the axes beside those along random ones."""

    name: ClassVar[str] = "axes against random rotations"

    def read(self, seen: View, findings: Findings) -> None:
        if seen.d < 2 or len(seen.other) < 100:
            return
        found = measure.privileged_basis(seen.held, most=_ROWS, rotations=_ROTATIONS, seed=seen.seed)
        findings.add(found.measurement, at=seen.at)

    def sentences(self, findings: Findings, sites: Sequence[Site]) -> Iterable[str]:
        told = {site: findings.get("basis_kurtosis", site, TRAINED) for site in sites}
        special = [str(site) for site, m in told.items() if m is not None and not m.caution]
        if len(special) == len(sites) == 1:
            yield f"The axes of {special[0]} are heavier-tailed than random directions: it has a privileged basis."
        elif special:
            yield (
                f"Axes are heavier-tailed than random directions at {len(special)} of {len(sites)} sites, which have a "
                "privileged basis."
            )
