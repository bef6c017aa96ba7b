"""Which named polytope is this set of directions? The nearest one, with how badly it fits."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..toy import components

GOOD_FIT = 0.1
"""Root mean square distance of unit vectors from the vertices below which a name is given without reserve."""


@dataclass(frozen=True)
class Polytope:
    """The named polytope nearest to some directions.

    Args:
        name: what it is called; "" where no polytope of that many vertices in that many dimensions has a name here.
        k: vertices.
        d: dimensions.
        error: root mean square distance between unit vectors and vertices after the best rotation, reflection and
            pairing; None without a name. Random directions give about 0.5 or more.
        features: the features, as numbered by the caller.
    """

    name: str
    k: int
    d: int
    error: float | None
    features: tuple[int, ...] = ()

    def __str__(self) -> str:
        if self.error is None:
            return f"{self.k} vectors in {self.d} dimensions"
        return self.name if self.error <= GOOD_FIT else f"{self.name}? (error {self.error:.2f})"


def nearest_polytope(vectors: Float[Tensor, "k d"]) -> Polytope:
    """The named polytope whose vertices lie nearest to some directions, over rotations, reflections and pairings.

    Norms are ignored. Known: point (a dedicated feature), digon, k-gons, simplices, cross-polytopes (octahedron,
    16-cell), square antiprism (the tight one), cube, icosahedron, triangular and pentagonal bipyramid, triangular
    prism.

    Every d vectors in general position are laid on every ordered d vertices; the best start is refined by turns of
    optimal assignment and orthogonal Procrustes. Exact for a perfect polytope; for a noisy one a good local optimum.

    Args:
        vectors: directions, none zero.

    Returns:
        The best fit, or one without a name where nothing of that size is known.

    Raises:
        ValueError: if a vector is zero.

    Source:
        Elhage et al., "Toy models of superposition", 2022, section "The geometry of superposition" (the names).
        Schoenemann, "A generalized solution of the orthogonal Procrustes problem", 1966.

    Example:
        >>> import torch
        >>> str(nearest_polytope(torch.tensor([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.9]])))
        'triangle'
    """
    X = vectors.detach().double().numpy()
    norms = np.linalg.norm(X, axis=1)
    if not (norms > 0).all():
        raise ValueError(
            f"nearest_polytope: vector {int((norms == 0).argmax())} is zero and has no direction. Drop it first."
        )
    X = X / norms[:, None]
    _, values, axes = np.linalg.svd(X, full_matrices=False)
    d = int((values > 0.1 * values[0]).sum())
    # In the span of the vectors: a digon in ten dimensions is a digon.
    X = X @ axes[:d].T
    k = len(X)
    known = _templates(k, d)
    if not known:
        return Polytope("", k, d, None)
    fits = [(_fit(X, vertices), name) for name, vertices in known]
    error, name = min(fits)
    return Polytope(name, k, d, error)


def _fit(X: np.ndarray, V: np.ndarray) -> float:
    k, d = X.shape
    basis = _spanning(X, d)
    # All ordered choices of d vertices, as rotations by Procrustes.
    choices = np.array(list(itertools.permutations(range(k), d)))
    if len(choices) > 3000:
        choices = choices[np.random.default_rng(0).permutation(len(choices))[:3000]]
    u, _, vt = np.linalg.svd(np.einsum("ad,cae->cde", X[basis], V[choices]))
    turned = np.einsum("kd,cde->cke", X, u @ vt)
    squares = 2 - 2 * np.einsum("cke,ve->ckv", turned, V).max(2)
    best = math.inf
    for start in np.argsort(squares.sum(1), kind="stable")[:5]:
        R = (u @ vt)[start]
        for _ in range(20):
            rows, columns = linear_sum_assignment(-(X @ R) @ V.T)
            a, _, bt = np.linalg.svd(X[rows].T @ V[columns])
            R, previous = a @ bt, R
            if np.abs(R - previous).max() < 1e-12:
                break
        best = min(best, float(np.sqrt(((X[rows] @ R - V[columns]) ** 2).sum(1).mean())))
    return best


def _spanning(X: np.ndarray, d: int) -> list[int]:
    # d vectors as far from dependent as a greedy choice finds.
    chosen: list[int] = []
    rest = X.copy()
    for _ in range(d):
        chosen.append(int(np.linalg.norm(rest, axis=1).argmax()))
        axis = rest[chosen[-1]] / np.linalg.norm(rest[chosen[-1]])
        rest = rest - np.outer(rest @ axis, axis)
    return chosen


@functools.lru_cache(maxsize=64)
def _templates(k: int, d: int) -> tuple[tuple[str, np.ndarray], ...]:
    known: list[tuple[str, np.ndarray]] = []
    if k == d == 1:
        known.append(("point", np.ones((1, 1))))
    if d >= 1 and k == d + 1:
        name = {1: "digon", 2: "triangle", 3: "tetrahedron"}.get(d, f"{k}-cell" if d == 4 else f"{d}-simplex")
        # The basis of R^k, seen from its centre.
        centred = np.eye(k) - 1 / k
        known.append((name, _unit(centred @ np.linalg.svd(centred)[2][:d].T)))
    if d == 2 and k >= 4:
        name = {4: "square", 5: "pentagon", 6: "hexagon", 7: "heptagon", 8: "octagon"}.get(k, f"{k}-gon")
        angles = 2 * np.pi * np.arange(k) / k
        known.append((name, np.stack([np.cos(angles), np.sin(angles)], 1)))
    if d >= 3 and k == 2 * d:
        known.append(
            ({3: "octahedron", 4: "16-cell"}.get(d, f"{d}-orthoplex"), np.concatenate([np.eye(d), -np.eye(d)]))
        )
    if (k, d) == (8, 3):
        up, out = math.sqrt(1 / 3), math.sqrt(2 / 3)
        turn = np.pi / 4 * np.arange(8)
        height = np.where(np.arange(8) % 2 == 0, up, -up)
        known.append(("square antiprism", np.stack([out * np.cos(turn), out * np.sin(turn), height], 1)))
        known.append(("cube", _unit(np.array(list(itertools.product((-1.0, 1.0), repeat=3))))))
    if (k, d) == (12, 3):
        golden = (1 + math.sqrt(5)) / 2
        corners = [np.roll([0, s, t * golden], r) for s in (1, -1) for t in (1, -1) for r in range(3)]
        known.append(("icosahedron", _unit(np.array(corners))))
    if (k, d) in ((5, 3), (7, 3)):
        sides = k - 2
        angles = 2 * np.pi * np.arange(sides) / sides
        ring = np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1)
        name = "triangular bipyramid" if sides == 3 else "pentagonal bipyramid"
        known.append((name, np.concatenate([ring, [[0, 0, 1], [0, 0, -1]]])))
    if (k, d) == (6, 3):
        angles = 2 * np.pi * np.arange(3) / 3
        levels = [np.stack([np.cos(angles), np.sin(angles), 0 * angles + h], 1) for h in (0.7, -0.7)]
        known.append(("triangular prism", _unit(np.concatenate(levels))))
    return tuple(known)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# Larger than this, the search over ordered vertices is long and nothing has a name anyway.
_MOST = 14

_TEGUM = {
    ("digon", "triangle"): "triangular bipyramid",
    ("digon", "pentagon"): "pentagonal bipyramid",
    ("digon", "digon"): "square",
    ("digon", "digon", "digon"): "octahedron",
    ("digon", "digon", "digon", "digon"): "16-cell",
}


def polytopes(atoms: Float[Tensor, "n d"], *, threshold: float = 0.1) -> tuple[Polytope, ...]:
    """The nearest polytope of each component of the interference graph: the factors of the tegum product.

    Args:
        atoms: W with one feature per row.
        threshold: of `components`.

    Returns:
        One per component, largest first.

    Example:
        >>> import torch
        >>> [str(p) for p in polytopes(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))]
        ['digon', 'point']
    """
    found = []
    for component in components(atoms, threshold=threshold):
        features = component.features
        if len(features) > _MOST:
            found.append(Polytope("", len(features), component.rank, None, features))
        else:
            fit = nearest_polytope(atoms[list(features)])
            found.append(Polytope(fit.name, fit.k, fit.d, fit.error, features))
    return tuple(found)


def tegum_name(factors: tuple[Polytope, ...]) -> str:
    """A name for the whole: that of the product where it has one, else a count of its factors.

    Example:
        >>> import torch
        >>> tegum_name(polytopes(torch.cat([torch.eye(3), -torch.eye(3)])))
        'octahedron'
    """
    names = [str(factor) for factor in factors]
    product = _TEGUM.get(tuple(sorted(names)))
    if product:
        return product
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    return " + ".join(name if count == 1 else f"{count} x {name}" for name, count in counts.items())
