r"""n directions in R^d as far apart as an optimiser can put them.

Minimises $\mu = \max_{i<j} |\langle w_i, w_j \rangle|$ in three stages. Descent on
$\frac1p \ln \sum_{i<j} e^{p\,|G_{ij}|}$ with p rising, from random and from symmetric starts, finds good basins; a
sequence of linear programs over the pairs that attain the maximum, then Newton's method on their equality, brings the
last digits; kicks of the best packing, settled again, find the better optima that lie within 10^-4 of each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from scipy.optimize import linprog, minimize
from scipy.sparse import csr_matrix

from ..core import Dictionary
from .bases import gold, mutually_unbiased
from .equiangular import equiangular
from .lattices import roots
from .polytopes import cross_polytope, polygon, simplex
from .sizes import check_whole

COARSE = (8.0, 32.0, 128.0, 512.0)
"""p of the descent from a random start, in the order used. Without the 8 the 16 equiangular lines in R^6 are missed;
symmetric starts do as well without it, in less time."""

FINE = (2048.0,)
"""p that those starts which may still win go on to."""

KICKED = (64.0, 512.0)
"""p of the descent from a kicked packing: soft enough to rearrange what is near the kick, not to forget the rest."""

POLISHED_SIZE = 600
"""Largest n (d - 1) that is polished: a linear program of that many unknowns takes a tenth of a second."""

KICKED_SIZE = 150
"""Largest n (d - 1) at which a kicked packing is polished at once; beyond, descent brings it near an optimum first."""

OPTIMAL_ROOTS = {(12, 4): "D4", (36, 6): "E6", (63, 7): "E7", (120, 8): "E8"}
"""Root systems at Levenshtein's bound, by (n, d)."""


def packed(
    n: int,
    d: int,
    *,
    restarts: int = 20,
    kicks: int = 8,
    seed: int = 0,
    signed: bool = False,
    known: bool = True,
    dtype: torch.dtype = torch.float64,
) -> Dictionary:
    r"""n unit atoms in R^d with small coherence: $\min_W \max_{i<j} |\langle w_i, w_j \rangle|$, or without the bars
    if `signed`.

    A local optimum, the best of `restarts` starts (every second one symmetric: images of a few directions under a
    rotation), of `kicks` attempts to leave it for a better one, and of the constructions of this folder that hold at
    least n directions in R^d: an upper bound on the best possible. Below it, `theory.best_lower_bound(n, d)` says what
    is impossible. Up to n (d - 1) = 600 the result is polished to a local optimum to about 10^-12 for rigid packings;
    beyond, the last p leaves it some 10^-3 above one. Cost per restart and step O(n^2 d); n = 50, d = 8 takes a minute.

    Args:
        n: number of atoms, at least 2.
        d: dimension, at least 1.
        restarts: starts, at least 0. More starts, better basins, especially for n much above d.
        kicks: attempts to improve the best packing, at least 0: some atoms are moved at random or put into holes.
        seed: fixes the starts.
        signed: pack directions instead of lines: opposite atoms are then as far apart as can be.
        known: consider the constructions too. Switch off to study the optimiser.
        dtype: of the atoms; the optimisation runs in float64.

    Returns:
        A dictionary of n unit atoms.

    Raises:
        ValueError: if n < 2, d < 1, or there is nothing to start from.

    Source:
        Conway, Hardin and Sloane, "Packing lines, planes, etc.: packings in Grassmannian spaces", 1996, whose tables it
        reproduces in small dimensions.

    Example:
        >>> W = packed(n=7, d=3, restarts=4)
        >>> float((W.atoms @ W.atoms.T).fill_diagonal_(0).abs().max())     # the best there is, 1/sqrt(3)
        0.57735...
    """
    check_whole("packed", n=n, d=d, restarts=restarts, kicks=kicks)
    if n < 2 or d < 1:
        raise ValueError(f"packed: n must be at least 2 and d at least 1; got n = {n}, d = {d}.")
    if restarts < 0 or (restarts == 0 and not known):
        raise ValueError(f"packed: restarts = {restarts} leaves nothing to start from. Use restarts >= 1.")
    if kicks < 0:
        raise ValueError(f"packed: kicks must be at least 0; got {kicks}.")
    atoms = _closed_form(n, d, signed) if known else None
    if atoms is None:
        atoms = _search(n, d, restarts, kicks, seed, signed, known)
    return Dictionary(torch.from_numpy(np.ascontiguousarray(atoms)).to(dtype))


