from __future__ import annotations

import pytest
import torch

from superscope.core import Activations, ActivationSource, Dictionary, SparseCode, SparseCoder


class Fixed(SparseCoder):
    """A coder that looks its code up by the row's first coordinate: any code for any x."""

    def __init__(self, dictionary: Dictionary, f: torch.Tensor, x: torch.Tensor) -> None:
        self.dictionary, self.f, self.x = dictionary, f, x

    def encode(self, x):
        rows = (x[:, None, :] == self.x[None]).all(-1).int().argmax(1)
        return SparseCode.from_dense(self.f[rows])


class Held(ActivationSource):
    """The given rows, once, in a seeded order; the last incomplete batch is dropped."""

    def __init__(self, x, places=None, tokens=None):
        self.x, self.places, self.tokens, self.d = x, places, tokens, x.shape[1]

    def batches(self, size, *, seed):
        order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(seed))
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size]
            yield Activations(
                self.x[rows],
                places=None if self.places is None else self.places[rows],
                tokens=None if self.tokens is None else self.tokens[rows],
            )


@pytest.fixture(scope="session")
def fixed():
    return Fixed


@pytest.fixture(scope="session")
def held():
    return Held


@pytest.fixture(scope="session")
def unit_rows():
    def make(n, d, seed=0):
        rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
        return rows / rows.norm(dim=1, keepdim=True)

    return make
