"""How unevenly is x spread over its coordinates, and over how many dimensions?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core import Measurement
from ..codes.sparsity import effective_number, gini, hoyer, mean_measurement, treves_rolls
from ..interval import Interval, bootstrap, jackknife
from ..stream import BLOCKS, BlockSums, Groups, GroupSums, Rows, read


def activation_sparsity(
    rows: Rows,
    *,
    documents: Tensor | None = None,
    size: int = 4096,
    batches: int | None = None,
    seed: int = 0,
) -> tuple[Measurement, ...]:
    r"""Gini, Hoyer and Treves-Rolls of |x| per row, Hill numbers of E|x| over coordinates, kurtosis of a coordinate.

    `activation_gini`, `activation_hoyer`, `activation_treves_rolls`: the mean over rows of the index of |x| over the d
    coordinates. Of p_j = E|x_j| / sum: `activation_used_dimension`, the coordinates that are ever nonzero (N0),
    `activation_entropy_dimension`, exp entropy (N1), `activation_participating_dimension`, $1 / \sum p_j^2$ (N2).
    `activation_kurtosis`: median over coordinates of the excess kurtosis of x_j over rows.
    `participation_ratio`: (tr C)^2 / tr C^2 of the covariance C about the sample mean, the only one of them that does
    not depend on the basis. No dimension here exceeds d, so none can see superposition; they are what superposition is
    compared with. All-zero rows are left out of the first three. One pass; memory O(d^2).

    Args:
        rows: a source, or batches.
        documents: the document of each sequence, to resample by.
        size: rows per batch asked of a source.
        batches: read at most so many of them; None reads one epoch.
        seed: of the source's order and of the bootstrap.
    """
    groups = Groups(documents)
    means: GroupSums | None = None
    mass: BlockSums | None = None
    second: BlockSums | None = None
    fourth: BlockSums | None = None
    shift = torch.zeros(0)
    count = empty = d = 0
    for batch in read(rows, size=size, most=batches, seed=seed):
        x = batch.x.double().cpu()
        if means is None or mass is None or second is None or fourth is None:
            d = x.shape[1]
            if d < 2:
                raise ValueError("activation_sparsity: x has 1 coordinate; sparsity needs at least 2.")
            means, mass, fourth, shift = GroupSums(6), BlockSums((d,)), BlockSums((5, d)), x.mean(0)
            # A d x d sum per block: as many blocks as 64 MB hold, at least one.
            second = BlockSums((d + 1, d + 1), max(min(BLOCKS, 2**23 // (d + 1) ** 2), 1))
        number = groups(batch)
        any_mass = (x != 0).any(1)
        empty += int((~any_mass).sum())
        there = any_mass.double()
        per_row = torch.stack([gini(x), there, hoyer(x), there, treves_rolls(x), there], 1)
        means.add(number, per_row.nan_to_num(0.0))
        mass_of, second_of = mass.numbers(number), second.numbers(number)
        centred = x - shift
        blocks = torch.from_numpy(mass_of)
        torch.from_numpy(mass.sums).index_add_(0, blocks, x.abs())
        fourth.numbers(number)
        square = centred.square()
        powers = torch.stack([torch.ones_like(x), centred, square, square * centred, square.square()], 1)
        torch.from_numpy(fourth.sums).index_add_(0, blocks, powers)
        extended = torch.cat([centred, x.new_ones(len(x), 1)], 1)
        for block in np.unique(second_of).tolist():
            part = extended[torch.from_numpy(second_of == block)]
            second.sums[block] += (part.T @ part).numpy()
        count += len(x)
    assert means is not None
    assert mass is not None
    assert second is not None
    assert fourth is not None
    caution = f"{empty} all-zero rows left out" if empty else ""
    dimension: dict[str, Any] = {"n": count, "of": "tokens", "reference": float(d), "reference_is": "dimensions"}
    total = mass.used.sum(0)
    found = [
        mean_measurement(name, unit, means.sums[:, part], of="tokens", groups=groups.of, caution=caution)
        for name, unit, part in (
            ("activation_gini", "Gini index", slice(0, 2)),
            ("activation_hoyer", "Hoyer sparseness", slice(2, 4)),
            ("activation_treves_rolls", "Treves-Rolls sparseness", slice(4, 6)),
        )
    ]
    used = Interval(None, None, f"no interval: a count on these {count} tokens")
    for name, value, interval in (
        ("activation_used_dimension", _effective(total, 0.0), used),
        ("activation_entropy_dimension", _effective(total), _hill_interval(mass, groups.of)),
        ("activation_participating_dimension", _effective(total, 2.0), _hill_interval(mass, groups.of, 2.0)),
        ("participation_ratio", _covariance_ratio(second.used.sum(0)), _ratio_interval(second, groups.of)),
    ):
        if math.isfinite(value):
            found.append(Measurement(name=name, value=value, unit="dimensions", **dimension, **interval.fields))
        else:
            found.append(Measurement(name=name, value=None, unit="dimensions", **dimension, caution="x is constant"))
    found.append(_kurtosis(fourth, groups.of, seed))
    return tuple(found)


def _kurtosis(fourth: BlockSums, of: str, seed: int) -> Measurement:
    """The median over coordinates that vary, resampling blocks of documents."""
    used = fourth.used
    each = _kurtoses(used.sum(0)[None])[0]
    varies = np.isfinite(each)
    about: dict[str, Any] = {"name": "activation_kurtosis", "unit": "excess kurtosis", "of": "coordinates"}
    if not varies.any():
        return Measurement(value=None, n=0, caution="x is constant", **about)
    table = used[:, :, varies]
    interval = bootstrap(
        lambda s: np.nanmedian(_kurtoses(s.reshape(len(s), *table.shape[1:])), axis=1),
        table.reshape(len(table), -1),
        of=f"groups of {of}",
        draws=200,
        seed=seed,
    )
    return Measurement(
        value=float(np.median(each[varies])),
        n=int(varies.sum()),
        chance=0.0,
        chance_is="Gaussian coordinates",
        **about,
        **interval.fields,
    )


def _kurtoses(sums: np.ndarray) -> np.ndarray:
    """(draws, d) from sums of powers 0 to 4 about one point, (draws, 5, d); NaN where a coordinate does not vary."""
    m1, m2, m3, m4 = (sums[:, power] / sums[:, 0] for power in (1, 2, 3, 4))
    second = m2 - m1**2
    fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(second > 1e-10 * m2, fourth / second**2 - 3, np.nan)


def _effective(mass: np.ndarray, order: float | int = 1.0) -> float:
    return float(effective_number(torch.from_numpy(np.maximum(mass, 0.0)), order))


def _hill_interval(mass: BlockSums, of: str, order: float | int = 1.0) -> Interval:
    return jackknife(lambda m: _effective(m, order), mass.used, of=f"groups of {of}", logarithmic=True)


def _covariance_ratio(extended: np.ndarray) -> float:
    """(tr C)^2 / tr C^2 from the second moments of (x - shift, 1)."""
    count = extended[-1, -1]
    offset = extended[:-1, -1] / count
    covariance = extended[:-1, :-1] / count - np.outer(offset, offset)
    squares = float((covariance**2).sum())
    return float(np.trace(covariance)) ** 2 / squares if squares > 0 else math.nan


def _ratio_interval(second: BlockSums, of: str) -> Interval:
    if second.blocks < 8:
        return Interval(None, None, "no interval: d is too large to keep covariances apart")
    return jackknife(_covariance_ratio, second.used, of=f"groups of {of}", logarithmic=True)
