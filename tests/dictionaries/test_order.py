"""Latents that are put in order of frequency while they learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from superscope.capture import MemorySource
from superscope.dictionaries import Matryoshka, TopK, train
from superscope.dictionaries.checkpoint import load_state, save_state
from superscope.features import Zipf
from superscope.worlds.presets import on_random_directions

SETTINGS: dict[str, Any] = {"steps": 14, "batch": 64, "lr": 0.01, "dead_after": 200, "auxiliary_k": 2, "seed": 3}


def rows(count: int = 330, d: int = 6) -> MemorySource:
    return MemorySource(torch.randn(count, d, generator=torch.Generator().manual_seed(0)) + 1)


def test_where_there_is_one_prefix_only_the_numbers_change() -> None:
    plain, ordered = (Matryoshka(6, 12, k=2, widths=(12,)) for _ in range(2))
    one = [step.loss for step in train(plain, rows(), **SETTINGS)]
    other = [step.loss for step in train(ordered, rows(), **SETTINGS, sort_every=2)]
    # The moments go along, or the losses would part after the first sorting.
    assert other == pytest.approx(one, rel=1e-4)
    cosines = ordered.dictionary.atoms @ plain.dictionary.atoms.T
    assert float(cosines.amax(1).min()) > 0.999
    assert sorted(cosines.argmax(1).tolist()) == list(range(12))
    assert cosines.argmax(1).tolist() != list(range(12))


def test_frequent_latents_come_first() -> None:
    world = on_random_directions(Zipf(n=16), d=32)
    sae = Matryoshka(32, 16, k=2, widths=(4, 16))
    list(train(sae, world, steps=60, batch=256, lr=0.02, sort_every=20))
    uses = (sae.encode(next(world.batches(4096, seed=9)).x).dense() > 0).sum(0)
    # Sixteen latents in fours: what the last sorting saw holds on other rows but for chance.
    quarters = uses.reshape(4, 4).sum(1).tolist()
    assert quarters == sorted(quarters, reverse=True)


@pytest.mark.parametrize("after", [3, 6, 8])
def test_an_ordered_training_resumes_bit_equal(after: int, tmp_path: Path) -> None:
    """Interrupted before the first sorting, between the first and the second, and right after the second."""
    settings: dict[str, Any] = {**SETTINGS, "sort_every": 4}
    whole, begun, resumed = (Matryoshka(6, 12, k=2, widths=(3, 12)) for _ in range(3))
    list(train(whole, rows(), **settings))
    training = train(begun, rows(), **settings)
    for _ in range(after):
        next(training)
    save_state(tmp_path / "state", training.state())
    list(train(resumed, rows(), **settings).restore(load_state(tmp_path / "state")))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_only_an_ordered_training_keeps_how_often_latents_were_on() -> None:
    kept = []
    for every in (0, 4):
        training = train(Matryoshka(6, 12, k=2), rows(), **SETTINGS, sort_every=every)
        next(training)
        kept.append("uses" in training.state().tensors)
    assert kept == [False, True]


def test_an_architecture_without_prefixes_has_no_order() -> None:
    with pytest.raises(ValueError, match="TopK has none. Leave it at 0, or train a Matryoshka"):
        train(TopK(6, 12, k=2), rows(), **SETTINGS, sort_every=2)
    with pytest.raises(ValueError, match="sort_every must be at least 0"):
        train(Matryoshka(6, 12, k=2), rows(), **SETTINGS, sort_every=-1)
