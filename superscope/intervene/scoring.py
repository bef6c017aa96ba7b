"""How likely are answers after prompts, with x edited or not? Log-probabilities in nats, and log-odds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from ..capture.models.facts import batch_that_fits, device_of, evaluating, keywords_of, text_config
from ..capture.models.load import Subject
from ..capture.reading.harvest import inputs
from ..core import Site
from .editing import Edits, edited
from .fisher import frozen
from .positions import Positions, rows_at
from .prompts import Prompt, answer_ids, causal_model, check_length, padded, prompt_ids

_LOGITS = 2**25


def log_probabilities(
    subject: Subject,
    prompts: Sequence[Prompt],
    answers: Sequence[Prompt],
    *,
    edits: Edits | None = None,
    positions: Positions = "all",
    batch_tokens: int | None = None,
) -> Float64[Tensor, "p"]:
    r"""$\sum_t \ln p(a_t \mid \mathrm{prompt}, a_{<t})$ of each prompt's answer, in nats.

    Sequences of like length share a pass; float64 from the logits on.

    Args:
        subject: a causal model.
        prompts: texts, or ids.
        answers: one to each prompt; of a text begin it with the space that belongs to it.
        edits: of x, by site.
        positions: where they act; see `Positions`.
        batch_tokens: ids in one forward pass.

    Raises:
        TypeError: if the subject is an encoder.
        SiteNotFound: if a site is not in the model.
        ValueError: if there are not as many answers as prompts, one has no token, or both are too long for the model.
    """
    with torch.no_grad():
        return _scored(subject, prompts, answers, edits, positions, batch_tokens)


def log_odds_gradient(
    subject: Subject,
    site: Site | str,
    prompts: Sequence[Prompt],
    right: Sequence[Prompt],
    wrong: Sequence[Prompt],
    *,
    positions: Positions = "all",
    batch_tokens: int | None = None,
) -> Float64[Tensor, "d"]:
    r"""$g = \partial / \partial \delta$ of the mean log-odds, $\delta$ added at a site: what the network reads there.

    Args:
        site: where.
        subject, prompts, right, wrong, positions, batch_tokens: as for `log_odds`.

    Raises:
        ValueError: if the answers are the same, so that nothing is read; and as for `log_odds`.

    Source:
        FishBack (2605.17231) takes it as the read-out of a concept.
    """
    delta: list[Tensor] = []

    def shifted(x: Tensor) -> Tensor:
        if not delta:
            delta.append(torch.zeros(x.shape[-1], dtype=x.dtype, device=x.device, requires_grad=True))
        return x + delta[0]

    with torch.enable_grad(), frozen(subject.model):
        both = _scored(subject, [*prompts, *prompts], [*right, *wrong], {site: shifted}, positions, batch_tokens)
        odds = (both[: len(prompts)] - both[len(prompts) :]).mean()
        (gradient,) = torch.autograd.grad(odds, delta)
    if not bool(gradient.any()):
        raise ValueError(
            f"log_odds_gradient: {site} has no influence on these log-odds; give other answers or "
            "positions, or an earlier site."
        )
    return gradient.double().cpu()


def _scored(
    subject: Subject,
    prompts: Sequence[Prompt],
    answers: Sequence[Prompt],
    edits: Edits | None,
    positions: Positions,
    batch_tokens: int | None,
) -> Float64[Tensor, "p"]:
    model = causal_model(subject, "log_probabilities")
    if len(prompts) != len(answers) or not prompts:
        raise ValueError(
            f"log_probabilities: {len(answers)} answers to {len(prompts)} prompts; give one to each, and at least one."
        )
    firsts = [prompt_ids(subject, prompt) for prompt in prompts]
    lasts = [answer_ids(subject, prompt, answer) for prompt, answer in zip(prompts, answers)]
    lengths = [len(first) + len(last) for first, last in zip(firsts, lasts)]
    check_length(model, max(lengths), "log_probabilities")
    most = min(batch_tokens or batch_that_fits(model), max(_LOGITS // getattr(text_config(model), "vocab_size", 1), 1))
    options = {"use_cache": False} if "use_cache" in keywords_of(model) else {}
    result: dict[int, Tensor] = {}
    order = sorted(range(len(prompts)), key=lengths.__getitem__)
    while order:
        part = _some(order, lengths, most)
        order = order[len(part) :]
        ids = padded([firsts[i] + lasts[i] for i in part])
        inside = torch.arange(ids.shape[1]) < torch.tensor([lengths[i] for i in part])[:, None]
        rows = rows_at(positions, [len(firsts[i]) for i in part], [lengths[i] for i in part]).to(device_of(model))
        with evaluating(model), edited(model, edits or {}, positions=rows):
            logits = model(**inputs(model, model, ids, inside), **options).logits
        for row, i in enumerate(part):
            start = len(firsts[i])
            own = logits[row, start - 1 : lengths[i] - 1].double().log_softmax(-1)
            target = torch.tensor(lasts[i], device=own.device)
            result[i] = own.gather(1, target[:, None]).sum().cpu()
    return torch.stack([result[i] for i in range(len(prompts))])


def log_odds(
    subject: Subject,
    prompts: Sequence[Prompt],
    right: Sequence[Prompt],
    wrong: Sequence[Prompt],
    *,
    edits: Edits | None = None,
    positions: Positions = "all",
    batch_tokens: int | None = None,
) -> Float64[Tensor, "p"]:
    r"""$\ln p(\mathrm{right}) - \ln p(\mathrm{wrong})$ of each prompt, in nats: what a contrast of answers is read by.

    Arguments and errors as for `log_probabilities`.
    """
    both = log_probabilities(
        subject,
        [*prompts, *prompts],
        [*right, *wrong],
        edits=edits,
        positions=positions,
        batch_tokens=batch_tokens,
    )
    return both[: len(prompts)] - both[len(prompts) :]


def _some(order: Sequence[int], lengths: Sequence[int], most: int) -> list[int]:
    """As many of the next sequences, which grow in length, as make a pass; at least one."""
    part: list[int] = []
    for i in order:
        if part and (len(part) + 1) * lengths[i] > most:
            break
        part.append(i)
    return part


@torch.no_grad()
def token_log_probabilities(
    subject: Subject, prompt: Prompt, answer: Prompt, *, edits: Edits | None = None, positions: Positions = "all"
) -> Float64[Tensor, "a"]:
    r"""$\ln p(a_t \mid \mathrm{prompt}, a_{<t})$ of each token of an answer, in nats.

    Args:
        subject: a causal model.
        prompt, answer: texts, or ids.
        edits: of x, by site.
        positions: where they act; see `Positions`.

    Raises:
        TypeError: if the subject is an encoder.
        SiteNotFound: if a site is not in the model.
        ValueError: if prompt and answer are longer than the model takes, or there is no answer.
    """
    model = causal_model(subject, "token_log_probabilities")
    first, last = prompt_ids(subject, prompt), answer_ids(subject, prompt, answer)
    check_length(model, len(first) + len(last), "token_log_probabilities")
    ids = torch.tensor([first + last])
    rows = rows_at(positions, [len(first)], [ids.shape[1]]).to(device_of(model))
    options = {"use_cache": False} if "use_cache" in keywords_of(model) else {}
    with evaluating(model), edited(model, edits or {}, positions=rows):
        logits = model(**inputs(model, model, ids, torch.ones_like(ids, dtype=torch.bool)), **options).logits
    own = logits[0, len(first) - 1 : -1].double().log_softmax(-1).cpu()
    return own.gather(1, torch.tensor(last)[:, None])[:, 0]
