"""What is steered or ablated, and where? A direction from contrasting texts, a file, or a latent of a dictionary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from jaxtyping import Float
from torch import Tensor

from ... import capture
from ...capture import Corpus, Subject
from ...core import Findings, Measurement, Run, Site, SparseCoder, files
from ...core.errors import nearest
from ...dictionaries import load_coder
from ...intervene import concepts
from ...intervene.concepts import ContrastRows, ContrastSet, Direction
from ...intervene.edits import Edit
from ...measure.interval import wilson
from ..settings import Count, above, at_least, at_most
from ..study import Study
from .metering import Meter
from .offers import Material

WITH = (
    "def area(width, height):\n    return width * height",
    "for name in names:\n    print(name)",
    "if not isinstance(value, int):\n    raise TypeError(value)",
    "self.items = []\nself.count = 0",
    "while stack:\n    node = stack.pop()",
    "try:\n    import json\nexcept ImportError:\n    json = None",
    "result = [x * 2 for x in range(10)]",
    "with open(path) as file:\n    data = file.read()",
)
WITHOUT = (
    "The width and the height of the area are multiplied with each other.",
    "Every name in the list is shown on a line of its own.",
    "An error is raised when the value is not a whole number.",
    "In the beginning there are no items and so the count is zero.",
    "The last node is taken from the stack until nothing is left on it.",
    "The module may be missing, in which case nothing can be read.",
    "Each of the first ten numbers is doubled and put into a list.",
    "The file is opened and all that stands in it is read.",
)
"""Code and what it says in prose: the contrast where none is given."""
_TEXTS = 40
"""Texts on each side of a built-in concept that is to stay."""


@dataclass(frozen=True)
class Aimed(Study):
    """Abstract: a study that changes x along one direction at one site."""

    model: Annotated[str, tyro.conf.Positional] = "pocket"
    """Hub name, local folder or GGUF file; "pocket" travels inside the package."""
    site: str | None = None
    """Where: a role (resid_post.2) or module path. Default: the stream behind the middle block."""
    direction: str | None = None
    """A file of it (.npy, .safetensors), or the run folder of `superscope concept`. Default: difference of means of the
    contrasting texts."""
    tensor: str | None = None
    """Which tensor of the file or run."""
    sae: str | None = None
    """A saved dictionary of the site: for one of its latents, and to say which features else move."""
    latent: Annotated[int, at_least(0)] | None = None
    """The latent whose atom is the direction."""
    towards: tuple[str, ...] = WITH
    """Texts that have what is steered or ablated."""
    away: tuple[str, ...] = WITHOUT
    """Texts that have not."""
    protect: tuple[str, ...] = ()
    """Concepts that are to stay, whose probes are read and which protected and splince spare: built in (code, errors,
    numbers, quoting), or files of contrasting texts."""
    width: Annotated[float, above(0), at_most(1)] | None = None
    """How narrow the 95 % interval of the contrast's accuracy must be, as +-; fewer texts than it takes are refused."""
    unrelated: str | None = None
    """Text that should stay as it is. Default: the text every Python carries."""
    tokens: Count = 4_000
    """Tokens of it."""
    metered: Count = 1_000
    """Tokens of it on which each edit's side effects are measured, beside its controls."""
    controls: Count = 4
    """Random edits of the same size beside each, and orthogonal ones of which the most effective is kept."""
    text: bool = True
    """Keep prompts and texts in the run folder; with --no-text only their hashes."""
    device: str = "cpu"
    """Where to run: cpu, cuda, mps."""
    seed: int = 0
    """Of the text's order, draws and the bootstrap."""

    def check(self) -> None:
        if self.direction is not None and self.latent is not None:
            raise ValueError("a direction is given by a file or by a latent; give one of --direction and --latent.")
        if self.latent is not None and self.sae is None:
            raise ValueError("a latent is a number in a dictionary; give --sae with --latent.")
        if not self.towards or not self.away:
            raise ValueError("a contrast has two sides; give texts with --towards and with --away.")
        if self.width is not None:
            self.contrast.check_size(self.width)
        known = concepts.POCKET_CONCEPTS
        for name in self.protect:
            if name not in known and not Path(name).expanduser().is_file():
                raise ValueError(
                    f"there is no concept {name!r} to protect: built in are {', '.join(known)}; for others give a file "
                    "of contrasting texts."
                )

    @property
    def contrast(self) -> ContrastSet:
        """The contrasting texts.

        Raises:
            ValueError: if one is blank.
        """
        return ContrastSet("the contrast", self.towards, self.away)

    def conceal(self, run: Run, *more: str) -> None:
        """Keeps texts out of the folder, where that is asked for."""
        if not self.text:
            run.conceal("towards", "away", *more)

    def opened(self) -> tuple[Subject, Site]:
        """The model and the site."""
        subject = capture.load(self.model, device=self.device)
        if subject.kind != "causal":
            raise TypeError(f"'{subject.name}' is an encoder and predicts no next token; give a causal model.")
        count = len(capture.blocks(subject.model))
        name = self.site or f"resid_post.{(count - 1) // 2}"
        found = capture.sites(subject.model, [name])
        if len(found) != 1:
            raise ValueError(f"one site is changed; {name} names {len(found)}.")
        return subject, found[0]

    def corpus(self, subject: Subject) -> Corpus:
        """The unrelated text."""
        longest = getattr(subject.model.config, "max_position_embeddings", None) or 128
        return capture.tokens(
            subject.tokenizer,
            capture.documents(self.unrelated),
            context=min(64, int(longest)),
            limit=self.tokens,
            seed=self.seed,
        )

    def coder(self, subject: Subject, d: int) -> SparseCoder | None:
        """The dictionary, if one is named, on the study's device.

        Raises:
            ValueError: if it is of another d or has no such latent.
        """
        if self.sae is None:
            return None
        coder = load_coder(Path(self.sae).expanduser())
        W = coder.dictionary
        if W.d != d:
            raise ValueError(f"{self.sae} reads rows of {W.d} numbers and x has {d} here; give the site it is of.")
        if self.latent is not None and not self.latent < W.n:
            raise ValueError(f"{self.sae} has {W.n} latents and no {self.latent}; they are numbered from 0.")
        if isinstance(coder, torch.nn.Module):
            coder.to(self.device).requires_grad_(False)
        return coder

    def aim(
        self, site: Site, d: int, coder: SparseCoder | None, has: Tensor, lacks: Tensor
    ) -> tuple[Float[Tensor, "d"], str]:
        """The direction, and where it is from in words.

        Raises:
            ValueError: if a file holds another dimension, or the two sides have one mean.
        """
        if coder is not None and self.latent is not None:
            return coder.dictionary.atoms[self.latent].detach().float().cpu(), f"latent {self.latent} of {self.sae}"
        if self.direction is not None:
            vector = read_direction(self.direction, self.tensor, str(site))
            if len(vector) != d:
                raise ValueError(f"{self.direction} holds {len(vector)} numbers and x has {d} at {site}.")
            return vector.float(), self.direction
        vector = has.double().mean(0) - lacks.double().mean(0)
        if not bool(vector.any()):
            raise ValueError(
                "the two sides of the contrast have the same mean, so no direction tells them; give others."
            )
        return vector.float(), f"difference of means of {len(self.towards)} and {len(self.away)} texts"

    def material(self, subject: Subject, site: Site, x: Tensor, coder: SparseCoder | None) -> tuple[Material, str]:
        """What edits are made of, and where the direction is from in words."""
        has, lacks = (rows_of_texts(subject, site, texts) for texts in (self.towards, self.away))
        direction, origin = self.aim(site, x.shape[1], coder, has, lacks)
        v = direction.double()
        middle = float((has.double() @ v).mean() + (lacks.double() @ v).mean()) / 2
        protected = self.protected(subject, site)
        return (
            Material(
                direction=direction,
                x=x,
                has=has,
                lacks=lacks,
                probe=Direction(v, -middle, origin),
                read=v,
                protected=protected,
                probes={name: concepts.DiffMean().find(rows) for name, rows in protected.items()},
                coder=coder,
                latent=self.latent,
                seed=self.seed,
            ),
            origin,
        )

    def meter(
        self,
        subject: Subject,
        site: Site,
        corpus: Corpus,
        material: Material,
        effect: Callable[[Edit], float],
        fisher: Tensor | None = None,
    ) -> Meter:
        """What measures side effects on a part of the unrelated text."""
        # Spread over the documents, which the bootstrap draws.
        count = max(1, min(len(corpus), self.metered // corpus.context))
        part = corpus.take(torch.linspace(0, len(corpus) - 1, count).long())
        return Meter(
            subject=subject,
            site=site,
            corpus=part,
            x=rows_of_corpus(subject, site, part),
            effect=effect,
            controls=self.controls,
            probes=material.probes,
            coder=material.coder,
            targets=self._targets(material),
            fisher=fisher,
            seed=self.seed,
        )

    def protected(self, subject: Subject, site: Site) -> dict[str, ContrastRows]:
        """Rows of every concept that is to stay, one for each token."""
        sets: list[ContrastSet] = []
        for name in self.protect:
            built_in = name in concepts.POCKET_CONCEPTS
            sets += [concepts.pocket_contrast(name, n=_TEXTS)] if built_in else concepts.read_contrasts(name)
        rows = lambda side: rows_of_texts(subject, site, side)  # noqa: E731
        return {one.name: ContrastRows(rows(one.positive), rows(one.negative), name=one.name) for one in sets}

    def _targets(self, material: Material) -> tuple[int, ...]:
        """The latent that is meant to move: the one that was named, else the nearest to the direction."""
        if material.coder is None:
            return ()
        if self.latent is not None:
            return (self.latent,)
        atoms = material.coder.dictionary.atoms.detach().float().cpu()
        return (int((atoms @ material.direction / atoms.norm(dim=1).clamp_min(1e-30)).argmax()),)

    def tell(self, found: Findings, subject: Subject, site: Site) -> None:
        """Adds whether the contrast's direction holds on a text that it was not found on, leaving out each in turn."""
        if min(len(self.towards), len(self.away)) < 2:
            return
        (rows,) = concepts.contrast_rows(subject, self.contrast, [site]).values()
        sides = (rows.positive, rows.negative)
        sums, counts = [side.sum(0) for side in sides], [len(side) for side in sides]
        hits = 0
        for side, wanted in zip((0, 1), (1, -1)):
            other = sums[1 - side] / counts[1 - side]
            for row in sides[side]:
                own = (sums[side] - row) / (counts[side] - 1)
                vector = wanted * (own - other)
                hits += bool(wanted * float(vector @ (row - (own + other) / 2)) > 0)
        n = sum(counts)
        found.add(
            Measurement(
                name="probe_accuracy",
                value=hits / n,
                unit="share of texts",
                n=n,
                of="texts, each left out in turn",
                chance=max(counts) / n,
                chance_is="saying the same of all",
                at={"site": str(site)},
                **wilson(hits, n, of="texts").fields,
            )
        )


def rows_of_texts(subject: Subject, site: Site, texts: Sequence[str]) -> Float[Tensor, "rows d"]:
    """x at every token of some texts, added special tokens left out."""
    read = capture.harvest(subject.model, [site], list(texts), tokenizer=subject.tokenizer, device="cpu")
    return torch.cat([batch[site].x for batch in read])


def rows_of_corpus(subject: Subject, site: Site, corpus: Corpus) -> Float[Tensor, "rows d"]:
    """x at every kept token of a corpus."""
    return torch.cat([batch[site].x for batch in capture.harvest(subject.model, [site], corpus, device="cpu")])


def read_direction(path: str, tensor: str | None, site: str) -> Float[Tensor, "d"]:
    """A vector in a file or in the arrays of a run folder.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no vector, or several and none is named.
    """
    place = Path(path).expanduser()
    place = place / "arrays.safetensors" if place.is_dir() else place
    if not place.is_file():
        raise FileNotFoundError(f"there is no direction at {path}; give a .npy or .safetensors file, or a run folder.")
    if place.suffix == ".npy":
        vectors = {"": torch.from_numpy(files.read_array(place))}
    else:
        vectors = files.read_tensors(place)
    if tensor is not None:
        if tensor not in vectors:
            raise ValueError(f"{place} has no tensor {tensor!r}.{nearest(tensor, vectors)}")
        vectors = {tensor: vectors[tensor]}
    vectors = {name: vector for name, vector in vectors.items() if vector.ndim == 1}
    here = {name: vector for name, vector in vectors.items() if name.startswith(f"{site}/")} or vectors
    if len(here) != 1:
        listed = ", ".join(sorted(here)[:8]) or "none"
        raise ValueError(f"{place} holds {len(here)} vectors, {listed}; say which with --tensor NAME.")
    return next(iter(here.values()))
