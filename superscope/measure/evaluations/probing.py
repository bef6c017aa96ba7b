"""Can a concept be read off k latents? Sparse probes, cross-validated, beside a probe of x and shuffled labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...core import Dictionary, Measurement, ShapeError, SparseCode
from ..interval import wilson

_RIDGE = 1e-2
_ROUNDS = 12
_READABLE = 0.75


def sparse_probing(
    code: SparseCode,
    x: Float[Tensor, "rows d"],
    labels: Bool[Tensor, "rows"],
    *,
    groups: Int[Tensor, "rows"] | None = None,
    ks: Sequence[int] = (1, 2, 5),
    folds: int = 5,
    shuffles: int = 5,
    name: str = "concept",
    seed: int = 0,
) -> tuple[Measurement, ...]:
    r"""Balanced accuracy of a logistic probe of the k latents whose means differ most, on rows of other groups.

    In each fold the k latents with the largest $|\bar f_i^{+} - \bar f_i^{-}| / s_i$ are chosen and the probe is fitted
    on the training rows alone; choosing them on all rows, as is often done, gives a false advantage that grows with the
    number of latents. Beside each k: the same with the labels shuffled between groups, which is what choosing among so
    many latents gives to nothing, and a probe of all of x, which no choice of latents should beat.

    Args:
        code: of the rows.
        x: the rows.
        labels: whether the concept is there.
        groups: the document of each row; a fold never shares one with another. Without, rows are their own.
        ks: numbers of latents.
        folds: parts of the groups.
        shuffles: of the labels.
        name: of the concept, for the record.
        seed: of folds and shuffles.

    Returns:
        `probe_accuracy` for each k, at=(concept, k), with the interval over folds and the shuffled labels' as chance.

    Raises:
        ShapeError: if code, x and labels differ in rows.
        ValueError: if a class has fewer rows than there are folds, or there are fewer groups than folds.

    Source:
        Gurnee et al., "Finding neurons in a haystack", 2023 (k-sparse probing); Karvonen et al., "SAEBench", 2025
        (arXiv 2503.09532), whose probes choose latents on the training split of one split.
    """
    f = code.dense().double().numpy()
    y = labels.numpy().astype(bool)
    if not len(f) == len(x) == len(y):
        raise ShapeError(f"sparse_probing: {len(f)} rows of code, {len(x)} of x and {len(y)} labels; give one each.")
    which = np.arange(len(y)) if groups is None else np.unique(groups.numpy(), return_inverse=True)[1]
    count = int(which.max()) + 1
    if count < folds:
        raise ValueError(f"sparse_probing: {folds} folds need as many groups; there are {count}. Give fewer folds.")
    if min(int(y.sum()), int((~y).sum())) < folds:
        raise ValueError(
            f"sparse_probing: {name} is there in {int(y.sum())} and absent in {int((~y).sum())} of {len(y)} rows; "
            f"each fold of {folds} needs one of both. Give more rows."
        )
    random = np.random.default_rng(seed)
    fold = random.permutation(count)[which] % folds
    ceiling = _crossed(_scaled(x.double().numpy()), y, fold, None)
    latents = _Folds(f, fold)
    found = []
    for k in ks:
        if not 1 <= k <= f.shape[1]:
            raise ValueError(f"sparse_probing: k must be in 1..n = {f.shape[1]}; got {k}.")
        scores = latents.probed(y, k)
        chance = [float(np.mean(latents.probed(_shuffled(y, which, count, random), k))) for _ in range(shuffles)]
        found.append(
            Measurement(
                name="probe_accuracy",
                value=float(np.mean(scores)),
                unit="balanced accuracy",
                n=len(y),
                of="rows",
                low=min(scores),
                high=max(scores),
                how=f"min and max over {len(scores)} folds of whole groups",
                reference=float(np.mean(ceiling)),
                reference_is="probe of all of x",
                chance=float(np.mean(chance)),
                chance_is=f"labels shuffled between groups, {shuffles} times",
                at={"concept": name, "k": k},
            )
        )
    return tuple(found)


@torch.no_grad()
def probe_absorption(
    code: SparseCode,
    x: Float[Tensor, "rows d"],
    labels: Bool[Tensor, "rows"],
    W: Dictionary,
    *,
    name: str = "concept",
    share: float = 0.4,
    seed: int = 0,
) -> Measurement:
    r"""Share of the rows where x shows the concept and its latent is silent while another stands in for it.

    On one half of the rows the latent whose mean differs most is chosen, and a probe w is fitted to x. On the other
    half, among rows with the concept on which the probe is right, a row is absorbed if that latent is 0 and some other
    one writes at least `share` of the row's projection on w, about the mean of rows without the concept. Chance is the
    same with another direction of the probe's length among rows' own directions: of a row's difference from another.

    Args:
        code, x, labels: as for `sparse_probing`.
        W: the dictionary of the code.
        name: of the concept.
        share: of the projection that another latent must write.
        seed: of the halves.

    Returns:
        None as value where x itself does not show the concept (balanced accuracy below 0.75 on the other half).

    Raises:
        ShapeError: if code, x and labels differ in rows.

    Source:
        Chanin et al., "A is for absorption", 2024 (arXiv 2409.14507), for first letters; SAEBench's thresholds. One
        latent is taken for the concept's own here, where they take up to ten.
    """
    if not len(code.indices) == len(x) == len(labels):
        raise ShapeError(f"probe_absorption: {len(code.indices)} rows of code, {len(x)} of x, {len(labels)} labels.")
    y = labels.numpy().astype(bool)
    random = np.random.default_rng(seed)
    learned = random.random(len(y)) < 0.5
    about: dict[str, Any] = {
        "name": "probe_absorption",
        "unit": "share of rows",
        "of": "rows on which the probe is right",
    }
    at = {"concept": name}
    if min(int(part.sum()) for part in (y & learned, ~y & learned, y & ~learned, ~y & ~learned)) < 5:
        return Measurement(value=None, n=0, caution="fewer than 5 rows of a class in a half", at=at, **about)
    f, rows = code.dense().double().numpy(), x.double().numpy()
    spread = np.maximum(f[learned].std(0), 1e-9)
    own = int(np.argmax((f[learned & y].mean(0) - f[learned & ~y].mean(0)) / spread))
    centre, scale = rows[learned].mean(0), np.maximum(rows[learned].std(0), 1e-9)
    design = np.column_stack([(rows - centre) / scale, np.ones(len(rows))])
    weights = _logistic(design[learned], y[learned])
    guess = design @ weights > 0
    accuracy = (guess[~learned & y].mean() + (~guess[~learned & ~y]).mean()) / 2
    right = ~learned & y & guess
    if accuracy < _READABLE or not right.any():
        caution = f"x itself shows it with a balanced accuracy of {accuracy:.2f} only, so nothing can be absorbed"
        return Measurement(value=None, n=int(right.sum()), caution=caution, at=at, **about)
    atoms = W.atoms.detach().double().numpy()
    away = rows[right] - rows[learned & ~y].mean(0)
    silent = f[right, own] == 0

    def absorbed(direction: np.ndarray) -> np.ndarray:
        writes = f[right] * (atoms @ direction)
        writes[:, own] = 0
        projection = away @ direction
        return silent & (projection > 0) & (writes.max(1) >= share * projection)

    hits = absorbed(weights[:-1] / scale / max(float(np.linalg.norm(weights[:-1] / scale)), 1e-12))
    lots = [rows[i] - rows[j] for i, j in random.integers(len(rows), size=(16, 2)) if i != j]
    chance = float(np.mean([absorbed(lot / max(float(np.linalg.norm(lot)), 1e-12)).mean() for lot in lots]))
    n = int(right.sum())
    return Measurement(
        value=float(hits.mean()),
        n=n,
        chance=chance,
        chance_is="differences of two rows in the place of the probe",
        at=at,
        **wilson(int(hits.sum()), n, of="rows").fields,
        **about,
    )


def _shuffled(y: np.ndarray, which: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    if count == len(y):
        return random.permutation(y)
    # Groups exchange their labels as a whole where all their rows agree; else rows do within all.
    share = np.bincount(which, y, count) / np.bincount(which, minlength=count)
    if np.isin(share, (0.0, 1.0)).all():
        return (share > 0.5)[random.permutation(count)][which]
    return random.permutation(y)


def _scaled(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(0)) / np.maximum(x.std(0), 1e-9)


class _Folds:
    """Latents over rows in folds. What choosing among them needs of a fold is summed once, whatever the labels."""

    def __init__(self, f: np.ndarray, fold: np.ndarray) -> None:
        self.f, self.fold = f, fold
        self.member = np.unique(fold)[:, None] == fold
        self.sums, self.squares = self.member.astype(float) @ f, self.member.astype(float) @ f**2

    def probed(self, y: np.ndarray, k: int) -> list[float]:
        """Balanced accuracies on each fold of a probe of the k latents that differ most on the others."""
        chosen = np.argsort(-self._apart(y), axis=1, kind="stable")[:, :k]
        return _crossed(self.f, y, self.fold, chosen)

    def _apart(self, y: np.ndarray) -> np.ndarray:
        """(folds, n): on the rows of all other folds, difference of means over the deviation."""

        def others(sums: np.ndarray) -> np.ndarray:
            return sums.sum(0) - sums

        count, positive = others(self.member.sum(1)), others((self.member & y).sum(1))
        total, on = others(self.sums), others((self.member & y).astype(float) @ self.f)
        mean = total / count[:, None]
        spread = np.sqrt(np.maximum(others(self.squares) / count[:, None] - mean**2, 0.0))
        with np.errstate(invalid="ignore", divide="ignore"):
            # A fold without whose rows a class is empty is left out later.
            apart = np.abs(on / positive[:, None] - (total - on) / (count - positive)[:, None])
        return np.nan_to_num(apart) / np.maximum(spread, 1e-9)


def _crossed(f: np.ndarray, y: np.ndarray, fold: np.ndarray, chosen: np.ndarray | None) -> list[float]:
    """Balanced accuracies on each fold of a probe fitted to the others: of the columns chosen for it, or of all."""
    scores = []
    for number, each in enumerate(np.unique(fold)):
        learned, held = fold != each, fold == each
        if not (y[learned].any() and (~y[learned]).any() and y[held].any() and (~y[held]).any()):
            continue
        x = f if chosen is None else f[:, chosen[number]]
        scale = np.maximum(x[learned].std(0), 1e-9)
        design = np.column_stack([x / scale, np.ones(len(f))])
        weights = _logistic(design[learned], y[learned])
        guess = design[held] @ weights > 0
        scores.append(float((guess[y[held]].mean() + (~guess[~y[held]]).mean()) / 2))
    if not scores:
        raise ValueError("sparse_probing: no fold holds both classes. Give more groups, or fewer folds.")
    return scores


def _logistic(design: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Newton's method on the balanced, ridged log-likelihood."""
    weights = np.zeros(design.shape[1])
    balance = np.where(y, 0.5 / y.mean(), 0.5 / (1 - y.mean())) / len(y)
    ridge = np.full(design.shape[1], _RIDGE)
    ridge[-1] = 1e-6
    for _ in range(_ROUNDS):
        p = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        gradient = design.T @ (balance * (p - y)) + ridge * weights
        hessian = (design * (balance * p * (1 - p))[:, None]).T @ design + np.diag(ridge)
        step = np.linalg.solve(hessian, gradient)
        weights = weights - step
        if float(np.abs(step).max()) < 1e-6:
            break
    return weights
