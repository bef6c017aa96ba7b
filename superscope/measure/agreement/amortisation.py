"""What does an encoder lose against solving for the code on its own atoms?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core import Measurement, SparseCode, SparseCoder
from ...recovery import NNOMP, OMP, refit
from ..interval import bootstrap
from ..stream import Groups, GroupSums, Rows, read
from .recovery import Scores

_CODES = ("own", "refitted", "pursuit")


@torch.no_grad()
def amortisation_gap(
    coder: SparseCoder,
    rows: Rows,
    *,
    k: int | None = None,
    nonnegative: bool = True,
    documents: Int[Tensor, "sequences"] | None = None,
    batches: int | None = None,
    size: int = 4096,
    seed: int = 0,
) -> Scores:
    r"""What a coder leaves unexplained less what pursuit on its own atoms does, with as many active features.

    What an encoder of one step loses against solving for the code: the same dictionary, as many active features. It
    says nothing of the truth of the atoms: pursuit also fits noise, so a gap is not by itself a fault. Three codes of
    each row stand beside each other: `own`, the coder's; `refitted`, the best amplitudes on the coder's support;
    `pursuit`.

    - `own_unexplained`, `refitted_unexplained`, `pursuit_unexplained`: squared error over the variance of x about its
      mean over all rows, summed over dimensions,
    - `amortisation_gap`: the first less the third,
    - `own_l0`, `refitted_l0`, `pursuit_l0`: active features a row,
    - `support_overlap`: mean over rows of $|S \cap S'| / |S \cup S'|$ for the supports of own code and pursuit,
      `refitted_overlap`, of own code and refitted one (which, not negative, may lose some), and
    - `own_true_overlap`, `refitted_true_overlap`, `pursuit_true_overlap`: the same with the true support, where every
      batch brings its code.

    Args:
        coder: whose dictionary and code.
        rows: a source, or batches of activations.
        k: active features that pursuit may use; None is the coder's own mean number, rounded.
        nonnegative: NNOMP, for codes that are; False is OMP.
        documents: the document of each sequence: what is resampled for the intervals, as in `Groups`.
        batches, size, seed: as for `code_scores`.

    Raises:
        ValueError: if there is nothing to read, x is constant, or the coder's code is empty.

    Source:
        O'Neill, Gumran and Klindt, "Compute optimal inference and provable amortisation gap in sparse autoencoders",
        2025.
    """
    given = list(read(rows, size=size, most=batches, seed=seed))
    codes = [coder.encode(batch.x) for batch in given]
    W = coder.dictionary
    if k is None:
        k = round(float(torch.cat([code.l0 for code in codes]).double().mean()))
        if k < 1:
            raise ValueError("amortisation_gap: the coder's code is empty on these rows, so there is no k. Give k.")
        k = min(k, W.n, W.d)
    pursuit = NNOMP(W, k=k) if nonnegative else OMP(W, k=k)
    is_true = all(batch.code is not None for batch in given)
    groups = Groups(documents)
    names = ["error", "l0", *(["true_overlap"] if is_true else [])]
    columns = [f"{which}_{name}" for which in _CODES for name in names]
    columns += ["support_overlap", "refitted_overlap", "square", "rows"]
    at = {column: i for i, column in enumerate(columns)}
    sums = GroupSums(len(columns) + W.d)
    shift = given[0].x.double().mean(0)
    for batch, own in zip(given, codes, strict=True):
        x, centred = batch.x.double(), batch.x.double() - shift
        best = pursuit.encode(batch.x)
        parts: list[Tensor] = []
        refitted = refit(W, batch.x, own, nonnegative=nonnegative)
        for code in (own, refitted, best):
            parts += [(x - W.compose(code).double()).square().sum(1), code.l0]
            if is_true and batch.code is not None:
                parts.append(support_overlap(code, batch.code))
        parts += [
            support_overlap(own, best),
            support_overlap(own, refitted),
            centred.square().sum(1),
            torch.ones_like(parts[0]),
        ]
        sums.add(groups(batch), torch.cat([torch.stack([p.double().cpu() for p in parts], 1), centred.cpu()], 1))

    def spread(s: np.ndarray) -> np.ndarray:
        return s[:, at["square"]] - (s[:, len(columns) :] ** 2).sum(1) / s[:, at["rows"]]

    total = sums.sums.sum(0)
    if not spread(total[None])[0] > 1e-12 * max(total[at["square"]], 1e-300):
        raise ValueError("amortisation_gap: the activations are constant, so there is no variance to explain.")

    def score(
        name: str, statistic: Callable[[np.ndarray], np.ndarray], unit: str = "share", **about: Any
    ) -> Measurement:
        return Measurement(
            name=name,
            value=float(statistic(total[None])[0]),
            unit=unit,
            n=int(total[at["rows"]]),
            of="rows",
            at={"k": k, "pursuit": type(pursuit).__name__},
            **about,
            **bootstrap(statistic, sums.sums, of=groups.of, seed=seed).fields,
        )

    def mean(column: str) -> Callable[[np.ndarray], np.ndarray]:
        return lambda s: s[:, at[column]] / s[:, at["rows"]]

    scores = [
        score(
            f"{which}_unexplained",
            lambda s, column=f"{which}_error": s[:, at[column]] / spread(s),
            chance=1.0,
            chance_is="the mean",
        )
        for which in _CODES
    ]
    scores.append(
        score(
            "amortisation_gap",
            lambda s: (s[:, at["own_error"]] - s[:, at["pursuit_error"]]) / spread(s),
            reference=0.0,
            reference_is="an encoder as good as pursuit",
        )
    )
    scores += [score(f"{which}_l0", mean(f"{which}_l0"), "features per row") for which in _CODES]
    same = {"reference": 1.0, "reference_is": "the same supports"}
    scores += [score(name, mean(name), **same) for name in ("support_overlap", "refitted_overlap")]
    if is_true:
        scores += [score(f"{which}_true_overlap", mean(f"{which}_true_overlap"), **same) for which in _CODES]
    return Scores(tuple(scores))


def support_overlap(a: SparseCode, b: SparseCode) -> Float[Tensor, "rows"]:
    r"""$|S \cap S'| / |S \cup S'|$ for the supports of each row (Jaccard); 1 where both are empty."""
    first = [c.indices.masked_fill(c.values == 0, -1 - i) for i, c in enumerate((a, b))]
    both = (first[0][:, :, None] == first[1][:, None, :]).any(2).sum(1)
    either = a.l0 + b.l0 - both
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)
