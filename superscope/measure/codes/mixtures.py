"""What is a neuron's value made of: at its highest, below, and at single places?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core import Activations, SparseCoder

QUANTILES = (0.5, 0.9, 0.99, 0.999)
"""Of a neuron's values; each band reaches from one to the next, the last to its largest value."""


@dataclass(frozen=True, eq=False)
class Mixtures:
    """Some neurons' values in parts: x_j - b_j = sum_i W_ij f_i + what is left unexplained.

    Args:
        neurons: whose.
        rows: in each band.
        value: mean of x_j - b_j in each band; NaN where it holds no row.
        explained: mean of the features' sum there.
        features: the features whose mean parts are largest in magnitude there.
        parts: those.
        examples: rows of `rows` given, highest value first, at most one of a document; -1 where there are fewer.
        example_value: x_j - b_j there.
        example_explained: the features' sum there.
        example_features: the active features with the largest parts there, the largest first; -1 for none.
        example_parts: those.
        around: x_j - b_j in the window about each example; NaN where the rows do not reach.
    """

    neurons: Int[Tensor, "m"]
    rows: Int[Tensor, "m bands"]
    value: Float[Tensor, "m bands"]
    explained: Float[Tensor, "m bands"]
    features: Int[Tensor, "m bands top"]
    parts: Float[Tensor, "m bands top"]
    examples: Int[Tensor, "m e"]
    example_value: Float[Tensor, "m e"]
    example_explained: Float[Tensor, "m e"]
    example_features: Int[Tensor, "m e t"]
    example_parts: Float[Tensor, "m e t"]
    around: Float[Tensor, "m e w"]


@torch.no_grad()
def mixtures(
    coder: SparseCoder,
    rows: Sequence[Activations],
    neurons: Int[Tensor, "m"],
    *,
    documents: Int[Tensor, "sequences"] | None = None,
    top: int = 6,
    examples: int = 12,
    before: int = 12,
    after: int = 8,
) -> Mixtures:
    r"""The parts $W_{ij} f_i$ of some neurons' values, averaged over bands of each neuron's values, and at its highest.

    A list of features says what can raise a neuron; which of them does so when it is high is another question, answered
    here on the very rows. b is the dictionary's bias, so a value of 0 is the neuron's usual one as far as the
    dictionary has learned it. What no feature explains stays in view: `value - explained`.

    Memory O(rows m + bands m n).

    Args:
        coder: an SAE, or another coder with its dictionary.
        rows: batches, read twice.
        neurons: coordinates of x.
        documents: the document of each sequence.
        top: parts listed in each band.
        examples: rows listed of each neuron, with up to 4 parts.
        before, after: positions about an example.

    Raises:
        ValueError: if there are no rows.
    """
    if not len(rows):
        raise ValueError("mixtures: there are no rows. Give at least one batch.")
    W = coder.dictionary
    chosen, m = neurons.cpu(), len(neurons)
    atoms = W.atoms.detach().double().cpu()[:, chosen]
    bias = torch.zeros(m, dtype=torch.float64) if W.bias is None else W.bias.detach().double().cpu()[chosen]
    x = torch.cat([batch.x.detach().cpu()[:, chosen].double() for batch in rows]) - bias
    # numpy's quantile takes any number of rows; torch's stops at 16 million numbers.
    edges = torch.from_numpy(np.quantile(x.numpy(), QUANTILES, axis=0)).T.contiguous()
    band = torch.searchsorted(edges, x.T.contiguous(), right=True).T - 1
    bands = len(QUANTILES)
    places = (
        None
        if rows[0].places is None
        else torch.cat([batch.places.cpu() for batch in rows if batch.places is not None])
    )
    found = _highest(x, places, documents, examples)
    wanted = found.reshape(-1)

    table = torch.zeros(m * bands * W.n, dtype=torch.float64)
    example_f = torch.full((*found.shape, 4), -1, dtype=torch.long)
    example_p = torch.zeros((*found.shape, 4), dtype=torch.float64)
    explained = torch.zeros(len(x), m, dtype=torch.float64)
    start = 0
    for batch in rows:
        code = coder.encode(batch.x)
        values, indices = code.values.detach().double().cpu(), code.indices.cpu()
        parts = values[:, :, None] * atoms[indices]
        stop = start + len(parts)
        explained[start:stop] = parts.sum(1)
        inside = band[start:stop]
        rows_in, neuron_in = (inside >= 0).nonzero(as_tuple=True)
        first = (neuron_in * bands + inside[rows_in, neuron_in]) * W.n
        at = (first[:, None] + indices[rows_in]).reshape(-1)
        table += torch.bincount(at, parts[rows_in, :, neuron_in].reshape(-1), minlength=len(table))
        here = ((wanted >= start) & (wanted < stop)).nonzero()[:, 0]
        for flat in here.tolist():
            j, e = divmod(flat, found.shape[1])
            row = int(wanted[flat]) - start
            own = parts[row, :, j]
            best = own.topk(min(4, len(own)))
            used = best.values != 0
            example_f[j, e, : len(used)] = torch.where(used, indices[row][best.indices], -1)
            example_p[j, e, : len(used)] = best.values
        start = stop
    counts = torch.stack([(band == b).sum(0) for b in range(bands)], 1)
    table = table.reshape(m, bands, W.n) / counts.clamp(min=1)[:, :, None]
    largest = table.abs().topk(min(top, W.n), dim=2).indices

    def mean(of: Tensor) -> Tensor:
        sums = torch.stack([torch.where(band == b, of, 0.0).sum(0) for b in range(bands)], 1)
        return torch.where(counts > 0, sums / counts.clamp(min=1), torch.nan)

    column = torch.arange(m)[:, None].expand_as(found)
    row = found.clamp(min=0)
    return Mixtures(
        neurons=chosen,
        rows=counts,
        value=mean(x),
        explained=mean(explained),
        features=largest,
        parts=table.gather(2, largest),
        examples=found,
        example_value=x[row, column],
        example_explained=explained[row, column],
        example_features=example_f,
        example_parts=example_p,
        around=_around(x, places, found, before, after),
    )


