"""A sparse autoencoder whose codes are refined: for whatever takes a coder, to judge it beside the plain one."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ..core import Dictionary, SparseCode, SparseCoder
from ..recovery import Refinement
from .sae import SAE


@dataclass(frozen=True, eq=False)
class Refined(SparseCoder):
    """encode(x) is sae.encode(x, refine=refine).

    Args:
        sae: whose dictionary and first code.
        refine: as `SAE.encode` takes it.

    Example:
        >>> from superscope.dictionaries import TopK
        >>> from superscope.worlds import exactly_k
        >>> x = next(exactly_k(n=20, d=6, k=2).batches(100, seed=0)).x
        >>> sae = TopK(d=6, n=20, k=4)
        >>> error = lambda coder: (x - coder.reconstruct(x)).norm()
        >>> bool(error(Refined(sae, "pursuit")) <= error(Refined(sae, "refit")) <= error(sae))
        True
    """

    sae: SAE
    refine: Refinement | str

    @property
    def dictionary(self) -> Dictionary:  # type: ignore[override]
        """That of the autoencoder."""
        return self.sae.dictionary

    def encode(self, x: Float[Tensor, "*batch d"]) -> SparseCode:
        return self.sae.encode(x, refine=self.refine)
