"""Atoms that begin as what the atoms before them leave of rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from superscope import measure
from superscope.capture import MemorySource
from superscope.core import Dictionary
from superscope.dictionaries import SHORT, Archetypal, TopK, Transcoder, train
from superscope.dictionaries.checkpoint import load_state, save_state
from superscope.dictionaries.sae.residuals import residual_atoms
from superscope.testing import example
from superscope.testing.coder import source_for
from superscope.worlds import exactly_k


def started(n: int, x: torch.Tensor, seed: int = 0, batch: int = 512) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    atoms = torch.nn.functional.normalize(torch.randn(n, x.shape[1], generator=random), dim=1)
    order = MemorySource(x)
    rows = (given.x for epoch in range(100) for given in order.batches(batch, seed=100 * seed + epoch))
    residual_atoms(atoms, x.mean(0), rows, random)
    return atoms


def test_rare_directions_are_begun_with_that_rows_drawn_evenly_would_miss():
    """64 orthogonal directions, one a row, the i-th as frequent as 1/i^2: of 64 even draws most are the first few."""
    random = torch.Generator().manual_seed(0)
    frequent = 1 / torch.arange(1.0, 65).square()
    x = torch.eye(64)[torch.multinomial(frequent, 16_384, replacement=True, generator=random)]
    held = int((started(64, x) > 0.9).any(0).sum())
    evenly = torch.nn.functional.normalize(x[torch.randperm(len(x), generator=random)[:64]] - x.mean(0), dim=1)
    assert int((evenly > 0.9).any(0).sum()) < 10
    assert held > 20


def test_atoms_are_unit_directions_of_rows_about_their_mean_and_of_what_is_left():
    x = torch.randn(4096, 16, generator=torch.Generator().manual_seed(1)) + 3
    atoms = started(64, x)
    assert torch.allclose(atoms.norm(dim=1), torch.ones(64), atol=1e-5)
    centred = torch.nn.functional.normalize(x - x.mean(0), dim=1)
    assert float((atoms[:8] @ centred.T).amax(1).min()) > 0.9999, "the first eighth are rows"
    assert float((atoms[32:] @ centred.T).amax(1).max()) < 0.9999, "the last half are residuals"


def test_seeds_begin_with_other_rows():
    x = torch.randn(4096, 32, generator=torch.Generator().manual_seed(1))
    one, other = started(64, x, seed=0), started(64, x, seed=1)
    assert float((one @ other.T).max()) < 0.99


def test_where_nothing_is_left_atoms_stay_random():
    x = torch.eye(3).repeat(2000, 1)
    atoms = started(40, x)
    assert bool(atoms.isfinite().all())
    assert torch.allclose(atoms.norm(dim=1), torch.ones(40), atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_few_atoms(n: int):
    assert started(n, torch.randn(600, 4, generator=torch.Generator().manual_seed(0))).shape == (n, 4)


def test_a_world_is_learned_in_fewer_steps():
    found = {}
    for name, settings in (("as it comes", {}), ("short", SHORT)):
        world, sae = exactly_k(n=128, d=32, k=3), TopK(32, 128, 3)
        for step in train(sae, world, steps=100, batch=512, **settings):
            found[name] = step.numbers["fraction_variance_unexplained"]
    assert found["short"] < 0.6 * found["as it comes"]


def test_nothing_recurs_in_gaussian_rows():
    """Seeds read the same rows, and what they begin with is drawn from them: neither may make directions recur."""
    spread = torch.logspace(0, -1, 64)
    x = torch.randn(20_000, 64, generator=torch.Generator().manual_seed(0)) * spread
    saes = [TopK(64, 256, 4, seed=seed) for seed in range(3)]
    for seed, sae in enumerate(saes):
        for _ in train(sae, MemorySource(x), steps=100, batch=512, seed=seed, **SHORT):
            pass
    recurring = measure.recurring_features([sae.dictionary for sae in saes], covariance=spread.square().diag())
    count = recurring.measurements[0]
    assert count.value <= count.chance + 0.02 * 256


def test_a_training_so_begun_resumes_to_the_bit(tmp_path: Path):
    x = torch.randn(3000, 6, generator=torch.Generator().manual_seed(0)) + 1
    settings = {**SHORT, "steps": 9, "batch": 64, "seed": 3}
    whole, begun, resumed = (TopK(6, 12, 2) for _ in range(3))
    losses = [step.loss for step in train(whole, MemorySource(x), **settings)]
    training = train(begun, MemorySource(x), **settings)
    for _ in range(4):
        next(training)
    save_state(tmp_path / "state", training.state())
    rest = train(resumed, MemorySource(x), **settings).restore(load_state(tmp_path / "state"))
    assert [step.loss for step in rest] == losses[4:]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_it_is_refused_where_rows_are_no_atoms():
    source = MemorySource(torch.randn(100, 6))
    with pytest.raises(ValueError, match="the atoms stay as they are"):
        train(TopK(6, 12, 2), source, steps=1, batch=16, start="residuals", initialise=False)
    archetypal = example(Archetypal)
    with pytest.raises(ValueError, match="Archetypal makes its atoms of other weights"):
        train(archetypal, source_for(archetypal), steps=1, batch=16, start="residuals")
    transcoder = example(Transcoder)
    with pytest.raises(ValueError, match="the source gives targets"):
        next(train(transcoder, source_for(transcoder), steps=1, batch=16, start="residuals"))


def test_the_recurring_directions_of_a_world_are_its_own():
    """Two thirds of the truth and more, and hardly anything else, whatever rows each seed began with."""
    world = exactly_k(n=128, d=32, k=3)
    saes = [TopK(32, 128, 3, seed=seed) for seed in range(3)]
    for seed, sae in enumerate(saes):
        for _ in train(sae, world, steps=200, batch=512, seed=seed, dead_after=1024, **SHORT):
            pass
    recurring = measure.recurring_features([sae.dictionary for sae in saes], draws=0)
    truth = Dictionary(world.dictionary.unit().atoms).atoms
    near = (recurring.directions @ truth.T).amax(1) > 0.9
    assert len(recurring.directions) > 85
    assert float(near.float().mean()) > 0.9
