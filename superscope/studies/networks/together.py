"""What dictionary have several places together, and in which of them does each latent live? Rows side by side."""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ... import measure
from ...capture import MemorySource
from ...core import Activations, Findings, Measurement, Run
from ...dictionaries import SAE, SHORT, load, train
from ...dictionaries.sae.base import SAVED
from ..study import Progress
from .readings import Reading, View

S = TypeVar("S", bound=SAE)

_ROOM = 2**28
"""Bytes of rows to learn from, of all places together."""
_LIVES = 0.5
"""Share of a latent's longest part that its part at a place must have to live there."""


@dataclass(frozen=True, eq=False)
class Side:
    """Rows of one place.

    Args:
        numbers: of each row, sequence * context + position, rising.
        x: the rows.
    """

    numbers: np.ndarray
    x: Float[Tensor, "rows d"]

    @classmethod
    def of(cls, rows: Iterable[Activations], context: int, most: int | None = None) -> Side:
        """The first rows that there are, or all of them."""
        x, places, count = [], [], 0
        for batch in rows:
            assert batch.places is not None
            x.append(batch.x.cpu())
            places.append(batch.places.cpu().numpy())
            count += len(batch)
            if most is not None and count >= most:
                break
        where = np.concatenate(places)[:most]
        numbers = where[:, 0] * context + where[:, 1]
        order = np.argsort(numbers, kind="stable")
        return cls(numbers[order], torch.cat(x)[:most][torch.from_numpy(order)])


@dataclass(frozen=True)
class Sides(Reading):
    """Keeps rows of each place: the first ones to learn from, and those held out.

    Args:
        places: how many there will be; they share the room.
    """

    name: ClassVar[str] = "rows side by side"

    places: int
    learned: dict[tuple[str, str], Side] = field(default_factory=dict)
    held: dict[tuple[str, str], Side] = field(default_factory=dict)

    def read(self, seen: View, findings: Findings) -> None:
        at = seen.label, str(seen.site)
        most = _ROOM // (4 * seen.d * self.places)
        self.learned[at] = Side.of(seen.source.rows(), seen.corpus.context, most)
        self.held[at] = Side.of(seen.held, seen.held_out.context)


@dataclass(frozen=True, eq=False)
class SideBySide:
    """Rows that all places have, about each place's mean and all with one spread.

    Args:
        learned, held: side by side.
        numbers: of the held-out ones.
        widths: of each place.
    """

    learned: Float[Tensor, "rows d"]
    held: Float[Tensor, "held d"]
    numbers: np.ndarray
    widths: tuple[int, ...]

    @classmethod
    def of(cls, learned: Sequence[Side], held: Sequence[Side]) -> SideBySide:
        """Rows that are missing from one place, for they are outliers there, are left out of all.

        Raises:
            ValueError: if a place's rows are constant, or there is no row that all have.
        """
        parts, others = [], []
        _, taught = _common(learned)
        numbers, kept = _common(held)
        if not len(numbers) or not len(taught[0]):
            raise ValueError("no row of text is at all places, so no dictionary can be learned of them together.")
        for number, (x, other) in enumerate(zip(taught, kept, strict=True)):
            mean = x.double().mean(0)
            spread = float((x.double() - mean).square().mean().sqrt())
            if not spread > 0:
                raise ValueError(f"the rows of place {number + 1} are all equal: there is nothing to learn from there.")
            parts.append(((x - mean) / spread).float())
            others.append(((other - mean) / spread).float())
        return cls(torch.cat(parts, 1), torch.cat(others, 1), numbers, tuple(x.shape[1] for x in taught))

    def part(self, place: int) -> Float[Tensor, "held _"]:
        """Held-out rows of one place."""
        return self.held.split(self.widths, dim=1)[place]


def _common(sides: Sequence[Side]) -> tuple[np.ndarray, list[Tensor]]:
    numbers = functools.reduce(np.intersect1d, [side.numbers for side in sides])
    return numbers, [side.x[torch.from_numpy(np.searchsorted(side.numbers, numbers))] for side in sides]


def taught(
    sae: S, rows: Float[Tensor, "rows d"], run: Run, place: str, *, steps: int, batch: int, stage: str, **more: Any
) -> Generator[Progress, None, S]:
    """The SAE trained with the trainer's arguments for few steps, or taken from an interrupted run."""
    if run.has(*(f"{place}/{name}" for name in SAVED)):
        kept: Any = load(run / place)
        yield Progress(stage, steps, steps, "taken from the interrupted run", resumed=True)
        return kept
    yield Progress(stage, 0, steps)
    for step in train(sae, MemorySource(rows), steps=steps, **{**SHORT, "batch": min(batch, len(rows)), **more}):
        if step.index % 10 == 0 or step.index == steps:
            unexplained = step.numbers["fraction_variance_unexplained"]
            yield Progress(stage, step.index, steps, f"{unexplained:.1%} of variance unexplained")
    run.keep(place, sae.save, SAVED)
    return sae


def unexplained(x: Float[Tensor, "rows d"], rebuilt: Float[Tensor, "rows d"], documents: np.ndarray) -> Measurement:
    """Squared error over variance about the mean, resampled by documents; chance has the rows in another order."""
    error, whole, shifted = (
        part.double().square().sum(1).numpy() for part in (x - rebuilt, x - x.mean(0), x - rebuilt.roll(len(x) // 2, 0))
    )
    sums = np.stack([np.bincount(documents, v) for v in (error, whole)], 1)
    interval = measure.bootstrap(lambda s: s[:, 0] / s[:, 1], sums[sums[:, 1] > 0])
    return Measurement(
        name="universal_unexplained",
        value=float(error.sum() / whole.sum()),
        unit="share of variance",
        n=len(x),
        of="rows",
        chance=float(shifted.sum() / whole.sum()),
        chance_is="rows half a text further on",
        **interval.fields,
    )


def lives(atoms: Float[Tensor, "n d"], widths: Sequence[int]) -> np.ndarray:
    """(n, places): whether a latent's part at a place is at least half as long as its longest.

    Args:
        atoms: over all places side by side, which have one spread.
        widths: of the places.

    Example:
        >>> lives(torch.tensor([[3.0, 0.0, 4.0], [1.0, 0.0, 4.0]]), (2, 1)).tolist()
        [[True, True], [False, True]]
    """
    norms = torch.stack([part.norm(dim=1) for part in atoms.detach().split(list(widths), dim=1)], 1)
    return (norms >= _LIVES * norms.amax(1, keepdim=True)).cpu().numpy()
