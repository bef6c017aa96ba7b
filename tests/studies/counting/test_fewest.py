"""Which of several looks is believed: not the junk one, not the one that missed what is rare, and not combinations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from superscope.measure.counts import Consensus, Richness
from superscope.studies.counting.search import Look, Setting, fewest

N, D = 40, 16
RANDOM = torch.Generator().manual_seed(0)
TRUE = torch.nn.functional.normalize(torch.randn(N, D, generator=RANDOM), dim=1)


def rows(count: int = 4000) -> Tensor:
    """Each feature in one row of thirty, with a value between 1 and 2."""
    on = torch.rand(count, N, generator=RANDOM) < 1 / 30
    return (on * (1 + torch.rand(count, N, generator=RANDOM))) @ TRUE


def look(directions: Tensor, k: int, *, share: float = 1.0, explained: float = 0.9) -> Look:
    n = len(directions)
    agreed = Consensus(
        directions,
        torch.full((n,), 3),
        torch.full((n,), 1 / 30, dtype=torch.float64),
        torch.zeros(n, dtype=torch.bool),
        (0, 0, n),
        share,
        3,
    )
    return Look(
        Setting(64, k, 200),
        agreed,
        torch.ones(n, dtype=torch.bool),
        n,
        Richness(float(n), 0.01, n, 1.0, True),
        explained,
    )


ALL = look(TRUE, 2)
SUMS = torch.nn.functional.normalize(TRUE[:12] + TRUE[12:24], dim=1)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (look(torch.cat([TRUE, SUMS]), 1), "holds sums of features too"),
        (look(TRUE[:24], 1), "missed two in five features"),
        (look(TRUE[:24], 8, share=0.6), "missed them and is half junk"),
        (look(TRUE, 3, share=0.6), "is as good, and half junk"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_the_look_with_all_features_and_nothing_else_is_believed(other: Look, why: str) -> None:
    chosen, left = fewest((other, ALL), rows())
    assert chosen == (ALL,), why
    assert left[1] < 0.1
    assert all(0 <= each <= 1 for each in left)


def test_looks_that_do_as_well_with_hardly_more_are_believed_too() -> None:
    one_more = look(torch.cat([TRUE, SUMS[:1]]), 3, explained=0.8)
    chosen, _ = fewest((one_more, ALL), rows())
    assert chosen == (ALL, one_more)


def test_without_directions_there_is_nothing_to_believe() -> None:
    chosen, left = fewest((look(TRUE[:0], 1),), rows())
    assert chosen == ()
    assert left == (1.0,)


def test_junk_that_leaves_least_does_not_keep_the_best_from_being_believed() -> None:
    """Where a look of junk leaves far less than all others, no look is both: the best score is believed then."""
    x = rows()
    everything = look(torch.nn.functional.normalize(x[x.norm(dim=1) > 0][:400], dim=1), 1, share=0.3)
    part = look(TRUE[:20], 2)
    chosen, left = fewest((everything, part), x)
    assert left[0] < left[1] / 2
    assert chosen == (part,)
