"""Do features that fire together share directions, or those that never meet? The trend, its interval and its null."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.stats import rankdata

from ...core import Dictionary, Measured, Measurement, ShapeError, SparseCode

_DRAWS_AT_ONCE = 16
_EDGES = (-np.inf, -3.0, -1.0, 1.0, 3.0, np.inf)
_BETWEEN = ("under 1/8", "1/8 to 1/2", "1/2 to 2", "2 to 8", "over 8")


@dataclass(frozen=True, eq=False)
class CoOccurrence(Measured):
    """What `co_occurrence` found; iterating gives the trends.

    Args:
        measurements: `co_occurrence_overlap`, `co_occurrence_cosine`, `co_occurrence_neurons`.
        bins: a table: for pairs by how often they fire together, over chance, how many there are and how they overlap.
        features: which features were paired.
    """

    measurements: tuple[Measurement, ...]
    bins: Mapping[str, list]
    features: np.ndarray

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements)


def active(codes: Iterable[SparseCode]) -> csr_matrix:
    """(rows, n) values of codes, zeros left out."""
    values, columns, counts, n = [], [], [], 0
    for code in codes:
        n = code.n
        there = (code.values != 0).cpu()
        values.append(code.values.detach().cpu()[there].double().numpy())
        columns.append(code.indices.cpu()[there].numpy())
        counts.append(there.sum(1).numpy())
    if not counts:
        raise ValueError("there are no codes. Give at least one batch.")
    starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return csr_matrix((np.concatenate(values), np.concatenate(columns), starts), shape=(len(starts) - 1, n))


def co_occurrence(
    W: Dictionary,
    codes: Iterable[SparseCode],
    *,
    among: np.ndarray | None = None,
    expected: float = 2.0,
    most: int = 800,
    draws: int = 200,
    seed: int = 0,
) -> CoOccurrence:
    r"""Spearman correlation, over pairs of features, of how atoms overlap with how often both fire, over chance.

    How often: $l_{ij} = \log_2 \frac{c_{ij} + 1/2}{c_i c_j / N + 1/2}$ with c the rows of N on which one fires, or
    both. Only pairs that chance would bring together on `expected` rows are taken, for of others l can only be near 0
    or high. Three overlaps, since theories differ in sign:

    - `co_occurrence_overlap`: |cos|. Below 0: features that rarely meet share directions, where interference is cheap.
    - `co_occurrence_cosine`: cos with its sign. Above 0: features that fire together point the same way, as they do in
      a layer that has room for the sum of correlated features and not for each; opposite ones exclude each other.
    - `co_occurrence_neurons`: cosine of the atoms' magnitudes, that is, sharing of coordinates; meaningful at neurons.

    Interval: bootstrap over features, not pairs, since pairs with a feature in common are no separate evidence. Chance:
    features' atoms are dealt anew among their codes (Mantel's test), and the caution says how often that gave as much.
    On codes that a dictionary's encoder made, overlap itself brings latents on and off together, so read the same
    figures of independent features learned likewise beside it.

    Args:
        W: the atoms.
        codes: of rows, by these atoms.
        among: features to pair; all without it.
        expected: rows on which chance brings a pair together, at least.
        most: features paired, the most active ones.
        draws: of bootstrap and of the null.
        seed: of both.

    Raises:
        ShapeError: if the codes are not of W.
        ValueError: if fewer than 20 pairs can be judged.

    Source:
        Mantel, "The detection of disease clustering and a generalized regression approach", 1967, for the null.
        Elhage et al., "Toy Models of Superposition", 2022, for the first sign; Prieto et al., arXiv 2603.09972, 2026
        ("bag-of-words superposition"), for the second.
    """
    A = active(codes)
    rows, n = cast("tuple[int, int]", A.shape)
    if n != W.n:
        raise ShapeError(f"co_occurrence: codes of {n} features for {W.n} atoms. Give the codes of W.")
    on = csr_matrix(A != 0, dtype=np.float64)
    often = np.asarray(on.sum(0)).ravel()
    chosen = np.arange(W.n) if among is None else np.asarray(among)
    chosen = chosen[often[chosen] > 0]
    # The most active first; the order among equals is that of their numbers.
    chosen = chosen[np.argsort(-often[chosen], kind="stable")][:most]
    count, both = often[chosen], (on[:, chosen].T @ on[:, chosen]).toarray()
    chance_both = np.outer(count, count) / rows
    lift = np.log2((both + 0.5) / (chance_both + 0.5))
    i, j = np.triu_indices(len(chosen), 1)
    taken = chance_both[i, j] >= expected
    i, j = i[taken], j[taken]
    if len(i) < 20:
        raise ValueError(
            f"co_occurrence: chance brings {len(i)} pairs of features together on {expected:g} of {rows:,} rows, and "
            "20 are needed. Give more rows, or a smaller `expected`."
        )
    unit = W.unit().atoms.detach().double().cpu()[torch.from_numpy(chosen)]
    cosine = (unit @ unit.T).numpy()
    magnitudes = torch.nn.functional.normalize(unit.abs(), dim=1)
    overlaps = {"overlap": np.abs(cosine), "cosine": cosine, "neurons": (magnitudes @ magnitudes.T).numpy()}
    random = np.random.default_rng(seed)
    copies = random.multinomial(len(chosen), np.full(len(chosen), 1 / len(chosen)), size=draws).astype(np.float64)
    orders = [random.permutation(len(chosen)) for _ in range(draws)]
    # Draws over pairs, a few draws at a time.
    parts = range(_DRAWS_AT_ONCE, draws, _DRAWS_AT_ONCE)
    together = _standard(rankdata(lift[i, j]))
    paired = len(set(i.tolist()) | set(j.tolist()))
    measurements = []
    for name, overlap in overlaps.items():
        ranks = _standard(rankdata(overlap[i, j]))
        value = float((ranks * together).mean())
        resampled = np.concatenate([_resampled(ranks, together, c[:, i] * c[:, j]) for c in np.split(copies, parts)])
        null = np.array([(_standard(rankdata(overlap[o[i], o[j]])) * together).mean() for o in orders])
        low, high = (float(v) for v in np.quantile(resampled, (0.025, 0.975)))
        as_much = int((np.abs(null) >= abs(value)).sum())
        spread = f"{null.min():.3f} to {null.max():.3f}"
        measurements.append(
            Measurement(
                name=f"co_occurrence_{name}",
                value=value,
                unit="rank correlation",
                n=len(i),
                of="pairs",
                low=low,
                high=high,
                how=f"95% percentile bootstrap over {paired} features, {draws} draws",
                chance=float(null.mean()),
                chance_is=f"atoms dealt anew among codes, {draws} draws ({spread})",
                caution=f"{as_much} of {draws} dealings gave as much" if as_much > draws / 20 else "",
            )
        )
    return CoOccurrence(tuple(measurements), _bins(lift[i, j], cosine[i, j]), chosen)


def _standard(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean()
    return centred / max(float(np.sqrt((centred**2).mean())), 1e-300)


def _resampled(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted Pearson correlations, one a row of weights."""
    total = weights.sum(1)
    mx, my = weights @ x / total, weights @ y / total
    covariance = weights @ (x * y) / total - mx * my
    spread = (weights @ (x * x) / total - mx**2) * (weights @ (y * y) / total - my**2)
    return covariance / np.sqrt(np.maximum(spread, 1e-300))


def _bins(lift: np.ndarray, cosine: np.ndarray) -> dict[str, list]:
    table: dict[str, list] = {"together": [], "pairs": [], "cosine": [], "overlap": [], "aligned": [], "opposed": []}
    for (low, high), label in zip(pairwise(_EDGES), _BETWEEN, strict=True):
        these = cosine[(lift >= low) & (lift < high)]
        table["together"].append(label)
        table["pairs"].append(len(these))
        for name, value in (
            ("cosine", these),
            ("overlap", np.abs(these)),
            ("aligned", these > 0.3),
            ("opposed", these < -0.3),
        ):
            table[name].append(float(value.mean()) if len(these) else None)
    return table
