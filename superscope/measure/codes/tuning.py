r"""How many features move a neuron, and how well does the neuron tell one of them? Thresholds instead of shares.

`polysemanticity` weighs every feature by its share, however small. Here a feature counts at a token if it moves the
neuron by more than a threshold, and a neuron is selective if its value alone tells when some feature is on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix
from torch import Tensor

from ...core import Measured, Measurement, SparseCode, SparseCoder
from ..interval import bootstrap
from ..stream import Groups, GroupSums, Rows, read
from .polysemanticity import random_directions

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
"""In standard deviations of the neuron."""
_HEADLINE = 0.5
_NUMBERS = 2**23
"""Features x neurons x tokens that are compared with thresholds: tokens are left out beyond, evenly."""
_ROWS = 4096
_DIRECTIONS = 512


@dataclass(frozen=True, eq=False)
class Tuning(Measured):
    """What `neuron_tuning` measured; iterating gives the measurements.

    Args:
        measurements: `strong_features_per_neuron`, `neuron_selectivity`, `direction_selectivity`.
        thresholds: theta, in standard deviations of the neuron.
        strong: the mean number of features above each, over neurons and tokens, with its interval.
        low, high: of it; NaN where there is none.
        rotated: the same of random directions.
        selectivity: of each neuron; NaN where it does not vary.
        told: the feature that each neuron tells best; -1 where it does not vary.
    """

    measurements: tuple[Measurement, ...]
    thresholds: Float[Tensor, "thresholds"]
    strong: Float[Tensor, "thresholds"]
    low: Float[Tensor, "thresholds"]
    high: Float[Tensor, "thresholds"]
    rotated: Float[Tensor, "thresholds"]
    selectivity: Float[Tensor, "d"]
    told: Int[Tensor, "d"]

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements)


@torch.no_grad()
def neuron_tuning(
    coder: SparseCoder,
    rows: Rows,
    *,
    documents: Int[Tensor, "sequences"] | None = None,
    batches: int | None = None,
    size: int = 4096,
    least: int = 20,
    seed: int = 0,
) -> Tuning:
    r"""$E\, \#\{i : |w_{ij} f_i| > \theta \sigma_j\}$ as a curve in theta; $\max_i |2\,AUC_{ij} - 1|$: of neurons j.

    - `strong_features_per_neuron`: the curve at theta = 0.5, mean over neurons and tokens: features that at a token
      move a neuron by more than half of its own standard deviation. Chance is the same on random directions of R^d.
    - `neuron_selectivity`: the median over neurons of how well a neuron's value alone tells when its best feature is
      on: the area under the ROC curve of x_j for the event $f_i \ne 0$, doubled and less 1, the sign dropped. Chance
      sets the same values beside the codes of other tokens: the prevalence and the order of both stay, what they have
      to do with each other goes, and the largest over features is as large as luck makes it.
    - `direction_selectivity`: the same of random directions. Far below the neurons', the axes are privileged; alike,
      they are not.

    Mixing is not superposition: a code of d orthogonal features, turned, mixes as many features in each neuron as
    random directions do, and nothing interferes; features that lie along the axes, two to an axis with opposite signs,
    mix few and do interfere. Read this beside `signed_interference`.

    Tokens are thinned evenly, to 4 096, and for the curve so that features x neurons x tokens stays below 2^23; at most
    512 neurons and as many directions are looked at, drawn at random where there are more.

    Args:
        coder: an SAE, or another coder with its dictionary.
        rows: a source, or batches.
        documents: the document of each sequence, to resample by.
        batches: read at most so many of them; None reads one epoch.
        size: rows per batch asked of a source.
        least: tokens on which a feature must be on, and off, to be told.
        seed: of the source's order, the choice of neurons, the rotation, the shift and the bootstrap.

    Raises:
        ValueError: if there is nothing to read, or x is constant.

    Source:
        Morcos et al., "On the importance of single directions for generalization", 2018, for selectivity of units; the
        area under the curve in place of class means, which silence inflates, and both nulls are ours.
    """
    W, groups = coder.dictionary, Groups(documents)
    parts = [
        (groups(batch), batch.x, coder.encode(batch.x)) for batch in read(rows, size=size, most=batches, seed=seed)
    ]
    total = sum(len(x) for _, x, _ in parts)
    k = max(code.k for _, _, code in parts)
    generator = torch.Generator().manual_seed(seed)
    neurons = torch.arange(W.d)
    if W.d > _DIRECTIONS:
        neurons = torch.randperm(W.d, generator=generator)[:_DIRECTIONS].sort().values
    step = -(-total // _ROWS)
    number = np.concatenate([number for number, _, _ in parts])[::step]
    x = torch.cat([x for _, x, _ in parts])[::step].float()
    code = _joined([code for _, _, code in parts], k, step, W.n)
    atoms = W.atoms.detach().float()
    directions = random_directions(W.d, min(W.d, _DIRECTIONS), generator).to(atoms)
    axes, turned = (x[:, neurons], atoms[:, neurons]), (x @ directions, atoms @ directions)
    if not bool((axes[0].std(0) > 0).any()):
        raise ValueError("neuron_tuning: the activations are constant, so nothing moves a neuron. Check the site.")

    few = slice(None, None, max(-(-k * len(neurons) * len(x) // _NUMBERS), 1))
    above, rotated = (_above(values, weights, code, few) for values, weights in (axes, turned))
    sums = GroupSums(len(THRESHOLDS) + 1)
    sums.add(number[few], torch.cat([above, torch.ones(len(above), 1, dtype=torch.float64)], 1))
    rotated = rotated.mean(0)
    strong = sums.sums[:, :-1].sum(0) / sums.sums[:, -1].sum()
    intervals = [
        bootstrap(lambda s, at=at: s[:, at] / s[:, -1], sums.sums, of=groups.of, seed=seed)
        for at in range(len(THRESHOLDS))
    ]
    at = THRESHOLDS.index(_HEADLINE)
    shift = len(x) // 3 + int(torch.randint(max(len(x) // 3, 1), (1,), generator=generator))
    ranks = _mid_ranks(axes[0])
    told, luck, other = (
        _selectivity(each, code, least) for each in (ranks, ranks.roll(shift, 0), _mid_ranks(turned[0]))
    )
    measured = [
        Measurement(
            name="strong_features_per_neuron",
            value=float(strong[at]),
            unit="features per neuron and token",
            n=len(above),
            of="tokens",
            chance=float(rotated[at]),
            chance_is=f"{directions.shape[1]} random directions",
            **intervals[at].fields,
        ),
        *_medians(told[0], luck[0], other[0], len(x)),
    ]
    selectivity, best = torch.full((W.d,), torch.nan, dtype=torch.float64), torch.full((W.d,), -1)
    selectivity[neurons], best[neurons] = told
    return Tuning(
        measurements=tuple(measured),
        thresholds=torch.tensor(THRESHOLDS, dtype=torch.float64),
        strong=torch.from_numpy(strong),
        low=torch.tensor([torch.nan if i.low is None else i.low for i in intervals], dtype=torch.float64),
        high=torch.tensor([torch.nan if i.high is None else i.high for i in intervals], dtype=torch.float64),
        rotated=rotated,
        selectivity=selectivity,
        told=best,
    )


def _joined(codes: list[SparseCode], k: int, step: int, n: int) -> SparseCode:
    """Every step-th row of all codes, with k slots each."""
    values, indices = (
        torch.cat([torch.nn.functional.pad(t.reshape(-1, code.k), (0, k - code.k)) for code, t in each])
        for each in ([(code, code.values) for code in codes], [(code, code.indices) for code in codes])
    )
    return SparseCode(values[::step].float(), indices[::step], n)


def _above(
    x: Float[Tensor, "rows m"], weights: Float[Tensor, "n m"], code: SparseCode, few: slice
) -> Float[Tensor, "few thresholds"]:
    """At each of a few tokens, how many features move a direction by more than each threshold: mean over directions."""
    deviation = x.std(0)
    # What never varies is moved by nothing.
    relative = torch.where(deviation > 0, weights / torch.where(deviation > 0, deviation, 1), 0).abs()
    counts, code = [], code[few]
    step = max(2**20 // (code.k * x.shape[1]), 1)
    for start in range(0, len(code), step):
        part = slice(start, start + step)
        moved = relative[code.indices[part]] * code.values[part].abs()[:, :, None]
        counts.append(torch.stack([(moved > theta).sum((1, 2)) for theta in THRESHOLDS], 1))
    return torch.cat(counts).double().cpu() / x.shape[1]


def _selectivity(
    ranks: Float[Tensor, "rows m"], code: SparseCode, least: int
) -> tuple[Float[Tensor, "m"], Int[Tensor, "m"]]:
    """The largest |2 AUC - 1| over features of each direction, from its ranks, and which feature has it."""
    rows, m = ranks.shape
    used = (code.values != 0).cpu().numpy()
    active = csr_matrix(
        (np.ones(used.sum()), code.indices.cpu().numpy()[used], np.append(0, used.sum(1).cumsum())), (rows, code.n)
    )
    on = np.asarray(active.sum(0))[0]
    fit = np.flatnonzero((on >= least) & (rows - on >= least))
    if not len(fit):
        return torch.full((m,), torch.nan, dtype=torch.float64), torch.full((m,), -1)
    together, on = active[:, fit].T @ ranks.cpu().numpy(), on[fit, None]
    area = torch.from_numpy((together - on * (on + 1) / 2) / (on * (rows - on)))
    best = (2 * area - 1).abs().max(0)
    still = (ranks == ranks[0]).all(0).cpu()
    return best.values.masked_fill(still, torch.nan), torch.from_numpy(fit)[best.indices].masked_fill(still, -1)


def _mid_ranks(x: Float[Tensor, "rows m"]) -> Float[Tensor, "rows m"]:
    """1 for the smallest of each column; equal values share the mean of their ranks."""
    ordered, order = x.sort(0)
    place = torch.arange(1, len(x) + 1, dtype=torch.float64, device=x.device)[:, None].expand_as(x)
    new = torch.ones_like(x, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    first = torch.where(new, place, 0).cummax(0).values
    # The last place of a run is that before the next run's first.
    last = torch.where(new, place, torch.inf).roll(-1, 0)
    last[-1] = torch.inf
    last = (last - 1).clamp(max=len(x)).flip(0).cummin(0).values.flip(0)
    return torch.empty_like(first).scatter_(0, order, (first + last) / 2)


def _medians(own: Tensor, luck: Tensor, other: Tensor, rows: int) -> list[Measurement]:
    found = []
    for name, values, of, chance in (
        ("neuron_selectivity", own, "neurons", luck),
        ("direction_selectivity", other, "random directions", None),
    ):
        there = values[values.isfinite()]
        about: dict[str, Any] = {"name": name, "unit": "|2 AUC - 1|", "n": len(there), "of": of}
        if not len(there):
            found.append(
                Measurement(value=None, caution=f"no feature is on, and off, often enough in {rows} tokens", **about)
            )
            continue
        if chance is not None:
            about |= {"chance": float(chance.nanmedian()), "chance_is": "the same features at other tokens"}
        found.append(
            Measurement(
                value=float(there.median()),
                low=float(there.quantile(0.05)),
                high=float(there.quantile(0.95)),
                how=f"median over {of}; from their 5 to their 95 % quantile",
                **about,
            )
        )
    return found
