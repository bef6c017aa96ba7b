"""Is it the atoms or the encoder that falls short? The same scores with either replaced by the best there is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import Activations, Dictionary, Measurement, ShapeError, SparseCode, SparseCoder
from ...recovery import NNOMP, OMP
from .recovery import Scores, code_scores

_SCORES = ("feature_f1", "support_f1", "feature_value_r2")


class _Made(SparseCoder):
    """Answers with codes made before, batch after batch in their order."""

    def __init__(self, dictionary: Dictionary, codes: Sequence[SparseCode]) -> None:
        self.dictionary, self._codes = dictionary, iter(codes)

    def encode(self, x: Float[Tensor, "*batch d"]) -> SparseCode:
        return next(self._codes)


@torch.no_grad()
def oracle_ceilings(
    rows: Sequence[Activations],
    found: Dictionary,
    truth: Dictionary,
    *,
    turned: SparseCoder | None = None,
    nonnegative: bool = True,
    seed: int = 0,
) -> Scores:
    r"""The scores of a learner with the best inference for its encoder, and with the truth for its atoms.

    What a learner lacks is lost in its atoms, in its encoder, or in the world, which no one can read. Beside its own
    scores stand three others, told apart by `at`:

    - dictionary *learned*, inference *best*: pursuit on the learned atoms;
    - dictionary *true*, inference *own*: the learner's own encoder turned onto the true atoms (`turned`);
    - dictionary *true*, inference *best*: pursuit on the true atoms, the world's own ceiling.

    Pursuit is told of each row how many features are truly active there, and takes as many atoms: it is an oracle, not
    a method. Each place has `feature_f1`, `support_f1` and `feature_value_r2` (see `code_scores`).

    Args:
        rows: batches with their true code.
        found: the learned dictionary, with its bias.
        truth: the features' atoms.
        turned: the learner's encoder on the true atoms; None leaves that place out.
        nonnegative: NNOMP, for features that are; False is OMP.
        seed: of the bootstrap.

    Raises:
        ValueError: if a batch does not carry its true code, or there is nothing to read.
        ShapeError: if code and truth differ in n, or the dictionaries in d.

    Source:
        O'Neill, Gumran and Klindt, "Compute optimal inference and provable amortisation gap in sparse autoencoders",
        2025, for the first place; "Stop probing, start coding", 2026 (arXiv 2603.28744), for setting both apart.
    """
    if found.d != truth.d:
        raise ShapeError(f"oracle_ceilings: d = {found.d} and d = {truth.d} differ. Give dictionaries of one space.")
    places: list[tuple[str, str, SparseCoder]] = []
    for name, W in (("learned", found), ("true", truth)):
        codes = [_pursued(W, batch, nonnegative) for batch in rows]
        places.append((name, "best", _Made(W, codes)))
    if turned is not None:
        codes = [turned.encode(batch.x) for batch in rows]
        places.insert(1, ("true", "own", _Made(turned.dictionary, codes)))
    return Scores(tuple(m for place in places for m in _scored(*place, rows, truth, seed)))


def _scored(
    dictionary: str, inference: str, coder: SparseCoder, rows: Sequence[Activations], truth: Dictionary, seed: int
) -> Iterator[Measurement]:
    scores = code_scores(coder, rows, truth, seed=seed)
    where = {"dictionary": dictionary, "inference": inference}
    for name in _SCORES:
        yield scores[name].at_site(**where)


def _pursued(W: Dictionary, batch: Activations, nonnegative: bool) -> SparseCode:
    """The code of each row by pursuit with as many atoms as features are active in it."""
    if batch.code is None:
        raise ValueError(
            "oracle_ceilings: the batches do not carry their true code. Give a world's, or Activations with `code`."
        )
    wanted = batch.code.l0.cpu().clamp(max=min(W.n, W.d))
    most = max(int(wanted.max()) if len(wanted) else 0, 1)
    values = torch.zeros(len(batch), most, dtype=batch.x.dtype)
    indices = torch.zeros(len(batch), most, dtype=torch.int64)
    for k in wanted.unique().tolist():
        if k == 0:
            continue
        chosen = wanted == k
        code = (NNOMP(W, k=k) if nonnegative else OMP(W, k=k)).encode(batch.x[chosen])
        values[chosen, : code.k], indices[chosen, : code.k] = code.values.to(values), code.indices
    return SparseCode(values, indices, W.n)
