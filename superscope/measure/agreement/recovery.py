"""What was found, where the truth is known: atoms against atoms, codes against codes, each beside its chance level."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core import Dictionary, Measured, Measurement, ShapeError, SparseCoder
from ..interval import bootstrap, jackknife, over_seeds
from ..stream import BlockSums, Groups, GroupSums, Rows, read
from .matching import (
    Matching,
    feature_nearest_cosine,
    latent_nearest_cosine,
    match,
    mean_matched_cosine,
    nearest_rows,
    pairs_above,
)
from .stability import random_atoms

_BLOCK = 2**24
_OWN_STREAM = 0x5EED_0000
"""Added to the seed of chance: a truth drawn from the same small seed would else be its own chance level."""


@dataclass(frozen=True, eq=False)
class Scores(Measured):
    """Measurements of one learner against one truth, by name.

    Args:
        measurements: each with its interval, its chance level and what it was counted over.
        features, latents: what they are made of, a column of a table each: of every feature its density and what its
            paired latent does, of every latent its density and what it does with its nearest feature. Empty where codes
            were not looked at.
    """

    measurements: tuple[Measurement, ...]
    features: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    latents: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements)

    def __str__(self) -> str:
        return "\n".join(str(m) for m in self.measurements)


@torch.no_grad()
def atom_scores(
    found: Dictionary, truth: Dictionary, *, threshold: float = 0.9, draws: int = 3, seed: int = 0
) -> Scores:
    r"""How much of the truth is among the atoms found, and how much of what was found is true.

    - `feature_nearest_cosine`, `latent_nearest_cosine`: MMCS of the truth and of what was learned.
    - `mean_matched_cosine`: MCC, over the best one-to-one matching, sign dropped.
    - `matched_cosine_above_chance`: $(MCC - c) / (1 - c)$ with c the MCC of random dictionaries of as many atoms: 0 for
      one that knows nothing, 1 for the truth, at any n, n' and d. Left out where `draws` is 0.
    - `atom_recall`, `atom_precision`, `atom_f1`: with M the largest number of pairs (a found and a true atom, each in
      one pair at most) of signed cosine above `threshold`: M / n, M / n', 2 M / (n + n'). A duplicate counts once, and
      a dead latent's atom counts against precision.
    - `distinct_targets`: how many different true atoms are nearest (by |cosine|) to some learned one, over n': the
      *uniqueness* of SAELens. Taken before any matching, after which it would be 1 whatever was learned: n' copies of
      one atom score 1/n'. n' atoms drawn at random among n true ones have about n/n' (1 - e^{-n'/n}).

    Chance puts uniform random directions in place of the found. Intervals resample true atoms (pairs, found atoms),
    so they speak of other atoms of the same world, not of other seeds of the learner.

    Args:
        found: n' atoms; norms do not matter.
        truth: n atoms of the same space.
        threshold: cosine in (0, 1) above which two atoms are the same.
        draws: random dictionaries for chance; 0 leaves chance out.
        seed: of those and of the bootstrap.

    Raises:
        ShapeError: if the dictionaries differ in d.
        ValueError: if an atom is zero or threshold outside (0, 1).

    Source:
        Sharkey, Braun and Millidge, "Taking features out of superposition with sparse autoencoders", 2022 (MMCS).
        Chanin and Garriga-Alonso, "SynthSAEBench", 2026 (MCC on atoms; distinct targets as "uniqueness").

    Example:
        >>> scores = atom_scores(Dictionary(torch.eye(3)[:2]), Dictionary(torch.eye(3)), draws=0)
        >>> scores["atom_precision"].value, round(scores["atom_recall"].value, 3)
        (1.0, 0.667)
    """
    if not 0 < threshold < 1:
        raise ValueError(f"atom_scores: threshold must be a cosine in (0, 1); got {threshold}.")
    own = seed + _OWN_STREAM
    recall = feature_nearest_cosine(found, truth, draws=draws, seed=own)
    precision = latent_nearest_cosine(found, truth, draws=draws, seed=own)
    matched = mean_matched_cosine(found, truth, draws=draws, seed=own)
    a, b = (W.unit().atoms.detach().double().cpu() for W in (found, truth))
    chance = [
        random_atoms(found.n, found.d, generator).double()
        for generator in [torch.Generator().manual_seed(own)]
        for _ in range(draws)
    ]
    scores = [
        _resampled(recall, nearest_rows(b, a)[0], seed),
        _resampled(precision, nearest_rows(a, b)[0], seed),
        matched := _resampled(matched, match(found, truth).cosines, seed),
        *_above_chance(matched),
    ]
    hit = (pairs_above(b, a, threshold) >= 0).astype(np.float64)
    by_chance = [(pairs_above(b, c, threshold) >= 0).sum() for c in chance]
    n_found, n_true = found.n, truth.n
    # Of M hits among n true atoms a resample makes another M; n' and n stay what they are.
    for name, of, n, value in (
        ("atom_recall", "true atoms", n_true, lambda m: m / n_true),
        ("atom_precision", "found atoms", n_found, lambda m: m / n_found),
        ("atom_f1", "true atoms", n_true, lambda m: 2 * m / (n_true + n_found)),
    ):
        scores.append(
            Measurement(
                name=name,
                value=float(value(hit.sum())),
                unit="share",
                n=n,
                of=of,
                reference=float(value(min(n_true, n_found))),
                reference_is="every atom of the smaller dictionary paired",
                at={"threshold": threshold},
                **_chance([float(value(m)) for m in by_chance], "a random dictionary in place of the found"),
                **bootstrap(lambda s, value=value: value(s[:, 0]), hit[:, None], of="true atoms", seed=seed).fields,
            )
        )
    target = nearest_rows(a, b, signed=False)[1]
    scores.append(
        Measurement(
            name="distinct_targets",
            value=len(target.unique()) / n_found,
            unit="share",
            n=n_found,
            of="found atoms",
            reference=min(1.0, n_true / n_found),
            reference_is="all different",
            how="no interval: a resample repeats atoms",
            **_chance(
                [len(nearest_rows(c, b, signed=False)[1].unique()) / n_found for c in chance],
                "a random dictionary in place of the found",
            ),
        )
    )
    return Scores(tuple(scores))


def _resampled(measurement: Measurement, cosines: Tensor, seed: int) -> Measurement:
    """The mean of these cosines, with an interval from resampling them."""
    sums = np.stack([cosines.numpy(), np.ones(len(cosines))], 1)
    interval = bootstrap(lambda s: s[:, 0] / s[:, 1], sums, of=measurement.of, seed=seed)
    return dataclasses.replace(measurement, **interval.fields)


def _above_chance(matched: Measurement) -> Iterator[Measurement]:
    """MCC between what chance gives and 1; nothing where chance was not measured."""
    if matched.chance is None or matched.value is None:
        return
    c, name = matched.chance, "matched_cosine_above_chance"
    if c > 1 - 1e-9:
        why = "a random dictionary scores 1 here, so there is nothing above chance to be had"
        yield Measurement(name=name, value=None, unit="share", n=matched.n, of=matched.of, caution=why)
        return
    low, high = (None if end is None else (end - c) / (1 - c) for end in (matched.low, matched.high))
    yield dataclasses.replace(
        matched,
        name=name,
        unit="share",
        value=(matched.value - c) / (1 - c),
        low=low,
        high=high,
        how=f"{matched.how}; chance held at {c:.3f}",
        chance=0.0,
        chance_is=f"a random dictionary, whose mean matched cosine is {c:.3f}",
    )


def _chance(values: list[float], what: str) -> dict[str, Any]:
    if not values:
        return {}
    spread = over_seeds(values, of="draws")
    span = "" if spread.low is None else f", {len(values)} draws ({spread.low:.3f} to {spread.high:.3f})"
    return {"chance": sum(values) / len(values), "chance_is": what + span}


@torch.no_grad()
def code_scores(
    coder: SparseCoder,
    rows: Rows,
    truth: Dictionary,
    *,
    batches: int | None = None,
    size: int = 4096,
    seed: int = 0,
) -> Scores:
    r"""Whether the latents fire where the features do, and with their values.

    Latents are paired with features one to one through their atoms (`match`). Over all rows and features:

    - `support_precision`, `support_recall`, `support_f1`: of the events "the feature is active" and "its latent is";
      an active latent without a feature is a false alarm, an active feature without a latent a miss.
    - `feature_value_r2`: $1 - \sum (f - z)^2 / \sum (f - \bar f)^2$, summed over features and rows before dividing;
      z is the value of the paired latent (0 without one), both in units of length along the atom. Shrinkage costs.

    Means over features, each with its paired latent, one without any scoring 0, so that what is missed costs:

    - `feature_recall`, `feature_f1`: the share of a feature's active rows on which its latent fires, and the harmonic
      mean of that and of the share of the latent's active rows on which the feature is active. Over the features that
      were active on these rows; nothing can be said of the others.

    And as SynthSAEBench counts, means over latents of each latent against the feature of nearest atom, which several
    latents may share, and where missed features cost nothing:

    - `latent_precision`, `latent_recall`, `latent_f1`; a latent that never fires scores 0.

    Chance keeps every density and makes latents fire independently of the features. Intervals are over rows.

    Args:
        coder: an SAE, or any other coder.
        rows: a world, or batches with their true code.
        truth: the features' atoms.
        batches: read at most so many; needed for a world, which never ends.
        size: rows per batch asked of a source.
        seed: of the source's order and the bootstrap.

    Raises:
        ValueError: if a batch does not carry its true code, or there is nothing to read.
        ShapeError: if code and truth differ in n, or coder and truth in d.

    Source:
        Chanin and Garriga-Alonso, "SynthSAEBench", 2026 (the scores per latent).
    """
    W = coder.dictionary
    pairs = match(W, truth)
    a, b = (V.unit().atoms.detach().double().cpu() for V in (W, truth))
    cosine, target = nearest_rows(a, b, signed=False)
    feature_of = torch.full((W.n,), -1)
    feature_of[pairs.first] = pairs.second
    # A latent of an atom that points the other way stands for minus its value.
    sign = torch.ones(W.n, dtype=torch.float64)
    sign[pairs.first] = torch.where((a[pairs.first] * b[pairs.second]).sum(1) < 0, -1.0, 1.0).double()
    length, true_length = W.norms.detach().double().cpu() * sign, truth.norms.detach().double().cpu()
    groups = Groups()
    # Per group of rows: hits, active latents, active features, rows, squared error, squared values.
    sums = GroupSums(6)
    hit, fired, true = BlockSums((W.n,)), BlockSums((W.n,)), BlockSums((truth.n,))
    found = BlockSums((truth.n,))
    first = BlockSums((truth.n,))
    shared = BlockSums((2,))
    for batch in read(rows, size=size, most=batches, seed=seed):
        if batch.code is None:
            raise ValueError(
                "code_scores: the batches do not carry their true code. Give a world, or Activations with `code`."
            )
        if batch.code.n != truth.n:
            raise ShapeError(
                f"code_scores: the true code has {batch.code.n} features and the truth {truth.n} atoms. "
                "Give the dictionary that the rows were composed with."
            )
        number, whole = groups(batch), coder.encode(batch.x)
        step = max(_BLOCK // max(W.n, truth.n), 1)
        for start in range(0, len(batch), step):
            part = slice(start, start + step)
            f, g = batch.code[part].dense().double().cpu(), number[part]
            z = whole[part].dense().double().cpu()
            on, is_on = z != 0, f != 0
            paired = (f.new_zeros(len(f), truth.n), torch.zeros(len(f), truth.n, dtype=torch.bool))
            paired[0][:, pairs.second] = z[:, pairs.first] * length[pairs.first]
            paired[1][:, pairs.second] = on[:, pairs.first]
            value = f * true_length
            columns = [
                (paired[1] & is_on).sum(1),
                on.sum(1),
                is_on.sum(1),
                torch.ones(len(f)),
                (value - paired[0]).square().sum(1),
                value.square().sum(1),
            ]
            per_row = torch.stack([column.double() for column in columns], 1)
            sums.add(g, per_row)
            blocks = torch.from_numpy(hit.numbers(g))
            for total in (fired, true, found, first, shared):
                total.numbers(g)
            for total, number_of_each in (
                (hit, on & is_on[:, target]),
                (fired, on),
                (true, is_on),
                (found, paired[1] & is_on),
                (first, value),
                (shared, per_row[:, 4:]),
            ):
                torch.from_numpy(total.sums).index_add_(0, blocks, number_of_each.double())
    n_rows = int(sums.sums[:, 3].sum())
    return Scores(
        (
            *_support(sums.sums, true.used, fired.used, pairs, groups.of, seed),
            _value(first.used, shared.used, sums.sums, groups.of),
            *_features(found.used, fired.used, true.used, pairs, n_rows, groups.of),
            *_latents(hit.used, fired.used, true.used[:, target.numpy()], n_rows, groups.of),
        ),
        features=_feature_table(found.used.sum(0), fired.used.sum(0), true.used.sum(0), pairs, n_rows),
        latents=_latent_table(
            hit.used.sum(0), fired.used.sum(0), true.used.sum(0)[target.numpy()], target, cosine, feature_of, n_rows
        ),
    )


def _feature_table(
    found: np.ndarray, fired: np.ndarray, true: np.ndarray, pairs: Matching, rows: int
) -> dict[str, list[Any]]:
    n = len(true)
    latent: list[int | None] = [None] * n
    cosine: list[float | None] = [None] * n
    own = np.zeros(n)
    own[pairs.second.numpy()] = fired[pairs.first.numpy()]
    for i, j, c in zip(pairs.first.tolist(), pairs.second.tolist(), pairs.cosines.tolist(), strict=True):
        latent[j], cosine[j] = i, c
    return {
        "feature": list(range(n)),
        "density": (true / rows).tolist(),
        "latent": latent,
        "cosine": cosine,
        "recall": _ratio(found, true).tolist(),
        "f1": _ratio(2 * found, own + true).tolist(),
    }


def _latent_table(
    hit: np.ndarray, fired: np.ndarray, aimed: np.ndarray, target: Tensor, cosine: Tensor, feature_of: Tensor, rows: int
) -> dict[str, list[Any]]:
    return {
        "latent": list(range(len(fired))),
        "density": (fired / rows).tolist(),
        "nearest_feature": target.tolist(),
        "cosine": cosine.tolist(),
        "feature": [None if i < 0 else i for i in feature_of.tolist()],
        "precision": _ratio(hit, fired).tolist(),
        "recall": _ratio(hit, aimed).tolist(),
        "f1": _ratio(2 * hit, fired + aimed).tolist(),
    }


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom, and 0 where both are."""
    return np.divide(top, bottom, out=np.zeros_like(top, dtype=np.float64), where=bottom > 0)


