"""What does the dictionary explain, of the rows and of what the model does with them?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import ClassVar

from .... import measure
from ....core import Findings, Site
from ...spliced import loss_recovered
from .base import TRAINED, Reading, View

SPLICED_TOKENS = 16_384
"""Held-out tokens on which the model runs with a reconstruction in place of x."""


class Reconstruction(Reading):
    """The whole evaluation of the first seed; the other seeds give its error a range."""

    name: ClassVar[str] = "reconstruction"
    prominence: ClassVar[int] = 1

    def read(self, seen: View, findings: Findings) -> None:
        evaluations = [seen.evaluations[each] for each in seen.wanted]
        errors = [evaluation["fraction_variance_unexplained"] for evaluation in evaluations]
        values = [error.value or 0.0 for error in errors]
        over_seeds = dataclasses.replace(
            errors[0],
            name="fraction_variance_unexplained_over_seeds",
            value=sum(values) / len(values),
            **measure.over_seeds(values).fields,
        )
        findings.add([*evaluations[0], over_seeds], at=seen.at)
        sparsity = measure.feature_sparsity(seen.reader, seen.held, documents=seen.documents, seed=seen.seed)
        findings.add(sparsity, at=seen.at)

    def sentences(self, findings: Findings, sites: Sequence[Site]) -> Iterable[str]:
        def values(name: str) -> list[float]:
            asked = (findings.get(name, site, TRAINED) for site in sites)
            return [m.value for m in asked if m is not None and m.value is not None and not m.caution]

        unexplained, l0 = values("fraction_variance_unexplained"), values("l0")
        if unexplained and l0:
            recovered = values("cross_entropy_recovered")
            kept = f"; the model keeps {_span(recovered)} of what it gets from a site" if recovered else ""
            yield (
                f"With {max(l0):.0f} latents per token, the dictionaries leave {_span(unexplained)} of variance "
                f"unexplained{kept}."
            )


class CrossEntropy(Reading):
    """What the model loses when it runs on the reconstruction."""

    name: ClassVar[str] = "what the model loses on reconstructions"
    needs: ClassVar[tuple[str, ...]] = ("causal",)

    def read(self, seen: View, findings: Findings) -> None:
        windows = min(max(SPLICED_TOKENS // seen.held_out.context, 2), len(seen.held_out))
        recovered = loss_recovered(
            seen.subject,
            seen.site,
            seen.held_out,
            windows,
            seen.sae,
            seen.moments.mean.to(seen.sae.atoms),
            left_out=seen.other.left_out,
            own=seen.own_loss(windows),
            seed=seen.seed,
        )
        findings.add(recovered, at=seen.at)


def _span(shares: Sequence[float]) -> str:
    low, high = f"{min(shares):.0%}", f"{max(shares):.0%}"
    return low if low == high else f"{low.removesuffix('%')} to {high}"