def _search(n: int, d: int, restarts: int, kicks: int, seed: int, signed: bool, known: bool) -> np.ndarray:
    generator = np.random.default_rng(seed)
    polished = n * (d - 1) <= POLISHED_SIZE and d > 1
    # No packing is below Welch's bound: at it, there is nothing left to look for.
    goal = -1.0 if signed or n <= d else math.sqrt((n - d) / (d * (n - 1))) + 1e-12

    def settled(atoms: np.ndarray, target: float = math.inf) -> np.ndarray:
        return _polish(atoms, signed, target) if polished else atoms

    found = []
    for start in range(restarts):
        if start % 2:
            found.append(_descend(_symmetric(generator, n, d), signed, COARSE[1:]))
        else:
            found.append(_descend(_unit(generator.standard_normal((n, d))), signed, COARSE))
    found.sort(key=lambda atoms: _largest(atoms, signed))
    # Descent ends within about ln(n^2)/p of its optimum: only starts that close to the best can still win.
    reach = _largest(found[0], signed) + 2 * math.log(n) / COARSE[-1] if found else 0.0
    found = [settled(_descend(atoms, signed, FINE)) for atoms in found[:4] if _largest(atoms, signed) <= reach]
    if known:
        found += _constructed(n, d, signed)
    if not found:
        found = [settled(_descend(_unit(generator.standard_normal((n, d))), signed, (*COARSE, *FINE)))]
    best = min(found, key=lambda atoms: _largest(atoms, signed))
    for _ in range(kicks):
        lowest = _largest(best, signed)
        if lowest <= goal:
            break
        moved, gentle = _kicked(generator, best, signed)
        if not (gentle and polished and n * (d - 1) <= KICKED_SIZE):
            moved = _descend(moved, signed, (*KICKED, *FINE))
            if _largest(moved, signed) > lowest + 2 * math.log(n) / FINE[-1]:
                continue
        moved = settled(moved, lowest)
        if _largest(moved, signed) < lowest:
            best = moved
    return best


