"""What if what one class has were turned into what another has, at the least change?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..gates import ALWAYS, Clip, fitting
from .edit import Edit
from .erasure import covariance, roots, rows_and_labels


@dataclass(frozen=True, eq=False)
class MidSteer(Edit):
    r"""$x \leftarrow x - s\, \Sigma^{1/2}(\hat s - \hat t)\,\big[\hat s^+ W (x - \mu)\big]_+$.

    $\hat s = W(\mu_\mathrm{source} - \mu)$, $\hat t = W(\mu_\mathrm{target} - \mu)$, $W = \Sigma^{-1/2}$. At s = 1 what
    a row has of the source it has of the target afterwards; at 0 and 2 nothing, and the mirror image. The rectifier is
    a gate (`Clip`): without it rows that have less than none of the source are moved as well. In float64, for the
    roots' sake, until it is applied.

    Args:
        write: $\Sigma^{1/2}(\hat s - \hat t)$.
        read: $W \hat s / |\hat s|^2$; of the LEACE switch $W (\hat s - \hat t) / |\hat s - \hat t|^2$.
        mean: mu.

    Source:
        "MidSteer", ICML 2026 (2605.05220).
    """

    reads: ClassVar[str] = "linear discriminants of the source class"

    write: Float[Tensor, "d"]
    read: Float[Tensor, "d"]
    mean: Float[Tensor, "d"]

    @classmethod
    def fit(
        cls,
        x: Float[Tensor, "rows d"],
        source: Float[Tensor, "a d"],
        target: Float[Tensor, "b d"],
        *,
        clip: bool = True,
        switch: bool = False,
        strength: float = 1.0,
    ) -> MidSteer:
        """From rows of everything, of the source class and of the target class.

        Args:
            x: of everything: mu and Sigma.
            source, target: of either class.
            clip: whether rows are moved only where the read-out is positive.
            switch: read the difference of the classes (LEACE switch) and not the source.
            strength: of the edit.

        Raises:
            ShapeError, ValueError: if there are too few rows, or the source does not differ from the rest.
        """
        rows, _ = rows_and_labels("MidSteer.fit", x, x[:, :1])
        mean = rows.mean(0)
        whiten, back = roots(covariance(rows, rows))
        first = whiten @ (source.double().mean(0) - mean)
        last = whiten @ (target.double().mean(0) - mean)
        axis = first - last if switch else first
        size = float(axis @ axis)
        if not size > 0:
            raise ValueError(
                "MidSteer.fit: the source class has the mean of everything, so nothing tells it; give others."
            )
        read = whiten @ axis / size
        gate = Clip(read, 0.0, -float(read @ mean)) if clip else ALWAYS
        return cls(back @ (first - last), read, mean, strength=strength, gate=gate)

    @property
    def d(self) -> int:
        return len(self.mean)

    def change(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        return -torch.outer((x - fitting(self.mean, x)) @ fitting(self.read, x), fitting(self.write, x))
