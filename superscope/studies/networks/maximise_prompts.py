"""One unit of a language model: its strongest places in text, its best prompts, and the best of prompts at random."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ... import capture
from ...capture import Corpus, MemorySource, Subject
from ...core import Site, result_of
from ...intervene.maximising import PromptReader, ReadPrompts, Target, Vocabulary, maximise_prompts
from .targets import Unit

_BEFORE, _AFTER = 15, 4
"""Tokens shown on either side of a place in text."""
_WINDOWS = 200
"""Text windows, and prompts at random, whose likelihood is asked."""
_TOGETHER = 1024
_FRONT = 40
"""Prompts of a front that are kept."""
CONSTANT = 1e-5
"""Of the largest value: what moves by less than this does not move."""


@dataclass(frozen=True, eq=False)
class Text:
    """A site of a causal language model, with what was read of text there.

    Args:
        subject, site: where.
        corpus: the text.
        rows: x at its tokens, without outliers.
        length: of prompts and windows.
        best: whether a prompt is read at its best position.
        seed: of what is drawn.
    """

    subject: Subject
    site: Site
    corpus: Corpus
    rows: MemorySource
    length: int
    best: bool
    seed: int

    @classmethod
    def of(cls, subject: Subject, site: Site, corpus: Corpus, *, length: int, best: bool, seed: int) -> Text:
        """Reads the text at the site.

        Raises:
            ValueError: if no window of text is as long as a prompt.
        """
        if not bool((corpus.keep.sum(1) >= length).any()):
            raise ValueError(
                f"no window of the text has the {length} tokens of a prompt. Give a shorter --length, or more "
                "--context."
            )
        limits = capture.outlier_limits(subject.model, (site,), corpus)
        rows = result_of(capture.record(subject, (site,), corpus, limits=limits))[site]
        assert isinstance(rows, MemorySource)
        return cls(subject, site, corpus, rows, length, best, seed)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Tokens that prompts are made of."""
        return Vocabulary.of(self.subject.tokenizer, self.subject.model.get_input_embeddings().num_embeddings)

    @cached_property
    def texts(self) -> list[str]:
        """Every token, as text."""
        return capture.spelling(self.subject.tokenizer)

    def reader(self, target: Target) -> PromptReader:
        """Of prompts, as the text was read: after the same first token, outliers left out."""
        before = tuple(self.corpus.ids[0, : self.corpus.lead].tolist())
        return PromptReader(self.subject, self.site, target, before, self.best, self.rows.limit)

    @cached_property
    def windows(self) -> Int[Tensor, "w t"]:
        """Windows of text as long as a prompt, drawn alike."""
        generator = torch.Generator().manual_seed(self.seed)
        counts = (self.corpus.keep.sum(1) - self.length + 1).clamp(min=0)
        drawn = torch.multinomial(counts.double(), _WINDOWS, replacement=True, generator=generator)
        first = self.corpus.keep.int().argmax(1)[drawn]
        offset = (torch.rand(_WINDOWS, generator=generator) * counts[drawn]).long()
        at = (first + offset)[:, None] + torch.arange(self.length)
        return self.corpus.ids[drawn].gather(1, at)

    @cached_property
    def random(self) -> Int[Tensor, "w t"]:
        """Prompts at random."""
        return self.vocabulary.drawn(_WINDOWS, self.length, torch.Generator().manual_seed(self.seed + 1))

    def likelihood(self, target: Target) -> dict[str, Float[Tensor, "w"]]:
        """Nats a token of windows of text and of prompts at random, which no target changes."""
        reader = self.reader(target)
        return {"text": reader.read(self.windows).nats, "random": reader.read(self.random).nats}


@dataclass(frozen=True)
class Search:
    """How prompts are searched for: see `maximise_prompts`."""

    fluency: tuple[float, ...]
    iterations: int
    children: int
    top: int
    seed: int


@torch.no_grad()
def in_rows(target: Target, x: Float[Tensor, "rows d"]) -> tuple[Float[Tensor, "rows"], Float[Tensor, "rows"]]:
    """Value and slope on rows."""
    parts = [(target.value(part), target.slope(part)) for part in x.float().split(4096)]
    value, slope = (torch.cat(column).double().cpu() for column in zip(*parts, strict=True))
    return value, slope


def moves(*seen: Tensor) -> bool:
    """Whether any of some numbers moves."""
    found = [one[one.isfinite()] for one in seen]
    return any(len(one) and float(one.max() - one.min()) > CONSTANT * float(one.abs().max()) for one in found)


def scale_of(value: Tensor, slope: Tensor) -> float:
    """How far the strongest of some rows is above their mean; of what is silent on all, by its slope."""
    own = float(value.max() - value.mean())
    return own if own > 0 else float(slope.max() - slope.mean())


