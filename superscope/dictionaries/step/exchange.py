"""What the shards of one dictionary tell each other: sums over all latents, and which values are the largest of all.

An architecture is written as if it held every latent. Where it sums over latents or compares them it asks the
exchange, which on one device answers with what it was given. `parallel` puts a dictionary's shards on several devices
and provides the exchange that asks the others; no formula knows of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor


class Exchange:
    """One shard that holds everything."""

    @property
    def alone(self) -> bool:
        """Whether this is the only shard of the only group."""
        return type(self) is Exchange

    def total(self, part: Tensor) -> Tensor:
        """The sum of every shard's part; each shard's part receives the whole gradient of the sum."""
        return part

    def spread(self, shared: Tensor) -> Tensor:
        """A parameter that every shard holds: its gradient is the sum of what the shards' latents give it."""
        return shared

    def largest(self, sizes: Tensor, k: int) -> Tensor:
        """Which of a row's candidates are among its k largest over all shards, (b, candidates) of booleans.

        Args:
            sizes: each shard's own k largest, or all it has.
        """
        keep = sizes.shape[1]
        if keep <= k:
            return torch.ones_like(sizes, dtype=torch.bool)
        # A tie at the cut keeps both, which does no harm.
        return sizes >= sizes.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)

    def average(self, part: Tensor) -> Tensor:
        """Summed over shards, averaged over the groups that have other rows; gradients go to the part as they are."""
        return part

    def row_mean(self, number: Tensor) -> Tensor:
        """Averaged over the groups that have other rows; the same on every shard of a group already."""
        return number

    def threshold(self, values: Tensor, k: int) -> float:
        """The k-th largest of the candidates of all shards and groups, k counted per group; -inf if there are fewer."""
        if len(values) < k:
            return float("-inf")
        if values.is_cuda:
            # There the search for one value of a row keeps a single one of its processors busy, a sort all of them.
            return float(values.sort().values[len(values) - k])
        return float(values.kthvalue(len(values) - k + 1).values)

    def least(self, value: float) -> float:
        """The smallest of a number over all shards and groups."""
        return value

    def first(self) -> int:
        """The place of this shard's first latent among all."""
        return 0


_CURRENT: ContextVar[Exchange] = ContextVar("exchange")
_ALONE = Exchange()


def current() -> Exchange:
    """The exchange in force: that of `using`, or one shard that holds everything."""
    return _CURRENT.get(_ALONE)


@contextmanager
def using(exchange: Exchange) -> Iterator[None]:
    """Puts an exchange in force."""
    token = _CURRENT.set(exchange)
    try:
        yield
    finally:
        _CURRENT.reset(token)
