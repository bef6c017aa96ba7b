"""What does a model write, with x edited or not? Greedy or drawn from a seed, token by token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ..capture.models.facts import device_of, evaluating, keywords_of
from ..capture.models.load import Subject
from .editing import Edits, edited
from .positions import Positions, rows_at
from .prompts import Prompt, causal_model, check_length, prompt_ids


@torch.no_grad()
def generate(
    subject: Subject,
    prompts: Sequence[Prompt],
    *,
    edits: Edits | None = None,
    positions: Positions = "all",
    max_new_tokens: int = 32,
    temperature: float | int = 0.0,
    seed: int = 0,
    stop: bool = True,
) -> tuple[list[int], ...]:
    """The tokens that follow each prompt; `text_of` makes text of them.

    Prompts of one length share a pass, so that nothing is padded; what is drawn for one does not hang on others.

    Args:
        subject: a causal model.
        prompts: texts, or ids.
        edits: of x, by site.
        positions: where they act; see `Positions`.
        max_new_tokens: at most so many.
        temperature: what logits are divided by before a token is drawn; 0 takes the likeliest.
        seed: of the draws.
        stop: whether an end-of-text token ends an answer; it is left out of it.

    Raises:
        TypeError: if the subject is an encoder, so that it cannot generate.
        SiteNotFound: if a site is not in the model.
        ValueError: if a number is out of its range, or prompt and answer are longer than the model takes.
    """
    model = causal_model(subject, "generate")
    if max_new_tokens < 1:
        raise ValueError(f"generate: max_new_tokens is {max_new_tokens}; ask for at least 1.")
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"generate: temperature is {temperature}; give a finite number, at least 0.")
    ids = [prompt_ids(subject, prompt) for prompt in prompts]
    if ids:
        check_length(model, max(map(len, ids)) + max_new_tokens, "generate")
    ends = _ends(subject) if stop else frozenset[int]()
    answers: list[list[int]] = [[] for _ in ids]
    by_length: dict[int, list[int]] = {}
    for i, one in enumerate(ids):
        by_length.setdefault(len(one), []).append(i)
    for group in by_length.values():
        generators = [torch.Generator().manual_seed(seed + i) for i in group]
        tokens = torch.tensor([ids[i] for i in group])
        with evaluating(model):
            for i, answer in zip(
                group, _continue(model, tokens, edits or {}, positions, max_new_tokens, temperature, generators, ends)
            ):
                answers[i] = answer
    return tuple(answers)


def text_of(subject: Subject, answers: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """The answers as text."""
    return tuple(subject.tokenizer.decode(list(answer), skip_special_tokens=True) for answer in answers)


def _continue(
    model: Any,
    ids: Int[Tensor, "b t"],
    edits: Edits,
    positions: Positions,
    count: int,
    temperature: float,
    generators: Sequence[torch.Generator],
    ends: frozenset[int],
) -> list[list[int]]:
    """What follows sequences of one length."""
    device, n = device_of(model), len(ids)
    prompts = [ids.shape[1]] * n
    keywords = keywords_of(model)
    # The name of what is kept of earlier tokens: `past_key_values` in older versions of transformers.
    keeps = next((name for name in ("cache", "past_key_values") if name in keywords), None)
    answers: list[list[int]] = [[] for _ in range(n)]
    open_, cache, whole = [True] * n, None, ids
    # Sequences are of one length, so that no row is a pad: an edit of all is put in once, not at each token.
    everywhere = positions == "all"
    with edited(model, edits) if everywhere else nullcontext():
        for _ in range(count):
            past = 0 if cache is None else whole.shape[1] - 1
            given: dict[str, Any] = {"input_ids": whole[:, past:].to(device)}
            if keeps:
                given |= {keeps: cache, "use_cache": True}
            elif "use_cache" in keywords:
                given["use_cache"] = False
            if "logits_to_keep" in keywords:
                given["logits_to_keep"] = 1
            rows = rows_at(positions, prompts, [whole.shape[1]] * n, past=past).to(device)
            with nullcontext() if everywhere else edited(model, edits, positions=rows):
                output = model(**given)
            cache = getattr(output, keeps) if keeps else None
            chosen = _choose(output.logits[:, -1].double().cpu(), temperature, generators)
            for i, token in enumerate(chosen):
                open_[i] = open_[i] and token not in ends
                if open_[i]:
                    answers[i].append(token)
            if not any(open_):
                break
            whole = torch.cat([whole, torch.tensor(chosen)[:, None]], 1)
    return answers


def _choose(logits: Tensor, temperature: float, generators: Sequence[torch.Generator]) -> list[int]:
    if temperature == 0:
        return logits.argmax(-1).tolist()
    p = (logits / temperature).softmax(-1)
    return [int(torch.multinomial(row, 1, generator=generator)) for row, generator in zip(p, generators)]


def _ends(subject: Subject) -> frozenset[int]:
    """Every id that ends a text."""
    known: set[int] = set()
    for holder in (subject.tokenizer, getattr(subject.model, "generation_config", None), subject.model.config):
        ids = getattr(holder, "eos_token_id", None)
        known |= set(ids) if isinstance(ids, (list, tuple)) else set() if ids is None else {int(ids)}
    return frozenset(known)
