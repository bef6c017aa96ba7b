from __future__ import annotations

from itertools import islice

import pytest
import torch

from superscope.core import Dictionary, SparseCode, SparseCoder
from superscope.worlds import exactly_k


class Known(SparseCoder):
    """Answers with given dense codes, row by row, in the order it is asked."""

    def __init__(self, dictionary: Dictionary, f: torch.Tensor) -> None:
        self.dictionary, self.f, self.at = dictionary, f, 0

    def encode(self, x):
        self.at, start = self.at + len(x), self.at
        return SparseCode.from_dense(self.f[start : self.at])


@pytest.fixture(scope="module")
def world():
    return exactly_k(n=24, d=12, k=3)


@pytest.fixture(scope="module")
def batches(world):
    return list(islice(world.batches(256, seed=1), 3))
