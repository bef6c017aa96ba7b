"""Directions that share parts: none of a random frame, those of a tree, and how many features they may hide."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from superscope.measure.counts import shared_parts


def frame(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n", "d"), [(48, 24), (512, 64), (1024, 64)])
def test_random_directions_share_hardly_anything(n: int, d: int) -> None:
    assert sum(shared_parts(frame(n, d, seed)).hidden for seed in range(5)) <= 5


@pytest.mark.parametrize("children", [2, 3, 5])
def test_children_that_never_come_without_their_parent_hide_it(children: int) -> None:
    """Twelve trees of one generation beside sixty features in none: 12 parents are hidden, and at most so many said."""
    parents = torch.nn.functional.normalize(frame(12, 64, 1), dim=1)
    own = torch.nn.functional.normalize(frame(12 * children, 64, 2), dim=1)
    leaves = parents.repeat_interleave(children, 0) * 1.6 + own
    found = shared_parts(torch.cat([leaves, frame(60, 64, 3)]))
    assert 12 <= found.groups <= 13
    assert 12 * children <= found.directions <= 12 * children + 4
    assert 12 * (children - 1) <= found.hidden <= 12 * (children - 1) + 4


def test_lengths_and_rotations_change_nothing() -> None:
    directions = frame(40, 16, 4) + frame(1, 16, 5) * 2
    turn = torch.linalg.qr(frame(16, 16, 6)).Q
    stretched = (directions * torch.linspace(0.1, 9, 40)[:, None]) @ turn
    assert shared_parts(stretched)[:2] == shared_parts(directions)[:2]


def test_one_direction_shares_nothing() -> None:
    assert shared_parts(frame(1, 8)).hidden == 0
    assert shared_parts(frame(0, 8)).hidden == 0
