"""Which prompt makes a unit largest, and how unlikely must it be? Prompts evolve, one for each weight of fluency."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .prompt_reader import PromptReader, ReadPrompts
from .vocabulary import Vocabulary

_AT_RANDOM = 0.125
"""Of new prompts, those whose new token is drawn from all tokens: where no slope points, something is still tried."""
_FIRST = 8
"""Prompts at random that a line begins at the best of, in children: where a unit is flat, as a neuron far below zero,
no slope leads out."""
_SLOPE = 3
"""What a slope costs in evaluations: a pass forward, and one backward of twice the work."""


@dataclass(frozen=True, eq=False)
class MaximisedPrompts:
    r"""The best prompt found for each weight of fluency, and the Pareto front of all that were tried.

    Args:
        fluency: lambda of each prompt.
        prompts: the best ones.
        read: what was read of them.
        returns: whether their text is tokenized to them.
        front: prompts than which none that was tried is both stronger and likelier, the strongest first.
        front_read: what was read of them.
        evaluations: passes of the model over one prompt: those tried, and three for each slope.
    """

    fluency: tuple[float, ...]
    prompts: Int[Tensor, "m t"]
    read: ReadPrompts
    returns: Bool[Tensor, "m"]
    front: Int[Tensor, "f t"]
    front_read: ReadPrompts
    evaluations: int


def maximise_prompts(
    reader: PromptReader,
    vocabulary: Vocabulary,
    *,
    length: int,
    scale: float,
    fluency: Sequence[float] = (0.0, 0.1, 0.3, 1.0),
    iterations: int = 60,
    children: int = 12,
    top: int = 64,
    patience: int = 20,
    seed: int = 0,
) -> Generator[int, None, MaximisedPrompts]:
    r"""The prompt p that maximises $a(p) / \mathrm{scale} - \lambda\, h(p)$, for each $\lambda$; yields iterations.

    a is the target's value and h the mean $-\ln p$ of the prompt's tokens under the model itself, nats a token. One
    prompt lives for each lambda. In an iteration the gradient with respect to its one-hot tokens names the `top`
    tokens of each position, `children` prompts that differ from it in one of them are drawn and evaluated exactly, and
    for each lambda the best of all prompts evaluated lives on. A line begins at the best of 8 `children` prompts at
    random, and begins anew where none was better for `patience` iterations, its best being kept. Prompts that do not
    come back from their text are not tried.

    Args:
        reader: model, site and target.
        vocabulary: tokens that are proposed.
        length: tokens of a prompt.
        scale: of the target, so that lambda means the same for all: such as how far its strongest in text is above its
            mean.
        fluency: the lambdas, in scales for a nat a token.
        iterations, children, top, patience: as above.
        seed: of the first prompts and of what is drawn.

    Raises:
        ValueError: if a number is below 1, there is no lambda or one below 0, or fluency is asked of a prompt of which
            the model predicts no token.

    Source:
        Thompson, Straznickas and Sucholutsky, "Fluent dreaming for language models", 2024 (2402.01702): evolutionary
        prompt optimisation. Zou et al., "Universal and Transferable Adversarial Attacks on Aligned Language Models",
        2023 (2307.15043): candidates by the gradient of one-hot tokens, decided by evaluation.
    """
    counts = {"length": length, "iterations": iterations, "children": children, "top": top, "patience": patience}
    for name, number in counts.items():
        if number < 1:
            raise ValueError(f"maximise_prompts: {name} must be at least 1; got {number}.")
    if not fluency or min(fluency) < 0 or not scale > 0:
        raise ValueError(
            f"maximise_prompts: fluency wants weights of 0 or more, at least one, and scale a number above 0; got "
            f"{tuple(fluency)} and {scale}."
        )
    if length == 1 and not reader.before and max(fluency) > 0:
        raise ValueError(
            "maximise_prompts: this model's text begins with no special token, so it does not say how likely a "
            "prompt of one token is. Give length 2 or more, or fluency 0 alone."
        )
    generator = torch.Generator().manual_seed(seed)
    weights = torch.tensor(fluency, dtype=torch.float64)
    tried = vocabulary.drawn(_FIRST * children, length, generator)
    known = {tuple(row) for row in tried.tolist()}
    read = reader.read(tried)
    lines = [_Line(weight, scale, at) for weight, at in zip(fluency, _best(read, weights, scale).tolist())]
    evaluations = len(tried)
    for done in range(iterations):
        anew = [line for line in lines if line.stale >= patience]
        fresh = vocabulary.drawn(_FIRST * children * len(anew), length, generator)
        if anew:
            tried, read = torch.cat([tried, fresh]), ReadPrompts.joined([read, reader.read(fresh)])
        for line, own in zip(anew, torch.arange(len(tried))[len(tried) - len(fresh) :].split(_FIRST * children)):
            line.renew(read, own.tolist())
        parents = tried[[line.at for line in lines]]
        slopes = reader.slopes(parents, weights, scale)
        new, owners = _children(parents, slopes, vocabulary, children, top, known, generator)
        evaluations += len(fresh) + _SLOPE * len(lines) + len(new)
        if len(new):
            tried, read = torch.cat([tried, new]), ReadPrompts.joined([read, reader.read(new)])
        for number, line in enumerate(lines):
            line.follow(
                read, [len(tried) - len(new) + i for i in range(len(new)) if line.shares or owners[i] == number]
            )
        yield done + 1
    alive, front = _best(read, weights, scale), _front(read)
    return MaximisedPrompts(
        tuple(fluency), tried[alive], read[alive], vocabulary.returns(tried[alive]), tried[front], read[front],
        evaluations,
    )  # fmt: skip


class _Line:
    """What lives on for one lambda: the number of a prompt among all tried.

    Attributes:
        at: that number.
        stale: iterations in which nothing was better.
        shares: whether it takes prompts of other lines; one that was begun anew does not, or it would fall back to
            where it was.
    """

    def __init__(self, weight: float, scale: float, at: int) -> None:
        self.weight, self.scale, self.at = weight, scale, at
        self.stale, self.shares = 0, True

    def renew(self, read: ReadPrompts, drawn: Sequence[int]) -> None:
        """From here on from the best of some prompts at random."""
        self.at, self.stale, self.shares = max(drawn, key=lambda i: self._worth(read, i)), 0, False

    def follow(self, read: ReadPrompts, new: Sequence[int]) -> None:
        """To the best of the new prompts, if it is better."""
        best = max(new, key=lambda i: self._worth(read, i), default=self.at)
        better = self._worth(read, best) > self._worth(read, self.at)
        self.at, self.stale = (best, 0) if better else (self.at, self.stale + 1)

    def _worth(self, read: ReadPrompts, i: int) -> float:
        return float(read.score[i]) / self.scale - self.weight * float(read.nats[i])


def _best(read: ReadPrompts, weights: Float[Tensor, "m"], scale: float) -> Int[Tensor, "m"]:
    """For each lambda, the best of all prompts."""
    return (read.score / scale - weights[:, None] * read.nats).argmax(1)


def _front(read: ReadPrompts) -> Int[Tensor, "f"]:
    """The prompts that no other beats in both, the strongest first."""
    order = sorted(range(len(read.nats)), key=lambda i: (-float(read.score[i]), float(read.nats[i])))
    found, least = [], float("inf")
    for i in order:
        if float(read.nats[i]) < least and bool(read.score[i].isfinite()):
            found.append(i)
            least = float(read.nats[i])
    return torch.tensor(found, dtype=torch.int64)


def _children(
    parents: Int[Tensor, "m t"],
    slopes: Float[Tensor, "m t v"],
    vocabulary: Vocabulary,
    children: int,
    top: int,
    known: set[tuple[int, ...]],
    generator: torch.Generator,
) -> tuple[Int[Tensor, "c t"], list[int]]:
    """New prompts, each one token away from a parent, and the parent's number; fewer where there are no more."""
    ids = vocabulary.ids
    places = slopes[..., ids].topk(min(top, len(ids)), dim=-1).indices
    length = parents.shape[1]
    found, owners = list[tuple[int, ...]](), list[int]()
    # More are drawn than are wanted: some are known, and some do not come back from their text.
    count = 4 * children
    for owner, (parent, best) in enumerate(zip(parents, places, strict=True)):
        position = torch.randint(length, (count,), generator=generator)
        chosen = best[position, torch.randint(best.shape[1], (count,), generator=generator)]
        drawn = torch.randint(len(ids), (count,), generator=generator)
        at_random = torch.rand(count, generator=generator) < _AT_RANDOM
        rows = parent.repeat(count, 1)
        rows[torch.arange(count), position] = ids[torch.where(at_random, drawn, chosen)]
        new = [row for row in dict.fromkeys(map(tuple, rows.tolist())) if row not in known]
        returning = vocabulary.returns(torch.tensor(new, dtype=torch.int64).view(-1, length)).tolist()
        kept = [row for row, comes_back in zip(new, returning, strict=True) if comes_back][:children]
        known.update(kept)
        found += kept
        owners += [owner] * len(kept)
    return torch.tensor(found, dtype=torch.int64).view(-1, length), owners