def _symmetric(generator: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Images of random directions under the powers of a rotation of random order; left-over atoms are random.

    Descent keeps the symmetry, so it searches a space that is smaller by the order: many of the best packings known
    have such a symmetry, and random starts rarely find them for n much above d.
    """
    order = int(generator.integers(2, n + 1))
    angles = 2 * math.pi * generator.integers(0, order, size=d // 2) / order
    # For lines the last power may also be -1.
    angles += math.pi / order * generator.integers(2)
    rotation = np.zeros((d, d))
    for plane, angle in enumerate(angles):
        turn = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        rotation[2 * plane : 2 * plane + 2, 2 * plane : 2 * plane + 2] = turn
    if d % 2:
        rotation[-1, -1] = generator.choice([-1.0, 1.0])
    atoms = generator.standard_normal((n, d))
    for first in range(0, n - order + 1, order):
        for image in range(first + 1, first + order):
            atoms[image] = rotation @ atoms[image - 1]
    # Atoms on the axis of the rotation coincide with their images, where no gradient could part them.
    return _unit(_unit(atoms) + 1e-6 * generator.standard_normal((n, d)))


def _kicked(generator: np.random.Generator, atoms: np.ndarray, signed: bool) -> tuple[np.ndarray, bool]:
    """The packing with all atoms moved, or those on one side, or a few put into holes; and whether it keeps shape."""
    n, d = atoms.shape
    kind = int(generator.integers(3))
    if kind == 0:
        size = 10 ** generator.uniform(-2.0, -0.8)
        return _unit(atoms + size * generator.standard_normal((n, d))), True
    near = atoms @ generator.standard_normal(d)
    order = np.argsort(-(near if signed else np.abs(near)))
    if kind == 1 and n > 2:
        held = order[: generator.integers(1, max(2, n // 2))]
        moved = atoms.copy()
        moved[held] += 10 ** generator.uniform(-1.5, -0.5) * generator.standard_normal((len(held), d))
        return _unit(moved), True
    kept = np.delete(atoms, order[: generator.integers(1, max(1, min(4, n // 4)) + 1)], axis=0)
    while len(kept) < n:
        trial = _unit(generator.standard_normal((300, d)))
        closeness = trial @ kept.T if len(kept) else np.zeros((300, 1))
        crowding = (closeness if signed else np.abs(closeness)).max(1)
        kept = np.vstack([kept, trial[crowding.argmin()]])
    if generator.integers(2):
        kept = _unit(kept + 0.1 * generator.random() / math.sqrt(d) * generator.standard_normal((n, d)))
    return kept, False


def _closed_form(n: int, d: int, signed: bool) -> np.ndarray | None:
    """Where the best possible is elementary: a basis, the simplex, lines or points of the circle, the
    cross-polytope."""
    double = torch.float64
    if n <= d and not signed:
        return np.eye(d)[:n]
    if signed and n <= d + 1:  # a smaller simplex in the first coordinates
        return np.pad(simplex(n - 1, dtype=double).atoms.numpy(), ((0, 0), (0, d - n + 1)))
    if signed and n <= 2 * d:
        return cross_polytope(d, dtype=double).atoms.numpy()[:n]
    if n == d + 1:
        return simplex(d, dtype=double).atoms.numpy()
    if d == 2:
        return polygon(n if signed else 2 * n, dtype=double).atoms.numpy()[:n]
    if signed:
        return None
    # At Welch's or Levenshtein's bound: nothing to search for.
    if (n, d) in OPTIMAL_ROOTS:
        return roots(OPTIMAL_ROOTS[n, d], dtype=double).atoms.numpy()
    if d in (16, 64) and n == d * d // 2 + d:
        return mutually_unbiased(d, dtype=double).atoms.numpy()
    try:
        return equiangular(n, d, dtype=double).atoms.numpy()
    except ValueError:  # most pairs do not exist
        return None


def _constructed(n: int, d: int, signed: bool) -> list[np.ndarray]:
    """The first n atoms of each construction that has enough of them in R^d; all are less coherent than their parts."""
    lines = [frame for frame in _known_lines(d) if (2 if signed else 1) * frame.n >= n]
    found = []
    for frame in lines:
        atoms = frame.atoms.numpy()
        if signed:
            atoms = np.stack([atoms, -atoms], axis=1).reshape(-1, d)
        found.append(atoms[:n])
    return found


def _known_lines(d: int) -> Iterator[Dictionary]:
    double = torch.float64
    for n in (2 * d, *((16, 28, 276, 64, 120) if d in (6, 7, 10, 21, 23, 28, 35) else ())):
        if n > d + 1:
            try:
                yield equiangular(n, d, dtype=double)
            except ValueError:  # most pairs do not exist
                continue
    if d >= 3:
        yield roots(f"D{d}", dtype=double)
    if d in (6, 7, 8):
        yield roots(f"E{d}", dtype=double)
    if d in (4, 16, 64):
        yield mutually_unbiased(d, dtype=double)
    if d in (8, 32):
        yield gold(d, dtype=double)


def _unit(atoms: np.ndarray) -> np.ndarray:
    return atoms / np.linalg.norm(atoms, axis=1, keepdims=True)


def _largest(atoms: np.ndarray, signed: bool) -> float:
    gram = atoms @ atoms.T
    np.fill_diagonal(gram, -2.0 if signed else 0.0)
    return float(gram.max() if signed else np.abs(gram).max())


def _descend(atoms: np.ndarray, signed: bool, sharpness: tuple[float, ...]) -> np.ndarray:
    """L-BFGS on the smoothed maximum, at one sharpness after the other; atoms are normalised inside."""
    n, d = atoms.shape

    def smoothed(flat: np.ndarray, p: float) -> tuple[float, np.ndarray]:
        raw = flat.reshape(n, d)
        norms = np.sqrt((raw * raw).sum(1, keepdims=True))
        w = raw / norms
        gram = w @ w.T
        weights = gram.copy() if signed else np.abs(gram)
        weights.flat[:: n + 1] = -np.inf
        top = weights.max()
        weights -= top
        weights *= p
        np.exp(weights, out=weights)
        total = weights.sum()
        weights /= total
        if not signed:
            weights *= np.sign(gram)
        slope = 2 * weights @ w  # each pair is counted twice
        slope -= (slope * w).sum(1, keepdims=True) * w
        return top + math.log(total) / p, (slope / norms).ravel()

    for p in sharpness:
        result = minimize(
            smoothed, atoms.ravel(), args=(p,), jac=True, method="L-BFGS-B", options={"maxiter": 400, "maxcor": 20}
        )
        atoms = _unit(result.x.reshape(n, d))
    return atoms


def _polish(atoms: np.ndarray, signed: bool, target: float = math.inf) -> np.ndarray:
    """Linear programs in a shrinking or growing trust region, then Newton's method on the pairs at the maximum.

    Gives up early where ten more steps as good as the next one promises to be would not reach the target.
    """
    best, radius = _largest(atoms, signed), 0.01
    for _ in range(80):
        step, promised = _program(atoms, best, radius, signed)
        if promised <= 1e-15:
            break
        if best - 10 * promised > target:
            return atoms
        moved = _unit(atoms + step)
        gained = best - _largest(moved, signed)
        if gained > 0:
            atoms, best = moved, best - gained
        # The promise is first order, curvature is second: a broken promise means too long a step.
        if gained < 0.25 * promised:
            radius *= 0.25
        elif gained > 0.75 * promised:
            radius = min(2 * radius, 0.1)
        if radius < 1e-12:
            break
    for window in (1e-6, 1e-8, 1e-10):
        settled = _settle(atoms, best, window, signed)
        if _largest(settled, signed) < best:
            atoms, best = settled, _largest(settled, signed)
    return atoms


def _program(atoms: np.ndarray, best: float, radius: float, signed: bool) -> tuple[np.ndarray, float]:
    """Tangent step u of entries within `radius` that lowers the linearised maximum most, and by how much."""
    n, d = atoms.shape
    gram = atoms @ atoms.T
    size = gram if signed else np.abs(gram)
    # A pair moves by at most 2 sqrt(d) radius: those further below the maximum cannot become active.
    i, j = np.nonzero(np.triu(size > best - 4 * math.sqrt(d) * radius, 1))
    sign = np.ones(len(i)) if signed else np.sign(gram[i, j])
    tangents = _tangents(atoms)  # (n, d, d - 1)
    m = d - 1
    left = sign[:, None] * np.einsum("pdk,pd->pk", tangents[i], atoms[j])
    right = sign[:, None] * np.einsum("pdk,pd->pk", tangents[j], atoms[i])
    rows = np.repeat(np.arange(len(i)), m)
    columns = np.arange(m)
    # Unknowns: steps and decrease in units of the radius, so that the solver's tolerance shrinks with the step.
    matrix = csr_matrix(
        (
            np.concatenate([left.ravel(), right.ravel(), np.ones(len(i))]),
            (
                np.concatenate([rows, rows, np.arange(len(i))]),
                np.concatenate(
                    [
                        (i[:, None] * m + columns).ravel(),
                        (j[:, None] * m + columns).ravel(),
                        np.full(len(i), n * m),
                    ]
                ),
            ),
        ),
        shape=(len(i), n * m + 1),
    )
    cost = np.zeros(n * m + 1)
    cost[-1] = -1.0
    answer = linprog(
        cost,
        A_ub=matrix,
        b_ub=(best - size[i, j]) / radius,
        bounds=[(-1.0, 1.0)] * (n * m) + [(0.0, None)],
        method="highs",
    )
    if answer.x is None:
        return np.zeros_like(atoms), 0.0
    step = np.einsum("ndk,nk->nd", tangents, answer.x[:-1].reshape(n, m)) * radius
    return step, float(answer.x[-1]) * radius


def _settle(atoms: np.ndarray, best: float, window: float, signed: bool) -> np.ndarray:
    """Gauss-Newton on s_ij <w_i, w_j> = t for all pairs within `window` of the maximum, t unknown too."""
    n, d = atoms.shape
    m = d - 1
    gram = atoms @ atoms.T
    size = gram if signed else np.abs(gram)
    i, j = np.nonzero(np.triu(size > best - window, 1))
    sign = np.ones(len(i)) if signed else np.sign(gram[i, j])
    rows = np.arange(len(i))
    for _ in range(4):
        tangents = _tangents(atoms)
        value = sign * np.einsum("pd,pd->p", atoms[i], atoms[j])
        slope = np.zeros((len(i), n * m + 1))
        for k in range(m):
            slope[rows, i * m + k] += sign * np.einsum("pd,pd->p", tangents[i, :, k], atoms[j])
            slope[rows, j * m + k] += sign * np.einsum("pd,pd->p", tangents[j, :, k], atoms[i])
        slope[:, -1] = -1.0
        target = value.mean()
        move = np.linalg.lstsq(slope, target - value, rcond=1e-10)[0]
        atoms = _unit(atoms + np.einsum("ndk,nk->nd", tangents, move[:-1].reshape(n, m)))
    return atoms


def _tangents(atoms: np.ndarray) -> np.ndarray:
    """For each atom w an orthonormal basis of what is orthogonal to it: a Householder reflection's other columns."""
    mirror = atoms.copy()
    mirror[:, 0] += np.where(atoms[:, 0] >= 0, 1.0, -1.0)
    mirror /= np.linalg.norm(mirror, axis=1, keepdims=True)
    reflections = np.eye(atoms.shape[1]) - 2 * mirror[:, :, None] * mirror[:, None, :]
    return reflections[:, :, 1:]
