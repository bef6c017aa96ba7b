"""Which features of one dictionary are in another, of another layer, text, model or moment? By what they fire on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csc_matrix, csr_matrix

from ...core import Measurement, ShapeError
from ..interval import wilson

ALIKE = 0.5
"""Correlation of activations from which two latents are taken for one feature."""

_INSIDE, _COVERED = 0.7, 0.5
"""Share of a part's rows that must lie inside the whole, and share of the whole's rows that its parts must cover."""


def latent_correlations(a: csr_matrix, b: csr_matrix) -> np.ndarray:
    """(n_a, n_b) correlations over rows of the activations of two dictionaries' latents; 0 for a constant one.

    Args:
        a, b: codes of the same rows, in one order (see `active`).

    Raises:
        ShapeError: if they have not as many rows.

    Example:
        >>> f = csr_matrix(np.eye(4)[:, :2])
        >>> latent_correlations(f, f).round(2).tolist()
        [[1.0, -0.33], [-0.33, 1.0]]
    """
    (rows, _), (others, _) = _shape(a), _shape(b)
    if rows != others:
        raise ShapeError(f"latent_correlations: codes of {rows} and of {others} rows. Give both of the same.")
    (mean_a, spread_a), (mean_b, spread_b) = _moments(a), _moments(b)
    covariance = (a.T @ b).toarray() / rows - np.outer(mean_a, mean_b)
    scale = np.outer(spread_a, spread_b)
    return np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)


def _shape(f: csr_matrix) -> tuple[int, int]:
    """Rows and latents; scipy itself gives its shapes no type."""
    return cast("tuple[int, int]", f.shape)


def _moments(f: csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    mean = np.asarray(f.mean(0)).ravel()
    variance = np.asarray(f.multiply(f).mean(0)).ravel() - mean**2
    return mean, np.sqrt(np.maximum(variance, 0.0))


def used(f: csr_matrix, fewest: int = 20) -> np.ndarray:
    """The latents that are active on enough rows to be compared."""
    return np.flatnonzero(np.asarray((f != 0).sum(0)).ravel() >= fewest)


def features_found(
    a: csr_matrix,
    b: csr_matrix,
    *,
    among: np.ndarray | None = None,
    alike: float = ALIKE,
    draws: int = 5,
    seed: int = 0,
) -> tuple[Measurement, np.ndarray]:
    r"""Share of a's latents with a latent of b whose activations correlate at `alike` or more; and each one's best.

    No common space is needed, only common rows. Several latents of a may have one partner. Chance: b's rows in turn
    begin elsewhere (a cyclic shift), which keeps all that b is by itself and nothing that ties it to a. Interval:
    Wilson, as if latents were drawn independently.

    Args:
        a, b: codes of the same rows, neighbouring rows together, so that a shift keeps what is of one text together.
        among: latents of a; without it those active on at least 20 rows.
        alike: correlation.
        draws: of the shift.
        seed: of the shifts.

    Returns:
        The measurement, and the largest correlation of each latent asked of.

    Raises:
        ShapeError: if they have not as many rows.
        ValueError: if there are fewer than 20 rows to shift over.

    Source:
        Li et al., "Convergent learning: do different neural networks learn the same representations?", 2016, for
        matching units by the correlation of what they do.
    """
    rows, _ = _shape(a)
    if rows < 20:
        raise ValueError(f"features_found: {rows} rows are too few to compare features on. Give at least 20.")
    chosen = used(a) if among is None else np.asarray(among)
    if not len(chosen):
        nothing = Measurement(
            name="features_found",
            value=None,
            unit="share",
            n=0,
            of="latents",
            caution="no latent is active on 20 of these rows",
        )
        return nothing, np.zeros(0)
    candidates, a = used(b), a[:, chosen]
    if not len(candidates):
        candidates = np.arange(_shape(b)[1])
    b = b[:, candidates]
    best = latent_correlations(a, b).max(1)
    random = np.random.default_rng(seed)
    null = []
    for shift in random.integers(rows // 10, rows - rows // 10, size=draws):
        order = np.roll(np.arange(rows), int(shift))
        null.append(float((latent_correlations(a, b[order]).max(1) >= alike).mean()))
    hits = int((best >= alike).sum())
    measured = Measurement(
        name="features_found",
        value=hits / len(chosen),
        unit=f"share at correlation >= {alike:g}",
        n=len(chosen),
        of="latents",
        chance=float(np.mean(null)) if null else None,
        chance_is=f"rows of the other shifted, {draws} draws ({min(null):.3f} to {max(null):.3f})" if null else "",
        **wilson(hits, len(chosen), of="latents, as if independent").fields,
    )
    return measured, best


def latents_shared(a: csr_matrix, b: csr_matrix, *, alike: float = ALIKE, draws: int = 5, seed: int = 0) -> Measurement:
    r"""Share of the latents of *one* dictionary that fire alike on two readings of the same rows.

    Of a dictionary over several places: its code read from one of them and from another. A latent counts if either
    reading has it on 20 rows. Chance: b's rows begin elsewhere. Interval: Wilson, as if latents were independent.

    Args:
        a, b: codes of the same rows by one dictionary, neighbouring rows together.
        alike: correlation of activations.
        draws: of the shift.
        seed: of the shifts.

    Raises:
        ShapeError: if they differ in rows or latents.

    Source:
        Thasarathan et al., "Universal sparse autoencoders", 2025 (arXiv 2502.03714), who count how often a concept
        fires for all models at once; correlation also asks that it be silent together.

    Example:
        >>> f = csr_matrix(np.tile(np.eye(2), (30, 1)))
        >>> latents_shared(f, f).value
        1.0
    """
    if _shape(a) != _shape(b):
        raise ShapeError(f"latents_shared: codes of shape {_shape(a)} and {_shape(b)}. Give two readings of one SAE.")
    chosen = np.union1d(used(a), used(b))
    about: dict[str, Any] = {
        "name": "latents_shared", "unit": f"share at correlation >= {alike:g}", "n": len(chosen), "of": "latents",
    }  # fmt: skip
    if not len(chosen):
        return Measurement(value=None, caution="no latent is active on 20 of these rows", **about)
    a, b = a[:, chosen], b[:, chosen]
    rows = _shape(a)[0]
    hits = int((_paired(a, b) >= alike).sum())
    null = []
    for shift in np.random.default_rng(seed).integers(rows // 10, rows - rows // 10, size=draws):
        null.append(float((_paired(a, b[np.roll(np.arange(rows), int(shift))]) >= alike).mean()))
    return Measurement(
        value=hits / len(chosen),
        chance=float(np.mean(null)),
        chance_is=f"rows of the other shifted, {draws} draws ({min(null):.3f} to {max(null):.3f})",
        **about,
        **wilson(hits, len(chosen), of="latents, as if independent").fields,
    )


def _paired(a: csr_matrix, b: csr_matrix) -> np.ndarray:
    """Correlations over rows of columns of one number; 0 where one is constant."""
    (mean_a, spread_a), (mean_b, spread_b) = _moments(a), _moments(b)
    covariance = np.asarray(a.multiply(b).mean(0)).ravel() - mean_a * mean_b
    scale = spread_a * spread_b
    return np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)


@dataclass(frozen=True, eq=False)
class Lineage:
    """What became of features from one moment to a later one. Numbers are positions among those that were given.

    Args:
        kept: pairs (before, after), one to one, that fire alike.
        split: of a feature that is not kept, the later ones that each fire inside it and together cover it.
        merged: of a feature that is new, the earlier ones that each fire inside it and together cover it.
        died: earlier features that are none of these.
        born: later features that are none of these.
    """

    kept: tuple[tuple[int, int], ...]
    split: dict[int, tuple[int, ...]]
    merged: dict[int, tuple[int, ...]]
    died: tuple[int, ...]
    born: tuple[int, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many of each."""
        return {name: len(getattr(self, name)) for name in ("kept", "split", "merged", "died", "born")}


