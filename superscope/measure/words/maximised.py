"""Words for how far a unit can be moved by prompts and pictures that were searched for."""

from __future__ import annotations

from .word import Word

_BY = "studies.Maximise"

WORDS = {
    "Units moved most": (
        Word(
            "maximised_activation",
            "Largest value found by search",
            "as x",
            "The largest value of a unit at prompts, or pictures, that were searched for.",
            "Beside the strongest in the data and the best of as many at random. Undefined where nothing moves the "
            "unit. A search gives a floor: a better input may exist.",
            by=_BY,
        ),
        Word(
            "maximised_ratio",
            "Search over the strongest in the data",
            "times the strongest in the data",
            "Mean over units of how far the search gets above the unit's mean in the data, over how far the data's "
            "strongest gets.",
            "1 is the data's strongest, from a far larger choice than chance had. Above 1 an input exists that moves "
            "the unit further; it says nothing about whether any such input is ever met.",
            by=_BY,
            short="Search / data",
            headline=True,
        ),
        Word(
            "maximised_above",
            "Units raised above the data",
            "share",
            "The share of units for which the search found more than the strongest in the data.",
            "Low where the search fails or the data holds better; read it beside the share that chance reaches.",
            by=_BY,
        ),
        Word(
            "maximised_nats",
            "Cost of the prompts found",
            "nats a token",
            "Mean -ln p of a found prompt's tokens under the model itself, by weight of fluency.",
            "At the level of windows of text the model finds the prompt as likely as text; far above it the prompt is "
            "a string that nobody writes.",
            by=_BY,
            headline=True,
        ),
    ),
}