def _support(
    sums: np.ndarray, true: np.ndarray, fired: np.ndarray, pairs: Matching, of: str, seed: int
) -> list[Measurement]:
    rows = sums[:, 3].sum()
    p, q = fired.sum(0)[pairs.first.numpy()], true.sum(0)[pairs.second.numpy()]
    by_chance = np.array([[(p * q).sum() / rows, *sums[:, 1:3].sum(0)]])
    quantities: tuple[tuple[str, int, str, Callable[[np.ndarray], np.ndarray]], ...] = (
        ("support_precision", 1, "active latents", lambda s: _ratio(s[:, 0], s[:, 1])),
        ("support_recall", 2, "active features", lambda s: _ratio(s[:, 0], s[:, 2])),
        ("support_f1", 2, "active features", lambda s: _ratio(2 * s[:, 0], s[:, 1] + s[:, 2])),
    )
    return [
        Measurement(
            name=name,
            value=float(statistic(sums.sum(0)[None])[0]),
            unit="share",
            n=int(sums[:, column].sum()),
            of=what,
            reference=1.0,
            reference_is="the true supports",
            chance=float(statistic(by_chance)[0]),
            chance_is="latents of the same densities that know nothing",
            **bootstrap(statistic, sums, of=of, seed=seed).fields,
        )
        for name, column, what, statistic in quantities
    ]


