"""Where a study's activations come from: rows in a file, a store, a world, or a model read now."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import torch
import tyro
from torch import Tensor

from ... import capture, worlds
from ...capture import Corpus, HookSource, MemorySource, StoreSource, Subject
from ...core import ActivationSource, Dictionary, ShapeError, Site, files, result_of
from ...dictionaries import SAE, SHORT, AbsTopK, BatchTopK, Matryoshka, TopK
from ...features import DISTRIBUTIONS
from ...theory import cost
from ...worlds import Known, World
from .. import arguments
from ..settings import Count, above, at_least
from ..study import Study

_FILES = (".safetensors", ".npy")

_ROOM = 3 * 2**30
"""Bytes of a model's rows that are held in memory; more are computed as they are needed."""

_SHORT = (TopK, AbsTopK, BatchTopK, Matryoshka)
"""Architectures for which the short recipe was measured to be the better one."""

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
        note: whether rows are kept or computed as they are needed, and why, where there was a choice.
    """

    train: ActivationSource
    held_out: ActivationSource
    name: str
    truth: Dictionary | None = None
    l0: float | None = None
    loaded: Subject | None = None
    site: Site | None = None
    corpus: Corpus | None = None
    note: str = ""
    beside: tuple[str, ...] = ()
    """Further sites, read in step with the first."""


Join: TypeAlias = Callable[[Sequence[ActivationSource]], ActivationSource]
"""One source of the sources of one or several sites: as `SAE.join`, which has but one."""


@dataclass(frozen=True)
class Streamed(Study):
    """A study of a stream of rows: what the stream is."""

    source: Annotated[str, tyro.conf.Positional]
    """Model, store, world:NAME, or file of rows."""
    site: str | None = None
    """Where to read a model or store: `resid_post.6`, a module path. Default: the stream behind the middle block."""
    world: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """NAME=VALUE: a number of the world that SOURCE names (world:zipf --world n=512 --world l0=8); `--world help`
    lists them. May be repeated."""
    tensor: str | None = None
    """Which tensor of a .safetensors file, where it holds several."""
    text: str | None = None
    """Text for a model to read. Default: the text every Python carries."""
    tokens: Count = 300_000
    """Tokens of it to learn from."""
    held_out: Annotated[int, at_least(2)] = 40_000
    """Rows to measure on."""
    context: Annotated[int, at_least(2)] = 128
    """Tokens the model sees at once."""
    outliers: Literal["leave-out", "keep"] = "leave-out"
    """Rows of a model whose norm is over 10 times the median and far outside the spread of the others: leave them out
    of learning and measuring, or keep them. A store's own policy decided when it was harvested."""
    device: str = "cpu"
    """Where to run: cpu, cuda, cuda:1, mps."""
    seed: int = 0
    """Of the starts, the order of rows and the bootstrap."""

    def learning(self, d: int) -> tuple[int, float]:
        """How many latents will be learned of rows of d numbers, and how often each row will be read."""
        return 8 * d, 1.0

    def open_stream(self, beside: Sequence[str] = (), join: Join = SAE.join) -> Stream:
        """The stream that the source names: `world:NAME`, a .safetensors or .npy file, a store's folder, or a model.

        A model's rows are read once and held in memory, or computed anew each time they are asked for, by the rule of
        `theory.cost.store_or_recompute`, which `superscope plan` asks too; `Stream.note` says which, and why. Either
        way they come by the same interface. The rule knows how wide the dictionary is, for a wide one costs so much
        more than the model that nothing is won by keeping rows, and how often each row will be read.

        Args:
            beside: further sites (of a file, tensors) whose rows belong to those of the first.
            join: what is made of the sources of all of them.

        Raises:
            ValueError: if the name is no world's, the file has no such tensor, there is too little to hold out, or
                so many sites cannot be joined.
            ShapeError: if the rows are no matrix.
            FormatError: if the file is damaged.
        """
        if self.source.startswith("world:"):
            name = self.source.removeprefix("world:")
            if beside:
                raise ValueError(
                    f"a world has one site, so there is no {beside[0]} beside it. Give a model or a store."
                )
            world = open_world(name, self.world)
            joined = join([world])
            return Stream(joined, joined, name, *_scored(world))
        path = Path(self.source)
        if path.suffix in _FILES:
            matrices = [_matrix(path, tensor) for tensor in (self.tensor, *beside)]
            return _rows(matrices, join, path.stem, self.held_out, self.seed)
        if (path / "manifest.json").is_file() or (path / "store" / "manifest.json").is_file():
            folder = path if (path / "manifest.json").is_file() else path / "store"
            stored = [StoreSource(folder, site=site) for site in (self.site, *beside)]
            # A store is read in a seeded order; what is measured is its first batches under another seed.
            joined = join(stored)
            return Stream(joined, joined, path.name, site=stored[0].site, beside=tuple(beside))
        return self._model(beside, join)

    def _model(self, beside: Sequence[str], join: Join) -> Stream:
        loaded = capture.load(self.source, device=self.device)
        middle = f"resid_post.{(len(capture.blocks(loaded.model)) - 1) // 2}"
        places = tuple(_one_site(loaded, asked) for asked in (self.site or middle, *beside))
        everything = self.tokens + self.held_out
        corpus = capture.tokens(
            loaded.tokenizer, capture.documents(self.text), context=self.context, limit=everything, seed=self.seed
        )
        learned, measured = corpus.split(self.tokens / everything, seed=self.seed)
        limits = capture.outlier_limits(loaded.model, places, learned) if self.outliers == "leave-out" else {}
        live = [HookSource(loaded.model, place, learned, limit=limits.get(place, math.inf)) for place in places]
        d = sum(source.d for source in live)
        n, uses = self.learning(d)
        choice = cost.store_or_recompute(
            parameters=capture.parameters_to(loaded.model, places),
            d=d,
            n=n,
            k=min(_ACTIVE, n),
            tokens=len(live[0]),
            uses=uses,
            room=_ROOM,
            number=4,
            where="in memory",
        )
        note = f"rows are {'kept' if choice.store else 'computed as they are needed'}: {choice.why}"
        if beside:
            # One pass for all sites, so that an outlier at one is left out at all of them.
            note = f"rows of {len(places)} sites are kept: they are read in one pass"
        train = join(_held(loaded, places, learned, limits) if choice.store or beside else live)
        held = join(_held(loaded, places, measured, limits))
        return Stream(
            train,
            held,
            loaded.name,
            loaded=loaded,
            site=places[0],
            corpus=measured,
            note=note,
            beside=tuple(map(str, places[1:])),
        )


