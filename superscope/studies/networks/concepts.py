"""Things with an order, in contexts that each hold all of them: where a model's activations of them are read."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from ...capture import Corpus, Subject, as_corpus, harvest
from ...core import Site

_POSITIONS = 16
_WINDOWS = 400


@dataclass(frozen=True)
class Concept:
    """Things in their order, and what may stand before each of them.

    Args:
        things: in their order.
        before: beginnings of a sentence that go on with any of the things.
    """

    things: tuple[str, ...]
    before: tuple[str, ...]


_DAYS = (
    "The meeting is on", "It will happen next", "She was born on a", "We closed the shop on",
    "The train does not run on",
    "He called me last", "The report is due on", "They met again on", "The store opens on", "I will see you on",
    "It rained all day on", "The class begins on", "The letter came on", "Their flight leaves on",
    "The office is closed on", "My brother arrives on", "The game was played on", "The market is held every",
    "We always eat fish on", "The deadline was moved to", "Nobody works on", "The concert is this", "Call me back on",
    "The bank is open until",
)  # fmt: skip
_MONTHS = (
    "The festival takes place in", "She was born in", "It was a cold day in", "The contract ends in",
    "We moved to the city in", "The results are expected in", "They were married in", "The school year begins in",
    "He left the company in", "The garden is at its best in", "Prices rose again in", "The museum will open in",
    "The election was held in", "I visited my parents in", "The birds return in",
    "Work on the bridge began in",
    "The first snow fell in", "The new law takes effect in", "Our holiday is in", "The storm came in late",
    "The exhibition closes in", "The river floods every", "They harvest the fruit in early",
    "The book was published in",
)  # fmt: skip
_NUMBERS = (
    "The answer is", "He bought", "There were", "Chapter", "Page", "She counted to", "The score was", "Add", "Room",
    "The number", "It takes", "We need", "Version", "Step", "The value is", "Multiply by", "Bus number", "Level",
    "Return", "He is aged", "Press", "Lesson", "They won by", "About",
)  # fmt: skip
_LETTERS = (
    "The letter", "The word begins with", "Answer", "Section", "Point", "Option", "The grade was", "Vitamin", "Group",
    "Figure", "Appendix", "Press the key", "The name starts with", "Row", "Gate", "Type", "Class", "Plan", "Part",
    "The last letter is", "Write down", "Choose", "Team", "Block",
)  # fmt: skip

CONCEPTS: Mapping[str, Concept] = MappingProxyType(
    {
        "weekdays": Concept(
            ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"), _DAYS
        ),
        "months": Concept(
            ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
             "November", "December"),
            _MONTHS,
        ),
        "digits": Concept(tuple("0123456789"), _NUMBERS),
        "letters": Concept(tuple(string.ascii_uppercase), _LETTERS),
    }
)  # fmt: skip
"""Things that are named in prompts; positions in a window, which need a text, are the fifth."""


def prompted(loaded: Subject, site: Site, concept: Concept) -> Float[Tensor, "contexts things d"]:
    """x at the last token of each thing in each context.

    Raises:
        ValueError: if the model has no tokenizer.
    """
    if loaded.tokenizer is None:
        raise ValueError(f"{loaded.name} reads no text, so no concept can be named to it. Give a language model.")
    texts = [f"{before} {thing}" for before in concept.before for thing in concept.things]
    corpus = as_corpus(texts, tokenizer=loaded.tokenizer)
    assert isinstance(corpus, Corpus)
    rows: dict[int, Tensor] = {}
    for batch in harvest(loaded.model, [site], corpus):
        found = batch[site]
        assert found.places is not None
        for sequence, x in zip(found.places[:, 0].tolist(), found.x, strict=True):
            # Rows come in order of position, so that the last one stays.
            rows[sequence] = x
    x = torch.stack([rows[i] for i in range(len(texts))])
    return x.view(len(concept.before), len(concept.things), -1)


def positions(loaded: Subject, site: Site, corpus: Corpus) -> Float[Tensor, "windows places d"]:
    """x at evenly spaced positions of whole windows, each window a context.

    Raises:
        ValueError: if the text has fewer than 4 whole windows, or they are too short.
    """
    whole = (corpus.length == corpus.context).nonzero().flatten()[:_WINDOWS]
    if len(whole) < 4:
        raise ValueError(
            f"positions need at least 4 whole windows of {corpus.context} tokens; the text has {len(whole)}. "
            "Give more --tokens or a smaller --context."
        )
    corpus = corpus.take(whole)
    kept = corpus.keep.all(0).nonzero().flatten().tolist()
    if len(kept) < 8:
        raise ValueError(
            f"positions need windows of at least 8 tokens; these have {len(kept)}. Give a larger --context."
        )
    # The first few positions hold sinks.
    places = torch.linspace(4, len(kept) - 1, min(_POSITIONS, len(kept) - 4)).long().tolist()
    wanted = [kept[place] for place in places]
    found = []
    for batch in harvest(loaded.model, [site], corpus):
        x, where = batch[site].x, batch[site].places
        assert where is not None
        for sequence in where[:, 0].unique().tolist():
            own = where[:, 0] == sequence
            at = {position: i for i, position in enumerate(where[own, 1].tolist())}
            found.append(x[own][[at[place] for place in wanted]])
    return torch.stack(found)
