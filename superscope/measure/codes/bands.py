"""What does a latent answer to when it is not at its strongest? Places drawn from each band of its activations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core import SparseCode
from .contexts import Places, TopContexts, top_contexts

BANDS = 3
"""Equal parts of the way from 0 to a latent's largest value: the lowest, the middle, the highest."""
BINS = 12
"""Of the histogram of a latent's values."""


@dataclass(frozen=True, eq=False)
class Banded:
    """What `banded_contexts` drew.

    Args:
        places: the draws, for each latent those of the lowest band first; -1 in an unused slot.
        counts: rows on which each latent's value lies in each twelfth of the way to its largest.
    """

    places: TopContexts
    counts: Int[Tensor, "n bins"]

    def band(self, slot: int) -> int:
        """The band of a slot of `places`, 0 the lowest."""
        return slot // (self.places.values.shape[1] // BANDS)


@torch.no_grad()
def banded_contexts(
    stream: Iterable[tuple[SparseCode, Places]],
    largest: Float[Tensor, "n"],
    *,
    count: int = 2,
    documents: Int[Tensor, "sequences"] | None = None,
    seed: int = 0,
) -> Banded:
    r"""`count` places of each latent drawn alike from each third of $(0, \max f]$, at most one of a document.

    The strongest places flatter a latent: whether it means at a third of its strength what it means at its peak, only
    draws from there can say. A draw does not depend on the order of the stream.

    Args:
        stream: codes with the (sequence, position) of each row.
        largest: each latent's largest value.
        count: draws of each band.
        documents: the document of each sequence; without, a sequence is one.
        seed: of the draw.

    Raises:
        ValueError: if the stream is empty, or count is smaller than 1.

    Example:
        >>> code = SparseCode(torch.tensor([[1.0], [9.0]]), torch.tensor([[0], [0]]), 1)
        >>> found = banded_contexts([(code, torch.tensor([[0, 4], [1, 7]]))], torch.tensor([9.0]), count=1)
        >>> found.places.positions.tolist(), found.counts[0].nonzero()[:, 0].tolist()
        ([[4, -1, 7]], [1, 11])
    """
    counts = torch.zeros(len(largest) * BINS, dtype=torch.long)
    peak = largest.cpu().double().clamp(min=1e-300)

    def drawn() -> Iterable[tuple[SparseCode, Places]]:
        nonlocal counts
        for code, places in stream:
            values, indices = code.values.detach().cpu().double(), code.indices.cpu()
            share = (values / peak[indices]).clamp(max=1.0)
            used = values > 0
            # Rounded up: a value at an edge belongs below it, so that the largest is in the last bin.
            bins = ((share * BINS).ceil().long() - 1).clamp(min=0)
            counts += torch.bincount((indices * BINS + bins)[used], minlength=len(counts))
            band = bins * BANDS // BINS
            lot = _lots(places.cpu()[:, None, :].expand(*indices.shape, 2), indices, seed)
            yield SparseCode(torch.where(used, lot, 0.0), indices * BANDS + band, code.n * BANDS), places

    best = top_contexts(drawn(), count=count, documents=documents)
    n = len(largest)
    folded = (
        table.reshape(n, BANDS * count) for table in (best.values, best.sequences, best.positions, best.documents)
    )
    return Banded(TopContexts(*folded), counts.reshape(n, BINS))


def _lots(places: Int[Tensor, "b k 2"], latents: Int[Tensor, "b k"], seed: int) -> Float[Tensor, "b k"]:
    """A number in (0, 1] for each latent at each place, as good as random (the finaliser of SplitMix64)."""
    key = places[..., 0] * 1_000_003 + places[..., 1] * 8_191 + latents * 998_244_353 + seed * 7_919 + 1
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        key = (key ^ (key >> shift)) * factor
    return (((key ^ (key >> 31)) & (2**52 - 1)).double() + 1) / 2**52
