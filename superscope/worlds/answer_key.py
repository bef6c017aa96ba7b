"""What is a dictionary judged by? A world's true atoms and rows with their true code, at hand or kept in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from ..core import Activations, ActivationSource, Dictionary, FormatError, ShapeError, SparseCode, files
from .alter import truth_of

_TENSORS = ("atoms", "bias", "parents", "component", "x", "f", "values", "indices")


@dataclass(frozen=True, eq=False)
class AnswerKey:
    """True atoms, and rows with the true code that made them: all that a dictionary is judged by.

    Args:
        dictionary: the atoms of the n features.
        rows: batches of x, each with its code.
        parents: of each feature the number of the one without which it is never active, -1 for none; None where the
            world has no such thing.
        component: which component each atom belongs to; None where each is one. Of one with several atoms any basis is
            as good as another.

    Raises:
        ShapeError: if atoms, rows, parents and components do not fit each other.
    """

    dictionary: Dictionary
    rows: tuple[Activations, ...]
    parents: Int[Tensor, "n"] | None = None
    component: Int[Tensor, "n"] | None = None

    def __post_init__(self) -> None:
        n, d = self.dictionary.n, self.dictionary.d
        for batch in self.rows:
            if batch.code is None or batch.code.n != n or batch.x.shape[1] != d:
                have = "no code" if batch.code is None else f"{batch.code.n} features"
                raise ShapeError(
                    f"AnswerKey: {n} atoms in d = {d}, and rows with d = {batch.x.shape[1]} and {have}. "
                    "Give rows with the code that made them."
                )
        if self.parents is not None and len(self.parents) != n:
            raise ShapeError(f"AnswerKey: {len(self.parents)} parents for {n} features. Give one each, -1 for none.")
        if self.component is not None and len(self.component) != n:
            raise ShapeError(f"AnswerKey: {len(self.component)} components for {n} atoms. Give one each.")

    @property
    def shared(self) -> int:
        """Atoms that belong to a component of several."""
        if self.component is None:
            return 0
        return int((self.component.bincount()[self.component] > 1).sum())

    @classmethod
    def of(cls, world: ActivationSource, *, rows: int = 40_000, seed: int = 0, size: int = 4096) -> AnswerKey:
        """A world's truth and so many of its rows.

        Args:
            world: any that knows its truth and whose batches carry their code.
            rows: how many.
            seed: of the rows; another than that of a training, whose rows they would else be.
            size: rows in a batch.

        Raises:
            ValueError: if the world does not know its truth, or there is nothing to be found in it.
        """
        truth = truth_of(world)
        if truth is None or not truth.n:
            what = "does not know its truth" if truth is None else "is a null: there is nothing to be found in it"
            raise ValueError(
                f"{type(world).__name__} {what}, so no dictionary can be judged by it. Take another world."
            )
        size = min(size, rows)
        batches = tuple(islice(world.batches(size, seed=seed), max(rows // size, 1)))
        if not batches or batches[0].code is None:
            raise ValueError(f"{type(world).__name__} makes rows without their code, so there is nothing to judge by.")
        parents, n = _parents(world), batches[0].code.n
        if parents is not None and len(parents) != n:
            parents = None
        if truth.rows is None:
            return cls(truth.dictionary, batches, parents, truth.component)
        # Atoms that are not to be found are no features: what they are active for is left out of the codes.
        place = torch.full((n + 1,), -1)
        place[truth.rows] = torch.arange(truth.dictionary.n)
        kept = tuple(replace(batch, code=_renumbered(batch.code, place, truth.dictionary.n)) for batch in batches)
        if parents is not None:
            parents = place[parents[truth.rows]]
        return cls(truth.dictionary, kept, parents, truth.component)

    def save(self, path: Path | str) -> None:
        """Writes one .safetensors file: `atoms`, `x`, `values` and `indices` of the code, and what else is known."""
        code = _together([batch.code for batch in self.rows if batch.code is not None])
        tensors = {"atoms": self.dictionary.atoms, "x": torch.cat([batch.x for batch in self.rows])}
        tensors |= {"values": code.values, "indices": code.indices}
        further = {"bias": self.dictionary.bias, "parents": self.parents, "component": self.component}
        tensors |= {name: tensor for name, tensor in further.items() if tensor is not None}
        files.write_tensors(Path(path), {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})

    @classmethod
    def load(cls, path: Path | str, *, size: int = 4096) -> AnswerKey:
        """What `save` wrote, or any .safetensors file with `atoms` (n, d), `x` (rows, d) and a dense `f` (rows, n).

        Raises:
            FileNotFoundError: if there is no such file.
            FormatError: if it is damaged, or its tensors are not these.
        """
        tensors = files.read_tensors(Path(path))
        files.refuse_unknown(tensors, _TENSORS, str(path))
        sparse = {"values", "indices"} <= tensors.keys()
        if not {"atoms", "x"} <= tensors.keys() or not (sparse or "f" in tensors):
            raise FormatError(
                f"{path} holds {', '.join(sorted(tensors)) or 'nothing'}. A truth has `atoms` (n, d), `x` (rows, d) "
                "and the code that made x: `f` (rows, n), or its `values` and `indices` (rows, k)."
            )
        try:
            W = Dictionary(tensors["atoms"], tensors.get("bias"))
            code = (
                SparseCode(tensors["values"], tensors["indices"].long(), W.n)
                if sparse
                else SparseCode.from_dense(tensors["f"])
            )
            x = tensors["x"].to(W.atoms.dtype)
            parents, component = (
                tensors[name].long() if name in tensors else None for name in ("parents", "component")
            )
            whole = Activations(x, code=code)
            parts = (slice(start, start + size) for start in range(0, len(whole), size))
            rows = tuple(Activations(x[part], code=code[part]) for part in parts)
            if not rows:
                raise ShapeError("it has no rows.")
            return cls(W, rows, parents, component)
        except (ShapeError, ValueError, TypeError) as error:
            raise FormatError(f"{path} is no truth: {error}") from error


def _together(codes: Sequence[SparseCode]) -> SparseCode:
    k = max(code.k for code in codes)
    pad = torch.nn.functional.pad
    values, indices = (
        torch.cat([pad(getattr(code, name), (0, k - code.k)) for code in codes]) for name in ("values", "indices")
    )
    return SparseCode(values, indices, codes[0].n)


def _renumbered(code: SparseCode | None, place: Int[Tensor, "codes"], n: int) -> SparseCode:
    assert code is not None
    indices = place[code.indices]
    return SparseCode(torch.where(indices >= 0, code.values, 0), indices.clamp(min=0), n)


def _parents(world: ActivationSource) -> Int[Tensor, "n"] | None:
    """The parents that a world's law says, the alterations around it taken off; the last stands for none."""
    while (inner := getattr(world, "source", None)) is not None:
        world = inner
    parents = getattr(getattr(world, "features", None), "parents", None)
    return None if parents is None else torch.as_tensor(parents)
