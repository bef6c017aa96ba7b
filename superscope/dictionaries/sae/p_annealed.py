"""The autoencoder whose penalty turns, while it trains, from the sum of values towards their count."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import SparseCode
from ..step import exchange
from .base import SAE, Fit
from .positive import positives, rectified
from .relu import check_penalty, warmed
from .rule import Rectify

_FLOOR = 1e-3
"""Added to each value, in units of x's scale: the slope of f^p at 0 is infinite, and so p (1e-3)^(p-1), 50 at 0.2."""


@final
class PAnnealed(SAE):
    r"""f = ReLU(E (x - b) + e), trained on $|x - \hat x|^2 + \lambda_p \sum_i f_i^p$, p falling from 1 to `end`.

    At p = 1 the penalty is the ReLU SAE's; towards p = 0 it counts latents and stops shrinking the large ones. So that
    the pressure stays what it was, $\lambda_p$ is multiplied, at each change from p to q, by $\sum f^p / \sum f^q$ over
    the batch. p is 1 for the first `begin` of training, then falls linearly.

    Args:
        d: dimension of x.
        n: number of latents.
        coefficient: $\lambda_1$, for x scaled to |x|^2 = d.
        end: p at the end of training.
        begin: share of training during which p stays 1.
        warmup: share of training over which the penalty rises linearly from 0.
        seed: of the random start.

    Attributes:
        exponent: p now.
        strength: $\lambda_p$ now.

    Raises:
        ValueError: if an argument is out of range.

    Source:
        Karvonen et al., "Measuring progress in dictionary learning for language model interpretability with board
        game models", 2024 (section 4; they change p in steps and average the ratio over a queue of batches, where this
        changes it at every batch by that batch's ratio).

    Example:
        >>> PAnnealed(d=4, n=8).encode(torch.ones(3, 4)).n
        8
    """

    shards = True

    def __init__(
        self,
        d: int,
        n: int,
        coefficient: float | int = 5.0,
        end: float | int = 0.2,
        begin: float | int = 0.15,
        warmup: float | int = 0.05,
        seed: int = 0,
    ) -> None:
        check_penalty("PAnnealed", coefficient, warmup)
        if not 0 < end <= 1:
            raise ValueError(f"PAnnealed: end must be an exponent in (0, 1]; got {end}.")
        if not 0 <= begin < 1:
            raise ValueError(f"PAnnealed: begin must be a share in [0, 1); got {begin}.")
        super().__init__(d, n, coefficient=coefficient, end=end, begin=begin, warmup=warmup, seed=seed)
        self.coefficient, self.end, self.begin, self.warmup = coefficient, end, begin, warmup
        # Training goes on from these, so they are saved; inference does not read them.
        self.register_buffer("exponent", torch.ones(()))
        self.register_buffer("strength", torch.tensor(float(coefficient)))
        self.exponent: Tensor
        self.strength: Tensor

    def rule(self) -> Rectify:
        return Rectify()

    def sparsify(self, pre: Float[Tensor, "b n"]) -> SparseCode:
        return positives(pre)

    def reconstruction(self, x: Float[Tensor, "b d"]) -> tuple[SparseCode, Float[Tensor, "b d"]]:
        on = rectified(self, x)
        return on.code(on.values), on.compose(on.values, self.atoms) + self.bias

    def exponent_at(self, progress: float) -> float:
        """p after a share of training."""
        return 1 - (1 - self.end) * min(max(progress - self.begin, 0.0) / (1 - self.begin), 1.0)

    def penalty(self, code: SparseCode, *, scale: float = 1.0) -> Float[Tensor, ""]:
        paid = _powers(code.values, self.exponent, scale).sum()
        # A schedule moves the coefficient; the strength is what annealing has made of the first one.
        made = self.about["coefficient"]
        share = self.coefficient / made if made else 1.0
        return share * self.strength * exchange.current().total(paid) / (len(code) * self.d)

    @torch.no_grad()
    def anneal(self, code: SparseCode, *, scale: float, progress: float) -> None:
        """Moves p to where it should be by now, and the strength so that this batch pays what it paid before."""
        exponent = self.exponent_at(progress)
        if exponent == float(self.exponent):
            return
        before = exchange.current().average(_powers(code.values, self.exponent, scale).double().sum())
        self.exponent.fill_(exponent)
        after = exchange.current().average(_powers(code.values, self.exponent, scale).double().sum())
        if float(after) > 0:
            self.strength.mul_(float(before / after))

    def fit(
        self,
        x: Float[Tensor, "b d"],
        *,
        target: Float[Tensor, "b d"] | None = None,
        scale: float = 1.0,
        progress: float = 0.0,
    ) -> Fit:
        code, x_hat = self.reconstruction(x)
        self.anneal(code, scale=scale, progress=progress)
        loss = self.squared(x_hat, x if target is None else target, scale)
        return Fit(code, x_hat, loss + warmed(progress, self.warmup) * self.penalty(code, scale=scale))


def _powers(values: Tensor, exponent: Tensor, scale: float) -> Tensor:
    """(f / scale)^p of the active latents, 0 of the others: a latent that is off pays nothing."""
    active = values > 0
    return torch.where(active, (torch.where(active, values, 1.0) / scale + _FLOOR) ** exponent, 0.0)
