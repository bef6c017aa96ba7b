"""In which order are n things read, when n is too many to list? A seeded bijection, computed place by place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

_ROUNDS = 6
"""Four make a Feistel network of ideal round functions a strong permutation; ours are mere mixers of bits."""


@dataclass(frozen=True)
class Bijection:
    r"""$\pi_{seed}: \{0..n-1\} \to \{0..n-1\}$, one to one, in O(1) memory: a Feistel network, walked until it lands.

    The network permutes the numbers of an even number of bits, fewer than 4 n of them; what lands at n or above is sent
    through again, which keeps the map one to one and takes fewer than 4 passes on average. It replaces a shuffled list
    where the list would not fit, and going on from any place is a matter of knowing the place.

    Args:
        n: how many things.
        seed: which order.

    Raises:
        ValueError: if n is negative; when called, if a place is outside.

    Source:
        Luby and Rackoff, "How to construct pseudorandom permutations from pseudorandom functions", 1988.
        Black and Rogaway, "Ciphers with arbitrary finite domains", 2002 (walking the cycle).

    Example:
        >>> sorted(Bijection(5, seed=1)(torch.arange(5)).tolist())
        [0, 1, 2, 3, 4]
    """

    n: int
    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.n < 2**62:
            raise ValueError(f"Bijection: n is {self.n}; give a count from 0 to 2**62.")

    @cached_property
    def _half(self) -> int:
        return max(1, -(-max(self.n - 1, 1).bit_length() // 2))

    @cached_property
    def _keys(self) -> np.ndarray:
        return np.random.SeedSequence((self.seed & (2**64 - 1), self.n)).generate_state(_ROUNDS, np.uint64)

    def __call__(self, place: Int[Tensor, "m"]) -> Int[Tensor, "m"]:
        """What stands at each place of the order."""
        given = place.cpu().numpy()
        if given.size and not (0 <= int(given.min()) and int(given.max()) < self.n):
            raise ValueError(f"Bijection: a place is outside 0 to {self.n - 1}.")
        value = self._pass(given.astype(np.uint64))
        while True:
            outside = value >= np.uint64(self.n)
            if not outside.any():
                return torch.from_numpy(value.astype(np.int64))
            value[outside] = self._pass(value[outside])

    def _pass(self, value: np.ndarray) -> np.ndarray:
        half = np.uint64(self._half)
        mask = np.uint64((1 << self._half) - 1)
        left, right = value >> half, value & mask
        for key in self._keys:
            mixed = (right ^ key) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
            mixed *= np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(32)
            left, right = right, left ^ (mixed & mask)
        return (left << half) | right
