"""Any source with something done to its rows: sinks put in, directions planted, coordinates shuffled."""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..core import Activations, ActivationSource, Dictionary, SparseCode
from ..features import WELL_ABOVE_ZERO, Independent, Magnitude
from .drawn import generator_of
from .truth import Truth

_ROWS = 8192
"""Rows that a source's scale is taken from."""

_HEAVIEST = 0.15
"""Largest share of the variance that planted directions may have."""


class Altered(ActivationSource):
    """The batches of another source, each altered by numbers drawn from its seed and its place alone.

    A batch altered is one that `batches_from` finds again. What lies beside the rows stays, unless the alteration
    says otherwise.
    """

    source: ActivationSource
    seed: int

    salt: ClassVar[int]
    """Keeps the random numbers of one kind of alteration from being those of another."""

    @abstractmethod
    def alter(self, batch: Activations, generator: torch.Generator) -> Activations:
        """The batch as it is after the alteration."""

    @property
    def d(self) -> int:  # type: ignore[override]
        """Dimension of x."""
        return self.source.d

    @property
    def site(self):  # type: ignore[override]
        """Where the source reads."""
        return self.source.site

    @property
    def truth(self) -> Truth | None:
        """What is to be found in it; None where the source does not know."""
        return truth_of(self.source)

    def __length_hint__(self) -> int:
        rows = operator.length_hint(self.source, -1)
        return NotImplemented if rows < 0 else rows

    def batches(self, size: int, *, seed: int) -> Iterator[Activations]:
        """The source's batches, altered."""
        return self.batches_from(0, size, seed=seed)

    def batches_from(self, start: int, size: int, *, seed: int) -> Iterator[Activations]:
        """The same from number `start` on; the source need not make those before it if it can do without."""
        for index, batch in enumerate(self.source.batches_from(start, size, seed=seed), start):
            yield self.alter(batch, generator_of(seed, index, self.salt, self.seed, device=batch.x.device))

    def __str__(self) -> str:
        return f"{type(self).__name__}: {self.truth or 'what is to be found in it is not known'}"


def truth_of(source: ActivationSource) -> Truth | None:
    """What is to be found in a source, where it knows."""
    known = getattr(source, "truth", None)
    return known if isinstance(known, Truth) else None


