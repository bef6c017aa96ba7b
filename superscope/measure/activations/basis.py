"""Are the axes of a layer special, or would any rotation of them do as well? The privileged basis, of activations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import Measurement
from ..stream import Rows, read

_LIGHTER = "lighter-tailed than random rotations: a few coordinates hold the tails, which turning spreads over all"


@dataclass(frozen=True, eq=False)
class PrivilegedBasis:
    """How far the axes differ from random ones.

    Args:
        measurement: `basis_kurtosis`, the mean over coordinates.
        p: share of rotations (the axes themselves counted) whose coordinates are at least as heavy-tailed.
        kurtosis: of each coordinate.
        null: mean over coordinates, under each rotation.
    """

    measurement: Measurement
    p: float
    kurtosis: Float[Tensor, "d"]
    null: Float[Tensor, "rotations"]


@torch.no_grad()
def privileged_basis(rows: Rows, *, most: int = 8192, rotations: int = 99, seed: int = 0) -> PrivilegedBasis:
    r"""$\frac1d \sum_c (m_4 / m_2^2 - 3)$ of the coordinates of x, against coordinates of x turned at random.

    Where axes mean something (neurons behind a nonlinearity) each coordinate is silent mostly and large now and then,
    so that its tails are heavy; a random rotation mixes d of them and takes most of that away. Where the network could
    be turned without any difference the axes are as good as their rotations. Rotations keep all tails and clusters of
    x, so that only the axes are put to the test; adaptive optimisers and layer norms alone can make axes of a residual
    stream special, without any neuron there. Where few coordinates hold most of the variance and of the tails, every
    rotation has its share of them and the axes' *mean* is the lighter one: then the caution says so.

    Args:
        rows: a source, or batches.
        most: rows read at most.
        rotations: drawn uniformly (Haar); the smallest p is 1 / (rotations + 1).
        seed: of rotations and rows.

    Raises:
        ValueError: if x has one coordinate, fewer than 100 rows, or fewer than two coordinates that vary; or with fewer
            than 19 rotations.

    Source:
        Elhage, Lasenby and Olah, "Privileged bases in the transformer residual stream", 2023 (kurtosis; their null is
        the Gaussian's 3, which any heavy-tailed x exceeds along every direction).
    """
    if rotations < 19:
        raise ValueError(f"privileged_basis: rotations must be at least 19, or no p reaches 0.05; got {rotations}.")
    parts: list[Tensor] = []
    for batch in read(rows, size=min(4096, most), seed=seed):
        parts.append(batch.x.float().cpu())
        if sum(map(len, parts)) >= most:
            break
    x = torch.cat(parts)[:most]
    if x.shape[1] < 2:
        raise ValueError("privileged_basis: x has 1 coordinate; in one dimension there is nothing to turn.")
    if len(x) < 100:
        raise ValueError(f"privileged_basis: {len(x)} rows are too few for tails; give at least 100.")
    x = x - x.mean(0)
    varies = x.square().mean(0) > 1e-10 * x.square().mean()
    if int(varies.sum()) < 2:
        raise ValueError("privileged_basis: fewer than two coordinates vary, so there is nothing to turn.")
    each = _kurtosis(x)
    observed = float(each[varies].mean())
    random = torch.Generator().manual_seed(seed)
    d = x.shape[1]
    null = torch.empty(rotations, dtype=torch.float64)
    for r in range(rotations):
        # A few hundred directions of a rotation tell its mean as well as all of them.
        frame = torch.linalg.qr(torch.randn(d, min(d, 256), generator=random, dtype=torch.float64)).Q.float()
        null[r] = float(_kurtosis(x @ frame).mean())
    p = (1 + int((null >= observed).sum())) / (rotations + 1)
    lighter = (1 + int((null <= observed).sum())) / (rotations + 1)
    low, high = (float(null.quantile(q)) for q in (0.025, 0.975))
    return PrivilegedBasis(
        measurement=Measurement(
            name="basis_kurtosis",
            value=observed,
            unit="excess kurtosis",
            n=int(varies.sum()),
            of="coordinates",
            how="exact for these rows; chance varies with the rotation",
            chance=float(null.mean()),
            chance_is=f"random rotations (95 %: {low:.3g} to {high:.3g}; p = {p:.3g} from {rotations})",
            caution="" if p < 0.05 else _LIGHTER if lighter < 0.05 else "not distinguishable from random rotations",
        ),
        p=p,
        kurtosis=each.double(),
        null=null,
    )


def _kurtosis(x: Float[Tensor, "rows m"]) -> Float[Tensor, "m"]:
    square = x.square()
    second = square.mean(0)
    return square.square().mean(0) / second.square().clamp(min=1e-30) - 3