def _highest(x: Tensor, places: Tensor | None, documents: Tensor | None, examples: int) -> Int[Tensor, "m e"]:
    """Rows of each neuron's highest values, at most one of a document."""
    of = torch.arange(len(x)) if places is None else places[:, 0]
    if places is not None and documents is not None:
        of = documents.cpu()[of]
    found = torch.full((x.shape[1], examples), -1, dtype=torch.long)
    for j in range(x.shape[1]):
        order = x[:, j].argsort(descending=True, stable=True)[: 100 * examples]
        _, first = np.unique(of[order].numpy(), return_index=True)
        kept = order[torch.from_numpy(np.sort(first))][:examples]
        found[j, : len(kept)] = kept
    return found


def _around(x: Tensor, places: Tensor | None, found: Tensor, before: int, after: int) -> Float[Tensor, "m e w"]:
    width = before + 1 + after
    around = torch.full((*found.shape, width), torch.nan, dtype=torch.float64)
    if places is None or not len(places):
        return around
    length = int(places[:, 1].max()) + 1
    row_of = torch.full(((int(places[:, 0].max()) + 1) * length,), -1, dtype=torch.long)
    row_of[places[:, 0] * length + places[:, 1]] = torch.arange(len(places))
    at = places[found.clamp(min=0)]
    position = at[..., 1, None] + torch.arange(-before, after + 1)
    inside = (position >= 0) & (position < length) & (found >= 0)[..., None]
    row = torch.where(inside, row_of[at[..., 0, None] * length + position.clamp(0, length - 1)], -1)
    column = torch.arange(x.shape[1])[:, None, None].expand_as(row)
    return torch.where(row >= 0, x[row.clamp(min=0), column], torch.nan)
