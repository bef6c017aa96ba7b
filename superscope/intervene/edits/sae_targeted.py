"""What moves one latent of a dictionary and, on average, no other? Learned from the effects of many directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import ShapeError
from ..gates import check_direction, fitting
from .edit import Edit


@dataclass(frozen=True, eq=False)
class SaeTargeted(Edit):
    r"""$v = \mathrm{unit}\big(\mathrm{unit}(M e_i) - \mathrm{unit}(M b)\big)$, where effects are $y \approx v M + b$.

    y is the mean change of every latent when v is added: M says which direction moves which latent, b what any
    direction of that length does.

    Args:
        direction: what is added at strength 1, of norm 1 unless it was scaled.

    Source:
        Chalnev et al., "Improving steering vectors by targeting sparse autoencoder features" (SAE-TS), 2024.
    """

    reads: ClassVar[str] = "nothing of x; that latents answer linearly to what is added"

    direction: Float[Tensor, "d"]

    def check(self) -> None:
        check_direction("SaeTargeted", self.direction)

    @classmethod
    def fit(
        cls,
        directions: Float[Tensor, "m d"],
        effects: Float[Tensor, "m n"],
        latent: int,
        *,
        ridge: float = 1e-3,
        strength: float = 1.0,
    ) -> SaeTargeted:
        """From directions that were tried and what each did to the latents.

        Args:
            directions: v, one a row, more of them than d unless the ridge is to choose.
            effects: y, mean change of each latent.
            latent: i, the one that is to move.
            ridge: in mean squared lengths of a direction.
            strength: of the edit.

        Raises:
            ShapeError: if there is not one row of effects to each direction.
            ValueError: if there is no such latent, or nothing ever moved it.
        """
        if len(directions) != len(effects):
            raise ShapeError(f"SaeTargeted.fit: {len(effects)} rows of effects of {len(directions)} directions.")
        if not 0 <= latent < effects.shape[1]:
            raise ValueError(f"SaeTargeted.fit: there is no latent {latent} among {effects.shape[1]}.")
        v, y = directions.double(), effects.double()
        mean_v, mean_y = v.mean(0), y.mean(0)
        centred = v - mean_v
        gram = centred.T @ centred
        gram = gram + ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64, device=gram.device)
        m = torch.linalg.solve(gram, centred.T @ (y - mean_y))
        b = mean_y - mean_v @ m
        if float(m[:, latent].norm()) == 0:
            raise ValueError(f"SaeTargeted.fit: no direction moved latent {latent}; try directions near its atom.")
        away = m @ b
        # Where directions do nothing in common there is nothing to turn away from.
        common = float(b.norm()) > 1e-6 * float(y.norm()) / len(y) ** 0.5
        away = away / away.norm() if common else torch.zeros_like(away)
        target = m[:, latent] / m[:, latent].norm() - away
        return cls(target / target.norm(), strength=strength)

    @property
    def d(self) -> int:
        return len(self.direction)

    def change(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "d"]:
        return fitting(self.direction, x)