def lineage(
    before: csr_matrix,
    after: csr_matrix,
    features_before: Iterable[int] | np.ndarray,
    features_after: Iterable[int] | np.ndarray,
    *,
    alike: float = ALIKE,
) -> Lineage:
    """Features kept, split, merged, died and born between two moments, judged on the same rows.

    Kept: the one-to-one pairing of largest total correlation, as far as it reaches `alike`. A feature that is not kept
    has split if two or more others, each with 70 % of its rows among the feature's, cover half of its rows together; a
    merger is the same the other way round. Partners are looked for among all latents, so that nothing counts as dead or
    born because its partner is in doubt. Where most of a feature lives on in one latent and little beside it, it is
    kept.

    Args:
        before, after: codes of the same rows.
        features_before, features_after: latents that count as features.
        alike: correlation.

    Raises:
        ShapeError: if they have not as many rows.
    """
    first, second = ([int(each) for each in some] for some in (features_before, features_after))
    correlation = latent_correlations(before, after)
    i, j = linear_sum_assignment(np.where(correlation >= alike, correlation, 0.0), maximize=True)
    paired = correlation[i, j] >= alike
    partner_of, partner_to = dict(zip(i[paired], j[paired], strict=True)), dict(zip(j[paired], i[paired], strict=True))
    was, now = (before != 0).tocsc(), (after != 0).tocsc()
    together = (was.T.astype(np.float64) @ now.astype(np.float64)).toarray()
    often_was, often_now = np.asarray(was.sum(0)).ravel(), np.asarray(now.sum(0)).ravel()
    kept = tuple((int(f), int(partner_of[f])) for f in first if f in partner_of)
    left = [f for f in first if f not in partner_of]
    new = [f for f in second if f not in partner_to]
    split = {int(f): parts for f in left if (parts := _parts(f, together, often_now, often_was, now, was))}
    merged = {int(f): parts for f in new if (parts := _parts(f, together.T, often_was, often_now, was, now))}
    inside = {part for parts in merged.values() for part in parts}
    children = {part for parts in split.values() for part in parts}
    return Lineage(
        kept=kept,
        split=split,
        merged=merged,
        died=tuple(int(f) for f in left if f not in split and f not in inside),
        born=tuple(int(f) for f in new if f not in merged and f not in children),
    )


def _parts(
    whole: int, together: np.ndarray, often_part: np.ndarray, often_whole: np.ndarray, parts: csc_matrix, of: csc_matrix
) -> tuple[int, ...]:
    """The latents whose rows lie in those of `whole`, if they are several and cover it together."""
    if not often_whole[whole]:
        return ()
    inside = np.flatnonzero((often_part > 0) & (together[whole] >= _INSIDE * np.maximum(often_part, 1)))
    # What holds a single percent of the whole is no part that it was split into.
    inside = inside[together[whole, inside] >= 0.1 * often_whole[whole]]
    if len(inside) < 2:
        return ()
    rows = of[:, [whole]].toarray().ravel() != 0
    covered = (np.asarray(parts[:, inside].sum(1)).ravel() > 0) & rows
    return tuple(inside.tolist()) if covered.sum() >= _COVERED * rows.sum() else ()
