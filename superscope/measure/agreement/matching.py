"""How well the atoms of two dictionaries correspond, and how well random ones would."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching
from torch import Tensor

from ...core import Dictionary, Measurement, ShapeError
from ..interval import over_seeds
from ..metric import metric
from .stability import near_pairs, random_atoms

_BLOCK = 2**24
_RANDOM = "a random dictionary in place of the learned"


@dataclass(frozen=True, eq=False)
class Matching:
    """A one-to-one correspondence of atoms.

    Args:
        first, second: atom numbers in the two dictionaries, paired; as many pairs as the smaller one has atoms.
        cosines: of each pair; magnitudes unless the matching was signed.
    """

    first: Int[Tensor, "pairs"]
    second: Int[Tensor, "pairs"]
    cosines: Float[Tensor, "pairs"]


def _checked(a: Dictionary, b: Dictionary, who: str) -> tuple[Tensor, Tensor]:
    if a.d != b.d:
        raise ShapeError(f"{who}: the dictionaries have d = {a.d} and d = {b.d}. Compare dictionaries of one space.")
    return tuple(W.unit().atoms.detach().double().cpu() for W in (a, b))  # type: ignore[return-value]


@torch.no_grad()
def match(a: Dictionary, b: Dictionary, *, signed: bool = False) -> Matching:
    r"""The permutation that maximises $\sum_i |\langle \hat a_i, \hat b_{\pi(i)} \rangle|$ (Hungarian algorithm).

    Costs O(n^3) time at worst and O(n_a n_b) memory.

    Args:
        signed: match cosines, not their magnitudes: for dictionaries of nonnegative codes.

    Raises:
        ShapeError: if the dictionaries differ in d.
        ValueError: if an atom is zero.

    Example:
        >>> match(Dictionary(torch.eye(3)), Dictionary(torch.eye(3)[[2, 0, 1]])).second.tolist()
        [1, 2, 0]
    """
    first, second = _checked(a, b, "match")
    overlap = first @ second.T
    if not signed:
        overlap = overlap.abs()
    i, j = linear_sum_assignment(overlap.numpy(), maximize=True)
    rows, columns = torch.from_numpy(i), torch.from_numpy(j)
    return Matching(rows, columns, overlap[rows, columns])


def nearest_rows(
    a: Float[Tensor, "_ d"], b: Float[Tensor, "_ d"], *, signed: bool = True
) -> tuple[Float[Tensor, "_"], Int[Tensor, "_"]]:
    """For each unit row of a the largest cosine (or magnitude) with a unit row of b, and which row."""
    best = []
    for block in a.split(max(_BLOCK // len(b), 1)):
        cosine = block @ b.T
        best.append((cosine if signed else cosine.abs()).max(1))
    return torch.cat([m.values for m in best]), torch.cat([m.indices for m in best])


def pairs_above(a: Float[Tensor, "_ d"], b: Float[Tensor, "_ d"], threshold: float) -> np.ndarray:
    """For each unit row of a its partner in a largest one-to-one pairing of cosines above the threshold; -1 without."""
    i, j, _ = near_pairs(a, b, threshold)
    graph = csr_matrix((np.ones(len(i), dtype=np.int8), (i, j)), shape=(len(a), len(b)))
    return maximum_bipartite_matching(graph, perm_type="column")


def _mean_nearest(a: Tensor, b: Tensor) -> float:
    return float(nearest_rows(a, b)[0].mean())


def _chance(of: Dictionary, draws: int, seed: int) -> list[Tensor]:
    # Not the generator that a random frame of the same seed is drawn from: a truth must not be its own chance level.
    generator = torch.Generator().manual_seed(seed + 2**40)
    return [random_atoms(of.n, of.d, generator).double() for _ in range(draws)]


def _measured(name: str, value: float, n: int, of: str, chance: list[float], what: str) -> Measurement:
    spread = over_seeds(chance, of="draws")
    span = "" if spread.low is None else f", {len(chance)} draws ({spread.low:.3f} to {spread.high:.3f})"
    return Measurement(
        name=name,
        value=value,
        unit="cosine",
        n=n,
        of=of,
        how="no interval: one pair of dictionaries",
        reference=1.0,
        reference_is="identical atoms",
        chance=sum(chance) / len(chance) if chance else None,
        chance_is=what + span if chance else "",
    )


@metric(range=(0.0, 1.0), unit="cosine", invariant=("rotation", "permutation", "scale", "sign"))
def mean_matched_cosine(found: Dictionary, truth: Dictionary, *, draws: int = 3, seed: int = 0) -> Measurement:
    r"""MCC: the mean of $|\langle \hat a_i, \hat b_{\pi(i)} \rangle|$ over the best one-to-one matching $\pi$.

    Over min(n, n') pairs: a dictionary wider than the truth picks the best of many, a narrower one hides what it
    misses. A random dictionary scores 0.87 at d = 5, n = 40 against 20 and 0.14 at d = 768, n = 1 024 against 4 096:
    read it beside its chance level, made from `found` replaced by uniform random directions. The sign is dropped.

    Raises:
        ShapeError: if the dictionaries differ in d.
        ValueError: if an atom is zero.

    Source:
        Hyvarinen and Morioka, "Unsupervised feature extraction by time-contrastive learning and nonlinear ICA", 2016,
        for the score on signals; on atoms as in Chanin and Garriga-Alonso, "SynthSAEBench", 2026.
    """
    value = float(match(found, truth).cosines.mean().clamp(max=1))
    chance = [float(match(Dictionary(a), truth).cosines.mean()) for a in _chance(found, draws, seed)]
    pairs = min(found.n, truth.n)
    return _measured("mean_matched_cosine", value, pairs, "matched pairs", chance, _RANDOM)


@metric(range=(-1.0, 1.0), unit="cosine", invariant=("rotation", "permutation", "scale"))
def feature_nearest_cosine(found: Dictionary, truth: Dictionary, *, draws: int = 3, seed: int = 0) -> Measurement:
    r"""MMCS of the truth: $\frac1{n} \sum_j \max_i \langle \hat a_i, \hat b_j \rangle$ over the n true atoms $b_j$.

    How much of the truth is there, like recall; `latent_nearest_cosine` is the other side, like precision. Neither
    alone says much. Signed; several true atoms may share a learned one. Chance: `found` replaced by uniform random
    directions.

    Raises:
        ShapeError: if the dictionaries differ in d.
        ValueError: if an atom is zero.

    Source:
        Sharkey, Braun and Millidge, "Taking features out of superposition with sparse autoencoders", 2022.

    Example:
        >>> feature_nearest_cosine(Dictionary(torch.eye(3)), Dictionary(torch.eye(3)[:2])).value
        1.0
    """
    a, b = _checked(found, truth, "feature_nearest_cosine")
    value = max(-1.0, min(1.0, _mean_nearest(b, a)))
    chance = [_mean_nearest(b, c) for c in _chance(found, draws, seed)]
    return _measured("feature_nearest_cosine", value, truth.n, "true atoms", chance, _RANDOM)


@metric(range=(-1.0, 1.0), unit="cosine", invariant=("rotation", "permutation", "scale"))
def latent_nearest_cosine(found: Dictionary, truth: Dictionary, *, draws: int = 3, seed: int = 0) -> Measurement:
    r"""MMCS of what was learned: $\frac1{n'} \sum_i \max_j \langle \hat a_i, \hat b_j \rangle$ over its n' atoms $a_i$.

    How much of what was learned is true, like precision; it does not fall for features that are missed. Signed; several
    learned atoms may share a true one. Chance: `found` replaced by uniform random directions.

    Raises:
        ShapeError: if the dictionaries differ in d.
        ValueError: if an atom is zero.

    Source:
        Sharkey, Braun and Millidge, "Taking features out of superposition with sparse autoencoders", 2022.

    Example:
        >>> latent_nearest_cosine(Dictionary(torch.eye(3)[:2]), Dictionary(torch.eye(3))).value
        1.0
    """
    a, b = _checked(found, truth, "latent_nearest_cosine")
    value = max(-1.0, min(1.0, _mean_nearest(a, b)))
    chance = [_mean_nearest(c, b) for c in _chance(found, draws, seed)]
    return _measured("latent_nearest_cosine", value, found.n, "learned atoms", chance, _RANDOM)
