"""What was found, where the truth is known: atoms against atoms, codes against codes, each beside its chance level."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching
from torch import Tensor

from ...core import Dictionary, Measured, Measurement, ShapeError, SparseCode, SparseCoder
from ...recovery import NNOMP, OMP, refit
from ..interval import bootstrap, jackknife, over_seeds
from ..stream import BlockSums, Groups, GroupSums, Rows, read
from .matching import Matching, match, mean_matched_cosine, mean_nearest_cosines
from .stability import near_pairs, random_atoms

_BLOCK = 2**24
_CODES = ("own", "refitted", "pursuit")
_OWN_STREAM = 0x5EED_0000
"""Added to the seed of chance: a truth drawn from the same small seed would else be its own chance level."""


@dataclass(frozen=True, eq=False)
class Scores(Measured):
    """Measurements of one learner against one truth, by name.

    Args:
        measurements: each with its interval, its chance level and what it was counted over.
    """

    measurements: tuple[Measurement, ...]

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements)

    def __str__(self) -> str:
        return "\n".join(str(m) for m in self.measurements)


@torch.no_grad()
def atom_scores(
    found: Dictionary, truth: Dictionary, *, threshold: float = 0.9, draws: int = 3, seed: int = 0
) -> Scores:
    r"""How much of the truth is among the atoms found, and how much of what was found is true.

    - `truth_in_found`, `found_in_truth`: MMCS in both directions (see `mean_nearest_cosine`).
    - `mean_matched_cosine`: MCC, over the best one-to-one matching, sign dropped.
    - `atom_recall`, `atom_precision`, `atom_f1`: with M the largest number of pairs (a found and a true atom, each in
      one pair at most) of signed cosine above `threshold`: M / n, M / n', 2 M / (n + n'). A duplicate counts once, and
      a dead latent's atom counts against precision.
    - `distinct_targets`: share of found atoms left when those whose nearest true atom (by |cosine|) is the same count
      as one. 1 if every atom has its own; at n' atoms drawn at random among n true ones about n/n' (1 - e^{-n'/n}).

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
    recall, precision = mean_nearest_cosines(found, truth, draws=draws, seed=own)
    matched = mean_matched_cosine(found, truth, draws=draws, seed=own)
    a, b = (W.unit().atoms.detach().double().cpu() for W in (found, truth))
    chance = [
        random_atoms(found.n, found.d, generator).double()
        for generator in [torch.Generator().manual_seed(own)]
        for _ in range(draws)
    ]
    scores = [
        _resampled(recall, _nearest(b, a)[0], seed),
        _resampled(precision, _nearest(a, b)[0], seed),
        _resampled(matched, match(found, truth).cosines, seed),
    ]
    hit = _hits(a, b, threshold)
    by_chance = [_hits(c, b, threshold).sum() for c in chance]
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
    target = _nearest(a, b, signed=False)[1]
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
                [len(_nearest(c, b, signed=False)[1].unique()) / n_found for c in chance],
                "a random dictionary in place of the found",
            ),
        )
    )
    return Scores(tuple(scores))


