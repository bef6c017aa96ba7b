"""Where a study's activations come from: rows in a file, a store, a world, or a model read now."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from ... import capture, worlds
from ...capture import Corpus, HookSource, MemorySource, StoreSource, Subject
from ...core import ActivationSource, Dictionary, FormatError, ShapeError, Site, files
from ...theory import cost
from ..study import Study

_FILES = (".safetensors", ".npy")

_ROOM = 3 * 2**30
"""Bytes of a model's rows that are held in memory; more are computed as they are needed."""

_ACTIVE = 32
"""Active latents that the cost of training is reckoned with: next to the encoder's product they hardly count."""


@dataclass(frozen=True, eq=False)
class Stream:
    """Rows to learn from and others to measure on.

    Args:
        train: the source to learn from.
        held_out: rows that no training sees; the same source where it never repeats itself, with another seed.
        name: what to call it.
        truth: the dictionary that made x, where it is known.
        l0: the true number of active features, where it is known.
        loaded, site, corpus: model, place and held-out text, where x is read from a model now.
        said: whether rows are kept or computed as they are needed, and why, where there was a choice.
    """

    train: ActivationSource
    held_out: ActivationSource
    name: str
    truth: Dictionary | None = None
    l0: float | None = None
    loaded: Subject | None = None
    site: Site | None = None
    corpus: Corpus | None = None
    said: str = ""


@dataclass(frozen=True)
class FromStream(Study):
    """A study that learns dictionaries of a stream of rows: what the stream is, and how long it is learned from."""

    source: Annotated[str, tyro.conf.Positional]
    """Model, store, world:NAME, or file of rows."""
    site: str | None = None
    """Where to read a model or store: `resid_post.6`, a module path. Default: the stream behind the middle block."""
    tensor: str | None = None
    """Which tensor of a .safetensors file, where it holds several."""
    text: str | None = None
    """Text for a model to read. Default: the text every Python carries."""
    tokens: int = 300_000
    """Tokens of it to learn from."""
    held_out: int = 40_000
    """Rows to measure on."""
    context: int = 128
    """Tokens the model sees at once."""
    n: int | None = None
    """Latents. Default: 8 for each dimension."""
    steps: int = 1000
    """Training steps."""
    batch: int = 2048
    """Rows in one step."""
    lr: float = 3e-3
    """Peak learning rate, in units of the scaled x."""
    outliers: Literal["leave-out", "keep"] = "leave-out"
    """Rows of a model whose norm is over 10 times the median and far outside the spread of the others: leave them out
    of learning and measuring, or keep them. A store's own policy decided when it was harvested."""
    device: str = "cpu"
    """Where to run: cpu, cuda, cuda:1, mps."""
    seed: int = 0
    """Of the starts, the order of rows and the bootstrap."""

    def __post_init__(self) -> None:
        for name, lowest in {"tokens": 1, "held_out": 2, "context": 2, "steps": 1, "batch": 2}.items():
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} must be at least {lowest}; got {getattr(self, name)}.")
        if self.n is not None and self.n < 1:
            raise ValueError(f"n must be at least 1; got {self.n}.")

    def open_stream(self) -> Stream:
        """The stream that the source names: `world:NAME`, a .safetensors or .npy file, a store's folder, or a model.

        A model's rows are read once and held in memory, or computed anew each time they are asked for, by the rule of
        `theory.cost.store_or_recompute`, which `superscope plan` asks too; `Stream.said` says which, and why. Either
        way they come by the same interface. The rule knows how wide the dictionary is, for a wide one costs so much
        more than the model that nothing is won by keeping rows, and how often each row will be read.

        Raises:
            ValueError: if the name is no world's, the file has no such tensor, or there is too little to hold out.
            ShapeError: if the rows are no matrix.
            FormatError: if the file is damaged.
        """
        if self.source.startswith("world:"):
            name = self.source.removeprefix("world:")
            if name not in worlds.PRESETS:
                raise ValueError(f"there is no world {name!r}. Worlds: {', '.join(worlds.PRESETS)}.")
            world = worlds.PRESETS[name]()
            return Stream(world, world, name, world.dictionary, float(world.features.l0))
        path = Path(self.source)
        if path.suffix in _FILES:
            return _rows(_matrix(path, self.tensor), path.stem, self.held_out, self.seed)
        if (path / "manifest.json").is_file() or (path / "store" / "manifest.json").is_file():
            folder = path if (path / "manifest.json").is_file() else path / "store"
            stored = StoreSource(folder, site=self.site)
            # A store is read in a seeded order; what is measured is its first batches under another seed.
            return Stream(stored, stored, path.name, site=stored.site)
        return self._model()

    def _model(self) -> Stream:
        loaded = capture.load(self.source, device=self.device)
        asked = self.site or f"resid_post.{(len(capture.blocks(loaded.model)) - 1) // 2}"
        places = tuple(capture.name_sites(loaded.model, (asked,)).values())
        if len(places) != 1:
            raise ValueError(
                f"{asked} names {len(places)} sites; a dictionary is learned of one. Give one with --site."
            )
        everything = self.tokens + self.held_out
        corpus = capture.tokens(
            loaded.tokenizer, capture.documents(self.text), context=self.context, limit=everything, seed=self.seed
        )
        learned, measured = corpus.split(self.tokens / everything, seed=self.seed)
        limits = capture.outlier_limits(loaded.model, places, learned) if self.outliers == "leave-out" else {}
        live = HookSource(loaded.model, places[0], learned, limit=limits.get(places[0], math.inf))
        n = self.n or 8 * live.d
        choice = cost.store_or_recompute(
            parameters=capture.parameters_to(loaded.model, places),
            d=live.d,
            n=n,
            k=min(_ACTIVE, n),
            tokens=len(live),
            uses=self.steps * self.batch / self.tokens,
            room=_ROOM,
            number=4,
            where="in memory",
        )
        train: ActivationSource = _held(loaded, places[0], learned, limits) if choice.store else live
        held = _held(loaded, places[0], measured, limits)
        said = f"rows are {'kept' if choice.store else 'computed as they are needed'}: {choice.why}"
        return Stream(train, held, loaded.name, loaded=loaded, site=places[0], corpus=measured, said=said)


