"""The autoencoder without an encoder: each latent is chosen by what the earlier ones left of x."""

from __future__ import annotations

from typing import Any, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...core import SparseCode
from .archetypal import residual_share
from .base import SAE, geometric_median
from .rule import Pursuit, Rule

# Largest Gram matrix held, in numbers: 256 MB in float32, n = 8 192. Beyond, its rows are made as they are needed.
_GRAM = 2**26


@final
class MatchingPursuit(SAE):
    r"""r = x - b, k times $i = \arg\max_j \langle r, w_j \rangle$, v = $\langle r, w_i \rangle_+$: f_i += v, r -= v w_i

    Latents are chosen in turn, so that atoms which overlap (a parent and its children, say) can be told apart, where
    an encoder reads each from x alone. An atom chosen twice adds to its value and takes no second slot. A row stops
    when no atom has a positive product with what is left. Values are not refitted, so they are biased by overlaps.
    Encoding costs k passes over n products: about k/2 times an encoder's, or less where the n x n Gram matrix fits
    (n <= 8 192).

    The gradient reaches the atoms through every step of the pursuit, choices held; the backward pass undoes the steps
    one by one, so that memory is O(b d), not O(b k d).

    Args:
        d: dimension of x.
        n: number of latents.
        k: steps, so latents per row at most.
        seed: of the random start.

    Raises:
        ValueError: if k is not in 1..n.

    Source:
        Costa et al., "From flat to hierarchical: extracting sparse representations with matching pursuit", 2025.
        Mallat and Zhang, "Matching pursuits with time-frequency dictionaries", 1993.

    Example:
        >>> sae = MatchingPursuit(d=4, n=8, k=2)
        >>> sae.encode(torch.ones(3, 4)).values.shape
        torch.Size([3, 2])
    """

    whitens = False

    def __init__(self, d: int, n: int, k: int, seed: int = 0) -> None:
        if not 1 <= k <= n:
            raise ValueError(f"MatchingPursuit: k must be in 1..n = {n}, the latents of a row; got k = {k}.")
        super().__init__(d, n, k=k, seed=seed)
        self.k = k
        # There is no encoder: what asks for one is given the atoms, by __getattr__, and nothing is trained or saved.
        del self.encoder, self.encoder_bias
        self._gram: tuple[int, Tensor] | None = None

    def __getattr__(self, name: str) -> Any:
        # Only once the base's own are gone: while it registers them, they must not seem to be there.
        if "_gram" in self.__dict__:
            if name == "encoder":
                return self.atoms
            if name == "encoder_bias":
                return self.atoms.new_zeros(self.n)
        return super().__getattr__(name)

    def rule(self) -> Pursuit:
        return Pursuit(self.k)

    @classmethod
    def keeping(cls, rule: Rule, d: int, n: int) -> SAE | None:
        return cls(d, n, rule.k) if isinstance(rule, Pursuit) else None

    def pre_activations(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b n"]:
        """The first step's products with every atom."""
        return (x - self.bias) @ self.atoms.T

    def sparsify(self, pre: Float[Tensor, "b n"]) -> SparseCode:
        indices, amounts = self._pursue(pre)
        return SparseCode(_merged(indices, amounts), indices, self.n)

    def _pursue(self, pre: Float[Tensor, "b n"]) -> tuple[Int[Tensor, "b k"], Float[Tensor, "b k"]]:
        """The atom of each step and the length taken, from the first products: later ones follow by the Gram matrix."""
        gram = None if torch.is_grad_enabled() else self._overlaps()
        indices, amounts = [], []
        for _ in range(self.k):
            amount, index = pre.max(dim=1)
            amount = amount.relu()
            rows = self.atoms[index] @ self.atoms.T if gram is None else gram[index]
            pre = pre - amount[:, None] * rows
            indices.append(index)
            amounts.append(amount)
        return torch.stack(indices, 1), torch.stack(amounts, 1)

    def _overlaps(self) -> Float[Tensor, "n n"] | None:
        """The Gram matrix of the atoms as they are, kept until they change."""
        if self.n**2 > _GRAM:
            return None
        version = self.atoms._version
        if self._gram is None or self._gram[0] != version or self._gram[1].dtype != self.atoms.dtype:
            self._gram = version, self.atoms.detach() @ self.atoms.detach().T
        return self._gram[1]

    def reconstruction(self, x: Float[Tensor, "b d"]) -> tuple[SparseCode, Float[Tensor, "b d"]]:
        with torch.no_grad():
            blocks = [self._pursue(self.pre_activations(block)) for block in x.split(max(2**21 // self.n, 1))]
            indices = torch.cat([index for index, _ in blocks])
            taken = torch.cat([amount for _, amount in blocks]) > 0
        amounts, rest = _Pursuit.apply(x - self.bias, self.atoms, indices, taken)
        return SparseCode(_merged(indices, amounts), indices, self.n), x - rest

    @torch.no_grad()
    def start(
        self,
        x: Float[Tensor, "b d"],
        *,
        target: Float[Tensor, "b d"] | None = None,
        centre: Literal["mean", "median"] = "mean",
    ) -> None:
        """Sets b to the centre of x. There is no encoder whose scale would have to be found."""
        self.bias.copy_(geometric_median(x) if centre == "median" else x.double().mean(0).to(x.dtype))

    def auxiliary(
        self, x: Float[Tensor, "b d"], error: Float[Tensor, "b d"], dead: Bool[Tensor, "n"], k: int
    ) -> Float[Tensor, ""]:
        """The dead atoms are fitted to the error by their products with it: the pursuit's own next step."""
        atoms = self.atoms[dead.nonzero().squeeze(1)]
        return residual_share(error, error @ atoms.T, atoms, k)


def _merged(indices: Int[Tensor, "b k"], amounts: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
    """What each slot holds when an atom that was chosen again adds to its first slot."""
    first = (indices[:, :, None] == indices[:, None, :]).to(torch.uint8).argmax(2)
    return torch.zeros_like(amounts).scatter_add(1, first, amounts)


class _Pursuit(torch.autograd.Function):
    """Amounts and what is left of x along a given sequence of atoms: r <- r - <r, w> w, w the step's atom."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, atoms: Tensor, indices: Tensor, taken: Tensor) -> tuple[Tensor, Tensor]:
        rest = x.clone()
        amounts = torch.empty(indices.shape, dtype=x.dtype, device=x.device)
        for step in range(indices.shape[1]):
            w = atoms[indices[:, step]]
            amounts[:, step] = (rest * w).sum(1) * taken[:, step]
            rest = rest - amounts[:, step, None] * w
        ctx.save_for_backward(atoms, indices, taken, amounts, rest)
        return amounts, rest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        atoms, indices, taken, amounts, rest = ctx.saved_tensors
        d_amounts, g = gradients
        d_atoms = torch.zeros_like(atoms)
        for step in reversed(range(indices.shape[1])):
            index, amount = indices[:, step], amounts[:, step, None]
            w = atoms[index]
            # The residual before the step, and the gradient of what the step took from it.
            rest = rest + amount * w
            d_amount = (d_amounts[:, step, None] - (g * w).sum(1, keepdim=True)) * taken[:, step, None]
            d_atoms.index_add_(0, index, d_amount * rest - amount * g)
            g = g + d_amount * w
        return g, d_atoms, None, None
