"""What is certified is there; noise has no certificate, whatever candidates it offers."""

from __future__ import annotations

import math

import pytest
import torch

from superscope.core import Activations, Dictionary, ShapeError
from superscope.frames import random_unit
from superscope.measure import Evidence, certified_count, e_benjamini_hochberg
from superscope.measure.counts import CertifiedCount
from superscope.recovery import OMP
from superscope.worlds import exactly_k

N, D, K = 40, 16, 2


@pytest.fixture(scope="module")
def rows():
    world = exactly_k(n=N, d=D, k=K)
    x = next(world.batches(30_000, seed=1)).x
    return world.dictionary, x[:15_000], x[15_000:]


def random_atoms(n: int, seed: int, d: int = D) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_the_largest_k_of_e_bh() -> None:
    # W = 4, alpha = 0.1: thresholds 40, 20, 13.3, 10.
    assert e_benjamini_hochberg(torch.tensor([39.0, 21.0, 9.0, 1.0]).log(), 0.1).tolist() == [True, True, False, False]
    assert e_benjamini_hochberg(torch.tensor([39.0, 19.0, 9.0, 1.0]).log(), 0.1).sum() == 0
    # A weak first one is carried by the others.
    assert e_benjamini_hochberg(torch.full((4,), 10.0).log(), 0.1).all()
    assert e_benjamini_hochberg(torch.zeros(0)).sum() == 0
    with pytest.raises(ValueError, match="alpha must be in"):
        e_benjamini_hochberg(torch.zeros(2), 1.0)


def test_true_directions_are_certified_and_others_beside_them_are_not(rows) -> None:
    truth, x, held = rows
    both = Dictionary(torch.cat([truth.atoms, -truth.atoms, random_atoms(N, 3)]))
    found = certified_count(x, both, held)
    assert int(found.certified[:N].sum()) == N
    assert int(found.certified[N:].sum()) <= 0.05 * N
    assert found["certified_count"].value == int(found.certified.sum())
    assert found["certified_count"].n == len(held)


def test_copies_count_once(rows) -> None:
    truth, x, held = rows
    thrice = certified_count(x, Dictionary(truth.atoms.repeat(3, 1)), held)
    assert thrice["certified_count"].value == thrice["certified_candidates"].value == N
    assert torch.equal(thrice.log_e[N:], torch.full((2 * N,), -math.inf))


def test_rows_alone_give_their_own_candidates(rows) -> None:
    _, x, held = rows
    whole = torch.cat([x, held])
    found = certified_count(whole)
    assert found["certified_count"].value == pytest.approx(N, abs=2)
    turn, _ = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(0)))
    assert certified_count(whole @ turn)["certified_count"].value == found["certified_count"].value


@pytest.mark.parametrize("kind", ["normal", "elliptical", "heavy"])
def test_hardly_any_noise_has_a_certificate(kind: str) -> None:
    """The candidates are rows of the first half themselves, the worst that a dictionary could learn."""
    certified = 0
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(4000, 8, generator=generator) * torch.logspace(0, -1, 8)
        if kind == "elliptical":
            x = x * torch.randn(len(x), 1, generator=generator).exp()
        if kind == "heavy":
            x = x / torch.randn(len(x), 3, generator=generator).square().mean(1, keepdim=True).sqrt()
        first = x[:2000]
        longest = first[first.norm(dim=1).argsort(descending=True)[:16]]
        found = certified_count(first, Dictionary(longest), x[2000:])
        certified += int(found["certified_count"].value > 0)
    assert certified <= 2


def test_a_feature_in_too_few_rows_is_not_certified() -> None:
    generator = torch.Generator().manual_seed(0)
    atoms = random_atoms(8, 1)
    on = torch.rand(20_000, 8, generator=generator) < torch.tensor([0.1] * 7 + [0.0005])
    x = on.float() @ atoms + 0.05 * torch.randn(20_000, D, generator=generator)
    found = certified_count(x[:10_000], Dictionary(atoms), x[10_000:])
    assert found.certified.tolist() == [True] * 7 + [False]


def test_it_abstains_and_refuses_in_sentences(rows) -> None:
    truth, x, held = rows
    assert "100 are needed" in certified_count(x, truth, held[:99])["certified_count"].caution
    assert "too few" in certified_count(x[:999], truth, held)["certified_count"].caution
    assert "1 dimension" in certified_count(torch.randn(5000, 1))["certified_count"].caution
    with pytest.raises(ValueError, match="or neither"):
        certified_count(x, truth)
    with pytest.raises(ValueError, match="margin must be in"):
        certified_count(x, truth, held, margin=1.0)
    with pytest.raises(ValueError, match="alpha must be in"):
        certified_count(x, truth, held, alpha=0.0)
    with pytest.raises(ShapeError, match="one d is needed"):
        certified_count(x, Dictionary(torch.eye(3)), held)


def test_the_counter_tries_what_recurs(rows) -> None:
    """Two dictionaries of the truth, one with an atom of its own: what both have is tried, and certified."""
    truth, x, held = rows
    counter = CertifiedCount()
    wanted = counter.wants(N, K, (4, 5))
    assert [each.seed for each in wanted] == [4, 5]
    more = Dictionary(torch.cat([truth.atoms, random_unit(n=1, d=truth.d, seed=9).atoms]))
    learned = {wanted[0]: OMP(truth, k=K), wanted[1]: OMP(more, k=K)}
    seen = Evidence(rows=[Activations(x)], held=[Activations(held)], learned=learned)
    count, candidates = counter.count(seen, wanted)
    assert (count.value, candidates.value) == (N, N)
