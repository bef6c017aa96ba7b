"""How do SAELens's synthetic data and our worlds serve each other? By their interface alone: nothing is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import Dictionary, SparseCode
from .world import World

_SOME = 8192
"""Rows by which the mean number of active features of a foreign generator is estimated."""


@dataclass(frozen=True, eq=False)
class GeneratorLaw:
    """The law of an activation generator: anything whose `sample(rows)` gives dense rows of f.

    A generator that draws from torch's own random state is seeded from ours, and that state is left as it was: so a
    batch depends on its seed alone, as in every world.

    Args:
        generator: of SAELens, or of the same interface.
        parents: of each feature its parent's number, -1 for none, where the caller knows them.
    """

    generator: Any
    parents: Sequence[int] | None = None

    @cached_property
    def _some(self) -> SparseCode:
        return self.sample(_SOME, generator=torch.Generator().manual_seed(0))

    @property
    def n(self) -> int:
        """Number of features."""
        return self._some.n

    @property
    def l0(self) -> float:
        """Mean number of active features, on some rows: what a modifier makes of the densities has no formula."""
        return float(self._some.l0.double().mean())

    @torch.no_grad()
    def sample(self, count: int, *, generator: torch.Generator | None = None) -> SparseCode:
        """`count` rows of f."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            f = self.generator.sample(count)
        return SparseCode.from_dense(f.to_dense() if f.is_sparse else f)


def from_saelens(feature_dict: Any, generator: Any, *, parents: Sequence[int] | None = None) -> World:
    """A world of a feature dictionary and an activation generator of SAELens: a source for everything here.

    Args:
        feature_dict: with `feature_vectors` (n, d) and `bias` (d) or none.
        generator: with `sample(rows)`.
        parents: of each feature its parent's number, -1 for none, so that absorption can be judged.

    Example:
        >>> class Half:
        ...     def sample(self, rows):
        ...         return (torch.rand(rows, 3) < 0.5).float()
        >>> class Axes:
        ...     feature_vectors, bias = torch.eye(3), None
        >>> world = from_saelens(Axes, Half())
        >>> world.n, world.d, 1.4 < world.features.l0 < 1.6
        (3, 3, True)
    """
    bias = getattr(feature_dict, "bias", None)
    W = Dictionary(feature_dict.feature_vectors.detach().clone(), None if bias is None else bias.detach().clone())
    return World(GeneratorLaw(generator, parents), W)


class AsGenerator:
    """A world as SAELens's two halves: this is both its `activations_generator` and its `feature_dict`.

    Rows come from the world's own batches, in order. Called with the f that it has just sampled it gives the x of those
    very rows, with the world's noise and nuisance; any other f is composed without them.

    Args:
        world: any.
        seed: of the rows.

    Example:
        >>> from .presets import exactly_k
        >>> theirs = AsGenerator(exactly_k(n=16, d=8, k=2), seed=1)
        >>> f = theirs.sample(5)
        >>> f.shape, theirs(f).shape
        (torch.Size([5, 16]), torch.Size([5, 8]))
    """

    def __init__(self, world: World, *, seed: int = 0) -> None:
        self.world, self._seed, self._turn = world, seed, 0
        self.feature_vectors, self.num_features, self.hidden_dim = world.dictionary.atoms, world.n, world.d
        self._f: Tensor | None = None
        self._x = world.dictionary.atoms[:0]

    @torch.no_grad()
    def sample(self, batch_size: int) -> Float[Tensor, "rows n"]:
        """Dense rows of f."""
        batch = next(self.world.batches_from(self._turn, batch_size, seed=self._seed))
        assert batch.code is not None
        self._turn += 1
        self._f, self._x = batch.code.dense(), batch.x
        return self._f

    def __call__(self, asked: Float[Tensor, "rows n"] | int) -> Tensor:
        """x of rows of f; of a number, as many rows of f."""
        if isinstance(asked, int):
            return self.sample(asked)
        return self._x if asked is self._f else self.world.dictionary.compose(asked)

    def eval(self) -> AsGenerator:
        """Itself: there is no other mode."""
        return self