def searched(unit: Unit, text: Text, how: Search) -> Generator[int, None, dict[str, Any]]:
    """All that is found of one unit, as JSON has it; yields iterations done."""
    reader = text.reader(unit.target)
    value, slope = in_rows(unit.target, text.rows.x)
    generator = torch.Generator().manual_seed(how.seed + 1)
    probe = reader.values(text.random)
    found: dict[str, Any] = {
        "label": unit.label,
        "mean": float(value.mean()),
        "strongest": float(value.max()),
        "rows": len(value),
        "moves": moves(value, slope) or moves(probe.value),
        "evaluations": 0,
        "texts": [],
        "front": [],
    }
    if not found["moves"]:
        return found
    made = yield from maximise_prompts(
        reader,
        text.vocabulary,
        length=text.length,
        scale=scale_of(value, slope),
        fluency=how.fluency,
        iterations=how.iterations,
        children=how.children,
        top=how.top,
        seed=how.seed,
    )
    found["evaluations"] = made.evaluations
    for number, weight in enumerate(made.fluency):
        at = torch.tensor([number])
        shown = _shown(reader, text, made.prompts[at], made.read[at])
        found["texts"].append(
            {"what": "maximised", "fluency": weight, "returns": bool(made.returns[number]), "document": "", **shown}
        )
    best = _strongest_at_random(reader, text, made.evaluations, generator)
    returns = bool(text.vocabulary.returns(best).all())
    shown = _shown(reader, text, best, reader.read(best))
    found["texts"].append({"what": "at random", "fluency": None, "returns": returns, "document": "", **shown})
    found["texts"].append(_in_text(reader, text, value))
    for at in range(0, len(made.front), max(len(made.front) // _FRONT, 1)):
        found["front"].append(
            {
                "value": float(made.front_read.value[at]),
                "nats": float(made.front_read.nats[at]),
                "prompt": "".join(capture.pieces(text.subject.tokenizer, made.front[at].tolist(), text.texts)),
            }
        )
    return found


def _shown(reader: PromptReader, text: Text, prompt: Tensor, read: ReadPrompts) -> dict[str, Any]:
    """One prompt, with the unit's value at each token."""
    return {
        "value": cell(read.value[0]),
        "nats": cell(read.nats[0]),
        "position": int(read.position[0]),
        "tokens": capture.pieces(text.subject.tokenizer, prompt[0].tolist(), text.texts),
        "activations": [cell(one) for one in reader.along(prompt)[0]],
    }


def _strongest_at_random(
    reader: PromptReader, text: Text, count: int, generator: torch.Generator
) -> Int[Tensor, "1 t"]:
    """The best of so many prompts at random."""
    best, score = torch.zeros(1, text.length, dtype=torch.int64), -float("inf")
    for at in range(0, count, _TOGETHER):
        some = text.vocabulary.drawn(min(_TOGETHER, count - at), text.length, generator)
        read = reader.values(some)
        top = int(read.score.argmax())
        if at == 0 or float(read.score[top]) > score:
            best, score = some[top : top + 1], float(read.score[top])
    return best


def _in_text(reader: PromptReader, text: Text, value: Tensor) -> dict[str, Any]:
    """The strongest place in text, with what stands about it; and what the unit does there without what came before."""
    assert text.rows.places is not None
    corpus, places = text.corpus, text.rows.places.cpu()
    row = int(value.argmax())
    sequence, position = (int(one) for one in places[row])
    first = int(corpus.keep[sequence].int().argmax())
    start = max(position - text.length + 1, first)
    past = int(corpus.length[sequence])
    low, high = max(position - _BEFORE, first), min(position + _AFTER + 1, past)
    inside = places[:, 0] == sequence
    own = {int(at): float(v) for at, v in zip(places[inside, 1], value[inside], strict=True)}
    window = corpus.ids[sequence, start : position + 1][None]
    alone = reader.read(window)
    return {
        "what": "in text",
        "fluency": None,
        "returns": bool(text.vocabulary.returns(window).all()),
        "document": corpus.names[int(corpus.document[sequence])],
        "value": float(value[row]),
        "nats": cell(alone.nats[0]),
        "position": position - low,
        "tokens": capture.pieces(text.subject.tokenizer, corpus.ids[sequence, low:high].tolist(), text.texts),
        "activations": [own.get(at) for at in range(low, high)],
        "alone": cell(alone.value[0]),
    }


def cell(number: Tensor) -> float | None:
    """None for what is not finite: JSON has no word for it."""
    return float(number) if bool(number.isfinite()) else None


def columns_of(found: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """The texts of units as columns of a table."""
    names = (
        "target", "what", "fluency", "value", "above", "nats", "position", "document", "returns", "tokens",
        "activations",
    )  # fmt: skip
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for unit in found:
        room = unit["strongest"] - unit["mean"]
        for text in unit["texts"]:
            over = None if text["value"] is None or room <= 0 else (text["value"] - unit["mean"]) / room
            row = {**text, "target": unit["label"], "above": over}
            for name in names:
                columns[name].append(row[name])
    return columns
