"""Where a study's activations come from: rows in a file, a store, a world, or a model read now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import capture, worlds
from ..capture import Corpus, Gathering, HookSource, Loaded, ShardSource, StoredSource
from ..core import ActivationSource, Dictionary, FormatError, ShapeError, Site, files

_FILES = (".safetensors", ".npy")

_ROOM = 3 * 2**30
"""Bytes of a model's rows that are held in memory; more are computed as they are needed."""

_USES = 3.0
"""How often each row is taken to be read where nobody says: three seeds, or three epochs."""


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
    loaded: Loaded | None = None
    site: Site | None = None
    corpus: Corpus | None = None
    said: str = ""


def open_stream(
    source: str,
    *,
    site: str | None,
    tensor: str | None,
    text: str | None,
    tokens: int,
    held_out: int,
    context: int,
    device: str,
    seed: int,
    n: int | None = None,
    uses: int | float | None = None,
) -> Stream:
    """The stream that a source names: `world:NAME`, a .safetensors or .npy file, a store's folder, or a model.

    A model's rows are read once and held in memory, or computed anew each time they are asked for, by the rule of
    `capture.choose`; `Stream.said` says which, and why. Either way they come by the same interface.

    Args:
        n: latents of each dictionary that will be learned, 8 for each dimension without it; a wide one costs so much
            more than the model that nothing is won by keeping rows.
        uses: how often each row will be read, epochs times dictionaries; 3 without it.

    Raises:
        ValueError: if the name is no world's, the file has no such tensor, or there is too little to hold out.
        ShapeError: if the rows are no matrix.
        FormatError: if the file is damaged.
    """
    if source.startswith("world:"):
        name = source.removeprefix("world:")
        if name not in worlds.PRESETS:
            raise ValueError(f"there is no world {name!r}. Worlds: {', '.join(worlds.PRESETS)}.")
        world = worlds.PRESETS[name]()
        return Stream(world, world, name, world.dictionary, float(world.features.l0))
    path = Path(source)
    if path.suffix in _FILES:
        return _rows(_matrix(path, tensor), path.stem, held_out, seed)
    if (path / "manifest.json").is_file() or (path / "store" / "manifest.json").is_file():
        folder = path if (path / "manifest.json").is_file() else path / "store"
        stored = ShardSource(folder, site=site)
        # A store is read in a seeded order; what is measured is its first batches under another seed.
        return Stream(stored, stored, path.name, site=stored.site)
    return _model(source, site, text, tokens, held_out, context, device, seed, n, uses)


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
    return Stream(StoredSource(x[order[kept:]]), StoredSource(x[order[:kept]]), name)


def _model(
    model: str,
    site: str | None,
    text: str | None,
    tokens: int,
    held_out: int,
    context: int,
    device: str,
    seed: int,
    n: int | None,
    uses: int | float | None,
) -> Stream:
    loaded = capture.load(model, device=device)
    asked = site or f"resid_post.{(len(capture.blocks(loaded.model)) - 1) // 2}"
    places = tuple(capture.name_sites(loaded.model, (asked,)).values())
    if len(places) != 1:
        raise ValueError(f"{asked} names {len(places)} sites; a dictionary is learned of one. Give one with --site.")
    corpus = capture.tokens(
        loaded.tokenizer, capture.documents(text), context=context, limit=tokens + held_out, seed=seed
    )
    learned, measured = corpus.split(tokens / (tokens + held_out), seed=seed)
    live = HookSource(loaded.model, places[0], learned)
    choice = capture.choose(
        parameters=capture.parameters_to(loaded.model, places),
        d=live.d,
        n=n or 8 * live.d,
        rows=len(live),
        uses=_USES if uses is None else uses,
        free=_ROOM,
        bytes_per_number=4,
        where="in memory",
    )
    train: ActivationSource = _held(loaded, places[0], learned) if choice.store else live
    held = _held(loaded, places[0], measured)
    return Stream(train, held, loaded.name, loaded=loaded, site=places[0], corpus=measured, said=choice.why)


def _held(loaded: Loaded, site: Site, corpus: Corpus) -> StoredSource:
    """All rows of a corpus, in memory."""
    gathered = Gathering(corpus.n_tokens)
    for batch in capture.harvest(loaded.model, [site], corpus):
        gathered.add(batch[site])
    return gathered.source(site)