def first_rows(source: ActivationSource, rows: int, *, seed: int = 0) -> Float[Tensor, "rows d"]:
    """Up to so many rows of a source, fewer where it has no more."""
    there = operator.length_hint(source, rows)
    size = min(rows, there, 4096)
    if size < 1:
        return torch.empty(0, source.d)
    return torch.cat([batch.x for batch in islice(source.batches(size, seed=seed), min(rows, there) // size)])


@dataclass(frozen=True, eq=False)
class Sinks(Altered):
    r"""Some rows are replaced by one enormous one: $x = t\, m\, v (1 + 0.01 \varepsilon)$, m the median norm.

    As the first token of a text and delimiters do in language models: the same few coordinates hold nearly all of it
    wherever it comes. It is nobody's feature, so the truth does not count it, and a sink's row has no f.

    Args:
        source: whose rows are replaced.
        share: P(a row is a sink), in [0, 1).
        times: t, norm of a sink over the median norm of the source's rows.
        coordinates: how many coordinates hold it.
        seed: of v and of which rows.

    Raises:
        ValueError: if a number is out of its range, or the source has no rows.

    Source:
        Sun, Chen, Kolter and Liu, "Massive activations in large language models", 2024 (that there are such rows and
        coordinates).
    """

    source: ActivationSource
    share: float | int = 0.001
    times: float | int = 70.0
    coordinates: int = 2
    seed: int = 0

    salt: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not (0 <= self.share < 1 and self.times > 0 and 1 <= self.coordinates <= self.source.d):
            raise ValueError(
                f"Sinks: share in [0, 1), times above 0 and 1 to d = {self.source.d} coordinates are wanted; got "
                f"{self.share}, {self.times} and {self.coordinates}."
            )

    @cached_property
    def row(self) -> Float[Tensor, "d"]:
        """t m v."""
        x = first_rows(self.source, _ROWS)
        if not len(x):
            raise ValueError("Sinks: the source has no rows, so there is no median norm to be large against.")
        random = generator_of(self.seed, self.salt)
        v = torch.zeros(self.d)
        v[torch.randperm(self.d, generator=random)[: self.coordinates]] = torch.randn(
            self.coordinates, generator=random
        )
        return (self.times * x.norm(dim=1).median().float().cpu() * v / v.norm()).to(x)

    def alter(self, batch: Activations, generator: torch.Generator) -> Activations:
        """The batch with its sinks."""
        x, device = batch.x, batch.x.device
        which = (torch.rand(len(x), generator=generator, device=device) < self.share).nonzero()[:, 0]
        jitter = 1 + 0.01 * torch.randn(len(which), self.d, generator=generator, device=device).to(x)
        code = batch.code
        if code is not None:
            code = SparseCode(code.values.index_fill(0, which, 0), code.indices, code.n)
        x = x.index_copy(0, which, self.row.to(x) * jitter)
        return Activations(x, code, batch.tokens, batch.places, batch.target)


@dataclass(frozen=True, eq=False)
class Planted(Altered):
    r"""$x' = x + \sum_j g_j m_j a_j$: known sparse directions added to any source, independent of all it holds.

    What a procedure finds of them is what it would find of the source's own features of such density and magnitude.
    Batches carry the f of source and plants together, the plants last, where the source knows its own; else that of
    the plants alone.

    Args:
        source: anything with rows.
        atoms: the directions, of any length: that of a direction is a factor on its magnitudes.
        density: P(g_j = 1), one number or one for each.
        magnitude: the law of m, in units of x.
        seed: of the gates and magnitudes.

    Raises:
        ValueError: if the plants live in another dimension, or carry over 15 % of the variance of x': then it is
            another source that is looked at.

    Example:
        >>> from superscope.worlds import exactly_k
        >>> from superscope.frames import random_unit
        >>> source = Planted(exactly_k(n=32, d=16, k=2), random_unit(n=4, d=16), density=0.02)
        >>> source.truth.n, next(source.batches(8, seed=0)).code.n
        (36, 36)
    """

    source: ActivationSource
    atoms: Dictionary
    density: float | tuple[float, ...]
    magnitude: Magnitude = WELL_ABOVE_ZERO
    seed: int = 0

    salt: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.atoms.d != self.source.d:
            raise ValueError(
                f"Planted: directions of d = {self.atoms.d} cannot be planted in rows of d = {self.source.d}."
            )
        if (share := self.share) > _HEAVIEST:
            factor = (_HEAVIEST / (1 - _HEAVIEST) * (1 - share) / share) ** 0.5
            raise ValueError(
                f"Planted: {self.atoms.n} plants carry {share:.1%} of the variance, and beyond {_HEAVIEST:.0%} it is "
                f"another source that is looked at. Plant fewer or rarer ones, or make them {factor:.2g} times as long."
            )

    @cached_property
    def law(self) -> Independent:
        """Of the plants' f."""
        return Independent(self.atoms.n, self.density, self.magnitude)

    @cached_property
    def share(self) -> float:
        """Of the variance of x' that the plants have."""
        p, law = self.law.density, self.magnitude
        own = float((self.atoms.norms.double().cpu().square() * (p * law.square - (p * law.mean) ** 2)).sum())
        x = first_rows(self.source, _ROWS).double()
        rest = float(x.var(0).sum()) if len(x) > 1 else 0.0
        return own / (own + rest) if own + rest else 0.0

    @cached_property
    def plants(self) -> Truth:
        """What was planted."""
        component = torch.arange(self.atoms.n)
        return Truth(Dictionary(self.atoms.atoms.cpu()), component, self.law.density, self.law.l0)

    @cached_property
    def truth(self) -> Truth | None:  # type: ignore[override]
        """The source's components and the plants; None where the source does not know its own."""
        own, plants = truth_of(self.source), self.plants
        if own is None:
            return None
        atoms = torch.cat([own.dictionary.atoms, plants.dictionary.atoms.to(own.dictionary.atoms)])
        rows = torch.arange(own.dictionary.n) if own.rows is None else own.rows
        first = next(iter(self.source.batches(1, seed=0))).code
        width = 0 if first is None else first.n
        return Truth(
            Dictionary(atoms, own.dictionary.bias),
            torch.cat([own.component, own.n + plants.component]),
            torch.cat([own.density, plants.density]),
            own.l0 + plants.l0,
            None if own.rows is None else torch.cat([rows, width + plants.component]),
        )

    def alter(self, batch: Activations, generator: torch.Generator) -> Activations:
        """The batch with the plants in it."""
        f = self.law.sample(len(batch), generator=generator)
        f = SparseCode(f.values.to(batch.x.dtype), f.indices, f.n)
        x = batch.x + Dictionary(self.atoms.atoms.to(batch.x)).compose(f)
        code = batch.code
        if code is not None:
            f = SparseCode(
                torch.cat([code.values, f.values.to(code.values)], 1),
                torch.cat([code.indices, f.indices + code.n], 1),
                code.n + f.n,
            )
        return Activations(x, f, batch.tokens, batch.places, batch.target)


@dataclass(frozen=True, eq=False)
class Shuffled(Altered):
    """Each coordinate is shuffled among the rows of a batch by itself: marginals stay, dependence goes.

    A null: nothing is left that more than one coordinate takes part in. What a coordinate has of its own stays, so that
    an answer up to d, along the axes, is no mistake, and one above d is.

    Args:
        source: anything with rows.
        seed: of the shuffle.
    """

    source: ActivationSource
    seed: int = 0

    salt: ClassVar[int] = 3

    @cached_property
    def truth(self) -> Truth:  # type: ignore[override]
        """Nothing."""
        return Truth.none(self.d)

    def alter(self, batch: Activations, generator: torch.Generator) -> Activations:
        """The batch shuffled; it carries no f, for its rows are nobody's any more."""
        lot = torch.rand(batch.x.shape, generator=generator, device=batch.x.device)
        return Activations(batch.x.gather(0, lot.argsort(0)))
