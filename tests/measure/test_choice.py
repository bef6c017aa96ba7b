from __future__ import annotations

import math

import pytest
import torch

from superscope.core import Dictionary
from superscope.measure import decoder_projection, description_length, mean_overlap
from superscope.recovery import OMP
from superscope.worlds import exactly_k


def test_mixing_atoms_raises_overlap_and_background() -> None:
    world = exactly_k(n=32, d=32, k=2)
    x = next(world.batches(2048, seed=1)).x
    atoms = torch.eye(32)
    pure = Dictionary(torch.linalg.qr(world.dictionary.atoms.T)[0].T)
    assert mean_overlap(Dictionary(atoms)) == 0.0
    # Every atom mixed with the first one.
    mixed = Dictionary(atoms + 0.6 * atoms[:1]).unit()
    assert mean_overlap(mixed) > 0.1
    assert mean_overlap(pure) < 1e-6
    true = world.dictionary
    blurred = Dictionary(true.atoms + 0.7 * true.atoms.roll(1, 0)).unit()
    assert decoder_projection(blurred, x, order=4) > decoder_projection(true, x, order=4)


def test_the_projection_is_the_one_of_its_rank() -> None:
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    W = Dictionary(torch.randn(7, 5, generator=torch.Generator().manual_seed(1))).unit()
    centred = x - x.mean(0)
    z = (centred @ W.atoms.T).flatten().sort(descending=True).values
    wanted = float(z[3 * 40 - 1]) / float(centred.norm(dim=1).mean())
    assert decoder_projection(W, x, order=3) == pytest.approx(wanted, rel=1e-5)


def test_overlap_is_the_mean_over_pairs_whatever_the_block() -> None:
    W = Dictionary(torch.randn(9, 4, generator=torch.Generator().manual_seed(0)))
    cosines = W.unit().atoms.double() @ W.unit().atoms.double().T
    wanted = float(cosines.abs().triu(1).sum()) / 36
    assert mean_overlap(W) == pytest.approx(wanted)
    assert mean_overlap(W, chunk=2) == pytest.approx(wanted)


def test_a_description_grows_with_precision_by_its_bits() -> None:
    world = exactly_k(n=40, d=20, k=2)
    coder = OMP(world.dictionary, k=1)
    coarse, fine = (description_length(coder, world, precision=p, batches=1, size=512) for p in (0.01, 0.005))
    # One value and twenty residual coordinates, each one bit finer.
    assert fine - coarse == pytest.approx(21, abs=0.05)
    assert math.isfinite(fine)


def test_bad_arguments_are_told_in_sentences() -> None:
    W, x = Dictionary(torch.eye(3)), torch.eye(3)
    with pytest.raises(ValueError, match="order"):
        decoder_projection(W, x, order=4)
    with pytest.raises(ValueError, match="no rows"):
        decoder_projection(W, x[:0])
    with pytest.raises(ValueError, match="two atoms"):
        mean_overlap(Dictionary(torch.ones(1, 3)))
    with pytest.raises(ValueError, match="precision"):
        description_length(OMP(W, k=1), exactly_k(n=8, d=4, k=1), precision=0.0)
