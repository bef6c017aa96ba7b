"""What did a handful of rows or coordinates hold at a site? Counts, tables and sentences of a scan's report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from .... import measure
from ....capture import Corpus
from ....core import Activations, Findings, Measurement, Site
from .base import TRAINED, Reading, View

_SHOWN_ROWS = 200
_NAMED = 5


class Outliers(Reading):
    """Rows that recording left out for their norm, and coordinates that stand out among those that it kept."""

    name: ClassVar[str] = "outliers"

    def read(self, seen: View, findings: Findings) -> None:
        left_out = seen.source.left_out
        apart = torch.empty(0, seen.d) if left_out is None else left_out.x.cpu()
        share = measure.outlier_share(seen.moments, apart)
        coordinates, multiples = measure.outlier_coordinates(seen.moments.covariance.diagonal().clamp(min=0).sqrt())
        # Massive activations have coordinates of their own: what only the rows left out make stand out is named too.
        before = measure.outlier_coordinates(share.deviations)[0]
        own = int((apart.float().norm(dim=1) > seen.source.limit).sum())
        rows = _rows({"learned from": (left_out, seen.corpus), "held out": (seen.other.left_out, seen.held_out)}, seen)
        held_rows = 0 if seen.other.left_out is None else len(seen.other.left_out)
        seen.about.update(
            {
                "outliers": share.rows,
                "outliers_held_out": held_rows,
                "outliers_here": own,
                "outlier_limit": seen.source.limit if math.isfinite(seen.source.limit) else None,
                "outlier_squared_norm": share.squared_norm,
                "outlier_variance": share.variance,
                "participation_with_outliers": _number(share.participation_with),
                "participation_without_outliers": _number(share.participation_without),
                "outlier_coordinates": coordinates.tolist(),
                "outlier_coordinate_deviations": multiples.tolist(),
                "outlier_coordinates_with_outliers": before.tolist(),
            }
        )
        measurements = (
            Measurement(
                name="outlier_rows",
                value=float(share.rows),
                unit="rows",
                n=share.of,
                of="rows",
                how="no interval: a count of what was left out",
                caution=_held(share) if share.rows else "",
            ),
            Measurement(
                name="outlier_coordinates",
                value=float(len(coordinates)),
                unit="coordinates",
                n=seen.d,
                of="coordinates",
                how="no interval: a count of deviations over 5 times the median one",
            ),
        )
        if share.rows or held_rows:
            placed = f"; {_placed(rows)}" if rows["position"] else ""
            seen.notes.append(
                f"Left out for their norm: {share.rows:,} of {share.of:,} rows learned from, {own:,} of them outliers "
                f"at this site, and {held_rows:,} of {len(seen.other) + held_rows:,} held out{placed}."
            )
        if share.rows:
            seen.notes.append(f"{_held(share)}.")
        if len(coordinates):
            named = ", ".join(
                f"{c} ({m:.1f} times)" for c, m in zip(coordinates[:_NAMED].tolist(), multiples[:_NAMED].tolist())
            )
            more = f" and {len(coordinates) - _NAMED} more" if len(coordinates) > _NAMED else ""
            seen.notes.append(f"Coordinates that deviate over 5 times as much as the median one: {named}{more}.")
        only = [c for c in before.tolist() if c not in set(coordinates.tolist())]
        if share.rows and only:
            seen.notes.append(f"With the rows left out, also {', '.join(map(str, only[:_NAMED]))}.")
        findings.add(measurements, at=seen.at)
        findings.rows("outlier_rows", rows, at=seen.at)

    def sentences(self, findings: Findings, sites: Sequence[Site]) -> Iterable[str]:
        """The site where the rows left out held the most."""
        table = findings.tables["sites"]
        chosen = [
            i
            for i, model in enumerate(table["model"])
            if model == TRAINED and table["outliers"][i] + table["outliers_held_out"][i]
        ]
        if not chosen:
            return
        most = max(chosen, key=lambda i: table["outlier_variance"][i])
        rows, count = table["rows"][most], table["outliers"][most]
        with_them, without = table["participation_with_outliers"][most], table["participation_without_outliers"][most]
        held = ""
        if count and with_them is not None and without is not None:
            held = (
                f": at {table['site'][most]} those learned from hold {table['outlier_variance'][most]:.0%} of the "
                f"variance; the participation ratio is {with_them:.1f} with them and {without:.1f} without"
            )
        yield (
            f"{count:,} of {rows + count:,} rows learned from and {table['outliers_held_out'][most]:,} held out were "
            f"left out for their norm{held}. --outliers keep measures with them."
        )


def _held(share: measure.OutlierShare) -> str:
    return (
        f"Those learned from hold {share.squared_norm:.0%} of the squared norm and {share.variance:.0%} of the "
        f"variance; the participation ratio is {share.participation_with:.1f} with them and "
        f"{share.participation_without:.1f} without"
    )


def _placed(rows: dict[str, list[Any]]) -> str:
    """Where the rows of the table stand in their windows, in words."""
    at = rows["position"]
    first = sum(position == 0 for position in at)
    tokens = list(dict.fromkeys(rows["token"]))
    shown = ", ".join(repr(token) for token in tokens[:_NAMED])
    largest = max(rows["norm_over_median"])
    reach = f"up to {largest:.0f} times the median norm; " if math.isfinite(largest) else ""
    return (
        f"{reach}{first} of the {len(at)} listed stand first in their window; "
        f"tokens {shown}{', ...' if len(tokens) > _NAMED else ''}"
    )


def _rows(parts: Mapping[str, tuple[Activations | None, Corpus]], seen: View) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        name: []
        for name in ("part", "document", "document_position", "position", "token", "norm", "norm_over_median", "here")
    }
    for part, (left_out, corpus) in parts.items():
        if left_out is None or left_out.places is None or left_out.tokens is None or not len(left_out):
            continue
        texts, median = seen.texts, _median_norm(seen)
        norms = left_out.x.float().norm(dim=1)
        for i in norms.argsort(descending=True, stable=True)[:_SHOWN_ROWS].tolist():
            sequence, place = left_out.places[i].tolist()
            # Added special tokens at the window's head do not count.
            position = place - int(corpus.keep[sequence].int().argmax())
            norm = float(norms[i])
            cells = (part, corpus.names[int(corpus.document[sequence])], int(corpus.start[sequence]) + position)
            cells += (
                position,
                texts[int(left_out.tokens[i])],
                norm,
                norm / median if median > 0 else math.inf,
                norm > seen.source.limit,
            )
            for name, cell in zip(columns, cells, strict=True):
                columns[name].append(cell)
    return columns


def _median_norm(seen: View) -> float:
    return float(torch.cat([batch.x.float().norm(dim=1).cpu() for batch in seen.rows]).median())


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
