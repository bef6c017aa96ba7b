"""Consensus of dictionaries: what is counted, what is not, and whether the extrapolation finds the true number."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from superscope.core import ShapeError
from superscope.frames import random_unit
from superscope.measure.counts import Consensus, consensus, richness

D = 32


def atoms(n: int, seed: int = 0) -> Tensor:
    return random_unit(n=n, d=D, seed=seed).atoms


def shuffled(own: Tensor, seed: int) -> Tensor:
    return own[torch.randperm(len(own), generator=torch.Generator().manual_seed(seed))]


def often(*several: Tensor) -> list[Tensor]:
    return [torch.linspace(0.1, 0.01, len(each)) for each in several]


def test_equal_dictionaries_agree_on_every_atom_in_any_order_and_at_any_length() -> None:
    W = atoms(40)
    runs = [W, 3 * shuffled(W, 1), 0.2 * shuffled(W, 2)]
    seen = consensus(runs, often(*runs))
    assert (seen.counted, seen.histogram, seen.share) == (40, (0, 0, 40), 1.0)
    assert richness(seen).value == pytest.approx(40, rel=1e-3)


def test_dictionaries_of_different_atoms_agree_on_nothing() -> None:
    runs = [atoms(40, seed) for seed in range(3)]
    seen = consensus(runs, often(*runs))
    assert (seen.counted, seen.share) == (0, 0.0)
    answer = richness(seen)
    assert (answer.value, answer.counted, answer.extrapolated) == (0.0, 0, False)
    assert math.isinf(answer.deviation)


def test_a_duplicate_counts_once() -> None:
    W = atoms(10)
    runs = [torch.cat([W, W + 0.01 * atoms(10, seed)]) for seed in (1, 2, 3)]
    assert consensus(runs, often(*runs)).counted == 10


def test_an_opposite_direction_is_another_feature() -> None:
    W = atoms(10)
    runs = [torch.cat([W, -W])] * 3
    assert consensus(runs, often(*runs)).counted == 20


def test_the_sum_of_two_features_is_no_third() -> None:
    W = atoms(10)
    runs = [torch.cat([W, (W[:1] + W[1:2])])] * 3
    seen = consensus(runs, often(*runs))
    assert seen.counted == 10
    assert bool(seen.sums[-1])
    # A difference is: no positive sum of what is there makes it.
    runs = [torch.cat([W, (W[:1] - W[1:2])])] * 3
    assert consensus(runs, often(*runs)).counted == 11


def test_it_is_blind_to_rotation() -> None:
    turn = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(5))).Q
    runs = [torch.cat([shuffled(atoms(30), seed)[:25], atoms(8, 10 + seed)]) for seed in range(3)]
    one, other = consensus(runs, often(*runs)), consensus([W @ turn for W in runs], often(*runs))
    assert (one.histogram, one.counted, one.share) == (other.histogram, other.counted, pytest.approx(other.share))


@pytest.mark.parametrize("q", [0.7, 0.8, 0.9, 0.98])
@pytest.mark.parametrize("runs", [3, 4, 6])
def test_what_was_missed_is_added(q: float, runs: int) -> None:
    """Captures drawn from binomial(R, q): the estimate is n within three of its own deviations, in 18 of 20 draws."""
    n, most, far = 600, max(2, math.floor(0.75 * runs)), 0
    for seed in range(20):
        random = torch.Generator().manual_seed(seed)
        captures = torch.bernoulli(torch.full((n, runs), q), generator=random).sum(1).long()
        common = captures[captures >= most]
        seen = Consensus(
            torch.zeros(len(common), 2),
            common,
            torch.linspace(0.1, 0.01, len(common), dtype=torch.float64),
            torch.zeros(len(common), dtype=torch.bool),
            (),
            1.0,
            runs,
        )
        answer = richness(seen)
        assert answer.extrapolated
        far += abs(math.log(answer.value / n)) > 3 * answer.deviation
    assert far <= 2


def test_what_is_seldom_found_is_not_extrapolated() -> None:
    random = torch.Generator().manual_seed(0)
    captures = torch.bernoulli(torch.full((2000, 3), 0.2), generator=random).sum(1).long()
    common = captures[captures >= 2]
    flags = torch.zeros(len(common), dtype=torch.bool)
    seen = Consensus(torch.zeros(len(common), 2), common, torch.ones(len(common)).double(), flags, (), 1.0, 3)
    answer = richness(seen)
    assert not answer.extrapolated
    assert answer.value == len(common)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        consensus([atoms(4)], [torch.ones(4)])
    with pytest.raises(ShapeError, match="3 densities for 4 atoms"):
        consensus([atoms(4), atoms(4)], [torch.ones(4), torch.ones(3)])