def _value(first: np.ndarray, shared: np.ndarray, sums: np.ndarray, of: str) -> Measurement:
    """From each block's sum of every feature and of (squared error, squared value)."""
    rows = sums[:, 3].sum()
    about = {"name": "feature_value_r2", "unit": "share", "n": int(rows), "of": "rows"}
    variance = sums[:, 5].sum() - (first.sum(0) ** 2).sum() / rows
    if not variance > 1e-12 * sums[:, 5].sum():
        return Measurement(value=None, caution="no feature varies over these rows", **about)
    # Rows are dealt out evenly, so a block left out takes its share of them.
    share = rows / len(first)
    table = np.concatenate([shared, np.full((len(first), 1), share), first], 1)

    def statistic(s: np.ndarray) -> float:
        return float(1 - s[0] / (s[1] - (s[3:] ** 2).sum() / s[2]))

    return Measurement(
        value=float(1 - sums[:, 4].sum() / variance),
        reference=1.0,
        reference_is="the true values",
        chance=0.0,
        chance_is="the mean of each feature",
        **about,
        **jackknife(statistic, table, of=f"groups of {of}").fields,
    )


def _features(
    found: np.ndarray, fired: np.ndarray, true: np.ndarray, pairs: Matching, rows: int, of: str
) -> Iterator[Measurement]:
    """Means over the features that occur of recall and F1 of the paired latent."""
    paired = np.zeros_like(true)
    paired[:, pairs.second.numpy()] = fired[:, pairs.first.numpy()]
    occurs = true.sum(0) > 0
    totals = np.stack([found, paired, true], 1)[:, :, occurs]
    absent = int((~occurs).sum())
    about: dict[str, Any] = {"unit": "share", "n": int(occurs.sum()), "of": "features that occur", "at": {"rows": rows}}
    caution = f"{absent} features were active on none of these rows and are left out" if absent else ""
    if not occurs.any():
        for name in ("feature_recall", "feature_f1"):
            yield Measurement(name=name, value=None, caution="no feature is active on any of these rows", **about)
        return
    whole = totals.sum(0)
    p, q = whole[1] / rows, whole[2] / rows
    by_chance = np.stack([p * q, p, q])
    statistics: tuple[tuple[str, Callable[[np.ndarray], float]], ...] = (
        ("feature_recall", lambda s: float(_ratio(s[0], s[2]).mean())),
        ("feature_f1", lambda s: float(_ratio(2 * s[0], s[1] + s[2]).mean())),
    )
    for name, statistic in statistics:
        yield Measurement(
            name=name,
            value=statistic(whole),
            reference=float(np.isin(np.flatnonzero(occurs), pairs.second.numpy()).mean()),
            reference_is="a perfect detector of every feature that has a latent",
            chance=statistic(by_chance),
            chance_is="latents of the same densities that know nothing",
            caution=caution,
            **about,
            **jackknife(statistic, totals, of=f"groups of {of}").fields,
        )