@dataclass(frozen=True)
class FromStream(Streamed):
    """A study that learns dictionaries of a stream of rows: what the stream is, and how long it is learned from."""

    n: Count | None = None
    """Latents. Default: 8 for each dimension."""
    steps: Count = 1000
    """Training steps."""
    batch: Annotated[int, at_least(2)] = 2048
    """Rows in one step."""
    recipe: Literal["auto", "short", "plain"] = "auto"
    """How to descend: short is `dictionaries.SHORT`, from atoms drawn of rows; plain the trainer's defaults. auto is
    short where the largest latents are kept, plain for the other architectures."""
    lr: Annotated[float, above(0, finite=True)] | None = None
    """Peak learning rate, in units of the scaled x. Default: the recipe's, 0.006 in short and 0.003 in plain."""

    def learning(self, d: int) -> tuple[int, float]:
        return self.n or 8 * d, self.steps * self.batch / self.tokens

    def descent(self, kind: type[SAE]) -> dict[str, Any]:
        """The recipe's arguments of `train` for an architecture, with the rate that was set."""
        short = self.recipe == "short" or (self.recipe == "auto" and kind in _SHORT)
        return {**(SHORT if short else {}), **({} if self.lr is None else {"lr": self.lr})}


def length(source: ActivationSource) -> int | None:
    """How many rows it has; None where it does not end, or does not say."""
    rows = operator.length_hint(source, -1)
    return None if rows < 0 else rows


def _matrix(path: Path, tensor: str | None) -> Tensor:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}. Give a file of rows that exists.")
    if path.suffix == ".npy":
        x = torch.from_numpy(files.read_array(path))
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


def _rows(matrices: Sequence[Tensor], join: Join, name: str, held_out: int, seed: int) -> Stream:
    count = len(matrices[0])
    if any(len(x) != count for x in matrices):
        raise ShapeError(f"{name}: tensors of {', '.join(str(len(x)) for x in matrices)} rows do not belong together.")
    kept = min(held_out, count // 5)
    if kept < 2:
        raise ValueError(f"{name} has {count} rows, too few to learn from and to measure on; give at least 10.")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    learned, measured = (join([MemorySource(x[part]) for x in matrices]) for part in (order[kept:], order[:kept]))
    return Stream(learned, measured, name)


def _one_site(loaded: Subject, asked: str) -> Site:
    places = tuple(capture.name_sites(loaded.model, (asked,)).values())
    if len(places) != 1:
        raise ValueError(f"{asked} names {len(places)} sites; a dictionary is learned of one. Give one with --site.")
    return places[0]


def _held(
    loaded: Subject, sites: Sequence[Site], corpus: Corpus, limits: Mapping[Site, float]
) -> list[ActivationSource]:
    """All rows of a corpus at each site, in memory, from one pass of the model."""
    recorded = result_of(capture.record(loaded, sites, corpus, limits=limits))
    return [recorded[site] for site in sites]


def _scored(world: Known) -> tuple[Dictionary | None, float | None]:
    """The atoms that codes of the world's batches are numbered by, and how many are active; None in a null."""
    truth = worlds.truth_of(world)
    if truth is None or not truth.n:
        return None, None
    if isinstance(world, World):
        return world.dictionary, truth.l0
    # Atoms that codes number otherwise have no score by number.
    return (truth.dictionary, truth.l0) if truth.rows is None else (None, None)


def open_world(name: str, pairs: Sequence[str]) -> Known:
    """A preset or a family by its name, or a law of features by its own, on random directions.

    Raises:
        Asked: if one of the pairs is "help".
        ValueError: if there is none of that name, or it has no such number or lacks one.
    """
    families = {family.name: family.make for family in worlds.FAMILIES.values()}
    make = arguments.pick(name, {**arguments.by_name(DISTRIBUTIONS), **worlds.PRESETS, **families}, "world")
    if not isinstance(make, type):
        return make(**arguments.read(pairs, make, name=name, option="world"))
    frame = arguments.parameters(worlds.on_random_directions, ("law",))
    if "help" in pairs:
        own = "\n".join([arguments.describe(make), arguments.describe(worlds.on_random_directions, ("law",))])
        raise arguments.Asked(f"world:{name}: what --world NAME=VALUE can set\n{own}")
    around = [pair for pair in pairs if pair.partition("=")[0].strip() in frame]
    within = [pair for pair in pairs if pair not in around]
    law = arguments.read(within, make, name=name, option="world")
    arguments.require(law, make, name=name, without=(), option="world")
    given = arguments.read(around, worlds.on_random_directions, name=name, without=("law",), option="world")
    return worlds.on_random_directions(make(**law), **given)
