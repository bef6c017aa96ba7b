"""Which read-out predicts the side with the best probabilities?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from .finder import Finder
from .reading import ContrastRows

_STEPS = 100


@final
@dataclass(frozen=True)
class Logistic(Finder):
    r"""$\min_{v, b} \frac1n \sum_i \ln(1 + e^{-y_i (v \cdot x_i + b)}) + \frac\lambda2 \|v\|^2 s^2$, by Newton.

    s^2 is the mean variance of a coordinate, so that lambda means the same whatever the scale of x. Each side weighs
    one half. Solved in the span of the rows, where the solution lies: d may exceed n.

    Args:
        penalty: lambda; above 0, since sides that can be parted have no finite solution without it.

    Raises:
        ValueError: if the penalty is not above 0.

    Source:
        Cox, "The regression analysis of binary sequences", 1958; as a probe, Alain and Bengio, "Understanding
        intermediate layers using linear classifier probes", 2016.
    """

    penalty: float = 0.01

    name = "logistic"

    def __post_init__(self) -> None:
        if not self.penalty > 0:
            raise ValueError(
                f"Logistic: penalty is {self.penalty}; give a number above 0: sides that a plane parts have no finite "
                "solution without one."
            )

    def vector(self, rows: ContrastRows) -> Float[Tensor, "d"]:
        return self._solve(rows)[0]

    def offset(self, rows: ContrastRows, vector: Float[Tensor, "d"]) -> float:
        return self._solve(rows)[1]

    def _solve(self, rows: ContrastRows) -> tuple[Tensor, float]:
        x, labels = rows.x, rows.labels
        middle = x.mean(0)
        U, S, Vh = torch.linalg.svd(x - middle, full_matrices=False)
        kept = S > S.max() * 1e-12
        if not bool(kept.any()):
            return torch.zeros_like(middle), 0.0
        scale = float(S.square().sum() / x.numel()) ** 0.5
        z = torch.cat([(U * S)[:, kept] / scale, x.new_ones(len(x), 1)], 1)
        weights = torch.where(labels == 1, 0.5 / len(rows.positive), 0.5 / len(rows.negative))
        ridge = torch.full((z.shape[1],), self.penalty, dtype=z.dtype)
        ridge[-1] = 0.0
        w = z.new_zeros(z.shape[1])
        value = self._loss(z, labels, weights, ridge, w)
        for _ in range(_STEPS):
            p = torch.sigmoid(z @ w)
            gradient = z.T @ (weights * (p - labels)) + ridge * w
            hessian = (z.T * (weights * p * (1 - p))) @ z + torch.diag(ridge)
            # The offset alone has no penalty; where every p is 0 or 1 its curvature vanishes.
            hessian[-1, -1] += 1e-12
            step = torch.linalg.solve(hessian, gradient)
            size = 1.0
            while (moved := self._loss(z, labels, weights, ridge, w - size * step)) > value and size > 1e-8:
                size /= 2
            w = w - size * step
            done = value - moved <= 1e-14 * max(abs(value), 1e-300)
            value = moved
            if done:
                break
        v = Vh[kept].T @ w[:-1] / scale
        return v, float(w[-1] - v @ middle)

    @staticmethod
    def _loss(z: Tensor, labels: Tensor, weights: Tensor, ridge: Tensor, w: Tensor) -> float:
        read = z @ w
        loss = torch.nn.functional.softplus(read) - labels * read
        return float((weights * loss).sum() + (ridge * w.square()).sum() / 2)
