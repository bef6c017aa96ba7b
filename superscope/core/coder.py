"""The step x -> f, for a dictionary that is given (recovery) or learned (dictionaries)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from jaxtyping import Bool, Float
from torch import Tensor

from .code import SparseCode
from .dictionary import Dictionary


class SparseCoder(ABC):
    """x -> f. An SAE's encoder and orthogonal matching pursuit on its decoder answer the same call."""

    # A bare annotation, not an abstract property: a dataclass field or an nn.Module's property may provide it.
    dictionary: Dictionary

    @abstractmethod
    def encode(self, x: Float[Tensor, "*batch d"]) -> SparseCode:
        """The code of each row of x."""

    @final
    def decode(self, code: SparseCode) -> Float[Tensor, "*batch e"]:
        """x = W f + bias, with the coder's own dictionary."""
        return self.dictionary.compose(code)

    @final
    def reconstruct(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch e"]:
        """decode(encode(x))."""
        return self.decode(self.encode(x))


@dataclass(frozen=True, eq=False)
class Solution:
    """A code, and whether the solver finished: not converging is data, not an exception.

    Args:
        code: f for each row.
        converged: for each row, whether the solver met its own stopping criterion.
        steps: iterations made (the largest over rows).
    """

    code: SparseCode
    converged: Bool[Tensor, "*batch"]
    steps: int


class IterativeCoder(SparseCoder):
    """A coder that iterates, and says whether it finished."""

    @abstractmethod
    def solve(self, x: Float[Tensor, "*batch d"]) -> Solution:
        """The code of each row of x, with convergence per row."""

    @final
    def encode(self, x: Float[Tensor, "*batch d"]) -> SparseCode:
        return self.solve(x).code
