"""Directions along which x is as far from Gaussian as can be: a complete dictionary, read by its inverse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import Dictionary, ShapeError, SparseCode
from .learner import Learner
from .rows import Source, check, fitted, scikit_learn, training_rows


@final
@dataclass(frozen=True, eq=False)
class ICA(Learner):
    r"""$f = U (x - b)$ with U the inverse of W: at most d atoms, every one of them active in every row.

    The best that can be had without superposition: it finds independent features exactly where there are no more of
    them than dimensions, and no dictionary of more. Signs are arbitrary; atoms have norm 1, so f is in units of x.

    Args:
        dictionary: unit atoms and the mean of the rows.
        reader: U, one row per atom.
        converged: whether the iteration met its tolerance.

    Raises:
        ShapeError: if reader and dictionary differ in shape.

    Source:
        Hyvarinen, "Fast and robust fixed-point algorithms for independent component analysis", 1999 (scikit-learn's
        FastICA).

    Example:
        >>> x = torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) ** 4
        >>> ica = ICA.fit(x, n=3)
        >>> float((ica.reconstruct(x) - x).abs().max()) < 1e-4
        True
    """

    name: ClassVar[str] = "ica"

    dictionary: Dictionary
    reader: Float[Tensor, "n d"]
    converged: bool = True

    def __post_init__(self) -> None:
        if self.reader.shape != self.dictionary.atoms.shape:
            raise ShapeError(
                f"ICA: reader has shape {tuple(self.reader.shape)} and the atoms "
                f"{tuple(self.dictionary.atoms.shape)}. Give one row per atom."
            )

    @classmethod
    def fit(cls, source: Source, n: int | None = None, *, rows: int = 20_000, steps: int = 400, seed: int = 0) -> ICA:
        """Learns n <= d atoms.

        Args:
            source: where rows come from.
            n: atoms; None is d.
            rows: rows to read, at most.
            steps: of the fixed-point iteration, at most; `converged` says whether they were enough.
            seed: of the rows' order and the start.

        Raises:
            ValueError: if n is above d or the rank of the rows, or an argument is out of range.
            ModuleNotFoundError: without scikit-learn.
        """
        decomposition = scikit_learn("ICA", "decomposition")
        x = training_rows("ICA", source, rows, seed)
        n = x.shape[1] if n is None else n
        check("ICA", n=(n, 1), steps=(steps, 1))
        rank = int(torch.linalg.matrix_rank(x.double() - x.double().mean(0)))
        if n > rank:
            raise ValueError(
                f"ICA.fit: {n} independent directions cannot be read from rows that span {rank} dimensions. "
                f"Ask for n <= {rank}; for more atoms than dimensions take KSVD or an autoencoder."
            )
        learner = decomposition.FastICA(n, whiten="unit-variance", max_iter=steps, random_state=seed)
        converged = fitted("ICA", learner, x.double())
        atoms, reader = torch.from_numpy(learner.mixing_.T), torch.from_numpy(learner.components_)
        norms = atoms.norm(dim=1, keepdim=True)
        W = Dictionary((atoms / norms).float(), torch.from_numpy(learner.mean_).float())
        return cls(W, (reader * norms).float(), converged=converged)

    def encode(self, x: Float[Tensor, "*batch d"]) -> SparseCode:
        W = self.dictionary.to(x)
        return SparseCode.from_dense((x if W.bias is None else x - W.bias) @ self.reader.to(x).T)
