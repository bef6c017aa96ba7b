from __future__ import annotations

import pytest
import torch

from superscope.core import Activations, ActivationSource, Dictionary, SparseCode


class SparseWorld(ActivationSource):
    """x = scale * W f + offset with exactly k of n features active: the truth is `W`."""

    def __init__(self, n: int, d: int, k: int, *, seed: int = 0, scale: float = 1.0, offset: float = 0.0) -> None:
        atoms = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
        self.W = Dictionary(atoms / atoms.norm(dim=1, keepdim=True))
        self.n, self.d, self.k, self.scale, self.offset = n, d, k, scale, offset

    def batches(self, size, *, seed):
        generator = torch.Generator().manual_seed(seed)
        while True:
            indices = torch.rand(size, self.n, generator=generator).topk(self.k, dim=1).indices
            code = SparseCode(torch.rand(size, self.k, generator=generator) + 0.5, indices, self.n)
            yield Activations(self.W.compose(code) * self.scale + self.offset, code=code)


class Held(ActivationSource):
    """The given rows, once per epoch, in a seeded order; the last incomplete batch is dropped."""

    def __init__(self, x: torch.Tensor, places: torch.Tensor | None = None) -> None:
        self.x, self.places, self.d = x, places, x.shape[1]

    def batches(self, size, *, seed):
        order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(seed))
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size]
            yield Activations(self.x[rows], places=None if self.places is None else self.places[rows])


@pytest.fixture(scope="session")
def sparse_world():
    return SparseWorld


@pytest.fixture(scope="session")
def held():
    return Held
