"""What goes wrong in the text that an edited model writes? Repetition, loops, empty and refused answers."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

_GRAM = 4
_ROUNDS = 3
_REFUSAL = re.compile(
    r"\b(i(?:'| a)m (?:sorry|unable|not able)|i (?:can(?:no|')t|cannot|can not|won't|will not|am not able to)|"
    r"as an ai|i apologi[sz]e|unable to (?:help|assist|answer))",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class AnswerFaults:
    """Shares of answers.

    Args:
        n: answers.
        repetition: mean share of an answer's 4-grams that it has had before.
        loops: share that end going round, the same tokens three times in a row or more.
        empty: share that say nothing.
        refused: share that begin as refusals do.
        length: mean number of tokens.
    """

    n: int
    repetition: float
    loops: float
    empty: float
    refused: float
    length: float


def answer_faults(answers: Sequence[Sequence[Hashable]], texts: Sequence[str] | None = None) -> AnswerFaults:
    """Faults that a divergence does not see: a model may go round for ever at hardly any KL.

    Args:
        answers: tokens of each, as `generate` gives them.
        texts: the same as text, for empty and refused ones; without them an answer is empty if it has no token, and
            none is refused.

    Raises:
        ValueError: if there is no answer, or not as many texts.

    Example:
        >>> answer_faults([[1, 2, 1, 2, 1, 2], []]).loops
        0.5
    """
    if not answers:
        raise ValueError("answer_faults: there is no answer; generate some first.")
    if texts is not None and len(texts) != len(answers):
        raise ValueError(f"answer_faults: {len(texts)} texts for {len(answers)} answers; give one to each.")
    n = len(answers)
    blank = [not answer for answer in answers] if texts is None else [not text.strip() for text in texts]
    refused = [] if texts is None else [bool(_REFUSAL.search(text[:80])) for text in texts]
    return AnswerFaults(
        n,
        sum(map(repetition, answers)) / n,
        sum(map(is_loop, answers)) / n,
        sum(blank) / n,
        sum(refused) / n,
        sum(map(len, answers)) / n,
    )


def repetition(answer: Sequence[Hashable], *, gram: int = _GRAM) -> float:
    """Share of the n-grams of an answer that stand in it before; 0 where it is too short for two.

    Example:
        >>> repetition("abcdabcd")
        0.2
    """
    grams = [tuple(answer[i : i + gram]) for i in range(len(answer) - gram + 1)]
    return (len(grams) - len(set(grams))) / len(grams) if grams else 0.0


def is_loop(answer: Sequence[Hashable], *, rounds: int = _ROUNDS) -> bool:
    """Whether it ends in some tokens said `rounds` times in a row.

    Example:
        >>> is_loop("no, no, no, "), is_loop("abcabd")
        (True, False)
    """
    tokens = list(answer)
    return any(
        tokens[-period * rounds :] == tokens[-period:] * rounds for period in range(1, len(tokens) // rounds + 1)
    )
