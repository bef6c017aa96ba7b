"""What share of a site's worth to the model survives a reconstruction, in KL divergence from the model itself?"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core import Measurement, ShapeError
from ..interval import bootstrap
from ..stream import GroupSums


def divergence_recovered(
    spliced: Float[Tensor, "sequences"],
    ablated: Float[Tensor, "_"],
    tokens: Int[Tensor, "_"],
    *,
    documents: Int[Tensor, "sequences"] | None = None,
    ablation: str = "mean",
    seed: int = 0,
) -> tuple[Measurement, Measurement]:
    r"""$1 - \mathrm{KL}_{spliced} / \mathrm{KL}_{ablated}$, and the divergence itself in nats per token.

    Unlike the cross-entropy, which a reconstruction may better on tokens that the model gets wrong, the divergence from
    the model's own predictions is 0 only where they are unchanged.

    Args:
        spliced: summed divergence of each sequence with x reconstructed (`intervene.side_effects.divergences`).
        ablated: the same with x replaced by its mean, or by 0.
        tokens: positions of each sequence that the sums are over.
        documents: of each sequence, to resample by.
        ablation: "mean" or "zero".
        seed: of the bootstrap.

    Raises:
        ShapeError: if the three differ in length.
        ValueError: if no token is predicted, or a number is not finite.

    Source:
        Karvonen et al., "SAEBench", 2025 (arXiv 2503.09532), with zero ablation.
    """
    if not len(spliced) == len(ablated) == len(tokens):
        raise ShapeError(
            f"divergence_recovered: {len(spliced)}, {len(ablated)} and {len(tokens)} sequences; give as many of each."
        )
    table = torch.stack([spliced.double(), ablated.double(), tokens.double()], 1).cpu().numpy()
    if not np.isfinite(table).all() or table[:, 2].sum() < 1:
        raise ValueError("divergence_recovered: divergences must be finite and at least one token predicted.")
    grouped, of = GroupSums(3), "sequences" if documents is None else "documents"
    grouped.add(np.arange(len(table)) if documents is None else documents.cpu().numpy(), table)
    sums = grouped.sums
    total = sums.sum(0)
    n = int(total[2])
    worth = float(total[1] / n)
    at = {"ablation": ablation}
    nats = Measurement(
        name="divergence_added",
        value=float(total[0] / n),
        unit="nats per token",
        n=n,
        of="tokens",
        reference=worth,
        reference_is=f"{ablation} ablation",
        at=at,
        **bootstrap(lambda s: s[:, 0] / s[:, 2], sums, of=of, seed=seed).fields,
    )
    if worth <= 0:
        share = Measurement(
            name="divergence_recovered", value=None, unit="share", n=n, of="tokens", at=at,
            caution=f"{ablation} ablation changes no prediction here, so there is nothing to recover",
        )  # fmt: skip
        return share, nats

    def recovered(s: np.ndarray) -> np.ndarray:
        return 1 - np.divide(s[:, 0], s[:, 1], out=np.full(len(s), math.nan), where=s[:, 1] > 0)

    share = Measurement(
        name="divergence_recovered",
        value=float(1 - total[0] / total[1]),
        unit="share",
        n=n,
        of="tokens",
        reference=1.0,
        reference_is="the model untouched",
        chance=0.0,
        chance_is=f"{ablation} ablation",
        at=at,
        **bootstrap(recovered, sums, of=of, seed=seed).fields,
    )
    return share, nats
