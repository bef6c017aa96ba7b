"""Parts that only add up: nonnegative atoms and nonnegative codes for nonnegative x."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import Dictionary, SparseCode
from ...recovery import FISTA
from .learner import Learner
from .rows import Source, check, fitted, scikit_learn, training_rows

_SHARE = 1e-5
"""Of the largest correlation with an atom: the penalty of the solver that reads codes, small beside any value."""


@final
@dataclass(frozen=True, eq=False)
class NMF(Learner):
    r"""$\min_{f \ge 0, W \ge 0} |X - F W|^2$: unit atoms without negative entries.

    For activations after a ReLU, and other data without negative numbers; on signed x it cannot apply, and `fit` says
    so. Codes are nonnegative least squares on all atoms, so their number of nonzeros is what comes out, mostly many.

    Args:
        dictionary: unit atoms; there is no bias.
        penalty: of the solver behind `encode` (FISTA), a small number in units of x that keeps it well posed.

    Source:
        Lee and Seung, "Learning the parts of objects by non-negative matrix factorization", 1999.
        Lefevre, Bach and Fevotte, "Online algorithms for nonnegative matrix factorization with the Itakura-Saito
        divergence", 2011 (the learner, scikit-learn's MiniBatchNMF, here with squared error).

    Example:
        >>> x = torch.eye(4).repeat(25, 1)[:, :3]
        >>> float((NMF.fit(x, n=3).reconstruct(x) - x).abs().max()) < 0.01
        True
    """

    name: ClassVar[str] = "nmf"

    dictionary: Dictionary
    penalty: float

    @classmethod
    def fit(cls, source: Source, n: int, *, rows: int = 20_000, passes: int = 50, seed: int = 0) -> NMF:
        """Learns n atoms.

        Args:
            source: where rows come from.
            n: atoms.
            rows: rows to read, at most.
            passes: over the rows, at most.
            seed: of the rows' order and the start.

        Raises:
            ValueError: if a row has a negative entry, or an argument is out of range.
            ModuleNotFoundError: without scikit-learn.
        """
        check("NMF", n=(n, 1), passes=(passes, 1))
        decomposition = scikit_learn("NMF", "decomposition")
        x = training_rows("NMF", source, rows, seed)
        if bool((x < 0).any()):
            row, column = (x < 0).nonzero()[0].tolist()
            raise ValueError(
                f"NMF.fit: row {row} has the negative entry {float(x[row, column]):.4g} in coordinate {column}, and "
                "nonnegative parts cannot add up to it. Take activations after a ReLU, or KSVD for signed ones."
            )
        learner = decomposition.MiniBatchNMF(
            n, init="random" if n > min(x.shape) else "nndsvda", max_iter=passes, random_state=seed
        )
        fitted("NMF", learner, x)
        atoms = torch.from_numpy(learner.components_).float()
        norms = atoms.norm(dim=1, keepdim=True)
        # A part that the factorisation emptied stays an atom, at 0: it will never be active.
        W = Dictionary(atoms / torch.where(norms > 0, norms, torch.ones_like(norms)))
        return cls(W, penalty=max(_SHARE * float((x @ W.atoms.T).amax()), 1e-12))

    def encode(self, x: Float[Tensor, "*batch d"]) -> SparseCode:
        return FISTA(self.dictionary, penalty=self.penalty, nonnegative=True).encode(x)
