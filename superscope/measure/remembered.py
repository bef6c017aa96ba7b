"""A coder that many measurements ask of the same rows: each batch is encoded once."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ..core import Dictionary, SparseCode, SparseCoder


class Remembered(SparseCoder):
    """encode(x) is that of the coder, kept for as long as this lives and x is not written to.

    For rows that are held in memory anyway: a code is k values and k indices a row.

    Args:
        coder: who encodes.
    """

    def __init__(self, coder: SparseCoder) -> None:
        self.coder = coder
        self._codes: dict[int, tuple[Tensor, int, SparseCode]] = {}

    @property
    def dictionary(self) -> Dictionary:  # type: ignore[override]
        """That of the coder."""
        return self.coder.dictionary

    def encode(self, x: Float[Tensor, "*batch d"]) -> SparseCode:
        kept = self._codes.get(id(x))
        # The tensor is kept too, so that its id is not given to another.
        if kept is None or kept[1] != x._version:
            kept = self._codes[id(x)] = x, x._version, self.coder.encode(x)
        return kept[2]
