"""The autoencoder that keeps every positive pre-activation and pays for their sum."""

from __future__ import annotations

from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import SparseCode
from ..step import exchange, precision
from . import crowded
from .base import SAE, Fit
from .positive import is_crowded, positives, rectified
from .rule import Rectify, Rule


@final
class ReLU(SAE):
    r"""f = ReLU(E (x - b) + e), trained on $|x - \hat x|^2 + \lambda \sum_i f_i |w_i|$ with x in units of its scale.

    The penalty shrinks: each active latent is short by about $\lambda/2$ units of x's scale, and the more so the
    rarer. L0 follows from $\lambda$ and from the data; it is not set. Two ways to keep the encoder from paying less by
    making atoms longer, equal in what they can express and different only in the path of descent:

    - "unit": atoms are held at norm 1, as in every SAE here, so that $|w_i| = 1$.
    - "weighted": atoms are free and each value is charged the norm of its atom. `fold` makes them unit afterwards.

    Args:
        d: dimension of x.
        n: number of latents.
        coefficient: $\lambda$, in the units of the April 2024 update: for x scaled to |x|^2 = d. Its default is that
            update's for language models; on a world of n = 256, d = 64, k = 4 and 512
            latents, 4 left an l0 of 9 and 400 latents silent, 3 one of 16, 0.3 one of 137.
        norm: which of the two.
        warmup: share of training over which $\lambda$ rises linearly from 0.
        seed: of the random start.

    Raises:
        ValueError: if coefficient is negative or not finite, norm is neither, or warmup is outside [0, 1].

    Source:
        Bricken et al., "Towards Monosemanticity", 2023 (unit norm).
        Conerly et al., "Update on how we train SAEs", Transformer Circuits April 2024 (norm-weighted, lambda = 5,
        warm-up over the first 5 % of training).

    Example:
        >>> sae = ReLU(d=4, n=8)
        >>> bool((sae.encode(torch.ones(3, 4)).values >= 0).all())
        True
    """

    shards = True

    def __init__(
        self,
        d: int,
        n: int,
        coefficient: float | int = 5.0,
        norm: Literal["unit", "weighted"] = "unit",
        warmup: float | int = 0.05,
        seed: int = 0,
    ) -> None:
        check_penalty("ReLU", coefficient, warmup)
        if norm not in ("unit", "weighted"):
            raise ValueError(f'ReLU: norm must be "unit" or "weighted"; got {norm!r}.')
        super().__init__(d, n, coefficient=coefficient, norm=norm, warmup=warmup, seed=seed)
        self.coefficient, self.norm, self.warmup = coefficient, norm, warmup

    def rule(self) -> Rectify:
        return Rectify()

    @classmethod
    def keeping(cls, rule: Rule, d: int, n: int) -> SAE | None:
        return cls(d, n) if isinstance(rule, Rectify) else None

    def sparsify(self, pre: Float[Tensor, "b n"]) -> SparseCode:
        return positives(pre)

    def reconstruction(self, x: Float[Tensor, "b d"]) -> tuple[SparseCode, Float[Tensor, "b d"]]:
        on = rectified(self, x)
        return on.code(on.values), on.compose(on.values, self.atoms) + self.bias

    def penalty(self, code: SparseCode, *, scale: float = 1.0) -> Float[Tensor, ""]:
        values = code.values
        if self.norm == "weighted":
            values = values * self.atoms.norm(dim=1)[code.indices]
        return self.coefficient * exchange.current().total(values.sum()) / (len(code) * self.d * scale)

    def fit(
        self,
        x: Float[Tensor, "b d"],
        *,
        target: Float[Tensor, "b d"] | None = None,
        scale: float = 1.0,
        progress: float = 0.0,
    ) -> Fit:
        target, share = x if target is None else target, warmed(progress, self.warmup)
        if exchange.current().alone and not precision.lowered() and not x.requires_grad and is_crowded(self, x):
            price = share * self.coefficient / (x.numel() * scale)
            return crowded.fit(self, x, target, scale=scale, price=price, weighted=self.norm == "weighted")
        code, x_hat = self.reconstruction(x)
        return Fit(code, x_hat, self.squared(x_hat, target, scale) + share * self.penalty(code, scale=scale))

    @property
    def unit(self) -> bool:
        """Whether atoms are held at norm 1."""
        return self.norm == "unit"

    @torch.no_grad()
    def fold(self) -> None:
        """Makes the atoms unit and the latents longer by as much: the same reconstructions, the same penalty."""
        norms = self.atoms.norm(dim=1)
        norms = torch.where(norms > 0, norms, 1.0)
        self.encoder.mul_(norms[:, None])
        self.encoder_bias.mul_(norms)
        self.atoms.div_(norms[:, None])


def warmed(progress: float, warmup: float | int) -> float:
    """The share of a penalty that is charged: rising linearly from 0 over the first `warmup` of training, then 1."""
    return min(progress / warmup, 1.0) if warmup else 1.0


def check_penalty(name: str, coefficient: float | int, warmup: float | int = 0) -> None:
    """Raises ValueError if either is out of range."""
    if not 0 <= coefficient < float("inf"):
        raise ValueError(f"{name}: coefficient must be at least 0 and finite; got {coefficient}.")
    if not 0 <= warmup <= 1:
        raise ValueError(f"{name}: warmup must be a share in [0, 1]; got {warmup}.")
