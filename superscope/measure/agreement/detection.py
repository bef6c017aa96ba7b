"""Which features are missed, the rare ones? The share of a known truth that was learned, by how often it is active."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ...core import Dictionary, Measured, Measurement, ShapeError
from ..interval import bootstrap, over_seeds, wilson
from .matching import pairs_above
from .stability import random_atoms

_STEPS = (1.0, 2.0, 5.0)
_OWN_STREAM = 0x5EED_0001


@dataclass(frozen=True, eq=False)
class Detection(Measured):
    """What `detection` measured; iterating gives the measurements.

    Args:
        measurements: `detected_share` of each bin of densities, from the rarest on, and `detection_auc`.
        detected: for each feature whether an atom of its own was learned.
    """

    measurements: tuple[Measurement, ...]
    detected: Bool[Tensor, "n"]

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements)


@torch.no_grad()
def detection(
    found: Dictionary,
    truth: Dictionary,
    density: Float[Tensor, "n"],
    *,
    threshold: float = 0.9,
    draws: int = 3,
    seed: int = 0,
) -> Detection:
    r"""$P(\text{detected} \mid \log_{10} p)$: of the features of a density, the share with an atom of its own.

    A feature is detected if it is in a largest one-to-one pairing of true and learned atoms with signed cosine above
    the threshold, as in `atom_recall`, which is the mean of this curve over all features.

    - `detected_share`: for each bin of densities [1, 2), [2, 5), [5, 10) times a power of ten that holds a feature,
      with Wilson's interval. Chance: random dictionaries of as many atoms.
    - `detection_auc`: probability that a detected feature is denser than a missed one (ties count half): 1/2 if density
      plays no part, 1 if just the rarest are missed. None where none or all are detected.

    Features of density 0 are in no bin: on these rows they never occurred, and nothing is known of how rare they are.

    Args:
        found: learned atoms.
        truth: atoms of the n features.
        density: P(f_j != 0) of each, known or counted.
        threshold: cosine in (0, 1) above which two atoms are the same.
        draws: random dictionaries for chance; 0 leaves chance out.
        seed: of those and of the bootstrap.

    Raises:
        ShapeError: if found and truth differ in d, or density and truth in n.
        ValueError: if threshold is outside (0, 1), a density outside [0, 1], or an atom is zero.

    Source:
        Ours; that recovered features are the frequent ones is reported by Korznikov et al., "Sanity checks for sparse
        autoencoders", 2026.

    Example:
        >>> curve = detection(Dictionary(torch.eye(3)[:2]), Dictionary(torch.eye(3)), torch.tensor([0.3, 0.3, 0.015]))
        >>> [(m.at["density"], m.value) for m in curve if m.name == "detected_share"]
        [('0.01 to 0.02', 0.0), ('0.2 to 0.5', 1.0)]
        >>> curve["detection_auc"].value
        1.0
    """
    if found.d != truth.d:
        raise ShapeError(f"detection: the dictionaries have d = {found.d} and d = {truth.d}. Give two of one space.")
    if len(density) != truth.n:
        raise ShapeError(f"detection: {len(density)} densities for {truth.n} features. Give one each.")
    if not 0 < threshold < 1:
        raise ValueError(f"detection: threshold must be a cosine in (0, 1); got {threshold}.")
    p = density.double().cpu().numpy()
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("detection: a density lies outside [0, 1]. Give the share of rows where a feature is active.")
    a, b = (W.unit().atoms.detach().double().cpu() for W in (found, truth))
    hit = pairs_above(b, a, threshold) >= 0
    generator = torch.Generator().manual_seed(seed + _OWN_STREAM)
    by_chance = [
        pairs_above(b, random_atoms(found.n, found.d, generator).double(), threshold) >= 0 for _ in range(draws)
    ]
    occurs = p > 0
    edges = _edges(p[occurs])
    place = np.searchsorted(edges, p, side="right") - 1
    measurements = []
    for i, (low, high) in enumerate(itertools.pairwise(edges)):
        within = (place == i) & occurs
        if not within.any():
            continue
        count = int(within.sum())
        shares = [float(c[within].mean()) for c in by_chance]
        measurements.append(
            Measurement(
                name="detected_share",
                value=float(hit[within].mean()),
                unit="share",
                n=count,
                of="features",
                reference=1.0,
                reference_is="all of them",
                chance=sum(shares) / len(shares) if shares else None,
                chance_is=f"random dictionaries, {over_seeds(shares, of='draws').how}" if shares else "",
                at={"density": f"{low:g} to {high:g}", "threshold": threshold},
                **wilson(int(hit[within].sum()), count, of="features").fields,
            )
        )
    measurements.append(_auc(p[occurs], hit[occurs], seed))
    return Detection(tuple(measurements), torch.from_numpy(hit))


def _edges(p: np.ndarray) -> np.ndarray:
    """1, 2 and 5 times powers of ten, from at most the smallest to above the largest density."""
    if not len(p):
        return np.zeros(0)
    first, last = math.floor(math.log10(p.min())), math.floor(math.log10(p.max())) + 1
    # Read back from their decimal form, so that an edge is the number that it is printed as.
    return np.array([float(f"{step:g}e{power}") for power in range(first, last + 1) for step in _STEPS])


def _auc(p: np.ndarray, hit: np.ndarray, seed: int) -> Measurement:
    about = {"name": "detection_auc", "unit": "probability", "n": len(p), "of": "features that occur"}
    if not len(p) or hit.all() or not hit.any():
        which = "no feature is" if not len(p) or not hit.any() else "every feature is"
        return Measurement(value=None, caution=f"{which} detected, so there are no two groups to compare", **about)
    if p.min() == p.max():
        return Measurement(value=None, caution="all features are equally dense", **about)
    levels, place = np.unique(p, return_inverse=True)
    # For each feature a row of counts: of detected and of missed ones at each density.
    counts = np.zeros((len(p), 2 * len(levels)))
    counts[np.arange(len(p)), place + len(levels) * ~hit] = 1

    def auc(s: np.ndarray) -> np.ndarray:
        found, missed = s[:, : len(levels)], s[:, len(levels) :]
        below = missed.cumsum(1) - missed / 2
        pairs = found.sum(1) * missed.sum(1)
        return np.divide((found * below).sum(1), pairs, out=np.full(len(s), 0.5), where=pairs > 0)

    return Measurement(
        value=float(auc(counts.sum(0)[None])[0]),
        reference=1.0,
        reference_is="just the rarest are missed",
        chance=0.5,
        chance_is="density plays no part",
        **about,
        **bootstrap(auc, counts, of="features", draws=200, seed=seed).fields,
    )
