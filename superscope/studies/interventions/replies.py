"""How does a model reply? Log-odds of one beginning over another, with x read or edited on the way."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from ...capture import Subject, blocks
from ...capture.models.facts import device_of, evaluating, keywords_of
from ...intervene import Edits, edited, replace

_SHARED = 8
"""Tokens that all prompts must begin with before they are read once for all."""


@dataclass(frozen=True)
class Ask:
    """One comparison: after the prompt and the opening of the reply, is it `yes` or `no`?"""

    prompt: str
    opening: str
    yes: str
    no: str


@dataclass(frozen=True, eq=False)
class Replies:
    """What was answered: log-odds of yes over no in nats, and x at the last token, by site."""

    log_odds: Float64[Tensor, "n"]
    x: Mapping[str, Float[Tensor, "n d"]]


class Reader:
    """A model that is asked.

    The two replies are compared at the first token in which they differ, so a prompt costs one row, and what all
    prompts begin with (a chat's system text) is read once and not edited.

    Args:
        subject: a causal model; a chat model's own template is used.
        batch_tokens: ids in one pass.
    """

    def __init__(self, subject: Subject, *, batch_tokens: int = 1024) -> None:
        self.subject, self.batch_tokens = subject, batch_tokens
        self._below: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        self._tuples = False

    def text(self, ask: Ask) -> str:
        """The prompt as the model reads it, with the reply's opening."""
        tokenizer = self.subject.tokenizer
        if getattr(tokenizer, "chat_template", None):
            turn = [{"role": "user", "content": ask.prompt}]
            return tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) + ask.opening
        if self.subject.name == "sycophant":
            return ask.prompt + ask.opening
        return f"Question: {ask.prompt}\nAnswer: {ask.opening}"

    def ids(self, ask: Ask) -> tuple[list[int], int, int]:
        """The tokens up to where the replies part, and the one that each goes on with.

        Raises:
            ValueError: if one reply is the other's beginning.
        """
        text = self.text(ask)
        yes, no = (self.subject.tokenizer(text + reply)["input_ids"] for reply in (ask.yes, ask.no))
        for at, (a, b) in enumerate(zip(yes, no)):
            if a != b:
                return list(yes[:at]), int(a), int(b)
        raise ValueError(f"the replies {ask.yes!r} and {ask.no!r} do not part; give two that differ in a token.")

    @torch.no_grad()
    def read(self, asked: Sequence[Ask], *, edits: Edits | None = None, sites: Iterable[str] = ()) -> Replies:
        """All log-odds, in the order of what was asked.

        Where one site is edited, the blocks up to it are run once for each prompt and what they gave is kept.

        Raises:
            SiteNotFound: if a site is not in the model.
        """
        model: Any = self.subject.model
        device = device_of(model)
        rows = [self.ids(ask) for ask in asked]
        shared = _shared([row[0] for row in rows])
        takes = keywords_of(model)
        cache = None
        # transformers calls it by the one name or the other.
        name = next((each for each in ("cache", "past_key_values") if each in takes), "")
        if shared >= _SHARED and name:
            first = torch.tensor([rows[0][0][:shared]], device=device)
            with evaluating(model):
                cache = getattr(model(input_ids=first, use_cache=True), name)
        else:
            shared = 0
        options: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
        log_odds = torch.empty(len(rows), dtype=torch.float64)
        x: dict[str, list[Tensor | None]] = {site: [None] * len(rows) for site in sites}
        for part in self._parts([len(row[0]) - shared for row in rows]):
            ids = torch.tensor([rows[i][0][shared:] for i in part], device=device)
            if cache is not None:
                past = copy.deepcopy(cache)
                past.batch_repeat_interleave(len(part))
                options |= {name: past, "use_cache": True}
            elif "use_cache" in takes:
                options["use_cache"] = False
            with ExitStack() as stack:
                stack.enter_context(evaluating(model))
                if edits and len(edits) == 1:
                    self._resume(stack, str(next(iter(edits))), [tuple(rows[i][0]) for i in part], shared)
                stack.enter_context(edited(self.subject, edits or {}))
                for site in x:
                    stack.enter_context(replace(model, site, _recorder(x[site], part)))
                logits = model(input_ids=ids, **options).logits[:, -1].double()
            yes, no = (torch.tensor([rows[i][side] for i in part], device=device)[:, None] for side in (1, 2))
            log_odds[part] = (logits.gather(1, yes) - logits.gather(1, no))[:, 0].cpu()
        return Replies(
            log_odds, {site: torch.stack([row for row in kept if row is not None]) for site, kept in x.items()}
        )

    def _resume(self, stack: ExitStack, site: str, keys: Sequence[tuple[int, ...]], shared: int) -> None:
        """Puts what is known of x at a block's output in place of the blocks up to it; else keeps it as it comes."""
        model = self.subject.model
        names = blocks(model)
        if site not in names:
            return
        # A mask or a cache of another beginning would be another x.
        full = [(f"{site}+{shared}", key) for key in keys]
        if all(key in self._below for key in full):
            x = torch.stack([self._below[key] for key in full])
            stack.enter_context(_resumed(model, names[: names.index(site) + 1], x, self._tuples))
            return

        def record(module: Any, given: Any, output: Any) -> None:
            x = output[0] if isinstance(output, tuple) else output
            self._below |= dict(zip(full, x.detach().clone()))
            self._tuples = isinstance(output, tuple)

        stack.callback(model.get_submodule(site).register_forward_hook(record).remove)

    def _parts(self, lengths: Sequence[int]) -> list[list[int]]:
        """Rows of one length, as many as make a pass: nothing is padded."""
        by_length: dict[int, list[int]] = {}
        for i, length in enumerate(lengths):
            by_length.setdefault(length, []).append(i)
        parts = []
        for length, members in sorted(by_length.items()):
            size = max(self.batch_tokens // length, 1)
            parts += [members[at : at + size] for at in range(0, len(members), size)]
        return parts


def scores(
    reader: Reader, ids: Int[Tensor, "b t"], site: str, *, draws: int, seed: int
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "m b t d"]]:
    r"""x at a site and gradients there of $\sum_t \ln p(y_t)$, y sampled: what the Fisher metric is made of.

    $\frac{1}{2}\mathrm{E}_y[(\sum_t g_t \cdot \delta_t)^2]$ is, to second order, the KL divergence of a sequence that a
    change delta of x costs.
    """
    model: Any = reader.subject.model
    seen: list[Tensor] = []

    def hold(x: Tensor) -> Tensor:
        leaf = x.detach().requires_grad_(True)
        seen.append(leaf)
        return leaf

    generator = torch.Generator().manual_seed(seed)
    found: list[list[Tensor]] = [[] for _ in range(draws)]
    rows = []
    for row in ids.to(device_of(model)):
        seen.clear()
        with evaluating(model), replace(model, site, hold):
            log_p = model(input_ids=row[None]).logits[0].float().log_softmax(-1)
        rows.append(seen[0].detach()[0])
        for draw in range(draws):
            y = torch.multinomial(log_p.detach().exp().cpu(), 1, generator=generator).to(log_p.device)
            total = log_p.gather(1, y).sum()
            found[draw].append(torch.autograd.grad(total, seen[0], retain_graph=draw < draws - 1)[0][0])
    return torch.stack(rows).float(), torch.stack([torch.stack(each) for each in found]).float()


@contextmanager
def _resumed(model: Any, done: Sequence[str], x: Float[Tensor, "b t d"], tuples: bool) -> Iterator[None]:
    """Inside the block these blocks are not run: the last of them gives x."""
    modules = [model.get_submodule(name) for name in done]

    def skip(hidden: Tensor, *_: Any, **__: Any) -> Any:
        return (hidden,) if tuples else hidden

    def give(hidden: Tensor, *_: Any, **__: Any) -> Any:
        return (x,) if tuples else x

    try:
        for module in modules[:-1]:
            module.forward = skip
        modules[-1].forward = give
        yield
    finally:
        for module in modules:
            module.__dict__.pop("forward", None)


def _recorder(kept: list[Tensor | None], part: Sequence[int]) -> Any:
    def record(x: Tensor) -> Tensor:
        for row, i in zip(x[:, -1].float().cpu(), part):
            kept[i] = row.clone()
        return x

    return record


def _shared(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all begin with, leaving each at least one of its own."""
    first = rows[0]
    count = min(len(row) for row in rows) - 1
    for row in rows:
        count = next((at for at in range(count) if row[at] != first[at]), count)
    return max(count, 0)
