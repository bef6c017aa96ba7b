"""The autoencoder in which each latent has a threshold of its own, learned with the rest."""

from __future__ import annotations

from typing import Any, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ...core import SparseCode
from ..step import exchange, sparse
from .base import SAE, Fit
from .rule import Jump, Rule

_L0 = 32


@final
class JumpReLU(SAE):
    r"""f_i = p_i 1[p_i > theta_i], p = E (x - b) + e, trained on $|x - \hat x|^2 + \lambda(L_0 / k - 1)^2$.

    A latent's value is not shrunk, and how many are on varies from row to row, as with ReLU; L0 is set, as with
    top-k. The step has no derivative, so theta is moved by the pre-activations that lie within half a `bandwidth` of
    it (rectangle kernel): $\partial f/\partial\theta = -\frac{\theta}{\epsilon} 1[|p - \theta| < \epsilon/2]$ and
    $\partial L_0/\partial\theta = -\frac{1}{\epsilon} 1[|p - \theta| < \epsilon/2]$.

    What went wrong elsewhere, and what is done here: with a window of fixed width that data of another scale hardly
    ever enters, thresholds stand still and the L0 coefficient does nothing. Here thresholds start where the first
    batch has k values a row above them, the window is a share of that start, and thresholds are learned in the units
    of x.

    Args:
        d: dimension of x.
        n: number of latents.
        k: the L0 that training steers to.
        coefficient: $\lambda$, in units of the variance of x per dimension.
        bandwidth: $\epsilon$ over the thresholds' start.
        warmup: share of training over which $\lambda$ rises linearly from 0.
        seed: of the random start.

    Attributes:
        threshold: theta, one per latent, in the units of x.
        width: $\epsilon$, in the units of x; 0 until training starts.

    Raises:
        ValueError: if k is not in 1..n, coefficient is negative, bandwidth is not positive, or warmup is no share.

    Source:
        Rajamanoharan et al., "Jumping ahead: improving reconstruction fidelity with JumpReLU sparse autoencoders",
        2024 (equations 8 to 12; section 6 and appendix for the quadratic L0 target). They learn log theta; Adam moves
        theta itself as fast here and does not stall near 0.

    Example:
        >>> sae = JumpReLU(d=4, n=8, k=2)
        >>> bool(((sae.encode(torch.ones(3, 4)).values == 0) | (sae.encode(torch.ones(3, 4)).values > 0)).all())
        True
    """

    units = ("encoder_bias", "bias", "threshold")
    shards = True

    def rule(self) -> Jump:
        return Jump(self.threshold.detach())

    @classmethod
    def keeping(cls, rule: Rule, d: int, n: int) -> SAE | None:
        if not isinstance(rule, Jump):
            return None
        # k is the L0 that further training would steer to; no foreign file says it, and codes do not depend on it.
        sae = cls(d, n, k=min(_L0, n)).to(rule.threshold.dtype)
        sae.load_state_dict({"threshold": rule.threshold.clamp_min(0)}, strict=False)
        return sae

    def __init__(
        self,
        d: int,
        n: int,
        k: int,
        coefficient: float | int = 1.0,
        bandwidth: float | int = 0.5,
        warmup: float | int = 0.1,
        seed: int = 0,
    ) -> None:
        checks = (
            ("k", k, 1 <= k <= n, f"in 1..n = {n}, the L0 of a row"),
            ("coefficient", coefficient, 0 <= coefficient < float("inf"), "at least 0 and finite"),
            ("bandwidth", bandwidth, 0 < bandwidth < float("inf"), "positive and finite"),
            ("warmup", warmup, 0 <= warmup <= 1, "a share in [0, 1]"),
        )
        for name, value, holds, wanted in checks:
            if not holds:
                raise ValueError(f"JumpReLU: {name} must be {wanted}; got {value}.")
        super().__init__(d, n, k=k, coefficient=coefficient, bandwidth=bandwidth, warmup=warmup, seed=seed)
        self.k, self.coefficient, self.bandwidth, self.warmup = k, coefficient, bandwidth, warmup
        self.threshold = nn.Parameter(torch.zeros(n))
        self.register_buffer("width", torch.tensor(0.0))

    width: Tensor

    def sparsify(self, pre: Float[Tensor, "b n"]) -> SparseCode:
        rows, columns = (pre > self.threshold).nonzero(as_tuple=True)
        return sparse.packed(rows, columns, pre[rows, columns], len(pre), self.n)

    @torch.no_grad()
    def start(
        self,
        x: Float[Tensor, "b d"],
        *,
        target: Float[Tensor, "b d"] | None = None,
        centre: Literal["mean", "median"] = "mean",
    ) -> None:
        """As every SAE, with the k largest values of each row; then thresholds where k values a row are above them."""
        self.bias.copy_(x.double().mean(0).to(x.dtype))
        self.encoder.copy_(self.atoms)
        some = self.some_rows(x)
        pre = self.pre_activations(some)
        self.threshold.fill_(max(self._level(pre), 0.0))
        super().start(x, target=target, centre=centre)
        pre = self.pre_activations(some)
        level = self._level(pre)
        self.threshold.fill_(max(level, 0.0))
        self.width.fill_(self.bandwidth * (level if level > 0 else float(pre.std())))

    def _level(self, pre: Float[Tensor, "b n"]) -> float:
        """What k values a row lie above."""
        values = pre.flatten()
        wanted = self.k * len(pre)
        return exchange.current().threshold(values.topk(min(wanted, len(values)), sorted=False).values, wanted)

    def reconstruction(self, x: Float[Tensor, "b d"]) -> tuple[SparseCode, Float[Tensor, "b d"]]:
        code, x_hat, _ = self._jump(x)
        return code, x_hat

    def fit(
        self,
        x: Float[Tensor, "b d"],
        *,
        target: Float[Tensor, "b d"] | None = None,
        scale: float = 1.0,
        progress: float = 0.0,
    ) -> Fit:
        code, x_hat, l0 = self._jump(x)
        loss = self.squared(x_hat, x if target is None else target, scale)
        share = min(progress / self.warmup, 1.0) if self.warmup else 1.0
        return Fit(code, x_hat, loss + share * self.coefficient * (l0 / self.k - 1).square())

    def _jump(self, x: Float[Tensor, "b d"]) -> tuple[SparseCode, Float[Tensor, "b d"], Float[Tensor, ""]]:
        """Code, reconstruction and mean L0, with gradients to theta from every value in the window."""
        rows, columns, values = self._near(x)
        chosen = sparse.Chosen.ragged(rows, columns, len(x), self.n)
        pre = sparse.pre_activations(x, self.encoder, self.encoder_bias, self.bias, values, chosen)
        theta = self.threshold[columns]
        # Before training starts there is no window, and nothing moves theta.
        width = self.width if float(self.width) > 0 else torch.full_like(self.width, torch.inf)
        f, on = _Jump.apply(pre, theta, width)
        x_hat = sparse.decode(f, self.atoms, chosen).add_(self.bias)
        with torch.no_grad():
            above = values > theta
            code = sparse.packed(rows[above], columns[above], f[above], len(x), self.n)
        return code, x_hat, exchange.current().average(on.sum() / len(x))

    @torch.no_grad()
    def _near(self, x: Float[Tensor, "b d"]) -> tuple[Int[Tensor, "m"], Int[Tensor, "m"], Float[Tensor, "m"]]:
        """Everything above its threshold or within half a window below it, in order of row."""
        return sparse.entries(self, x, self.threshold - self.width / 2)[:3]

    @torch.no_grad()
    def constrain(self, *, normalised: bool = False) -> None:
        """Atoms of norm 1; a negative threshold would let a latent subtract its atom."""
        super().constrain(normalised=normalised)
        self.threshold.clamp_(min=0)


class _Jump(torch.autograd.Function):
    """f = p 1[p > theta] and 1[p > theta], with the rectangle kernel in place of the step's derivative."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, theta: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        on = pre > theta
        ctx.save_for_backward(on, (pre - theta).abs() < width / 2, theta, width)
        return torch.where(on, pre, 0.0), on.to(pre.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        on, near, theta, width = ctx.saved_tensors
        df, d_on = gradients
        d_theta = torch.where(near, -(theta * df + d_on) / width, 0.0)
        return torch.where(on, df, 0.0), d_theta, None
