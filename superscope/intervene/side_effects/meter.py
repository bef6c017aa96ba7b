"""What else moved? Predictions, other concepts, a dictionary's other latents and the length of x, under edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...capture.inputs.as_corpus import Readable, as_corpus
from ...capture.inputs.images import Images
from ...capture.inputs.text import Corpus
from ...capture.models.facts import batch_that_fits, device_of, evaluating
from ...capture.models.load import Subject
from ...capture.reading.harvest import batch, inputs
from ...capture.reading.hooks import Capture
from ...core import Site, SparseCoder
from ..concepts.finder import Direction
from ..concepts.latents import dense_code
from ..editing import Edits
from ..rewriting import replace
from .divergence import Divergence, divergences


@dataclass(frozen=True, eq=False)
class LatentShift:
    """What moved in a dictionary's code.

    Args:
        off_target: share of all movement, mean |f' - f| summed over latents, that is in latents not named as targets.
        size: mean |f' - f| of those, summed.
        moved: latents whose mean |f' - f| is over a tenth of their mean where they are on.
        worst: the off-target latents that moved most.
        change: their mean f' - f.
        density, edited_density: how often each of them is on, without the edit and with it.
    """

    off_target: float
    size: float
    moved: int
    worst: Int[Tensor, "worst"]
    change: Float[Tensor, "worst"]
    density: Float[Tensor, "worst"]
    edited_density: Float[Tensor, "worst"]


@dataclass(frozen=True, eq=False)
class SideEffects:
    """What an edit does on text it is not meant for.

    Args:
        divergence: of the predictions.
        norm_ratio: mean ‖x'‖ / ‖x‖ where x is watched.
        probes: by concept, how far its read-out moves on average, in standard deviations of the read-out on this text.
        latents: what moved in the dictionary, where one is given.
    """

    divergence: Divergence
    norm_ratio: float
    probes: Mapping[str, float] = field(default_factory=dict)
    latents: LatentShift | None = None


def side_effects(
    subject: Subject,
    corpus: Readable,
    edits: Sequence[Edits],
    *,
    watch: Site | str,
    probes: Mapping[str, Direction] | None = None,
    coder: SparseCoder | None = None,
    targets: Sequence[int] = (),
    worst: int = 10,
    batch_tokens: int | None = None,
) -> tuple[SideEffects, ...]:
    """The side effects of each of several edits on one text; put the `control_band` among them.

    Args:
        subject: a causal model.
        corpus: text that the edits are not meant for.
        edits: each by site.
        watch: where x is read for norms, probes and latents: the edited site, or one behind it.
        probes: of other concepts, found at `watch`.
        coder: a dictionary of `watch`.
        targets: its latents that are meant to move.
        worst: off-target latents to list.
        batch_tokens: ids in one forward pass.

    Raises:
        TypeError: if the subject is an encoder.
        SiteNotFound: if a site is not in the model.
        ShapeError: if a probe or the dictionary is of another dimension.
        ValueError: if the corpus does not fit the model.
    """
    corpus = as_corpus(corpus, tokenizer=subject.tokenizer)
    if isinstance(corpus, Images):
        raise TypeError("side_effects: pictures have no next token; give text.")
    moved = divergences(subject, corpus, edits, batch_tokens=batch_tokens)
    plain = _rows(subject, corpus, {}, watch, batch_tokens)
    code = None if coder is None else dense_code(coder)
    before = None if code is None else code(plain)
    read = {name: probe.read(plain) for name, probe in (probes or {}).items()}
    results = []
    for divergence, edit in zip(moved, edits):
        alone = edit[watch] if tuple(edit) == (watch,) else None
        # Nothing runs between the edit and what is watched.
        x = _rows(subject, corpus, edit, watch, batch_tokens) if alone is None else alone(plain)
        shifts = {
            name: float((probe.read(x) - read[name]).mean() / read[name].std().clamp_min(1e-300))
            for name, probe in (probes or {}).items()
        }
        latents = None if code is None or before is None else _shift(before, code(x), targets, worst)
        ratio = float((x.double().norm(dim=1) / plain.double().norm(dim=1).clamp_min(1e-300)).mean())
        results.append(SideEffects(divergence, ratio, shifts, latents))
    return tuple(results)


def _rows(
    subject: Subject, corpus: Corpus, edits: Edits, watch: Site | str, batch_tokens: int | None
) -> Float[Tensor, "rows d"]:
    """x at a site, edited on the way."""
    model, parts = subject.model, []
    size = max(1, (batch_tokens or batch_that_fits(model)) // corpus.context)
    for at in range(0, len(corpus), size):
        ids, keep, mask = batch(corpus, slice(at, at + size))
        rows = keep.to(device_of(model))
        with ExitStack() as stack:
            stack.enter_context(evaluating(model))
            for site, edit in edits.items():
                stack.enter_context(replace(model, site, edit, rows=rows))
            # Behind the edits: hooks run in the order they came, and what is read is to be edited already.
            capture = stack.enter_context(Capture(model, [watch]))
            (x,) = capture(rows=rows, **inputs(capture.runs, model, ids, mask)).values()
        parts.append(x.float().cpu())
    return torch.cat(parts)


def _shift(before: Tensor, after: Tensor, targets: Sequence[int], worst: int) -> LatentShift:
    change = (after - before).double()
    size = change.abs().mean(0)
    is_target = torch.zeros(len(size), dtype=torch.bool)
    is_target[list(targets)] = True
    total = float(size.sum())
    on = (before != 0).double().mean(0)
    level = before.double().abs().mean(0) / on.clamp_min(1e-12)
    moved = int(((size > 0.1 * level) & ~is_target & (on > 0)).sum())
    order = size.masked_fill(is_target, -1.0).topk(min(worst, int((~is_target).sum()))).indices
    return LatentShift(
        float(size[~is_target].sum()) / total if total else 0.0,
        float(size[~is_target].sum()),
        moved,
        order,
        change.mean(0)[order],
        on[order],
        (after != 0).double().mean(0)[order],
    )
