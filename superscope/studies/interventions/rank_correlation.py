"""Do two figures of the same features follow each other? Spearman's rank correlation, with an interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from scipy.stats import rankdata

from ...core import Measurement
from ...intervene.side_effects import RankAgreement

_FEWEST = 8


def rank_correlation(
    name: str, first: np.ndarray, second: np.ndarray, *, of: str = "features", draws: int = 1000, seed: int = 0
) -> Measurement:
    """Spearman's correlation over features for which both are finite; 95 % bootstrap over features.

    Value None with fewer than eight of them, or where one figure is the same for all.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    common = {"name": name, "unit": "rank correlation", "n": len(a), "of": of}
    if len(a) < _FEWEST or np.ptp(a) == 0 or np.ptp(b) == 0:
        why = f"fewer than {_FEWEST} {of}" if len(a) < _FEWEST else "one of the two is the same for all"
        return Measurement(**common, value=None, caution=f"no correlation: {why}")
    picked = np.random.default_rng(seed).integers(len(a), size=(draws, len(a)))
    values = _correlations(a[picked], b[picked])
    values = values[np.isfinite(values)]
    low, high = np.quantile(values, (0.025, 0.975))
    return Measurement(
        **common,
        value=float(_correlations(a[None], b[None])[0]),
        low=float(low),
        high=float(high),
        how=f"95 % percentile bootstrap over {len(a)} {of}, {draws} draws",
        chance=0.0,
        chance_is="no relation",
    )


def order_of_edits(one: RankAgreement, of: str, at: Mapping[str, str]) -> Iterator[Measurement]:
    """How well a prediction orders edits: its correlation, what is left given the controls, what it gains on each.

    Args:
        one: the agreement.
        of: what kind of edits they are.
        at: what names it.
    """
    how = f"95 % percentile bootstrap over {one.n} {of}, 1000 draws"
    common: dict[str, Any] = {"unit": "rank correlation", "n": one.n, "of": "edits", "how": how, "chance": 0.0}

    def figure(name: str, value: float, low: float, high: float, chance_is: str, **more: str) -> Measurement:
        return Measurement(name=name, value=value, low=low, high=high, chance_is=chance_is, at={**at, **more}, **common)

    given = f"nothing beyond {' and '.join(one.gain)}"
    yield figure("collateral_order", one.correlation, one.low, one.high, "no relation")
    yield figure("collateral_order_given", one.partial, one.partial_low, one.partial_high, given)
    for over, gain in one.gain.items():
        yield figure("collateral_order_gain", *gain, f"as much as {over} alone", over=over)


def _correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    ranks = [rankdata(each, axis=1) for each in (a, b)]
    centred = [each - each.mean(1, keepdims=True) for each in ranks]
    size = np.sqrt((centred[0] ** 2).sum(1) * (centred[1] ** 2).sum(1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (centred[0] * centred[1]).sum(1) / size
