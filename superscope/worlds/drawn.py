"""Sources that are drawn as they are read: endless, the same from the same seed, and open at any batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import numpy as np
import torch

from ..core import Activations, ActivationSource
from .truth import Truth


class DrawnSource(ActivationSource):
    """An endless source that knows its truth.

    Batch i is drawn from the pair (seed, i) alone, so `batches_from(i, ...)` costs nothing for the batches that it
    leaves out, and gives the very ones that would have followed. Another size makes other rows.
    """

    @property
    @abstractmethod
    def truth(self) -> Truth:
        """What is to be found in it."""

    @property
    def device(self) -> torch.device:
        """Where rows are drawn."""
        return torch.device("cpu")

    @abstractmethod
    def draw(self, rows: int, *, generator: torch.Generator) -> Activations:
        """Rows of x, from a generator on the source's device."""

    def batches(self, size: int, *, seed: int) -> Iterator[Activations]:
        """Batches of `size` rows, for ever.

        Raises:
            ValueError: if size is below 1 or seed negative.
        """
        return self.batches_from(0, size, seed=seed)

    def batches_from(self, start: int, size: int, *, seed: int) -> Iterator[Activations]:
        """The same batches from number `start` on; those before it are not generated.

        Raises:
            ValueError: if size is below 1, or seed or start negative.
        """
        for name, value, least in (("size", size, 1), ("seed", seed, 0), ("start", start, 0)):
            if value < least:
                raise ValueError(f"{type(self).__name__}: {name} must be at least {least}; got {value}.")
        return self._batches(size, seed, start)

    def _batches(self, size: int, seed: int, index: int) -> Iterator[Activations]:
        while True:
            yield self.draw(size, generator=generator_of(seed, index, device=self.device))
            index += 1

    def __str__(self) -> str:
        return f"{type(self).__name__}: {self.truth}"


def generator_of(*numbers: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded by several numbers together.

    One for each batch, not one that runs through them: that is what makes starting anywhere free. CPU generators take
    32 bits of it, so that among 10 000 batches two are alike with probability 0.01.
    """
    state = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    return torch.Generator(device=device).manual_seed(state)
