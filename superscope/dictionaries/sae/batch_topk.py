"""The autoencoder that keeps k latents a row on average: the k b largest pre-activations of a whole batch."""

from __future__ import annotations

from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core import SparseCode
from ..step import exchange, sparse
from .base import SAE, Fit
from .rule import BatchLargest, Largest, Rule
from .topk import choose_largest

# How far below the last batch's threshold the next one's is looked for, and how fast the learned one follows.
_MARGIN = 0.95
_MOMENTUM = 0.99
# Candidates of the first block for each latent wanted in it: other rows may have fewer.
_MORE = 1.05


class BatchTopKSAE(SAE):
    r"""What BatchTopK and Matryoshka share: the choice over a batch in training, the learned threshold in use.

    Args:
        d, n, k, seed: as for the architectures.
        further: their own arguments.

    Attributes:
        threshold: running mean of the smallest value kept in a batch; negative until the first batch.
    """

    def __init__(self, d: int, n: int, k: int, *, seed: int = 0, **further: Any) -> None:
        if not 1 <= k <= n:
            raise ValueError(
                f"{type(self).__name__}: k must be in 1..n = {n}, the latents a row may choose from; got k = {k}."
            )
        super().__init__(d, n, k=k, **further, seed=seed)
        self.k = k
        self.register_buffer("threshold", torch.tensor(-1.0))
        # The last batch's threshold. Part of where a training is, not of what was learned.
        self.register_buffer("last", torch.tensor(-1.0), persistent=False)

    threshold: Tensor
    last: Tensor
    shards = True

    @property
    def groups(self) -> tuple[int, ...]:
        """Ends of nested prefixes of latents; () where there is one."""
        return ()

    def rule(self) -> Largest | BatchLargest:
        """Before the first training batch there is no threshold, and the k largest of each row are kept."""
        threshold = float(self.threshold)
        return Largest(self.k) if threshold < 0 else BatchLargest(self.k, threshold, self.groups)

    def sparsify(self, pre: Float[Tensor, "b n"]) -> SparseCode:
        """Every value above the learned threshold; before there is one, the k largest of each row."""
        if float(self.threshold) < 0:
            return choose_largest(pre, self.k)
        rows, columns = (pre > self.threshold).nonzero(as_tuple=True)
        return sparse.packed(rows, columns, pre[rows, columns], len(pre), self.n)

    @torch.no_grad()
    def choose(self, x: Float[Tensor, "b d"]) -> tuple[Int[Tensor, "m"], Int[Tensor, "m"], Float[Tensor, "m"]]:
        """Rows, columns and values of the k b largest positive pre-activations of a batch, in order of row.

        The last batch's threshold, lowered a little, leaves few candidates for the exact choice. Where it leaves too
        few of the first block it is lowered there; where it then leaves fewer than k b of the batch, the whole batch
        is looked through again with a lower one.
        """
        wanted = self.k * len(x)
        last = float(self.last)
        floor = last * _MARGIN if last > 0 else self._guess(x)
        start = floor
        # Shards must look for the same: they know only together whether a floor is too high.
        least_found = self.k * _MORE if exchange.current().alone else 0.0
        while True:
            rows, columns, values, floor = sparse.entries(self, x, floor, at_least=least_found)
            enough = float(exchange.current().average(torch.tensor(float(len(values))))) >= wanted
            if enough or floor <= 0:
                break
            floor = floor / 2 if floor > 1e-6 * start else 0.0
        least = exchange.current().threshold(values, wanted)
        if least > floor:
            # Ties at the threshold are all kept.
            kept = (values >= least).nonzero().squeeze(1)
            rows, columns, values = rows[kept], columns[kept], values[kept]
        smallest = exchange.current().least(float(values.min()) if len(values) else float("inf"))
        self.last.fill_(smallest if smallest < float("inf") else -1.0)
        return rows, columns, values

    def _guess(self, x: Float[Tensor, "b d"]) -> float:
        """A threshold for a batch when nothing is known: that of its first rows, lowered by a third."""
        pre = self.pre_activations(self.some_rows(x))
        values, wanted = pre.flatten(), self.k * len(pre)
        largest = values.topk(min(wanted, len(values)), sorted=False).values
        return max(exchange.current().threshold(largest, wanted), 0.0) * 2 / 3

    @torch.no_grad()
    def learn_threshold(self, values: Float[Tensor, "m"]) -> None:
        """Moves the threshold towards the smallest value that this batch kept."""
        least = exchange.current().least(float(values.min()) if len(values) else float("inf"))
        if least < float("inf"):
            before = float(self.threshold)
            self.threshold.fill_(least if before < 0 else least + _MOMENTUM * (before - least))


@final
class BatchTopK(BatchTopKSAE):
    r"""f = ReLU(E (x - b) + e), cut to the k b largest values of a batch of b rows: k a row on average, not in each.

    Rows that need more latents get more. A row by itself has no batch, so in use a latent is kept where its value is
    above a threshold, the running mean of the smallest value kept in training batches: on average k again. `encode`
    gives a row the same code whatever rows come with it.

    Args:
        d: dimension of x.
        n: number of latents.
        k: latents kept per row, on average.
        seed: of the random start.

    Raises:
        ValueError: if k is not in 1..n.

    Source:
        Bussmann, Leask and Nanda, "BatchTopK sparse autoencoders", 2024 (equations 3 to 5).

    Example:
        >>> x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        >>> int(BatchTopK(d=4, n=8, k=2).fit(x).code.l0.sum()) == 2 * 64
        True
    """

    def __init__(self, d: int, n: int, k: int, seed: int = 0) -> None:
        super().__init__(d, n, k, seed=seed)

    @classmethod
    def keeping(cls, rule: Rule, d: int, n: int) -> SAE | None:
        if not isinstance(rule, BatchLargest) or rule.groups:
            return None
        sae = cls(d, n, rule.k)
        sae.threshold.fill_(max(rule.threshold, 0.0))
        return sae

    def fit(
        self,
        x: Float[Tensor, "b d"],
        *,
        target: Float[Tensor, "b d"] | None = None,
        scale: float = 1.0,
        progress: float = 0.0,
    ) -> Fit:
        rows, columns, values = self.choose(x)
        self.learn_threshold(values)
        chosen = sparse.Chosen.ragged(rows, columns, len(x), self.n)
        values = sparse.pre_activations(x, self.encoder, self.encoder_bias, self.bias, values, chosen)
        x_hat = sparse.decode(values, self.atoms, chosen).add_(self.bias)
        return Fit(chosen.code(values), x_hat, self.squared(x_hat, x if target is None else target, scale))
