"""Where is x changed? A model's site with its text, rows and dictionary, or a world; settings and opening of both."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated

import torch
import tyro
from jaxtyping import Bool, Float
from torch import Tensor

from ... import capture
from ...capture import Corpus, MemorySource, Subject
from ...core import Dictionary, Run, Site, SparseCoder, result_of
from ...dictionaries import SAE
from ...intervene.side_effects import Features
from ...measure import Wanted
from ...worlds import World
from ..geometry.dictionary_file import read_dictionary
from ..learned import learned
from ..learning.stream import open_world
from ..settings import Count, at_least
from ..study import Progress, Study

_ROWS_OF_A_WORLD = 20_000


@dataclass(frozen=True, eq=False)
class Place:
    """A site of a causal language model, with text to fit to and other documents to measure on.

    Args:
        subject: the model.
        site: where x is changed.
        corpus, held_out: text to fit to, and to measure on.
        rows, held: x at the site on both, without outliers.
        where: the tokens of `held_out` that x is changed at: all but outliers.
        sae: a dictionary of the rows.
        atoms: its atoms in x's own units.
    """

    subject: Subject
    site: Site
    corpus: Corpus
    held_out: Corpus
    rows: MemorySource
    held: MemorySource
    where: Bool[Tensor, "S t"]
    sae: SAE
    atoms: Dictionary


@dataclass(frozen=True)
class AtPlace(Study):
    """What a study of changes to x sets: where, and on which text."""

    source: Annotated[str, tyro.conf.Positional] = "pocket"
    """Model (hub name, local folder, GGUF file, "pocket"), or world:NAME, whose features are known."""
    site: str | None = None
    """Where x is read and changed: `resid_post.6`, a module path. Default: the stream behind the middle block."""
    world: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """NAME=VALUE: a number of the world that SOURCE names; `--world help` lists them. May be repeated."""
    text: str | None = None
    """Text for a model to read. Default: the text every Python carries."""
    tokens: Count = 100_000
    """Tokens of it to fit to."""
    held_out: Annotated[int, at_least(2)] = 30_000
    """Tokens of other documents, to measure on."""
    context: Annotated[int, at_least(2)] = 128
    """Tokens the model sees at once."""
    dictionary: str | None = None
    """A saved SAE of the site. Default: one is learned here."""
    n: Annotated[int, at_least(2)] | None = None
    """Latents of the one that is learned. Default: 8 for each dimension."""
    k: Count = 16
    """Latents that may be active at a token."""
    steps: Count = 300
    """Training steps of the dictionary."""
    batch: Annotated[int, at_least(2)] = 1024
    """Activations in one training step."""
    device: str = "cpu"
    """Where to run: cpu, cuda, cuda:1, mps."""
    seed: int = 0
    """Of everything random."""

    @property
    def is_world(self) -> bool:
        """Whether the source is a world."""
        return self.source.startswith("world:")

    def open_world(self) -> World:
        """The world that the source names.

        Raises:
            ValueError: if there is none, or it is not composed of features in linear superposition.
        """
        name = self.source.removeprefix("world:")
        world = open_world(name, self.world)
        if not isinstance(world, World):
            raise ValueError(
                f"the features of world:{name} are not all known row by row; take one that composes x = W f, such as "
                "world:zipf or world:toy_networks."
            )
        return world

    def open_place(self, run: Run) -> Generator[Progress, None, Place]:
        """The model's site, read on both texts, and its dictionary.

        Raises:
            ValueError: if there is too little text, several sites are named, or the dictionary is of another width.
            TypeError: if the model predicts no next token.
        """
        yield Progress(f"Reading {self.source}", 0, 1)
        subject = capture.load(self.source, device=self.device)
        if subject.kind != "causal":
            raise TypeError(
                f"'{subject.name}' is an encoder and predicts no next token, which is what a change to x is judged by; "
                "give a causal model."
            )
        middle = f"resid_post.{(len(capture.blocks(subject.model)) - 1) // 2}"
        asked = self.site or middle
        places = tuple(capture.name_sites(subject.model, (asked,)).values())
        if len(places) != 1:
            raise ValueError(f"{asked} names {len(places)} sites; x is changed at one. Give one with --site.")
        everything = self.tokens + self.held_out
        corpus = capture.tokens(
            subject.tokenizer, capture.documents(self.text), context=self.context, limit=everything, seed=self.seed
        )
        corpus, held_out = corpus.split(self.tokens / everything, seed=self.seed)
        if corpus.n_tokens < self.batch or held_out.n_tokens < 2:
            raise ValueError(
                f"the text gives {corpus.n_tokens:,} tokens to fit to and {held_out.n_tokens:,} to measure on, too few "
                f"for batches of {self.batch:,}. Give more text with --text, or a smaller --batch."
            )
        limits = capture.outlier_limits(subject.model, places, corpus)
        (site,) = places
        rows, held = (
            result_of(capture.record(subject, places, part, limits=limits))[site] for part in (corpus, held_out)
        )
        assert isinstance(rows, MemorySource)
        assert isinstance(held, MemorySource)
        where = capture.ordinary_places(held_out, held.left_out)
        yield Progress(f"Reading {self.source}", 1, 1)
        if self.dictionary is None:
            wanted = Wanted(self.n or 8 * rows.d, self.k, self.seed)
            saes = yield from learned(
                (wanted,),
                rows,
                run,
                steps=self.steps,
                batch=self.batch,
                device=subject.model.device,
                stage=f"Learning {site}",
                folder=lambda w: "sae",
                notes={"model": subject.name, "site": str(site), "tokens": len(rows)},
            )
            sae = saes[wanted][0]
        else:
            read = read_dictionary(self.dictionary)
            if read.sae is None:
                raise ValueError(f"{self.dictionary} holds atoms without an encoder; give a saved SAE.")
            if read.dictionary.d != rows.d:
                raise ValueError(
                    f"{self.dictionary} is a dictionary of d = {read.dictionary.d} and x at {site} has {rows.d} "
                    "coordinates; give one that was learned of this site."
                )
            sae = read.sae
        return Place(subject, site, corpus, held_out, rows, held, where, sae, sae.dictionary)


@torch.no_grad()
def code_of(sae: SAE, x: Tensor) -> Tensor:
    """The dense code of rows."""
    return torch.cat([sae.encode(part).dense() for part in x.split(4096)])


def features_of(coder: SparseCoder, code: Float[Tensor, "rows n"]) -> Features:
    """What codes of rows say of features; those of an SAE are read by its encoder, above their mean smallest value."""
    if not isinstance(coder, SAE):
        return Features.of(coder.dictionary, code)
    smallest = torch.where(code > 0, code, torch.inf).amin(1)
    known = smallest[smallest.isfinite()]
    level = known.mean() if len(known) else code.new_zeros(())
    # Its encoder takes b from x before it reads: no constant is left but its own.
    return Features.of(
        Dictionary(coder.dictionary.atoms.detach()),
        code,
        reads=coder.encoder.detach(),
        offsets=coder.encoder_bias.detach(),
        levels=level.expand(coder.dictionary.n),
    )


def drawn(world: World, seed: int, rows: int = _ROWS_OF_A_WORLD) -> tuple[Tensor, Tensor]:
    """x and the dense f that made it."""
    batch = world.draw(rows, generator=torch.Generator(world.device).manual_seed(seed))
    assert batch.code is not None
    return batch.x, batch.code.dense()
