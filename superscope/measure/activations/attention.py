"""How sparse is attention? Entropy, Gini and largest weights of each head, beside uniform attention."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ...core import Measured, Measurement, ShapeError
from ..codes.sparsity import mean_measurement
from ..interval import bootstrap
from ..stream import GroupSums

NAMES = ("attention_entropy", "attention_gini", "attention_top_mass", "attention_first_mass")


class Patterns(NamedTuple):
    """Attention weights of some windows.

    Args:
        weights: of each head, from each query over all keys; rows sum to 1.
        keys: which keys a query may attend to; its weights elsewhere are 0.
        queries: which queries count: tokens of text.
        groups: the document of each window, to resample by.
    """

    weights: Float[Tensor, "b heads q k"]
    keys: Bool[Tensor, "b q k"]
    queries: Bool[Tensor, "b q"]
    groups: np.ndarray


@dataclass(frozen=True, eq=False)
class AttentionSparsity(Measured):
    """What `attention_sparsity` found; iterating gives the means over all heads.

    Args:
        measurements: `attention_entropy`, `attention_gini`, `attention_top_mass`, `attention_first_mass`.
        heads: the same of each head, a column each, with its interval in columns of the same name and low, high.
    """

    measurements: tuple[Measurement, ...]
    heads: Mapping[str, list[float | None]]

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements)


@torch.no_grad()
def attention_sparsity(
    patterns: Iterable[Patterns], *, top: int = 4, fewest: int = 16, seed: int = 0
) -> AttentionSparsity:
    r"""Of the weights a of a query over the m keys it may attend to, means over queries and heads.

    `attention_entropy`: $-\sum_j a_j \ln a_j / \ln m$, 1 for uniform weights, 0 for a single key. `attention_gini`: the
    Gini index over the m keys, 0 and 1 - 1/m. `attention_top_mass`: the sum of the `top` largest weights, top/m and 1.
    `attention_first_mass`: the weight of the window's first key, where sinks are. Queries with fewer than `fewest`
    keys are left out, for with few keys everything is both.

    Args:
        patterns: weights by windows, all of as many heads.
        top: weights counted as the largest.
        fewest: keys of a query that counts, above `top`.
        seed: of the bootstrap over documents.

    Raises:
        ShapeError: if masks do not fit the weights.
        ValueError: if no query has so many keys, or fewest is not above top.

    Example:
        >>> uniform = torch.full((1, 1, 1, 16), 1 / 16)
        >>> there = torch.ones(1, 1, 16, dtype=torch.bool)
        >>> found = attention_sparsity([Patterns(uniform, there, there[..., 0], np.array([0]))])
        >>> [round(m.value, 6) for m in found]
        [1.0, 0.0, 0.25, 0.0625]
    """
    if not 0 < top < fewest:
        raise ValueError(f"attention_sparsity: top must be in 1..{fewest - 1}, below fewest; got {top}.")
    sums: GroupSums | None = None
    uniform, heads = np.zeros(2), 0
    for weights, keys, queries, groups in patterns:
        b, heads, q, k = weights.shape
        if keys.shape != (b, q, k) or queries.shape != (b, q) or len(groups) != b:
            raise ShapeError(
                f"attention_sparsity: weights {tuple(weights.shape)} want keys [{b}, {q}, {k}], queries [{b}, {q}] and "
                f"{b} groups; got {tuple(keys.shape)}, {tuple(queries.shape)} and {len(groups)}."
            )
        sums = sums or GroupSums(len(NAMES) * heads + 1)
        m = keys.sum(-1)
        window, place = (queries & (m >= fewest)).nonzero(as_tuple=True)
        if not len(window):
            continue
        a = weights[window, :, place].double().cpu()  # [rows, heads, k]
        number = m[window, place].cpu()[:, None].double()
        ascending = a.sort(-1).values
        # The keys that may not be attended to hold 0 and come first: ranks are counted among the others.
        ranks = torch.arange(1, k + 1, dtype=torch.float64) - (k - number)
        tilt = ((number - ranks + 0.5) / number)[:, None]
        first = keys[window, place].cpu().int().argmax(-1)
        each = torch.stack(
            [
                torch.special.entr(a).sum(-1) / number.log(),
                1 - 2 * (ascending * tilt).sum(-1) / ascending.sum(-1),
                ascending[..., -top:].sum(-1),
                a.gather(-1, first[:, None, None].expand(-1, heads, 1))[..., 0],
            ],
            1,
        )
        rows = torch.cat([each.flatten(1), torch.ones(len(each), 1, dtype=torch.float64)], 1)
        sums.add(groups[window.cpu().numpy()], rows)
        uniform += [float((1 / number).sum()), len(number)]
    if sums is None or not uniform[1]:
        raise ValueError(
            f"attention_sparsity: no query may attend to {fewest} keys. Give longer windows, or a smaller `fewest`."
        )
    per_key = uniform[0] / uniform[1]
    bounds = {"attention_entropy": 1.0, "attention_gini": 0.0, "attention_top_mass": top * per_key}
    bounds["attention_first_mass"] = per_key
    measurements, table = [], {}
    for index, name in enumerate(NAMES):
        of_heads = sums.sums[:, index * heads : (index + 1) * heads]
        count = sums.sums[:, -1]
        both = np.stack([of_heads.mean(1), count], 1)
        measured = mean_measurement(
            name, "share" if "mass" in name else "index", both, of="queries", groups="documents", seed=seed
        )
        measurements.append(replace(measured, chance=bounds[name], chance_is="uniform attention over the same keys"))
        table[name] = (of_heads.sum(0) / count.sum()).tolist()
        intervals = [
            bootstrap(lambda s: s[:, 0] / s[:, 1], np.stack([of_heads[:, head], count], 1), draws=300, seed=seed)
            for head in range(heads)
        ]
        table[f"{name}_low"], table[f"{name}_high"] = [i.low for i in intervals], [i.high for i in intervals]
    return AttentionSparsity(tuple(measurements), table)