def _latents(hit: np.ndarray, fired: np.ndarray, true: np.ndarray, rows: int, of: str) -> list[Measurement]:
    """Means over latents of precision, recall and F1 against the feature of nearest atom."""
    totals = np.stack([hit, fired, true], 1)
    whole = totals.sum(0)
    p, q = whole[1] / rows, whole[2] / rows
    by_chance = np.stack([p * q, p, q])
    return [
        Measurement(
            name=name,
            value=statistic(whole),
            unit="share",
            n=whole.shape[1],
            of="latents",
            reference=1.0,
            reference_is="each latent a perfect detector",
            chance=statistic(by_chance),
            chance_is="latents of the same densities that know nothing",
            at={"rows": rows},
            **jackknife(statistic, totals, of=f"groups of {of}").fields,
        )
        for name, statistic in (
            ("latent_precision", lambda s: float(_ratio(s[0], s[1]).mean())),
            ("latent_recall", lambda s: float(_ratio(s[0], s[2]).mean())),
            # The harmonic mean of h/a and h/b is 2h / (a + b).
            ("latent_f1", lambda s: float(_ratio(2 * s[0], s[1] + s[2]).mean())),
        )
    ]


def recovery_scores(
    coder: SparseCoder,
    rows: Rows,
    truth: Dictionary,
    *,
    threshold: float = 0.9,
    batches: int | None = None,
    size: int = 4096,
    seed: int = 0,
) -> Scores:
    """Everything that a known truth can say of a learner: `atom_scores` of its dictionary, then its `code_scores`.

    Example:
        >>> from superscope.recovery import OMP
        >>> from superscope.worlds import exactly_k
        >>> world = exactly_k(n=40, d=20, k=2)
        >>> scores = recovery_scores(OMP(world.dictionary, k=2), world, world.dictionary, batches=1, size=256)
        >>> scores["support_f1"].value > 0.9, scores["atom_f1"].value
        (True, 1.0)
    """
    atoms = atom_scores(coder.dictionary, truth, threshold=threshold, seed=seed)
    codes = code_scores(coder, rows, truth, batches=batches, size=size, seed=seed)
    return Scores((*atoms, *codes), codes.features, codes.latents)
