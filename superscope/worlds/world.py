"""Where truth is known: activations composed from a law of features, a dictionary, noise and nuisance."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..core import Activations, ActivationSource, Dictionary, ShapeError, SparseCode


@runtime_checkable
class FeatureLaw(Protocol):
    """What a world asks of a law of f: every distribution of `features/` has it, and so may any class of your own."""

    @property
    def n(self) -> int:
        """Number of features."""
        ...

    @property
    def l0(self) -> float:
        """Expected number of active features."""
        ...

    def sample(self, count: int, *, generator: torch.Generator | None = None) -> SparseCode:
        """`count` rows of f."""
        ...


@dataclass(frozen=True, eq=False)
class World(ActivationSource):
    r"""$x = W f + b + V g + \sigma \varepsilon$: f from a law, g and epsilon standard normal.

    An unbounded source whose batches carry the f that made them. Batch i is drawn from the pair (seed, i) alone, so
    `batches_from(i, ...)` costs nothing for the batches that it leaves out, and gives the very ones that would have
    followed. Another size makes other rows.

    Args:
        features: law of f.
        dictionary: W and b: the truth that a learner is to find.
        noise: sigma, the standard deviation of white noise in each coordinate.
        nuisance: V, one row per direction: variance of x that is nobody's feature, dense and Gaussian, of the length
            of the row in that direction. None is none.

    Raises:
        ShapeError: if features and dictionary differ in n, or nuisance and dictionary in d.
        ValueError: if noise is negative or not finite.

    Example:
        >>> from superscope.features import ExactlyK
        >>> from superscope.frames import random_unit
        >>> world = World(ExactlyK(n=32, k=2), random_unit(n=32, d=8))
        >>> batch = next(world.batches(4, seed=0))
        >>> torch.equal(batch.x, world.dictionary.compose(batch.code))
        True
    """

    features: FeatureLaw
    dictionary: Dictionary
    noise: float = 0.0
    nuisance: Dictionary | None = None

    def __post_init__(self) -> None:
        if self.features.n != self.dictionary.n:
            raise ShapeError(
                f"World: the law has {self.features.n} features and the dictionary {self.dictionary.n} atoms. "
                "Give one atom per feature."
            )
        if self.nuisance is not None and self.nuisance.d != self.dictionary.d:
            raise ShapeError(
                f"World: nuisance lives in d = {self.nuisance.d} and the dictionary in d = {self.dictionary.d}. "
                "Give directions of the same space."
            )
        if not (math.isfinite(self.noise) and self.noise >= 0):
            raise ValueError(f"World: noise must be a finite standard deviation, at least 0; got {self.noise}.")

    @property
    def d(self) -> int:  # type: ignore[override]
        """Dimension of x."""
        return self.dictionary.d

    @property
    def n(self) -> int:
        """Number of features."""
        return self.dictionary.n

    @property
    def difficulty(self) -> float:
        r"""$2\, l_0 \ln(n / l_0) / d$: below 1 a sparse f can be read back from x and W; above 1 nobody can.

        The yardstick of compressed sensing for large random dictionaries, about the Donoho-Tanner threshold. Print it
        beside every score: in a world above 1 a low score says nothing of the learner.

        Source:
            Donoho and Tanner, "Counting faces of randomly projected polytopes when the projection radically lowers
            dimension", 2009.
        """
        l0 = self.features.l0
        return 2 * l0 * math.log(self.n / l0) / self.d if l0 < self.n else math.inf

    @torch.no_grad()
    def draw(self, rows: int, *, generator: torch.Generator) -> Activations:
        """Rows of x with the f that made them, from a generator on the dictionary's device.

        Raises:
            ValueError: if rows is below 1.
        """
        if rows < 1:
            raise ValueError(f"World: a batch needs at least 1 row; got {rows}.")
        atoms = self.dictionary.atoms
        code = self.features.sample(rows, generator=generator)
        code = SparseCode(code.values.to(atoms.dtype), code.indices, code.n)
        x = self.dictionary.compose(code)
        if self.nuisance is not None:
            x = x + self._normal(rows, self.nuisance.n, generator) @ self.nuisance.atoms.to(atoms)
        if self.noise:
            x = x + self.noise * self._normal(rows, self.d, generator)
        return Activations(x, code=code)

    def _normal(self, rows: int, columns: int, generator: torch.Generator) -> Float[Tensor, "rows columns"]:
        return torch.randn(rows, columns, generator=generator, device=generator.device).to(self.dictionary.atoms)

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
                raise ValueError(f"World: {name} must be at least {least}; got {value}.")
        return self._batches(size, seed, start)

    def _batches(self, size: int, seed: int, index: int) -> Iterator[Activations]:
        device = self.dictionary.atoms.device
        while True:
            # A generator per batch, not one that runs through them: that is what makes starting anywhere free. CPU
            # generators take 32 bits of it, so that among 10 000 batches two are alike with probability 0.01.
            state = int(np.random.SeedSequence((seed, index)).generate_state(1)[0])
            yield self.draw(size, generator=torch.Generator(device=device).manual_seed(state))
            index += 1
