"""What ids does a model read of prompts and answers? Texts with their tokenizer, or ids as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Int
from torch import Tensor

from ..capture.models.facts import text_config
from ..capture.models.load import Subject

Prompt: TypeAlias = str | Sequence[int] | Tensor
"""A text, or its ids."""


def causal_model(subject: Subject, caller: str) -> Any:
    """The model, if it predicts next tokens.

    Raises:
        TypeError: if it does not.
    """
    if subject.kind != "causal":
        raise TypeError(f"{caller}: '{subject.name}' is an encoder and predicts no next token; give a causal model.")
    return subject.model


def prompt_ids(subject: Subject, prompt: Prompt) -> list[int]:
    """The ids of a prompt, with the special tokens that the tokenizer puts in front.

    Raises:
        ValueError: if it has no token.
    """
    if isinstance(prompt, str):
        ids = list(subject.tokenizer(prompt)["input_ids"])
        # A tokenizer that ends what it reads would end the prompt before the answer.
        last = getattr(subject.tokenizer, "eos_token_id", None)
        if len(ids) > 1 and ids[-1] == last and not prompt.endswith(subject.tokenizer.eos_token):
            ids = ids[:-1]
    else:
        ids = [int(one) for one in prompt]
    if not ids:
        raise ValueError("a prompt has no token to predict from; give at least a word, or the beginning-of-text token.")
    return ids


def answer_ids(subject: Subject, prompt: Prompt, answer: Prompt) -> list[int]:
    """The ids of an answer behind a prompt.

    Where the tokens of both together begin with those of the prompt, the rest; else the answer's alone, so that the
    prompt is the same for every answer.

    Raises:
        ValueError: if the answer has no token.
    """
    if not isinstance(answer, str):
        ids = [int(one) for one in answer]
    elif isinstance(prompt, str):
        first = prompt_ids(subject, prompt)
        both = prompt_ids(subject, prompt + answer)
        alone = lambda: list(subject.tokenizer(answer, add_special_tokens=False)["input_ids"])  # noqa: E731
        ids = both[len(first) :] if both[: len(first)] == first else alone()
    else:
        ids = list(subject.tokenizer(answer, add_special_tokens=False)["input_ids"])
    if not ids:
        raise ValueError(f"the answer {answer!r} has no token, so it has no probability; give at least one.")
    return ids


def check_length(model: Any, longest: int, caller: str) -> None:
    """Raise a sentence where a sequence is longer than the model takes."""
    most = getattr(text_config(model), "max_position_embeddings", None)
    if isinstance(most, int) and 0 < most < longest:
        raise ValueError(
            f"{caller}: {longest} tokens are needed and this model takes {most}; shorten the prompt or what follows."
        )


def padded(sequences: Sequence[Sequence[int]]) -> Int[Tensor, "b t"]:
    """The ids in one matrix, zeros behind the shorter ones."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(one) for one in sequences], batch_first=True)
