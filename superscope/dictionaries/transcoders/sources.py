"""Two streams of activations read in step: one as what is predicted from the other, or several side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

import torch

from ...core import Activations, ActivationSource


class Paired(ActivationSource):
    """x of one source with x of another as its target: what a transcoder is trained on.

    Both are asked with one seed and must give the same rows of text in the same order; where they tell the places or
    tokens of their rows, that is checked at every batch.

    Args:
        source: where x comes from: a module's input, say.
        target: where what is to be predicted comes from: the module's output.
    """

    def __init__(self, source: ActivationSource, target: ActivationSource) -> None:
        self.source, self.target = source, target
        self.d, self.d_out, self.site = source.d, target.d, source.site

    def __len__(self) -> int:
        """Rows of the first, where it says."""
        return len(self.source)  # type: ignore[arg-type]

    def batches(self, size: int, *, seed: int) -> Iterator[Activations]:
        """Batches with a target.

        Raises:
            ValueError: if the two give different rows, or one ends before the other.
        """
        return self._paired(*(source.batches(size, seed=seed) for source in (self.source, self.target)))

    def batches_from(self, start: int, size: int, *, seed: int) -> Iterator[Activations]:
        return self._paired(*(source.batches_from(start, size, seed=seed) for source in (self.source, self.target)))

    def _paired(self, *streams: Iterator[Activations]) -> Iterator[Activations]:
        for one, other in _in_step("Paired", streams):
            yield Activations(one.x, one.code, one.tokens, one.places, target=other.x)


class Beside(ActivationSource):
    """x of several sources side by side: what a crosscoder is trained on.

    All are asked with one seed and must give the same rows of text in the same order; where they tell the places or
    tokens of their rows, that is checked at every batch.

    Args:
        sources: one per site or model, at least one.

    Attributes:
        widths: d of each, as `Crosscoder` wants them.

    Raises:
        ValueError: if there are none.
    """

    def __init__(self, sources: Sequence[ActivationSource]) -> None:
        if not sources:
            raise ValueError("Beside: give at least one source.")
        self.sources = tuple(sources)
        self.widths = tuple(source.d for source in sources)
        self.d, self.site = sum(self.widths), sources[0].site

    def __len__(self) -> int:
        """Rows of the first, where it says."""
        return len(self.sources[0])  # type: ignore[arg-type]

    def batches(self, size: int, *, seed: int) -> Iterator[Activations]:
        """Batches of x side by side.

        Raises:
            ValueError: if two give different rows, or one ends before another.
        """
        return self._beside([source.batches(size, seed=seed) for source in self.sources])

    def batches_from(self, start: int, size: int, *, seed: int) -> Iterator[Activations]:
        return self._beside([source.batches_from(start, size, seed=seed) for source in self.sources])

    def _beside(self, streams: Sequence[Iterator[Activations]]) -> Iterator[Activations]:
        for parts in _in_step("Beside", streams):
            first = parts[0]
            yield Activations(torch.cat([part.x for part in parts], 1), None, first.tokens, first.places)


def _in_step(name: str, streams: Sequence[Iterator[Activations]]) -> Iterator[tuple[Activations, ...]]:
    for index, parts in enumerate(zip_longest(*streams)):
        if any(part is None for part in parts):
            raise ValueError(f"{name}: a source ended after {index} batches and another goes on. Use the same text.")
        for other in parts[1:]:
            if len(other) != len(parts[0]):
                raise ValueError(
                    f"{name}: batch {index} has {len(parts[0])} rows in one source and {len(other)} in another. "
                    "Give sources that cut and shuffle alike."
                )
            for what in ("places", "tokens"):
                mine, theirs = getattr(parts[0], what), getattr(other, what)
                if mine is not None and theirs is not None and not torch.equal(mine, theirs):
                    raise ValueError(
                        f"{name}: the {what} of batch {index} differ between sources, so their rows do not belong "
                        "together. Capture the sites from the same text in the same order."
                    )
        yield parts
