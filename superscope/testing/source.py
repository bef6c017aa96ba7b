"""What holds of every source of activations."""

from __future__ import annotations

from itertools import islice

import torch
from torch import Tensor

from ..core import Activations, ActivationSource
from .law import LawBroken, require, same


def _parts(batch: Activations) -> dict[str, Tensor]:
    """Everything a batch carries, by name."""
    parts = {"x": batch.x, "tokens": batch.tokens, "places": batch.places, "target": batch.target}
    if batch.code is not None:
        parts |= {"code.values": batch.code.values, "code.indices": batch.code.indices}
    return {name: part for name, part in parts.items() if part is not None}


def _equal(found: Activations, wanted: Activations, what: str) -> None:
    one, other = _parts(found), _parts(wanted)
    require(set(one) == set(other), f"{what} carries {sorted(one)}, not {sorted(other)}.")
    for name, part in other.items():
        same(one[name], part, f"{what}: {name}")


def check_source(source: ActivationSource, *, size: int = 16, batches: int = 3, seed: int = 0) -> tuple[str, ...]:
    """Holds a source to what every reader of one relies on.

    Its batches have the size asked for, rows of d finite numbers and everything else beside each row; one seed gives
    one sequence, however often, from whichever batch on and whatever else is being read; another seed gives another;
    and reading leaves the global generator alone.

    Args:
        source: with at least `batches` + 1 batches of `size` rows.
        size: rows per batch.
        batches: how many are looked at.
        seed: of the sequence.

    Returns:
        The names of the laws it was held to.

    Raises:
        LawBroken: with the source's class, the law, and what differed.
    """

    def shapes() -> None:
        found = list(islice(source.batches(size, seed=seed), batches + 1))
        require(len(found) == batches + 1, f"gives {len(found)} batches of {size} rows; {batches + 1} are looked at.")
        kinds = {frozenset(_parts(batch)) for batch in found}
        require(len(kinds) == 1, "some batches carry what others lack.")
        for index, batch in enumerate(found):
            require(
                batch.x.shape == (size, source.d),
                f"batch {index} has shape {tuple(batch.x.shape)}, not {(size, source.d)}.",
            )
            require(bool(torch.isfinite(batch.x).all()), f"batch {index} holds a NaN or infinite number.")
            require(
                batch.x.dtype == found[0].x.dtype, f"batch {index} is {batch.x.dtype}, the first {found[0].x.dtype}."
            )
            require(not batch.x.requires_grad, f"batch {index} carries gradients.")
            if batch.code is not None and found[0].code is not None:
                require(batch.code.n == found[0].code.n, f"batch {index}: its code has another number of features.")

    def one_seed_one_sequence() -> None:
        # Two readers in turn: neither may move the other on.
        readers = [source.batches(size, seed=seed) for _ in range(2)]
        for index in range(batches):
            one, other = (next(reader) for reader in readers)
            _equal(other, one, f"batch {index} read again")

    def another_seed_another_sequence() -> None:
        one, other = (next(iter(source.batches(size, seed=s))) for s in (seed, seed + 1))
        require(not torch.equal(one.x, other.x), f"seeds {seed} and {seed + 1} give the same first batch.")

    def from_any_batch() -> None:
        whole = list(islice(source.batches(size, seed=seed), batches + 1))
        for start in range(batches + 1):
            found = next(iter(source.batches_from(start, size, seed=seed)), None)
            require(found is not None, f"batches_from({start}) gives none, batches() has one there.")
            assert found is not None
            _equal(found, whole[start], f"batches_from({start})")

    def global_generator() -> None:
        before = torch.random.get_rng_state()
        list(islice(source.batches(size, seed=seed), batches))
        require(torch.equal(torch.random.get_rng_state(), before), "reading moved the global generator.")
        torch.manual_seed(1)
        first = next(iter(source.batches(size, seed=seed)))
        torch.manual_seed(2)
        _equal(next(iter(source.batches(size, seed=seed))), first, "the first batch under another global seed")
        torch.random.set_rng_state(before)

    laws = (shapes, one_seed_one_sequence, another_seed_another_sequence, from_any_batch, global_generator)
    for law in laws:
        try:
            law()
        except LawBroken as broken:
            name = law.__name__.replace("_", " ")
            raise LawBroken(f"{type(source).__name__} breaks the law of {name}: {broken}") from broken
    return tuple(law.__name__ for law in laws)
