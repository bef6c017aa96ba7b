"""How do many short texts share one row of a batch without seeing each other? By positions that begin anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from ...core import Site
from ..inputs.text import Corpus
from ..models.facts import device_of, evaluating, is_causal, keywords_of
from ..models.paths import base_of
from .hooks import Capture

_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8, torch.bfloat16: 5e-2, torch.float16: 1e-2}
_TOKENS = 24


def rows_of(length: Int[Tensor, "S"], context: int) -> list[list[int]]:
    """Which sequences share a row: in their order, each in the row of the one before it while there is room.

    Example:
        >>> rows_of(torch.tensor([3, 4, 2, 6, 1]), context=8)
        [[0, 1], [2, 3], [4]]
    """
    rows: list[list[int]] = []
    free = 0
    for number, n in enumerate(length.tolist()):
        if n > free or not rows:
            rows.append([])
            free = context
        rows[-1].append(number)
        free -= n
    return rows


def packed(
    corpus: Corpus, rows: Sequence[Sequence[int]]
) -> tuple[Int[Tensor, "r t"], Bool[Tensor, "r t"], Int[Tensor, "r t"]]:
    """(ids, keep, positions) of rows of sequences; positions begin at 0 with every sequence, and with the pads."""
    width = max(int(corpus.length[list(row)].sum()) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    keep = torch.zeros(len(rows), width, dtype=torch.bool)
    positions = torch.zeros(len(rows), width, dtype=torch.int64)
    for number, row in enumerate(rows):
        at = 0
        for sequence in row:
            n = int(corpus.length[sequence])
            ids[number, at : at + n] = corpus.ids[sequence, :n]
            keep[number, at : at + n] = corpus.keep[sequence, :n]
            positions[number, at : at + n] = torch.arange(n)
            at += n
        positions[number, at:] = torch.arange(width - at)
    return ids, keep, positions


def packed_inputs(runs: nn.Module, ids: Tensor, positions: Tensor, device: torch.device) -> dict[str, Any]:
    """Keywords to run packed rows with.

    No attention mask, not even one that hides nothing, and (see `Capture`) no cache: with either, transformers takes
    the positions for those of one text and lets each text see the ones before it, without a word.
    """
    name = "input_ids" if "input_ids" in keywords_of(runs) else next(iter(keywords_of(runs)))
    return {name: ids.to(device), "position_ids": positions.to(device)}


def leak(model: nn.Module, sites: Sequence[Site | str], corpus: Corpus, *, seed: int = 0) -> float:
    """Relative error of a text's activations when it is packed behind another: 0, to rounding, where packing is sound.

    Two texts of random tokens of the corpus are run alone and packed; the largest error over sites is returned.
    """
    generator = torch.Generator().manual_seed(seed)
    n = max(min(_TOKENS, corpus.context // 2), 1)
    pool = corpus.ids[corpus.keep]
    first, second = (pool[torch.randint(len(pool), (n,), generator=generator)] for _ in range(2))
    device = device_of(model)
    worst = 0.0
    with evaluating(model), Capture(model, sites) as capture:
        positions = torch.arange(n)
        alone = capture(**packed_inputs(capture.runs, second[None], positions[None], device))
        both = capture(
            **packed_inputs(capture.runs, torch.cat([first, second])[None], positions.repeat(2)[None], device)
        )
        for site in capture.sites:
            x, y = alone[site].reshape(n, -1).double(), both[site].reshape(2 * n, -1)[n:].double()
            worst = max(worst, float((x - y).norm() / x.norm().clamp(min=1e-30)))
    return worst


def require_sound(model: nn.Module, sites: Sequence[Site | str], corpus: Corpus) -> None:
    """Raises where packed texts see each other in this model.

    Raises:
        ValueError: with the error that packing makes, or why it cannot be done.
    """
    name = type(model).__name__
    base = base_of(model)[1]
    if "position_ids" not in keywords_of(base) or not is_causal(model):
        raise ValueError(
            f"packing needs a causal model that is told positions; {name} is not one. Harvest without packing: pads "
            "behind a text do not change it."
        )
    dtype = next(model.parameters()).dtype
    error = leak(model, sites, corpus)
    if error > _TOLERANCE.get(dtype, 1e-2):
        raise ValueError(
            f"packing leaks in {name}: a text's activations change by {error:.2g} of their size when another stands "
            "before it in its row. Harvest without packing."
        )
