"""What is changed at a site, and on what is it read? A model's site kept open, and the targets that are tried there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ... import capture
from ...capture import Corpus, Subject
from ...core import Site
from ...intervene import Edit, Fisher, concepts
from ...intervene.concepts import ContrastSet
from ...intervene.concepts.log_odds import TokenOdds
from ...intervene.gates import Gate, LatentActive, Lmmse
from ...measure.interval import Interval, bootstrap
from ..learning.reader import Reader
from .aimed import rows_of_texts

OWN = "own"
"""The target that contrasting texts of one's own stand for."""
TEXTS, HELD = 60, 16
"""Texts on each side that a built-in concept is found on, and others that it is read and damaged on."""
_PROMOTED = 20
"""Tokens that a latent's atom promotes most, and least, whose odds stand for it."""


@dataclass(eq=False)
class Target:
    """What is steered: a direction, what its effect is read by, and texts with it and without.

    Args:
        direction: what is written.
        odds: of the tokens that it is read by.
        present, absent: texts that have it and that have not; None where no text was found.
        gate: where it is there, made when it is asked for.
        caution: what a reader must know of the texts.
        latent: its number, where it is one.
    """

    name: str
    direction: Float[Tensor, "d"]
    odds: TokenOdds
    present: Corpus | None
    absent: Corpus | None
    gate: Callable[[], Gate]
    caution: str = ""
    latent: int | None = None
    _plain: Tensor | None = field(default=None, init=False)

    def rise(self, desk: Desk, edit: Edit, seed: int) -> tuple[float, Interval]:
        """What an edit does to the log-odds of its tokens on texts without it, nats, with its interval over texts."""
        text = self.absent or desk.corpus
        if self._plain is None:
            self._plain = self.odds.by_sequence(desk.subject, text)
        sums = self.odds.by_sequence(desk.subject, text, {desk.site: edit})
        moved = torch.stack([sums[:, 0] - self._plain[:, 0], sums[:, 1]], 1).numpy()
        spread = bootstrap(lambda s: s[:, 0] / s[:, 1], moved, of="windows of text", seed=seed)
        return float(moved[:, 0].sum() / moved[:, 1].sum()), spread


@dataclass(frozen=True, eq=False)
class Desk:
    """A model's site with what was read there once, for any number of trials.

    Args:
        subject, site: where x is changed.
        corpus, x: unrelated text, and x at its tokens.
        fisher: what a small change of x costs there.
        other: the same of other draws, which choose what costs least: `fisher` then says what it costs.
        reader: a dictionary of the site, where one is named.
        found: built-in concepts, as they are asked for.
    """

    subject: Subject
    site: Site
    corpus: Corpus
    x: Float[Tensor, "rows d"]
    fisher: Fisher
    other: Fisher
    reader: Reader | None = None
    found: dict[str, Target] = field(default_factory=dict)
    matrix: list[dict[str, Any]] = field(default_factory=list)

    @property
    def d(self) -> int:
        """Dimension of x."""
        return self.x.shape[1]

    @property
    def latents(self) -> int:
        """How many latents can be targets."""
        return 0 if self.reader is None else len(self.reader.kept)


def latent_number(name: str) -> int | None:
    """The number of the latent that a target names.

    Example:
        >>> latent_number("latent 12"), latent_number("code")
        (12, None)
    """
    kind, _, number = name.partition(" ")
    return int(number) if kind == "latent" and number.isdecimal() else None


def place_of(reader: Reader, number: int) -> int:
    """Where a latent of the file stands among those that were kept."""
    places = (reader.kept == number).nonzero()[:, 0]
    if not len(places):
        raise ValueError(
            f"there is no latent {number} that writes anything; they are numbered from 0 to {int(reader.kept.max())}."
        )
    return int(places[0])


def of_latent(desk: Desk, number: int) -> Target:
    """A latent: its atom, the tokens that it promotes, and the windows of text where it is on."""
    if desk.reader is None:
        raise ValueError(f"latent {number} is of no dictionary; give one with --dictionary.")
    place = place_of(desk.reader, number)
    atom = desk.reader.dictionary.atoms[place].detach().float().cpu()
    head = desk.subject.model.get_output_embeddings()
    if head is None or head.weight.shape[1] != len(atom):
        raise ValueError(
            f"latent {number}: this site is not read by the unembedding, so that the tokens it promotes are not told; "
            "take a site of the residual stream, or contrasting texts of your own."
        )
    promoted = head.weight.detach().float().cpu() @ atom
    odds = TokenOdds(promoted.topk(_PROMOTED).indices, (-promoted).topk(_PROMOTED).indices)
    code = desk.reader.encode(desk.x.to(desk.reader.dictionary.atoms.dtype)).dense()[:, place]
    # The rows of x are those of the whole text, of which the desk's is the beginning.
    keep = desk.corpus.keep
    on = torch.zeros(keep.shape, dtype=torch.bool)
    on[keep] = code[: int(keep.sum())].cpu() != 0
    has = on.any(1)
    present, absent = (desk.corpus.take(part.nonzero()[:, 0]) if bool(part.any()) else None for part in (has, ~has))
    caution = "" if present is not None else f"latent {number} is on in none of {int(keep.sum()):,} tokens"
    return Target(
        f"latent {number}",
        atom,
        odds,
        present,
        absent,
        lambda: LatentActive(desk.reader, place) if desk.reader is not None else Lmmse.fit(desk.x, code),
        caution,
        number,
    )


def _corpus(desk: Desk, texts: Sequence[str]) -> Corpus:
    corpus = capture.as_corpus(list(texts), tokenizer=desk.subject.tokenizer, context=desk.corpus.context)
    assert isinstance(corpus, Corpus)
    return corpus


def of_contrast(desk: Desk, train: ContrastSet, held: ContrastSet | None) -> Target:
    """A concept: the difference of means on some texts, read on others where there are any."""
    rows = concepts.contrast_rows(desk.subject, train, [desk.site])[desk.site]
    direction = concepts.DiffMean().find(rows).vector.float()
    odds = TokenOdds.of(desk.subject, train, least=5 if held is not None else 1)
    read = held or train
    present, absent = (_corpus(desk, texts) for texts in (read.positive, read.negative))

    def gate() -> Gate:
        sides = [rows_of_texts(desk.subject, desk.site, texts) for texts in (train.positive, train.negative)]
        x = torch.cat(sides)
        return Lmmse.fit(x, (torch.arange(len(x)) < len(sides[0])).double())

    caution = "" if held is not None else "read on the very texts that the direction was found on"
    return Target(train.name, direction, odds, present, absent, gate, caution)
