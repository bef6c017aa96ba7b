"""How does an answer's probability go with strength? All strengths in one pass, which they share below the site."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from ..capture.models.facts import device_of, evaluating, keywords_of
from ..capture.models.load import Subject
from ..capture.reading.harvest import inputs
from ..capture.reading.hooks import visiting
from ..core import Site
from .editing import edited
from .edits import Edit
from .positions import Positions, rows_at
from .prompts import Prompt, answer_ids, causal_model, check_length, prompt_ids


class _Apart(Exception):
    """What is computed at the site does not hold one sequence in its first dimension."""


@torch.no_grad()
def dose_response(
    subject: Subject,
    prompt: Prompt,
    answer: Prompt,
    *,
    site: Site | str,
    edit: Edit,
    strengths: Sequence[float | int],
    positions: Positions = "all",
    share: bool = True,
) -> Float64[Tensor, "s"]:
    r"""$\ln p(\mathrm{answer} \mid \mathrm{prompt})$ in nats at each strength.

    Below the site a sequence is computed once; there it becomes one row of a batch for each strength. A site that holds
    no [1, time, d] is computed for each strength apart, and so is a model whose parts above the site were told the size
    of the batch below it (the positions of Bloom).

    Args:
        subject: a causal model.
        prompt, answer: texts, or ids.
        site: where it is edited.
        edit: its own strength is replaced.
        strengths: in the edit's own unit.
        positions: where it acts; see `Positions`.
        share: whether the pass below the site is shared.

    Raises:
        TypeError: if the subject is an encoder.
        SiteNotFound: if the site is not in the model.
        ValueError: if there is no strength, one is NaN or infinite, or the text is too long.
    """
    model = causal_model(subject, "dose_response")
    if not strengths:
        raise ValueError("dose_response: there is no strength; give at least one.")
    edits = [edit.at(strength) for strength in strengths]
    first, last = prompt_ids(subject, prompt), answer_ids(subject, prompt, answer)
    length = len(first) + len(last)
    check_length(model, length, "dose_response")
    ids = torch.tensor([first + last])
    rows = rows_at(positions, [len(first)], [length]).to(device_of(model))
    target = torch.tensor(last)
    with evaluating(model):
        if share:
            try:
                return _read(_shared(model, ids, site, edits, rows), len(first), target)
            except _Apart:
                pass
        apart = []
        for one in edits:
            with edited(model, {site: one}, positions=rows):
                apart.append(_read(_logits(model, ids), len(first), target))
        return torch.cat(apart)


def _shared(
    model: Any, ids: Int[Tensor, "1 t"], site: Site | str, edits: Sequence[Edit], rows: Bool[Tensor, "1 t"]
) -> Tensor:
    """Logits of one sequence, a row for each edit."""
    widened = False

    def widen(place: Site, x: Tensor) -> Tensor:
        nonlocal widened
        if x.ndim != 3 or x.shape[:2] != rows.shape or place.columns:
            raise _Apart
        widened = True
        chosen = x[rows]
        wide = x.repeat(len(edits), 1, 1)
        for row, edit in zip(wide, edits):
            row[rows[0]] = edit(chosen).to(x.dtype)
        return wide

    with visiting(model, site, widen):
        try:
            logits = _logits(model, ids)
        except RuntimeError as error:
            # Shapes that do not go together above the site; anything else is not ours to mend.
            if widened and any(word in str(error) for word in ("size", "shape", "expand")):
                raise _Apart from error
            raise
    if len(logits) != len(edits):
        raise _Apart
    return logits


def _logits(model: Any, ids: Int[Tensor, "1 t"]) -> Tensor:
    options = {"use_cache": False} if "use_cache" in keywords_of(model) else {}
    mask = torch.ones_like(ids, dtype=torch.bool)
    return model(**inputs(model, model, ids, mask), **options).logits


def _read(logits: Tensor, start: int, target: Int[Tensor, "a"]) -> Float64[Tensor, "s"]:
    own = logits[:, start - 1 : -1].double().log_softmax(-1)
    return own.gather(2, target.to(own.device).expand(len(own), -1)[..., None])[..., 0].sum(1).cpu()
