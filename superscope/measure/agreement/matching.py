"""How well the atoms of two dictionaries correspond, and how well random ones would."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ...core import Dictionary, Measurement, ShapeError
from ..interval import over_seeds
from ..metric import metric
from .stability import random_atoms

_BLOCK = 2**24


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


def _mean_nearest(a: Tensor, b: Tensor) -> float:
    size = max(_BLOCK // len(b), 1)
    return float(torch.cat([(block @ b.T).amax(1) for block in a.split(size)]).mean())


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
    return _measured("mean_matched_cosine", value, pairs, "matched pairs", chance, "a random dictionary")


@metric(range=(-1.0, 1.0), unit="cosine", invariant=("rotation", "permutation", "scale"))
def mean_nearest_cosine(found: Dictionary, truth: Dictionary, *, draws: int = 3, seed: int = 0) -> Measurement:
    r"""MMCS: $\frac1{n'} \sum_j \max_i \langle \hat a_i, \hat b_j \rangle$ over the true atoms j.

    How much of the truth is found, like recall; with the dictionaries exchanged, how much of what is found is true,
    like precision. Neither alone says much: `mean_nearest_cosines` gives both. Signed; several true atoms may share a
    found one. Chance: `found` replaced by uniform random directions.

    Raises:
        ShapeError: if the dictionaries differ in d.
        ValueError: if an atom is zero.

    Source:
        Sharkey, Braun and Millidge, "Taking features out of superposition with sparse autoencoders", 2022.

    Example:
        >>> mean_nearest_cosine(Dictionary(torch.eye(3)), Dictionary(torch.eye(3)[:2])).value
        1.0
    """
    a, b = _checked(found, truth, "mean_nearest_cosine")
    value = max(-1.0, min(1.0, _mean_nearest(b, a)))
    chance = [_mean_nearest(b, c) for c in _chance(found, draws, seed)]
    return _measured(
        "mean_nearest_cosine", value, truth.n, "true atoms", chance, "a random dictionary in place of the found"
    )


def mean_nearest_cosines(
    found: Dictionary, truth: Dictionary, *, draws: int = 3, seed: int = 0
) -> tuple[Measurement, ...]:
    """Both directions of `mean_nearest_cosine`: `truth_in_found`, like recall, and `found_in_truth`, like precision."""
    recall = mean_nearest_cosine(found, truth, draws=draws, seed=seed)
    a, b = _checked(found, truth, "mean_nearest_cosines")
    chance = [_mean_nearest(c, b) for c in _chance(found, draws, seed)]
    precision = _measured(
        "found_in_truth",
        _mean_nearest(a, b),
        found.n,
        "found atoms",
        chance,
        "a random dictionary in place of the found",
    )
    return dataclasses.replace(recall, name="truth_in_found"), precision
