"""How unevenly is x spread over its coordinates, and over how many dimensions?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core import Measurement
from ..codes.sparsity import effective_number, gini, hoyer, mean_measurement
from ..interval import Interval, jackknife
from ..stream import BLOCKS, BlockSums, Groups, GroupSums, Rows, read


def activation_sparsity(
    rows: Rows,
    *,
    documents: Tensor | None = None,
    size: int = 4096,
    batches: int | None = None,
    seed: int = 0,
) -> tuple[Measurement, ...]:
    r"""Gini and Hoyer of |x| per row, entropy-effective dimension of E|x| over coordinates, participation ratio.

    `activation_gini`, `activation_hoyer`: the mean over rows of the index of |x| over the d coordinates.
    `activation_entropy_dimension`: exp entropy of p_j = E|x_j| / sum; `participation_ratio`: (tr C)^2 / tr C^2 of the
    covariance C about the sample mean. The first three depend on the basis; the last does not. None of them exceeds
    d, so none can see superposition; they are what superposition is compared with. All-zero rows are left out of the
    first two. One pass; memory O(d^2).

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
    shift = torch.zeros(0)
    count = empty = d = 0
    for batch in read(rows, size=size, most=batches, seed=seed):
        x = batch.x.double().cpu()
        if means is None or mass is None or second is None:
            d = x.shape[1]
            if d < 2:
                raise ValueError("activation_sparsity: x has 1 coordinate; sparsity needs at least 2.")
            means, mass, shift = GroupSums(4), BlockSums((d,)), x.mean(0)
            # A d x d sum per block: as many blocks as 64 MB hold, at least one.
            second = BlockSums((d + 1, d + 1), max(min(BLOCKS, 2**23 // (d + 1) ** 2), 1))
        number = groups(batch)
        any_mass = (x != 0).any(1)
        empty += int((~any_mass).sum())
        per_row = torch.stack([gini(x), any_mass.double(), hoyer(x), any_mass.double()], 1)
        means.add(number, per_row.nan_to_num(0.0))
        mass_of, second_of = mass.numbers(number), second.numbers(number)
        np.add.at(mass.sums, mass_of, x.abs().numpy())
        extended = torch.cat([x - shift, x.new_ones(len(x), 1)], 1)
        for block in np.unique(second_of).tolist():
            part = extended[torch.from_numpy(second_of == block)]
            second.sums[block] += (part.T @ part).numpy()
        count += len(x)
    assert means is not None
    assert mass is not None
    assert second is not None
    caution = f"{empty} all-zero rows left out" if empty else ""
    dimension: dict[str, Any] = {"n": count, "of": "tokens", "reference": float(d), "reference_is": "dimensions"}
    total = mass.used.sum(0)
    found = [
        mean_measurement(
            "activation_gini", "Gini index", means.sums[:, :2], of="tokens", groups=groups.of, caution=caution
        ),
        mean_measurement(
            "activation_hoyer", "Hoyer sparseness", means.sums[:, 2:], of="tokens", groups=groups.of, caution=caution
        ),
    ]
    for name, value, interval in (
        ("activation_entropy_dimension", _effective(total), _hill_interval(mass, groups.of)),
        ("participation_ratio", _covariance_ratio(second.used.sum(0)), _ratio_interval(second, groups.of)),
    ):
        if math.isfinite(value):
            found.append(Measurement(name=name, value=value, unit="dimensions", **dimension, **interval.fields))
        else:
            found.append(Measurement(name=name, value=None, unit="dimensions", **dimension, caution="x is constant"))
    return tuple(found)


def _effective(mass: np.ndarray, order: float = 1.0) -> float:
    return float(effective_number(torch.from_numpy(np.maximum(mass, 0.0)), order))


def _hill_interval(mass: BlockSums, of: str, order: float = 1.0) -> Interval:
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
