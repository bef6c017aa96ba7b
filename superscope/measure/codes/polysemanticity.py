"""Which features each neuron mixes, and whether it mixes more of them than any direction would.

A neuron is one coordinate of x. Where x has no privileged basis a coordinate is an arbitrary direction, and its mixing
says nothing about superposition: hence the comparison with random rotations, in which the coordinates mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core import Dictionary, Measured, Measurement, SparseCoder
from ..interval import Interval, jackknife, over_seeds
from ..stream import BlockSums, Groups, Rows, read

_BLOCK = 2**23


@dataclass(frozen=True, eq=False)
class Mixing(Measured):
    """What `polysemanticity` found, per neuron; iterating gives the measurements.

    Args:
        measurements: `polysemanticity`, the median over neurons of effective features.
        effective_features: of each neuron; NaN where no feature reaches it.
        explained: the share of each neuron's variance that the reconstruction explains; NaN where it does not vary.
        features: each neuron's largest features, largest first.
        shares: their attribution shares.
        signs: +1 where the feature raises the neuron, -1 where it lowers it, 0 for none.
        rotated: effective features of random directions, for the histogram beside.
    """

    measurements: tuple[Measurement, ...]
    effective_features: Float[Tensor, "d"]
    explained: Float[Tensor, "d"]
    features: Int[Tensor, "d top"]
    shares: Float[Tensor, "d top"]
    signs: Float[Tensor, "d top"]
    rotated: Float[Tensor, "directions"]

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements)


@torch.no_grad()
def effective_features(
    W: Dictionary, mass: Float[Tensor, "n"], directions: Float[Tensor, "d m"] | None = None
) -> Float[Tensor, "m"]:
    r"""$N_1 = \exp(-\sum_i s_{ij} \ln s_{ij})$ with $s_{ij} = E|w_{ij} f_i| / \sum_l E|w_{lj} f_l|$, for each neuron j.

    The number of features that, contributing alike, would be as mixed; 1 for a neuron that one feature drives. No
    threshold. $E|w_{ij} f_i| = |w_{ij}| E|f_i|$, so the mean magnitudes of the features are all that is needed.

    Args:
        W: the features' directions.
        mass: E|f_i|.
        directions: orthonormal columns to use in place of the coordinate axes.

    Returns:
        One number per direction, in [1, n]; NaN where no feature reaches it. Memory O(block), time O(n d) for axes.

    Example:
        >>> effective_features(Dictionary(torch.eye(2)), torch.ones(2)).tolist()
        [1.0, 1.0]
    """
    atoms, mass = W.atoms.detach().double().cpu(), mass.double().cpu()
    columns = W.d if directions is None else directions.shape[1]
    size = max(_BLOCK // W.n, 1)
    found = []
    for start in range(0, columns, size):
        if directions is None:
            block = atoms[:, start : start + size]
        else:
            block = atoms @ directions[:, start : start + size].double()
        weight = block.abs() * mass[:, None]
        total = weight.sum(0)
        entropy = total.log() - torch.xlogy(weight, weight).sum(0) / total
        # Rounding may put a single feature's entropy at -1e-16.
        found.append(entropy.clamp(min=0).exp())
    return torch.cat(found)


def random_directions(d: int, m: int, generator: torch.Generator) -> Float[Tensor, "d m"]:
    """The first m columns of a rotation drawn uniformly (Haar)."""
    q, r = torch.linalg.qr(torch.randn(d, m, generator=generator, dtype=torch.float64))
    # QR alone fixes the signs of the columns; the signs of R's diagonal make the draw uniform.
    return q * r.diagonal().sign()


@torch.no_grad()
def polysemanticity(
    coder: SparseCoder,
    rows: Rows,
    *,
    documents: Int[Tensor, "sequences"] | None = None,
    batches: int | None = None,
    size: int = 4096,
    top: int = 8,
    draws: int = 3,
    seed: int = 0,
) -> Mixing:
    r"""The median over neurons of `effective_features`, beside the same under random rotations of R^d.

    A neuron's value is x_j = sum_i W_ji f_i + b_j + error: each feature's share is in proportion to E|W_ji f_i| over
    tokens. Below chance the axes are privileged: neurons mix fewer features than random directions do. At chance the
    number says how many features the layer mixes in any direction, and nothing about its neurons. What the code leaves
    unexplained is not attributed: see `explained`, and trust a neuron's features only where it is large.

    One pass over the rows; memory O(n d). At most 512 random directions per draw.

    Args:
        coder: an SAE, or another coder with its dictionary.
        rows: a source, or batches.
        documents: the document of each sequence, for the interval.
        batches: read at most so many of them; None reads one epoch.
        size: rows per batch asked of a source.
        top: features listed per neuron.
        draws: random rotations; 0 leaves chance out.
        seed: of the source's order and of the rotations.

    Raises:
        ValueError: if there is nothing to read, or no latent fires.
    """
    W = coder.dictionary
    groups, mass = Groups(documents), BlockSums((W.n,))
    shift = residual = first = second = torch.zeros(0)
    tokens = 0
    for batch in read(rows, size=size, most=batches, seed=seed):
        x = batch.x.double()
        if not tokens:
            shift, residual = x.mean(0), x.new_zeros(W.d)
            first, second = x.new_zeros(W.d), x.new_zeros(W.d)
        code = coder.encode(batch.x)
        residual += (x - coder.decode(code).double()).square().sum(0)
        first += (x - shift).sum(0)
        second += (x - shift).square().sum(0)
        block = torch.from_numpy(mass.numbers(groups(batch)))[:, None].expand(code.values.shape)
        flat = (block * W.n + code.indices.cpu()).reshape(-1)
        values = code.values.double().abs().cpu().reshape(-1)
        mass.sums += torch.bincount(flat, values, minlength=mass.sums.size).reshape(mass.sums.shape).numpy()
        tokens += len(x)
    total = torch.from_numpy(mass.used.sum(0)) / tokens
    if not bool((total > 0).any()):
        raise ValueError("polysemanticity: no latent fires on these rows, so no neuron's value can be attributed.")
    variance = second - first.square() / tokens
    # Rounding leaves a constant neuron with a variance of 1e-16 of its square.
    varies = variance > 1e-10 * (second + tokens * shift.square()) + 1e-300
    explained = torch.where(varies, 1 - residual / variance.clamp(min=1e-300), torch.nan).cpu()
    numbers = effective_features(W, total)

    strength = W.atoms.detach().double().cpu().T * total
    shares, features = (strength.abs() / strength.abs().sum(1, keepdim=True)).topk(min(top, W.n), dim=1)
    shares = shares.nan_to_num(0.0)
    signs = strength.gather(1, features).sign()

    generator = torch.Generator().manual_seed(seed)
    rotated = [effective_features(W, total, random_directions(W.d, min(W.d, 512), generator)) for _ in range(draws)]
    chance = [float(r.nanmedian()) for r in rotated]
    spread = over_seeds(chance, of="rotations")
    reached = int(numbers.isfinite().sum())
    measured = Measurement(
        name="polysemanticity",
        value=_median(numbers),
        unit="features per neuron",
        n=reached,
        of="neurons",
        reference=1.0,
        reference_is="one feature per neuron",
        chance=sum(chance) / len(chance) if chance else None,
        chance_is=f"{draws} random rotations ({spread.low:.1f} to {spread.high:.1f})"
        if spread.low is not None
        else f"{draws} random rotation",
        caution="" if reached == W.d else f"{W.d - reached} neurons that no feature reaches are left out",
        **_interval(W, mass, groups.of).fields,
    )
    return Mixing(
        measurements=(measured,),
        effective_features=numbers,
        explained=explained,
        features=features,
        shares=shares,
        signs=signs,
        rotated=torch.cat(rotated) if rotated else torch.zeros(0, dtype=torch.float64),
    )


def _median(numbers: Float[Tensor, "d"]) -> float:
    """The middle, or the mean of the two middle ones, of the finite numbers."""
    return float(np.nanmedian(numbers.numpy()))


def _interval(W: Dictionary, mass: BlockSums, of: str) -> Interval:
    # Each of the leave-outs costs n d; past this it would take longer than reading the rows.
    if W.n * W.d * mass.filled > 2**33:
        return Interval(None, None, "no interval: the dictionary is too large to repeat the measurement")
    return jackknife(
        lambda m: _median(effective_features(W, torch.from_numpy(np.maximum(m, 0.0)))),
        mass.used,
        of=f"groups of {of}",
        logarithmic=True,
    )
