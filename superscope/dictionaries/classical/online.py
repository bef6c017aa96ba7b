"""The lasso on a dictionary that follows its statistics: online dictionary learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import Dictionary, SparseCode
from ...recovery import CoordinateDescent
from .learner import Learner
from .rows import Source, check, fitted, scikit_learn, training_rows


@final
@dataclass(frozen=True, eq=False)
class OnlineDictionary(Learner):
    r"""$\min_W E \min_f \frac12 |x - b - W f|^2 + \lambda |f|_1$ over unit atoms, by stochastic approximation.

    Codes are those of the lasso, so they shrink; `recovery.refit` undoes it. b is the mean of the rows and is not
    learned. Learning takes many times an autoencoder's time on easy worlds (`docs/classical.md`).

    Args:
        dictionary: unit atoms and b.
        penalty: lambda, in units of x.
        nonnegative: whether f >= 0.
        converged: whether every lasso solved while learning met its tolerance; they rarely all do, with little harm.

    Source:
        Mairal, Bach, Ponce and Sapiro, "Online learning for matrix factorization and sparse coding", 2010
        (scikit-learn's MiniBatchDictionaryLearning).

    Example:
        >>> x = torch.eye(4).repeat(50, 1)
        >>> learned = OnlineDictionary.fit(x, n=4, penalty=0.01, passes=5)
        >>> float((learned.reconstruct(x) - x).square().mean()) < 0.01
        True
    """

    name: ClassVar[str] = "online"

    dictionary: Dictionary
    penalty: float
    nonnegative: bool = True
    converged: bool = True

    @classmethod
    def fit(
        cls,
        source: Source,
        n: int,
        *,
        penalty: float = 0.1,
        nonnegative: bool = True,
        rows: int = 20_000,
        passes: int = 5,
        batch: int = 256,
        seed: int = 0,
    ) -> OnlineDictionary:
        """Learns n atoms.

        Args:
            source: where rows come from.
            n: atoms.
            penalty: lambda as a share of the root mean square length of x - b, so that it suits any scale.
            nonnegative: restricts codes to f >= 0.
            rows: rows to read, at most.
            passes: over the rows.
            batch: rows per step.
            seed: of the rows' order and the start.

        Raises:
            ValueError: if x is constant, or an argument is out of range.
            ModuleNotFoundError: without scikit-learn.
        """
        check("OnlineDictionary", n=(n, 1), penalty=(penalty, 1e-6), passes=(passes, 1), batch=(batch, 1))
        decomposition = scikit_learn("OnlineDictionary", "decomposition")
        x = training_rows("OnlineDictionary", source, rows, seed)
        bias = x.double().mean(0).float()
        length = float((x - bias).double().square().sum(1).mean().sqrt())
        if length <= 1e-6 * float(x.abs().max()) or length == 0:
            raise ValueError("OnlineDictionary.fit: the rows are constant, so there is nothing to learn.")
        learner = decomposition.MiniBatchDictionaryLearning(
            n,
            alpha=penalty,
            max_iter=passes,
            fit_algorithm="cd",
            transform_algorithm="lasso_cd",
            positive_code=nonnegative,
            batch_size=min(batch, len(x)),
            # Its own stopping rule looks at noisy batches and ends runs that are still learning.
            tol=0.0,
            max_no_improvement=None,
            random_state=seed,
        )
        converged = fitted("OnlineDictionary", learner, ((x - bias) / length).double())
        atoms = torch.from_numpy(learner.components_).float()
        norms = atoms.norm(dim=1, keepdim=True)
        W = Dictionary(atoms / torch.where(norms > 0, norms, torch.ones_like(norms)), bias)
        return cls(W, penalty=penalty * length, nonnegative=nonnegative, converged=converged)

    def encode(self, x: Float[Tensor, "*batch d"]) -> SparseCode:
        return CoordinateDescent(self.dictionary, penalty=self.penalty, nonnegative=self.nonnegative).encode(x)
