"""What is known at one place, when features are to be counted there? Rows, and the dictionaries learned of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from ..core import Activations, Dictionary, SparseCoder
from .agreement.stability import Recurrence, recurring_features
from .reconstruction import Evaluation, evaluate
from .remembered import Remembered
from .stream import Moments, moments


class Wanted(NamedTuple):
    """A dictionary that must be learned before something can be measured; who wants the same one shares it.

    Args:
        n: latents.
        k: latents active at once.
        seed: of its start and of the order of rows.
    """

    n: int
    k: int
    seed: int


@dataclass(frozen=True, eq=False)
class Evidence:
    """Rows of one place and what was learned of them: made alike of a world, whose truth is known, and of a network.

    What several measurements ask for is computed once, when it is first asked for.

    Args:
        rows: batches that were learned from, to be read more than once.
        held: batches of other documents, to measure on.
        learned: the dictionaries, the main one first.
        documents: of each sequence of `held`, to resample by.
        truth: the true dictionary, where there is one.
        seed: of every bootstrap.
    """

    rows: Iterable[Activations]
    held: Sequence[Activations]
    learned: Mapping[Wanted, SparseCoder]
    documents: Tensor | None = None
    truth: Dictionary | None = None
    seed: int = 0

    @property
    def main(self) -> SparseCoder:
        """The dictionary that is shown; the others say how sure it is."""
        return next(iter(self.learned.values()))

    @cached_property
    def readers(self) -> Mapping[Wanted, SparseCoder]:
        """Each dictionary's coder for `held`, which many measurements read: it encodes each batch once."""
        return {wanted: Remembered(coder) for wanted, coder in self.learned.items()}

    @property
    def reader(self) -> SparseCoder:
        """The main one of the readers."""
        return next(iter(self.readers.values()))

    @property
    def d(self) -> int:
        """Numbers in a row."""
        return self.main.dictionary.d

    @cached_property
    def moments(self) -> Moments:
        """Mean and covariance of the rows learned from."""
        return moments(self.rows)

    @cached_property
    def evaluations(self) -> Mapping[Wanted, Evaluation]:
        """How well each dictionary explains what was held out."""
        return {
            wanted: evaluate(coder, self.held, documents=self.documents, seed=self.seed)
            for wanted, coder in self.readers.items()
        }

    def recurrence(self, wanted: tuple[Wanted, ...]) -> Recurrence:
        """Which atoms recur in how many of these dictionaries, beside random ones with the rows' covariance."""
        if wanted not in self._recurrences:
            self._recurrences[wanted] = recurring_features(
                [self.learned[each].dictionary for each in wanted],
                alive=[self.alive(each) for each in wanted],
                covariance=self.moments.covariance,
                seed=self.seed,
            )
        return self._recurrences[wanted]

    @cached_property
    def _recurrences(self) -> dict[tuple[Wanted, ...], Recurrence]:
        return {}

    def alive(self, wanted: Wanted) -> Bool[Tensor, "n"]:
        """Which latents of a dictionary are ever active on what was held out."""
        return torch.as_tensor(self.evaluations[wanted].density > 0)
