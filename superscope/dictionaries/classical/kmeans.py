"""Every row is its nearest centre: a dictionary with one active atom of value 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import Dictionary, SparseCode
from .learner import Learner
from .rows import Source, check, fitted, scikit_learn, training_rows


@final
@dataclass(frozen=True, eq=False)
class KMeans(Learner):
    r"""$\hat x = b + w_j$, $j = \arg\min_i |x - b - w_i|$: the value is always 1.

    The floor of any comparison of dictionary learners: it can name one thing per row. b is the mean of the rows, so
    that atoms are directions from it, as an autoencoder's are. Where several features are active at once, n centres
    do not stand for n features but for n of their combinations.

    Args:
        dictionary: centres about b, and b.

    Source:
        Sculley, "Web-scale k-means clustering", 2010 (the learner, scikit-learn's MiniBatchKMeans).

    Example:
        >>> x = torch.eye(3).repeat(20, 1)
        >>> float((KMeans.fit(x, n=3).reconstruct(x) - x).abs().max()) < 1e-6
        True
    """

    name: ClassVar[str] = "kmeans"

    dictionary: Dictionary

    @classmethod
    def fit(
        cls, source: Source, n: int, *, rows: int = 50_000, passes: int = 20, starts: int = 3, seed: int = 0
    ) -> KMeans:
        """Learns n centres.

        Args:
            source: where rows come from.
            n: centres.
            rows: rows to read, at most.
            passes: over the rows, at most.
            starts: independent k-means++ starts, of which the best on a sample is kept.
            seed: of the rows' order and the starts.

        Raises:
            ValueError: if there are fewer rows than centres, or an argument is out of range.
            ModuleNotFoundError: without scikit-learn.
        """
        check("KMeans", n=(n, 1), passes=(passes, 1), starts=(starts, 1))
        cluster = scikit_learn("KMeans", "cluster")
        x = training_rows("KMeans", source, rows, seed)
        if len(x) < n:
            raise ValueError(f"KMeans.fit: {n} centres need at least as many rows; there are {len(x)}.")
        bias = x.double().mean(0).float()
        learner = cluster.MiniBatchKMeans(n, max_iter=passes, n_init=starts, random_state=seed)
        fitted("KMeans", learner, x - bias)
        return cls(Dictionary(torch.from_numpy(learner.cluster_centers_).float(), bias))

    def encode(self, x: Float[Tensor, "*batch d"]) -> SparseCode:
        W = self.dictionary.to(x)
        # |x - w|^2 = |x|^2 - 2 x.w + |w|^2, and |x| is the same for all.
        distance = 0.5 * W.atoms.square().sum(1) - (x if W.bias is None else x - W.bias) @ W.atoms.T
        nearest = distance.argmin(-1, keepdim=True)
        return SparseCode(torch.ones_like(nearest, dtype=x.dtype), nearest, W.n)
