"""The autoencoder that decides by one half whether a latent is on, and by the other how strongly."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...core import SparseCode
from ..step import exchange
from .base import SAE, Fit
from .positive import positives, rectified
from .relu import check_penalty, warmed
from .rule import Gate, Rule


@final
class Gated(SAE):
    r"""f = 1[p > 0] ReLU(exp(r) (p - e) + m), p = E (x - b) + e: gate and magnitude share E up to a factor per latent.

    Trained on $|x - D^\top f - b|^2 + \lambda \sum_i g_i + |x - \bar D^\top g - \bar b|^2$ with g = ReLU(p), the barred
    ones frozen: the penalty acts on the gate alone, so magnitudes do not shrink, and the last term keeps
    the gate's own values a fair reconstruction, which is its only gradient (a step function has none). L0 follows
    from $\lambda$.

    Args:
        d: dimension of x.
        n: number of latents.
        coefficient: $\lambda$, for x scaled to |x|^2 = d.
        warmup: share of training over which $\lambda$ rises linearly from 0.
        seed: of the random start.

    Attributes:
        log_factor: r.
        magnitude_bias: m.

    Raises:
        ValueError: if coefficient is negative or not finite, or warmup is outside [0, 1].

    Source:
        Rajamanoharan et al., "Improving dictionary learning with gated sparse autoencoders", 2024 (equations 6 to 8
        and the tied gate of equation 7).

    Example:
        >>> Gated(d=4, n=8).encode(torch.ones(3, 4)).n
        8
    """

    def __init__(
        self, d: int, n: int, coefficient: float | int = 5.0, warmup: float | int = 0.05, seed: int = 0
    ) -> None:
        check_penalty("Gated", coefficient, warmup)
        super().__init__(d, n, coefficient=coefficient, warmup=warmup, seed=seed)
        self.coefficient, self.warmup = coefficient, warmup
        self.log_factor = nn.Parameter(torch.zeros(n))
        self.magnitude_bias = nn.Parameter(torch.zeros(n))

    units = ("encoder_bias", "bias", "magnitude_bias")
    shards = True

    def rule(self) -> Gate:
        return Gate(self.log_factor.detach(), self.magnitude_bias.detach())

    @classmethod
    def keeping(cls, rule: Rule, d: int, n: int) -> SAE | None:
        if not isinstance(rule, Gate):
            return None
        sae = cls(d, n).to(rule.log_gain.dtype)
        sae.load_state_dict({"log_factor": rule.log_gain, "magnitude_bias": rule.magnitude_bias}, strict=False)
        return sae

    def _magnitudes(self, gate: Float[Tensor, "*m"], latents: Int[Tensor, "*m"]) -> Float[Tensor, "*m"]:
        """The values of latents whose gates are open."""
        linear = gate - self.encoder_bias[latents]
        return (linear * self.log_factor.exp()[latents] + self.magnitude_bias[latents]).relu()

    def sparsify(self, pre: Float[Tensor, "b n"]) -> SparseCode:
        gate = positives(pre)
        values = self._magnitudes(gate.values, gate.indices)
        return SparseCode(torch.where(gate.values > 0, values, 0.0), gate.indices, self.n)

    def reconstruction(self, x: Float[Tensor, "b d"]) -> tuple[SparseCode, Float[Tensor, "b d"]]:
        gate = rectified(self, x)
        values = self._magnitudes(gate.values, gate.columns)
        return gate.code(values), gate.compose(values, self.atoms) + self.bias

    def fit(
        self,
        x: Float[Tensor, "b d"],
        *,
        target: Float[Tensor, "b d"] | None = None,
        scale: float = 1.0,
        progress: float = 0.0,
    ) -> Fit:
        target = x if target is None else target
        gate = rectified(self, x)
        values = self._magnitudes(gate.values, gate.columns)
        x_hat = gate.compose(values, self.atoms) + self.bias
        by_gate = gate.compose(gate.values, self.atoms.detach()) + self.bias.detach()
        penalty = self.coefficient * exchange.current().total(gate.values.sum()) / (len(x) * self.d * scale)
        loss = self.squared(x_hat, target, scale) + self.squared(by_gate, target, scale)
        return Fit(gate.code(values), x_hat, loss + warmed(progress, self.warmup) * penalty)
