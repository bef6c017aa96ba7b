"""Months on a circle: published of a bag of words, and what brings it about in a toy model."""

from __future__ import annotations

import pytest
import torch

from superscope.features import Cyclic, Fixed
from superscope.toys import Ensemble, Recipe, Tied, train


def in_calendar_order(W: torch.Tensor, size: int = 12) -> float:
    """Share of features whose two nearest of their cycle are those before and behind them."""
    unit = torch.nn.functional.normalize(W, dim=1)
    right = []
    for cycle in unit.split(size):
        nearest = (cycle @ cycle.T).fill_diagonal_(-1).topk(2).indices
        right += [{int(j) for j in row} == {(i - 1) % size, (i + 1) % size} for i, row in enumerate(nearest)]
    return sum(right) / len(right)


@pytest.mark.parametrize(("cycles", "d"), [(1, 4), pytest.param(4, 16, marks=pytest.mark.slow)])
def test_weight_decay_lays_months_in_the_order_of_the_calendar(cycles: int, d: int) -> None:
    """Prieto et al., 2026 (arXiv 2603.09972): at weight decay 4 a tied ReLU model of binary words lays months on a
    circle. Of features laid at random one in 55 has its two neighbours nearest."""
    law = Cyclic(cycles, 12, width=3, p=0.5 if cycles == 1 else 0.2, magnitude=Fixed(1.0))
    shares = {}
    for decay in (0.0, 4.0):
        models = Ensemble(Tied(law.n, d), law, seeds=[0, 1, 2])
        for _ in train(models, Recipe(steps=3000, batch=512, lr=3e-3, weight_decay=decay), every=3000):
            pass
        shares[decay] = [in_calendar_order(W) for W in models.parameters["W"]]
    assert shares[4.0] == [1.0, 1.0, 1.0]
    assert max(shares[0.0]) <= 0.25
