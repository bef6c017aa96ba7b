"""Equiangular tight frames: all cosines equal in absolute value, at the Welch bound, so no frame is less coherent."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch

from ..core import Dictionary
from .fields import addition, multiplication, prime_power
from .lattices import in_own_dimension, leech_vectors
from .polytopes import simplex
from .sizes import check_whole


def equiangular(n: int, d: int, *, dtype: torch.dtype = torch.float32) -> Dictionary:
    r"""n lines in R^d with $|\langle w_i, w_j \rangle| = \sqrt{\frac{n-d}{d(n-1)}}$, by whichever construction gives
    them.

    Few pairs (n, d) exist: at most d(d+1)/2 lines, and for n other than d + 1 and 2d both $\sqrt{d(n-1)/(n-d)}$ and
    $\sqrt{(n-d)(n-1)/d}$ must be odd numbers. Built here: simplices, Paley's n = 2d, Steiner systems of pairs
    (6, 16), (28, 64), (120, 256) and triples (7, 28), (35, 120), (155, 496), the 276 lines in R^23, and complements
    of all of these such as (10, 16) and (21, 28), pairs being (d, n).

    Args:
        n: number of atoms, more than d.
        d: dimension, at least 1.
        dtype: of the atoms.

    Returns:
        A dictionary of n unit atoms, tight and equiangular.

    Raises:
        ValueError: if no construction is known here for (n, d).

    Source:
        Sustik, Tropp, Dhillon and Heath, "On the existence of equiangular tight frames", 2007, and those of `paley`,
        `steiner`, `lines_276` and `complement`.

    Example:
        >>> equiangular(n=28, d=7)
        Dictionary(n=28, d=7, float32)
    """
    check_whole("equiangular", n=n, d=d)
    if d < 1 or n <= d:
        raise ValueError(f"equiangular: n must exceed d, and d be at least 1; got n = {n}, d = {d}.")
    frame = _build(n, d)
    if frame is None and n - d < d:
        other = _build(n, n - d)
        frame = None if other is None else complement(other)
    if frame is None:
        raise ValueError(
            f"equiangular: no equiangular tight frame of n = {n} atoms in d = {d} dimensions is built here. Try "
            f"packed(n={n}, d={d}), or one of (n, d) = (d + 1, d), (6, 3), (16, 6), (28, 7), (16, 10), (276, 23)."
        )
    return Dictionary(frame.atoms.to(dtype))


def paley(d: int, *, dtype: torch.dtype = torch.float32) -> Dictionary:
    r"""2d lines in R^d from a conference matrix: Gram matrix $I + C/\sqrt{2d-1}$, for 2d - 1 a prime power 1 mod 4.

    C is Paley's: $\chi(a - b)$, the quadratic character of GF(2d - 1), bordered by ones. d = 3 (the icosahedron), 5,
    7, 9, 13, 15, 19, 21, 25, 27, 31, ...

    Args:
        d: dimension.
        dtype: of the atoms.

    Returns:
        A dictionary of 2d unit atoms.

    Raises:
        ValueError: if 2d - 1 is not a prime power that leaves 1 modulo 4.

    Source:
        Paley, "On orthogonal matrices", 1933. van Lint and Seidel, "Equilateral point sets in elliptic geometry", 1966.

    Example:
        >>> paley(3)
        Dictionary(n=6, d=3, float32)
    """
    check_whole("paley", d=d)
    q = 2 * d - 1
    power = prime_power(q) if q > 1 else None
    if power is None or q % 4 != 1:
        raise ValueError(
            f"paley: 2d - 1 must be a prime power that leaves 1 modulo 4; d = {d} gives {q}. "
            "Use d = 3, 5, 7, 9, 13, 15, 19, 21, ..."
        )
    difference, product = addition(*power, sign=-1), multiplication(*power)
    character = -np.ones(q)
    character[np.unique(product.diagonal())] = 1
    character[0] = 0
    conference = np.ones((q + 1, q + 1))
    conference[0, 0] = 0
    conference[1:, 1:] = character[difference]
    return _from_gram(np.eye(q + 1) + conference / math.sqrt(q), d, dtype)


def steiner(points: int, block: int, *, dtype: torch.dtype = torch.float32) -> Dictionary:
    r"""From a Steiner system of v points: $d = v r / k$, $n = v (r + 1)$, coherence 1/r, each point on r blocks of k.

    Each point gives r + 1 atoms: the rows of a Hadamard matrix without its first column, laid on the r blocks
    through the point. Atoms of one point meet at -1/r, atoms of two points in the one block they share.
    Pairs (k = 2, v = 4, 8, 16, ...) and the triples that are lines over GF(2) (k = 3, v = 7, 15, 31, ...) have r + 1 a
    power of 2.

    Args:
        points: v.
        block: k, 2 or 3.
        dtype: of the atoms.

    Returns:
        A dictionary of v (r + 1) unit atoms, sparse: r nonzeros each.

    Raises:
        ValueError: if v and k are not of the forms above, or v exceeds 63.

    Source:
        Fickus, Mixon and Tremain, "Steiner equiangular tight frames", 2012, Theorem 1.

    Example:
        >>> steiner(points=7, block=3)
        Dictionary(n=28, d=7, float32)
    """
    check_whole("steiner", points=points, block=block)
    v = points
    if block == 2 and 4 <= v <= 63 and v & (v - 1) == 0:
        blocks = list(itertools.combinations(range(v), 2))
    elif block == 3 and 7 <= v <= 63 and v & (v + 1) == 0:
        # Points 1 ... v as nonzero binary vectors; lines are the triples that sum to 0.
        blocks = [(a - 1, b - 1, (a ^ b) - 1) for a in range(1, v + 1) for b in range(a + 1, v + 1) if a ^ b > b]
    else:
        raise ValueError(
            f"steiner: no system of {v} points in blocks of {block} is built here. "
            "Use block=2 with points 4, 8, 16 or 32, or block=3 with points 7, 15, 31 or 63."
        )
    r = sum(0 in members for members in blocks)
    hadamard = np.ones((1, 1))
    while len(hadamard) < r + 1:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    atoms = np.zeros((v, r + 1, len(blocks)))
    for point in range(v):
        through = [row for row, members in enumerate(blocks) if point in members]
        atoms[point][:, through] = hadamard[:, 1:] / math.sqrt(r)
    return Dictionary(torch.from_numpy(atoms.reshape(v * (r + 1), len(blocks))).to(dtype))


def lines_276(*, dtype: torch.dtype = torch.float32) -> Dictionary:
    r"""276 lines in R^23 at coherence 1/5, the most there can be: $x - v/2$ for pairs x + y = v of Leech vectors.

    v is a vector of the Leech lattice of type 3 (squared length 6, in the scale where the shortest have 4); 552
    shortest vectors x have $\langle x, v \rangle = \langle v, v \rangle / 2$, in 276 pairs x, v - x.

    Args:
        dtype: of the atoms.

    Returns:
        A dictionary of 276 unit atoms in R^23.

    Source:
        Lemmens and Seidel, "Equiangular lines", 1973. Conway and Sloane, "Sphere packings, lattices and groups", 1988.

    Example:
        >>> lines_276()
        Dictionary(n=276, d=23, float32)
    """
    vectors = leech_vectors().astype(np.int64)
    v = np.array([5, *([1] * 23)])  # squared length 48 = 3 x 16; (-3, 1^23) + (8, 0^23) puts it in the lattice
    halves = 2 * vectors[vectors @ v == 24] - v  # 2 (x - v/2), orthogonal to v
    leading = halves[np.arange(len(halves)), (halves != 0).argmax(1)]
    lines = halves[leading > 0].astype(np.float64)
    return Dictionary(
        torch.from_numpy(in_own_dimension(lines / np.linalg.norm(lines, axis=1, keepdims=True), 23)).to(dtype)
    )


def complement(frame: Dictionary) -> Dictionary:
    r"""Naimark's complement: n atoms in R^{n-d} with Gram matrix proportional to $I - \frac dn G$.

    Of a tight frame of unit atoms; the complement is tight too, and equiangular if the frame is.

    Args:
        frame: a tight frame of n > d unit atoms.

    Returns:
        A dictionary of n unit atoms in R^{n-d}, in the frame's dtype.

    Raises:
        ValueError: if the frame is not tight, its atoms not of norm 1, or n <= d.

    Source:
        Casazza and Kutyniok (editors), "Finite frames", 2013, chapter 1 (Naimark's theorem).

    Example:
        >>> complement(equiangular(n=16, d=6))
        Dictionary(n=16, d=10, float32)
    """
    atoms = frame.atoms.detach().double().cpu().numpy()
    n, d = atoms.shape
    if n <= d:
        raise ValueError(f"complement: a frame of n = {n} atoms in d = {d} dimensions has none; n must exceed d.")
    tolerance = 1e-4 if frame.atoms.dtype != torch.float64 else 1e-9
    excess = np.abs(atoms.T @ atoms - n / d * np.eye(d)).max()
    if excess > tolerance * n / d or np.abs(np.linalg.norm(atoms, axis=1) - 1).max() > tolerance:
        raise ValueError(
            "complement: the frame must be tight with atoms of norm 1; "
            f"its frame operator is off n/d times the identity by {excess:.2g}."
        )
    gram = (np.eye(n) - d / n * atoms @ atoms.T) * n / (n - d)
    return _from_gram(gram, n - d, frame.atoms.dtype)


def _build(n: int, d: int) -> Dictionary | None:
    """The frame in float64, from the first family that has it."""
    double = torch.float64
    if n == d + 1:
        return simplex(d, dtype=double)
    if n == 2 * d and n > 2 and n % 4 == 2 and prime_power(n - 1):
        return paley(d, dtype=double)
    if (n, d) == (276, 23):
        return lines_276(dtype=double)
    for v in (4, 8, 16, 32):
        if (n, d) == (v * v, v * (v - 1) // 2):
            return steiner(v, 2, dtype=double)
    for v in (7, 15, 31, 63):
        if (n, d) == (v * (v + 1) // 2, v * (v - 1) // 6):
            return steiner(v, 3, dtype=double)
    return None


def _from_gram(gram: np.ndarray, d: int, dtype: torch.dtype) -> Dictionary:
    """Atoms whose Gram matrix is the given multiple of a projection of rank d."""
    values, axes = np.linalg.eigh(gram)
    atoms = axes[:, -d:] * np.sqrt(values[-d:])
    return Dictionary(torch.from_numpy(atoms / np.linalg.norm(atoms, axis=1, keepdims=True)).to(dtype))
