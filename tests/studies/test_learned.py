"""Dictionaries learned beside each other or in turn are the same, and an error in one is everybody's."""

from __future__ import annotations

import pytest
import torch

from superscope.capture import MemorySource
from superscope.core import Run, result_of
from superscope.core.threads import torch_threads
from superscope.measure import Wanted
from superscope.studies.learned import Learned, learned

WANTED = [Wanted(n=16, k=2, seed=seed) for seed in range(3)]


def found(threads: int, source: MemorySource) -> dict[Wanted, Learned]:
    with torch_threads(threads):
        return result_of(
            learned(
                WANTED,
                source,
                Run.begin("count", {}, None),
                steps=10,
                batch=64,
                device=torch.device("cpu"),
                stage="Learning",
                folder=lambda wanted: str(wanted.seed),
                notes={},
            )
        )


def test_with_one_thread_and_with_several_the_same_is_learned() -> None:
    source = MemorySource(torch.randn(256, 8, generator=torch.Generator().manual_seed(0)))
    in_turn, side_by_side = found(1, source), found(3, source)
    assert list(in_turn) == list(side_by_side) == WANTED
    for each in WANTED:
        (one, curve), (other, other_curve) = in_turn[each], side_by_side[each]
        assert torch.equal(one.atoms, other.atoms)
        assert curve == other_curve
    assert not torch.equal(in_turn[WANTED[0]][0].atoms, in_turn[WANTED[1]][0].atoms)


@pytest.mark.parametrize("threads", [1, 3])
def test_what_goes_wrong_in_a_thread_is_raised_where_its_news_are_awaited(threads: int) -> None:
    with pytest.raises(FloatingPointError):
        found(threads, MemorySource(torch.full((256, 8), torch.nan)))
