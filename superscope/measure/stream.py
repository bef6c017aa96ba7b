"""How measurements read a stream: one pass, sums in float64, kept apart by document to be resampled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..core import Activations, ActivationSource

Rows = ActivationSource | Iterable[Activations]
"""What a streaming measurement reads: a source, or batches at hand (a list, to be read more than once)."""

BLOCKS = 64
"""Groups that documents are dealt into where a sum per document would not fit in memory."""

_ROWS_PER_GROUP = 64


def read(rows: Rows, *, size: int = 4096, most: int | None = None, seed: int = 0) -> Iterator[Activations]:
    """The batches of a source (one epoch, or the first `most` batches), or the given batches.

    A finite source drops its last incomplete batch.

    Raises:
        ValueError: if there is no batch, or one holds NaN or infinite numbers.
    """
    stream = rows.batches(size, seed=seed) if isinstance(rows, ActivationSource) else iter(rows)
    index = -1
    for index, batch in enumerate(islice(stream, most)):
        if not bool(torch.isfinite(batch.x).all()):
            raise ValueError(
                f"batch {index} of the activations holds NaN or infinite numbers. Remove those rows first."
            )
        yield batch
    if index < 0:
        raise ValueError(f"there are no activations to measure. Give at least one batch (size {size}).")


class Groups:
    """Numbers the groups that rows are resampled by: the document of each row's sequence.

    Without `documents` a sequence is a group; without places, runs of 64 rows are, which is right for rows that are
    drawn independently.

    Args:
        documents: the document of each sequence.
    """

    def __init__(self, documents: Int[Tensor, "sequences"] | None = None) -> None:
        self.documents = None if documents is None else documents.cpu().numpy()
        self._rows = 0
        self.of = ""

    def __call__(self, batch: Activations) -> np.ndarray:
        """A group's number for each row of the batch: any integer, equal for rows of one group."""
        if batch.places is None:
            numbers = (self._rows + np.arange(len(batch))) // _ROWS_PER_GROUP
            self.of = f"runs of {_ROWS_PER_GROUP} rows"
        else:
            numbers = batch.places[:, 0].cpu().numpy()
            self.of = "sequences"
            if self.documents is not None:
                numbers = self.documents[numbers]
                self.of = "documents"
        self._rows += len(batch)
        return numbers


class GroupSums:
    """Sums of vectors by group, in float64; groups may come in any order and come again.

    Args:
        width: length of the vectors.
    """

    def __init__(self, width: int) -> None:
        self._position: dict[int, int] = {}
        self._sums = np.zeros((64, width))

    def add(self, groups: np.ndarray, rows: Float[Tensor, "b m"] | np.ndarray) -> None:
        """Adds each row to its group's sum."""
        unique, inverse = np.unique(groups, return_inverse=True)
        for group in unique.tolist():
            self._position.setdefault(group, len(self._position))
        while len(self._position) > len(self._sums):
            self._sums = np.concatenate([self._sums, np.zeros_like(self._sums)])
        where = np.array([self._position[group] for group in unique.tolist()])
        block = rows.double().cpu() if isinstance(rows, Tensor) else torch.from_numpy(rows)
        sums = torch.zeros(len(unique), block.shape[1], dtype=torch.float64)
        sums.index_add_(0, torch.from_numpy(inverse), block)
        self._sums[where] += sums.numpy()

    @property
    def sums(self) -> np.ndarray:
        """(groups, width)."""
        return self._sums[: len(self._position)]


class BlockSums:
    """Sums of wide arrays over at most `blocks` groups of documents: a document always falls into the same block.

    Args:
        shape: of one array.
        blocks: how many.
    """

    def __init__(self, shape: tuple[int, ...], blocks: int = BLOCKS) -> None:
        self.blocks = blocks
        self.sums = np.zeros((blocks, *shape))
        self._position: dict[int, int] = {}

    def numbers(self, groups: np.ndarray) -> np.ndarray:
        """The block of each row: documents are dealt out in order of appearance."""
        unique, inverse = np.unique(groups, return_inverse=True)
        for group in unique.tolist():
            self._position.setdefault(group, len(self._position) % self.blocks)
        return np.array([self._position[group] for group in unique.tolist()])[inverse]

    @property
    def filled(self) -> int:
        """Blocks that got a document."""
        return min(len(self._position), self.blocks)

    @property
    def used(self) -> np.ndarray:
        """The sums of the filled blocks."""
        return self.sums[: self.filled]


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and covariance of a stream of rows, in float64.

    Args:
        rows: how many rows.
        mean: of each coordinate.
        covariance: about that mean, divided by the number of rows.
    """

    rows: int
    mean: Float[Tensor, "d"]
    covariance: Float[Tensor, "d d"]


@torch.no_grad()
def moments(rows: Rows, *, size: int = 4096, batches: int | None = None, seed: int = 0) -> Moments:
    """Mean and covariance of x, summed about the first batch's mean so that a large mean costs no digits.

    Example:
        >>> moments([Activations(torch.tensor([[0.0, 1.0], [2.0, 1.0]]))]).mean
        tensor([1., 1.], dtype=torch.float64)
    """
    count, shift = 0, torch.zeros(0)
    first = second = torch.zeros(0)
    for batch in read(rows, size=size, most=batches, seed=seed):
        x = batch.x.double()
        if not count:
            shift = x.mean(0)
            first, second = torch.zeros_like(shift), x.new_zeros(x.shape[1], x.shape[1])
        x = x - shift
        first += x.sum(0)
        second += x.T @ x
        count += len(x)
    offset = first / count
    return Moments(count, shift + offset, second / count - torch.outer(offset, offset))
