"""Which edits will move much else? Collateral told before steering, from what is known of the features alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy.stats import rankdata
from torch import Tensor

from ...core import Dictionary, ShapeError, SparseCode

_BLOCK = 2**22
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Features:
    """What is known of features before anything is steered: where they are, how often, how strong, in whose company.

    Args:
        atoms: what each writes.
        reads: what each is read by.
        offsets: $b_j$ of the read-out $u_j = g_j \\cdot x + b_j$.
        levels: $\\theta_j \\ge 0$ above which it is open: it gives $u_j$ there and 0 below. 0 is a ReLU.
        density: P(f_j != 0).
        mean, square: E[f_k 1(f_j != 0)] and E[f_k^2 1(f_j != 0)], (k, j): co-activations.
        total, total_square: E[f_k] and E[f_k^2].
    """

    atoms: Float64[Tensor, "n d"]
    reads: Float64[Tensor, "n d"]
    offsets: Float64[Tensor, "n"]
    levels: Float64[Tensor, "n"]
    density: Float64[Tensor, "n"]
    mean: Float64[Tensor, "n n"]
    square: Float64[Tensor, "n n"]
    total: Float64[Tensor, "n"]
    total_square: Float64[Tensor, "n"]

    @classmethod
    def of(
        cls,
        dictionary: Dictionary,
        code: SparseCode | Float[Tensor, "rows n"],
        *,
        reads: Float[Tensor, "n d"] | None = None,
        offsets: Float[Tensor, "n"] | None = None,
        levels: Float[Tensor, "n"] | None = None,
    ) -> Features:
        """Of a dictionary and the codes of some rows of ordinary text.

        Args:
            dictionary: W; its bias is taken into the offsets.
            code: f of rows.
            reads: g; the atoms themselves without them.
            offsets: b; 0 without them.
            levels: theta; 0 without them. Of a dictionary that keeps the k largest, what the smallest of them is.

        Raises:
            ShapeError: if codes, reads, offsets or levels do not fit the dictionary.
        """
        f = (code.dense() if isinstance(code, SparseCode) else code).detach().double().cpu()
        atoms = dictionary.atoms.detach().double().cpu()
        g = atoms if reads is None else reads.detach().double().cpu()
        b, theta = (
            atoms.new_zeros(len(atoms)) if given is None else given.detach().double().cpu()
            for given in (offsets, levels)
        )
        fits = f.ndim == 2 and f.shape[1] == len(atoms) and g.shape == atoms.shape
        if not fits or b.shape != atoms.shape[:1] or theta.shape != atoms.shape[:1]:
            raise ShapeError(
                f"Features: codes {tuple(f.shape)}, reads {tuple(g.shape)}, offsets {tuple(b.shape)} and levels "
                f"{tuple(theta.shape)} do not fit a dictionary of {len(atoms)} atoms in d = {atoms.shape[1]}; give one "
                "of each for every atom."
            )
        if dictionary.bias is not None:
            b = b + g @ dictionary.bias.detach().double().cpu()
        on = (f != 0).double()
        rows = len(f)
        return cls(
            atoms, g, b, theta, on.mean(0), f.T @ on / rows, f.square().T @ on / rows, f.mean(0), f.square().mean(0)
        )


def predicted_collateral(
    features: Features,
    vectors: Float[Tensor, "m d"],
    *,
    targets: Tensor | None = None,
    weights: Float[Tensor, "n"] | None = None,
) -> Float64[Tensor, "m"]:
    r"""$\sum_{j \ne i} w_j\, \mathrm{E}[(r_j(u_j + g_j \cdot v) - r_j(u_j))^2]$ of each vector v.

    $r_j(u) = u$ above the level $\theta_j$ and 0 below, a ReLU at $\theta_j = 0$. The read-out before it,
    $u_j = \sum_k f_k\, g_j \cdot w_k + b_j$, is taken as Gaussian, once where feature j is on and once where it is
    off, with the means and variances that Gram matrix, densities and co-activations give; so that what a closed
    read-out swallows is not counted, and what a nearly open one lets through is. No network is run.

    Args:
        features: what is known.
        vectors: what each edit adds.
        targets: the feature that each is meant to move, left out of its sum; none without them.
        weights: w; 1 without them.

    Raises:
        ShapeError: if vectors do not fit.
    """
    V = vectors.detach().double().cpu()
    if V.ndim != 2 or V.shape[1] != features.atoms.shape[1]:
        raise ShapeError(
            f"predicted_collateral: vectors {tuple(V.shape)} for features in d = {features.atoms.shape[1]}; give one "
            "vector of that length a row."
        )
    G = features.reads @ features.atoms.T
    p = features.density
    on, off = p.clamp_min(1e-12), (1 - p).clamp_min(1e-12)
    parts = []
    for mean, square, share in (
        (features.mean / on, features.square / on, p),
        (
            (features.total[:, None] - features.mean) / off,
            (features.total_square[:, None] - features.square) / off,
            1 - p,
        ),
    ):
        # mean[k, j]: E[f_k] where feature j is on, or off.
        middle = (G * mean.T).sum(1) + features.offsets
        spread = (G.square() * (square - mean.square()).clamp_min(0.0).T).sum(1).sqrt()
        parts.append((middle, spread.clamp_min(1e-12), share))
    w = p.new_ones(len(p)) if weights is None else weights.detach().double().cpu()
    result = V.new_empty(len(V))
    size = max(_BLOCK // len(p), 1)
    for start in range(0, len(V), size):
        shift = V[start : start + size] @ features.reads.T
        moved = torch.zeros_like(shift)
        for middle, spread, share in parts:
            moved += share * _squared_change(middle, spread, features.levels, shift)
        if targets is not None:
            own = torch.as_tensor(targets)[start : start + size]
            moved[torch.arange(len(own)), own] = 0.0
        result[start : start + size] = moved @ w
    return result


def _squared_change(
    mean: Float64[Tensor, "n"], spread: Float64[Tensor, "n"], level: Float64[Tensor, "n"], shift: Float64[Tensor, "m n"]
) -> Float64[Tensor, "m n"]:
    """E[(r(u + s) - r(u))^2] of a Gaussian u, r(u) = u above the level and 0 below.

    s^2 where both are above it, and the square of the one that is where only one is.
    """
    low, high = torch.minimum(level, level - shift), torch.maximum(level, level - shift)
    a, b = (low - mean) / spread, (high - mean) / spread
    below, above = torch.special.ndtr(a), torch.special.ndtr(b)
    density_a, density_b = (torch.exp(-each.square() / 2) / math.sqrt(2 * math.pi) for each in (a, b))
    # What is open alone is u + s where s is above 0, and u where it is below: k + spread z, z of the unit Gaussian.
    k = mean + shift.clamp_min(0.0)
    between = above - below
    alone = (
        k.square() * between
        + 2 * k * spread * (density_a - density_b)
        + spread.square() * (between + a * density_a - b * density_b)
    )
    return shift.square() * torch.special.ndtr(-b) + alone.clamp_min(0.0)


@dataclass(frozen=True)
class RankAgreement:
    """How well a prediction orders what was measured.

    Args:
        correlation: Spearman's.
        low, high: its 95 % bootstrap interval over the edits.
        partial: Spearman's given the controls: of what is left of ranks after the ranks of the controls are fitted.
        partial_low, partial_high: its interval.
        gain: by name of each control, the correlation less the control's own, with its interval (value, low, high).
        n: edits.
    """

    correlation: float
    low: float
    high: float
    partial: float
    partial_low: float
    partial_high: float
    gain: Mapping[str, tuple[float, float, float]]
    n: int


def rank_agreement(
    predicted: Float[Tensor, "m"],
    measured: Float[Tensor, "m"],
    controls: Mapping[str, Float[Tensor, "m"]],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> RankAgreement:
    """A prediction against simpler ones (density alone, norm alone) that it should beat.

    A control that is the same for all edits, but for rounding, orders nothing: its correlation is 0. The better of a
    control and its reverse is taken, since which way round it goes was not said beforehand.

    Args:
        predicted, measured: of each edit.
        controls: by name.
        draws: of the bootstrap over edits.
        seed: of the draws.

    Raises:
        ValueError: if there are fewer than 4 edits, lengths differ, or a number is NaN.

    Source:
        2606.08365 (prediction of side effects against frequency-only and magnitude-only baselines).
    """
    columns = [predicted, measured, *controls.values()]
    m = len(predicted)
    if m < 4 or any(len(column) != m for column in columns):
        raise ValueError(
            f"rank_agreement: {[len(column) for column in columns]} values; give as many of each, at least 4."
        )
    table = torch.stack([column.detach().double().cpu() for column in columns], 1).numpy()
    if np.isnan(table).any():
        raise ValueError("rank_agreement: a value is NaN; leave that edit out.")
    # What differs by rounding alone orders nothing; ranks would make a random order of it.
    same = np.ptp(table, axis=0) <= _ROUNDING * np.abs(table).max(0)
    table[:, same] = table[:1, same]

    value = _agreements(table[None])[0]
    random = np.random.default_rng(seed)
    drawn = _agreements(table[random.integers(0, m, (draws, m))])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    gain = {name: (float(value[2 + c]), float(low[2 + c]), float(high[2 + c])) for c, name in enumerate(controls)}
    return RankAgreement(
        correlation=float(value[0]),
        low=float(low[0]),
        high=float(high[0]),
        partial=float(value[1]),
        partial_low=float(low[1]),
        partial_high=float(high[1]),
        gain=gain,
        n=m,
    )


def _agreements(tables: np.ndarray) -> np.ndarray:
    """Of tables [draws, edits, columns] of predicted, measured and controls: the correlation, what is left of it given
    the controls, and the gain over each, [draws, 2 + controls]."""
    ranks = rankdata(tables, axis=1)
    ranks = ranks - ranks.mean(1, keepdims=True)
    pair, controls = ranks[..., :2], ranks[..., 2:]
    left = pair - controls @ (np.linalg.pinv(controls, rcond=1e-10) @ pair)
    own = _correlation(pair[..., 0], pair[..., 1])
    is_left = (left.std(1) > 1e-9 * pair.std(1)).all(1)
    partial = np.where(is_left, _correlation(left[..., 0], left[..., 1]), 0.0)
    gains = [own - np.abs(_correlation(controls[..., c], pair[..., 1])) for c in range(controls.shape[-1])]
    return np.stack([own, partial, *gains], 1)


def _correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of rows of numbers; 0 where one of them is all the same."""
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    scale = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return (x * y).sum(1) / np.where(scale > 0, scale, np.inf)