def _matrix(path: Path, tensor: str | None) -> Tensor:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}. Give a file of rows that exists.")
    if path.suffix == ".npy":
        try:
            x = torch.from_numpy(np.load(path, allow_pickle=False))
        except ValueError as error:
            raise FormatError(f"{path} cannot be read as a plain NumPy array: {error}") from error
    else:
        tensors = files.read_tensors(path)
        if tensor is None and len(tensors) > 1:
            raise ValueError(f"{path} holds {', '.join(sorted(tensors))}; say which with --tensor NAME.")
        name = tensor or next(iter(tensors), "")
        if name not in tensors:
            raise ValueError(f"{path} has no tensor {name!r}; it holds {', '.join(sorted(tensors)) or 'none'}.")
        x = tensors[name]
    if x.ndim != 2:
        raise ShapeError(f"{path} holds an array of shape {tuple(x.shape)}; give one activation per row, (rows, d).")
    if not x.is_floating_point():
        raise TypeError(f"{path} holds {x.dtype} numbers; give floating-point activations.")
    return x.float()


def _rows(x: Tensor, name: str, held_out: int, seed: int) -> Stream:
    kept = min(held_out, len(x) // 5)
    if kept < 2:
        raise ValueError(f"{name} has {len(x)} rows, too few to learn from and to measure on; give at least 10.")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return Stream(MemorySource(x[order[kept:]]), MemorySource(x[order[:kept]]), name)


def _held(loaded: Subject, site: Site, corpus: Corpus, limits: Mapping[Site, float]) -> MemorySource:
    """All rows of a corpus, in memory."""
    recording = capture.record(loaded, [site], corpus, limits=limits)
    while True:
        try:
            next(recording)
        except StopIteration as end:
            return end.value[site]
