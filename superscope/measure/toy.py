"""What did a toy model (or any W) do with its features: who is represented, who shares, with how many dimensions each?

`feature_dimensionality` and the capacity of Scherlis et al. are one quantity: $D_i = C_i$ algebraically.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..core import Dictionary, Measurement, ShapeError, SparseCode
from .metric import metric

FAINT = 0.1
"""Norm below which a feature counts as not represented: its direction, and so its dimensionality, is noise."""


def dimensionalities(atoms: Float[Tensor, "*models n d"]) -> Float[Tensor, "*models n"]:
    r"""$D_i = \frac{\|W_i\|^2}{\sum_j (\hat W_i \cdot W_j)^2} = \frac{\|W_i\|^4}{W_i^\top F W_i}$ with
    $F = W W^\top$, of many models at once.

    $D_i$ is at most feature i's leverage score, so that $\sum_i D_i \le \mathrm{rank}\, W$; equality iff every $W_i$
    is an eigenvector of F (orthogonal sums of tight frames), not only where all are orthogonal. Through F it costs
    $O(n d^2)$. Features with a norm below 1e-6 get 0.

    Args:
        atoms: W with one feature per row.

    Returns:
        Numbers in [0, 1]: 1 alone, 1/2 in a digon, 2/3 triangle, 3/4 tetrahedron, 2/5 pentagon, 3/8 square antiprism.

    Source:
        Elhage et al., "Toy models of superposition", 2022, section "The geometry of superposition".
        Scherlis et al., "Polysemanticity and capacity in neural networks", 2022 (capacity, the same number).

    Example:
        >>> dimensionalities(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0]])).tolist()
        [0.5, 0.5, 1.0]
    """
    W = atoms.double()
    square = W.square().sum(-1)
    spread = ((W @ (W.mT @ W)) * W).sum(-1)
    alive = square > 1e-12
    return torch.where(alive, square**2 / torch.where(alive, spread, 1.0), 0.0).clamp_(max=1.0)


def representedness(atoms: Float[Tensor, "*models n d"]) -> Float[Tensor, "*models n"]:
    r"""$\|W_i\|$: about 1 where a feature is learned, about 0 where it is not.

    Source:
        Elhage et al., "Toy models of superposition", 2022.

    Example:
        >>> representedness(torch.tensor([[3.0, 4.0]])).tolist()
        [5.0]
    """
    return atoms.double().norm(dim=-1)


def overlaps(atoms: Float[Tensor, "*models n d"]) -> Float[Tensor, "*models n"]:
    r"""$\sum_{j \ne i} (\hat W_i \cdot W_j)^2$: the interference a feature suffers, the paper's "superposition" colour.

    0 is orthogonal to all; from 1 on, the others together can activate $\hat W_i$ as strongly as feature i itself. 0
    for a feature of norm below 1e-6.

    Source:
        Elhage et al., "Toy models of superposition", 2022, section "Basic results".

    Example:
        >>> overlaps(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0]])).tolist()
        [1.0, 1.0, 0.0]
    """
    W = atoms.double()
    square = W.square().sum(-1)
    alive = square > 1e-12
    spread = ((W @ (W.mT @ W)) * W).sum(-1) / torch.where(alive, square, 1.0)
    return torch.where(alive, (spread - square).clamp(min=0), 0.0)


@metric(range=(0.0, 1.0), unit="dimensions", invariant=("rotation", "permutation", "sign"))
def feature_dimensionality(W: Dictionary) -> Measurement:
    r"""Mean of $D_i$ (see `dimensionalities`) over represented features; their capacity.

    Args:
        W: dictionary; norms matter, and features below 0.1 of the largest norm are left out.

    Returns:
        A number in [0, 1], with min(1, d / features) as reference, since the sum of all D_i is at most d.

    Raises:
        ValueError: if every atom is zero.

    Source:
        Elhage et al., "Toy models of superposition", 2022, section "The geometry of superposition".

    Example:
        >>> feature_dimensionality(Dictionary(torch.tensor([[1.0], [-1.0]]))).value
        0.5
    """
    kept = _represented("feature_dimensionality", W)
    D = dimensionalities(W.atoms)[kept]
    return Measurement(
        name="feature_dimensionality",
        value=float(D.mean()),
        unit="dimensions",
        n=len(D),
        of="features",
        low=float(D.min()),
        high=float(D.max()),
        how="min and max over features",
        reference=min(1.0, W.d / len(D)),
        reference_is="d shared evenly",
    )


@metric(range=(0.0, math.inf), unit="features per dimension", invariant=("rotation", "permutation", "sign"))
def features_per_dimension(W: Dictionary) -> Measurement:
    r"""$\|W\|_F^2 / d$: represented features per hidden dimension, the inverse of the paper's $D^*$.

    Counts a feature by its squared norm. Sticks at 1 (dedicated) and 2 (digons) as density falls. In dense models,
    where directions are arbitrary, it is the only sound count of features.

    Args:
        W: dictionary; norms matter.

    Returns:
        A number >= 0.

    Source:
        Elhage et al., "Toy models of superposition", 2022, section "Uniform superposition".

    Example:
        >>> features_per_dimension(Dictionary(torch.tensor([[1.0], [-1.0]]))).value
        2.0
    """
    return Measurement(
        name="features_per_dimension",
        value=float(W.atoms.double().square().sum() / W.d),
        unit="features per dimension",
        n=W.n,
        of="features",
        how="exact",
        reference=None,
    )


def interference(W: Dictionary, f: SparseCode | Float[Tensor, "rows columns"]) -> Measurement:
    r"""$\frac1n \sum_i \mathbb E \left( \frac{\hat w_i \cdot x}{\|w_i\|} - f_i \right)^2$, x = W f: the error of
    reading each feature by its own direction.

    Over all features, active or not, so that it can be compared with their second moment. Zero atoms cannot be read;
    they are left out and counted in the caution. The plain read-out has no bias term; a nonzero mean of f therefore
    counts.

    Args:
        W: dictionary; the true directions.
        f: features of many rows, sparse or dense.

    Returns:
        A squared feature value, with 1.96 standard errors over rows, and what independent random directions of the same
        norms would give as chance.

    Raises:
        ShapeError: if f has another number of features.
        ValueError: if every atom is zero or there are fewer than two rows.

    Example:
        >>> digon = Dictionary(torch.tensor([[1.0], [-1.0]]))
        >>> interference(digon, torch.tensor([[1.0, 0.0], [0.0, 0.0]])).value  # one of 4 is -1
        0.25
    """
    features = f.n if isinstance(f, SparseCode) else f.shape[-1]
    if features != W.n:
        raise ShapeError(
            f"interference: f has {features} features but W has {W.n} atoms. Measure features with their own W."
        )
    square = W.atoms.double().square().sum(1)
    kept = square > 0
    if not bool(kept.any()):
        raise ValueError("interference: every atom is zero, so no feature can be read. Train W first.")
    rows = len(f)
    if rows < 2:
        raise ValueError(f"interference: f must have at least 2 rows; got {rows}.")
    atoms = W.atoms.double()[kept]
    total = torch.zeros((), dtype=torch.float64)
    squares = torch.zeros((), dtype=torch.float64)
    power = torch.zeros(W.n, dtype=torch.float64)
    block = max(1, 2**22 // W.n)
    for start in range(0, rows, block):
        part = f[start : start + block]
        dense = (part.dense() if isinstance(part, SparseCode) else part).double()
        read = (dense @ W.atoms.double()) @ atoms.T / square[kept]
        error = (read - dense[:, kept]).square().mean(1)
        total += error.sum()
        squares += error.square().sum()
        power += dense.square().sum(0)
    mean = float(total / rows)
    error = math.sqrt(max(float(squares / rows) - mean**2, 0) / rows)
    # Under independent uniform directions E cos^2 = 1/d and cross terms vanish.
    load = power / rows * square
    chance = float(((load.sum() - load[kept]) / square[kept]).mean() / W.d)
    left_out = int((~kept).sum())
    return Measurement(
        name="interference",
        value=mean,
        unit="squared feature value",
        n=rows,
        of="rows",
        low=max(mean - 1.96 * error, 0.0),
        high=mean + 1.96 * error,
        how="1.96 standard errors over rows",
        reference=0.0,
        reference_is="orthogonal features",
        chance=chance,
        chance_is="random directions of the same norms (expectation)",
        caution=f"{left_out} zero atoms cannot be read and were left out" if left_out else "",
    )


@dataclass(frozen=True)
class Component:
    """Features that interfere with each other, and with no feature outside, above a threshold.

    Args:
        features: their numbers.
        rank: dimensions they span.
        dimensionality: sum of their D_i; equals the rank for a tight frame.
    """

    features: tuple[int, ...]
    rank: int
    dimensionality: float


def components(atoms: Float[Tensor, "n d"], *, threshold: float = 0.1) -> tuple[Component, ...]:
    r"""Connected components of the graph $|W_i \cdot W_j| > \epsilon$ over represented features, largest first.

    Where the geometry is a tegum product, these are its factors. At low density everything overlaps a little and
    there is one giant component: then there are no factors to name.

    Args:
        atoms: W with one feature per row.
        threshold: epsilon, above 0.

    Raises:
        ValueError: if threshold is not positive.

    Source:
        Elhage et al., "Toy models of superposition", 2022, section "The geometry of superposition" (feature graphs).

    Example:
        >>> [c.features for c in components(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))]
        [(0, 1), (2,)]
    """
    if not threshold > 0:
        raise ValueError(f"components: threshold must be above 0; got {threshold}.")
    W = atoms.double()
    joined = (W @ W.T).abs() > threshold
    D = dimensionalities(W)
    waiting = set(torch.nonzero(W.norm(dim=1) > FAINT).flatten().tolist())
    found = []
    while waiting:
        members, edge = set(), {min(waiting)}
        while edge:
            members |= edge
            near = joined[sorted(edge)].any(0).nonzero().flatten().tolist()
            edge = (set(near) & waiting) - members
        waiting -= members
        features = sorted(members)
        values = torch.linalg.svdvals(W[features])
        # A dimension counts if it holds a tenth of the strongest one's amplitude.
        rank = int((values > 0.1 * values[0]).sum())
        found.append(Component(tuple(features), rank, float(D[features].sum())))
    return tuple(sorted(found, key=lambda c: (-len(c.features), c.features)))


@dataclass(frozen=True)
class Jump:
    """A feature whose dimensionality changed within one window of training.

    Args:
        feature: its number.
        start, stop: steps between which it changed.
        change: of D.
    """

    feature: int
    start: int
    stop: int
    change: float


def jumps(
    D: Float[Tensor, "times n"], steps: list[int], *, least: float = 0.15, window: int = 500, after: int = 0
) -> tuple[Jump, ...]:
    r"""Times at which $|\Delta D_i| > least$ within `window` steps: the energy levels of training, feature by feature.

    Windows do not overlap, so one jump is found once or, if it straddles a border, at most twice.

    Args:
        D: dimensionalities at the recorded steps.
        steps: the steps, rising.
        least: change that counts, above 0.
        window: steps of one window.
        after: windows that begin earlier are not looked at (the first features appear by jumps of another kind).

    Raises:
        ShapeError: if there is not one step per row.
        ValueError: if window or least is not positive.

    Source:
        Elhage et al., "Toy models of superposition", 2022, section "Discrete 'energy level' jumps".

    Example:
        >>> jumps(torch.tensor([[0.5], [0.5], [1.0]]), [0, 500, 1000])
        (Jump(feature=0, start=500, stop=1000, change=0.5),)
    """
    if len(D) != len(steps):
        raise ShapeError(f"jumps: {len(D)} rows of D for {len(steps)} steps. Give the step of each row.")
    if window < 1 or not least > 0:
        raise ValueError(f"jumps: window must be at least 1 and least above 0; got {window} and {least}.")
    found = []
    marks = [0]
    for row, step in enumerate(steps):
        if step - steps[marks[-1]] >= window:
            marks.append(row)
    for a, b in itertools.pairwise(marks):
        if steps[a] < after:
            continue
        change = D[b].double() - D[a].double()
        for feature in (change.abs() > least).nonzero().flatten().tolist():
            found.append(Jump(feature, steps[a], steps[b], float(change[feature])))
    return tuple(found)


def _represented(caller: str, W: Dictionary) -> Bool[Tensor, "n"]:
    norms = W.norms.double()
    if float(norms.max()) == 0:
        raise ValueError(f"{caller}: every atom is zero, so no feature is represented. Train W first.")
    return norms > FAINT * norms.max()