def _nearest(
    a: Float[Tensor, "_ d"], b: Float[Tensor, "_ d"], *, signed: bool = True
) -> tuple[Float[Tensor, "_"], Int[Tensor, "_"]]:
    """For each row of a the largest cosine (or magnitude) with a row of b, and which row."""
    best = []
    for block in a.split(max(_BLOCK // len(b), 1)):
        cosine = block @ b.T
        best.append((cosine if signed else cosine.abs()).max(1))
    return torch.cat([m.values for m in best]), torch.cat([m.indices for m in best])


def _hits(found: Float[Tensor, "_ d"], truth: Float[Tensor, "n d"], threshold: float) -> np.ndarray:
    """For each true atom 1 if it is in a largest one-to-one pairing of atoms with cosine above the threshold."""
    i, j, _ = near_pairs(truth, found, threshold)
    graph = csr_matrix((np.ones(len(i), dtype=np.int8), (i, j)), shape=(len(truth), len(found)))
    return (maximum_bipartite_matching(graph, perm_type="column") >= 0).astype(np.float64)


def _resampled(measurement: Measurement, cosines: Tensor, seed: int) -> Measurement:
    """The mean of these cosines, with an interval from resampling them."""
    sums = np.stack([cosines.numpy(), np.ones(len(cosines))], 1)
    interval = bootstrap(lambda s: s[:, 0] / s[:, 1], sums, of=measurement.of, seed=seed)
    return dataclasses.replace(measurement, **interval.fields)


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
    target = _nearest(a, b, signed=False)[1]
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
        number = groups(batch)
        step = max(_BLOCK // max(W.n, truth.n), 1)
        for start in range(0, len(batch), step):
            part = slice(start, start + step)
            code, f = coder.encode(batch.x[part]), batch.code[part].dense().double().cpu()
            z, g = code.dense().double().cpu(), number[part]
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
            for total in (fired, true, first, shared):
                total.numbers(g)
            for total, number_of_each in (
                (hit, on & is_on[:, target]),
                (fired, on),
                (true, is_on),
                (first, value),
                (shared, per_row[:, 4:]),
            ):
                torch.from_numpy(total.sums).index_add_(0, blocks, number_of_each.double())
    return Scores(
        (
            *_support(sums.sums, true.used, fired.used, pairs, groups.of, seed),
            _value(first.used, shared.used, sums.sums, groups.of),
            *_latents(hit.used, fired.used, true.used[:, target.numpy()], int(sums.sums[:, 3].sum()), groups.of),
        )
    )


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
    return Scores((*atoms, *codes))


@torch.no_grad()
def amortisation_gap(
    coder: SparseCoder,
    rows: Rows,
    *,
    k: int | None = None,
    nonnegative: bool = True,
    documents: Int[Tensor, "sequences"] | None = None,
    batches: int | None = None,
    size: int = 4096,
    seed: int = 0,
) -> Scores:
    r"""What a coder leaves unexplained less what pursuit on its own atoms does, with as many active features.

    What an encoder of one step loses against solving for the code: the same dictionary, as many active features. It
    says nothing of the truth of the atoms: pursuit also fits noise, so a gap is not by itself a fault. Three codes of
    each row stand beside each other: `own`, the coder's; `refitted`, the best amplitudes on the coder's support;
    `pursuit`.

    - `own_unexplained`, `refitted_unexplained`, `pursuit_unexplained`: squared error over the variance of x about its
      mean over all rows, summed over dimensions,
    - `amortisation_gap`: the first less the third,
    - `own_l0`, `refitted_l0`, `pursuit_l0`: active features a row,
    - `support_overlap`: mean over rows of $|S \cap S'| / |S \cup S'|$ for the supports of own code and pursuit,
      `refitted_overlap`, of own code and refitted one (which, not negative, may lose some), and
    - `own_true_overlap`, `refitted_true_overlap`, `pursuit_true_overlap`: the same with the true support, where every
      batch brings its code.

    Args:
        coder: whose dictionary and code.
        rows: a source, or batches of activations.
        k: active features that pursuit may use; None is the coder's own mean number, rounded.
        nonnegative: NNOMP, for codes that are; False is OMP.
        documents: the document of each sequence: what is resampled for the intervals, as in `Groups`.
        batches, size, seed: as for `code_scores`.

    Raises:
        ValueError: if there is nothing to read, x is constant, or the coder's code is empty.

    Source:
        O'Neill, Gumran and Klindt, "Compute optimal inference and provable amortisation gap in sparse autoencoders",
        2025.
    """
    given = list(read(rows, size=size, most=batches, seed=seed))
    codes = [coder.encode(batch.x) for batch in given]
    W = coder.dictionary
    if k is None:
        k = round(float(torch.cat([code.l0 for code in codes]).double().mean()))
        if k < 1:
            raise ValueError("amortisation_gap: the coder's code is empty on these rows, so there is no k. Give k.")
        k = min(k, W.n, W.d)
    pursuit = NNOMP(W, k=k) if nonnegative else OMP(W, k=k)
    is_true = all(batch.code is not None for batch in given)
    groups = Groups(documents)
    names = ["error", "l0", *(["true_overlap"] if is_true else [])]
    columns = [f"{which}_{name}" for which in _CODES for name in names]
    columns += ["support_overlap", "refitted_overlap", "square", "rows"]
    at = {column: i for i, column in enumerate(columns)}
    sums = GroupSums(len(columns) + W.d)
    shift = given[0].x.double().mean(0)
    for batch, own in zip(given, codes, strict=True):
        x, centred = batch.x.double(), batch.x.double() - shift
        best = pursuit.encode(batch.x)
        parts: list[Tensor] = []
        refitted = refit(W, batch.x, own, nonnegative=nonnegative)
        for code in (own, refitted, best):
            parts += [(x - W.compose(code).double()).square().sum(1), code.l0]
            if is_true and batch.code is not None:
                parts.append(support_overlap(code, batch.code))
        parts += [
            support_overlap(own, best),
            support_overlap(own, refitted),
            centred.square().sum(1),
            torch.ones_like(parts[0]),
        ]
        sums.add(groups(batch), torch.cat([torch.stack([p.double().cpu() for p in parts], 1), centred.cpu()], 1))

    def spread(s: np.ndarray) -> np.ndarray:
        return s[:, at["square"]] - (s[:, len(columns) :] ** 2).sum(1) / s[:, at["rows"]]

    total = sums.sums.sum(0)
    if not spread(total[None])[0] > 1e-12 * max(total[at["square"]], 1e-300):
        raise ValueError("amortisation_gap: the activations are constant, so there is no variance to explain.")

    def score(
        name: str, statistic: Callable[[np.ndarray], np.ndarray], unit: str = "share", **about: Any
    ) -> Measurement:
        return Measurement(
            name=name,
            value=float(statistic(total[None])[0]),
            unit=unit,
            n=int(total[at["rows"]]),
            of="rows",
            at={"k": k, "pursuit": type(pursuit).__name__},
            **about,
            **bootstrap(statistic, sums.sums, of=groups.of, seed=seed).fields,
        )

    def mean(column: str) -> Callable[[np.ndarray], np.ndarray]:
        return lambda s: s[:, at[column]] / s[:, at["rows"]]

    scores = [
        score(
            f"{which}_unexplained",
            lambda s, column=f"{which}_error": s[:, at[column]] / spread(s),
            chance=1.0,
            chance_is="the mean",
        )
        for which in _CODES
    ]
    scores.append(
        score(
            "amortisation_gap",
            lambda s: (s[:, at["own_error"]] - s[:, at["pursuit_error"]]) / spread(s),
            reference=0.0,
            reference_is="an encoder as good as pursuit",
        )
    )
    scores += [score(f"{which}_l0", mean(f"{which}_l0"), "features per row") for which in _CODES]
    same = {"reference": 1.0, "reference_is": "the same supports"}
    scores += [score(name, mean(name), **same) for name in ("support_overlap", "refitted_overlap")]
    if is_true:
        scores += [score(f"{which}_true_overlap", mean(f"{which}_true_overlap"), **same) for which in _CODES]
    return Scores(tuple(scores))


def support_overlap(a: SparseCode, b: SparseCode) -> Float[Tensor, "rows"]:
    r"""$|S \cap S'| / |S \cup S'|$ for the supports of each row (Jaccard); 1 where both are empty."""
    first = [c.indices.masked_fill(c.values == 0, -1 - i) for i, c in enumerate((a, b))]
    both = (first[0][:, :, None] == first[1][:, None, :]).any(2).sum(1)
    either = a.l0 + b.l0 - both
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)
