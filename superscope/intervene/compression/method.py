"""What is a method that compresses a weight matrix? W and the second moment of its inputs in, a smaller W out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import ShapeError


class Method(ABC):
    r"""$W \to W'$, so that $W' x$ is near $W x$ for the inputs x that the layer sees.

    Every method of one kind is given the same: W, one row per output, and $H = \mathbb E[x x^\top]$ of the inputs.
    """

    name: ClassVar[str]
    """What commands and tables call it."""
    kind: ClassVar[Literal["sparse", "low-rank"]]
    """Whether it sets entries to zero, a share of which is asked, or takes a matrix of a rank that is asked."""

    @final
    @torch.no_grad()
    def sparse(
        self, W: Float[Tensor, "outputs inputs"], H: Float[Tensor, "_ _"], sparsity: float | int
    ) -> Float[Tensor, "outputs inputs"]:
        """W with a share `sparsity` of its entries at zero, rounded down to whole entries.

        Raises:
            TypeError: if the method lowers the rank.
            ValueError: if sparsity is outside [0, 1), or an entry is not finite.
            ShapeError: if H does not fit W.
        """
        if self.kind != "sparse":
            raise TypeError(f"{self.name} lowers the rank of a matrix and sets no entries to zero; ask it for a rank.")
        if not 0 <= sparsity < 1:
            raise ValueError(
                f"{self.name}: sparsity must be in [0, 1), the share of entries set to zero; got {sparsity}."
            )
        self._check(W, H)
        return self.change(W.double(), H.double(), sparsity).to(W.dtype) if sparsity else W.clone()

    @final
    @torch.no_grad()
    def low_rank(
        self, W: Float[Tensor, "outputs inputs"], H: Float[Tensor, "_ _"], rank: int
    ) -> Float[Tensor, "outputs inputs"]:
        """A matrix of rank at most `rank` in place of W.

        Raises:
            TypeError: if the method sets entries to zero.
            ValueError: if rank is below 1 or above what W can have, or an entry is not finite.
            ShapeError: if H does not fit W.
        """
        if self.kind != "low-rank":
            raise TypeError(f"{self.name} sets entries to zero and keeps the rank; ask it for a sparsity.")
        most = min(W.shape)
        if not 1 <= rank <= most:
            raise ValueError(
                f"{self.name}: rank must be from 1 to {most}, the rank that a matrix of {tuple(W.shape)} can have; "
                f"got {rank}."
            )
        self._check(W, H)
        return self.change(W.double(), H.double(), rank).to(W.dtype)

    @abstractmethod
    def change(
        self, W: Float[Tensor, "outputs inputs"], H: Float[Tensor, "inputs inputs"], amount: float | int
    ) -> Float[Tensor, "outputs inputs"]:
        """W', from W and H in float64, for a sparsity in (0, 1) or a possible rank."""

    def _check(self, W: Tensor, H: Tensor) -> None:
        if W.ndim != 2 or H.shape != (W.shape[-1], W.shape[-1]):
            raise ShapeError(
                f"{self.name}: W has shape {tuple(W.shape)} and H {tuple(H.shape)}; W needs one row per output, and H "
                "one row and one column per input."
            )
        for name, tensor in (("W", W), ("H", H)):
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"{self.name}: {name} has an entry that is NaN or infinite.")


def output_error(
    W: Float[Tensor, "outputs inputs"], changed: Float[Tensor, "outputs inputs"], H: Float[Tensor, "inputs inputs"]
) -> float:
    r"""$\mathbb E\|(W - W') x\|^2 / \mathbb E\|W x\|^2$, each $\mathrm{tr}(M H M^\top)$ of its matrix M.

    0 where the output is zero for all inputs.
    """
    W, H = W.double(), H.double()
    lost = W - changed.double()
    whole = float(((W @ H) * W).sum())
    return float(((lost @ H) * lost).sum()) / whole if whole > 0 else 0.0


def without_smallest(
    W: Float[Tensor, "outputs inputs"], score: Float[Tensor, "groups members"], sparsity: float | int
) -> Float[Tensor, "outputs inputs"]:
    """W with the entries of the lowest score at zero: in each group of the score, the same share."""
    count = int(sparsity * score.shape[1])
    lowest = score.topk(count, dim=1, largest=False).indices
    return W.reshape(score.shape).scatter(1, lowest, 0.0).reshape(W.shape)
