"""Shortest vectors of root lattices and of the Leech lattice: line systems that are provably the largest of their
kind."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from ..core import Dictionary


def roots(name: str, *, both_signs: bool = False, dtype: torch.dtype = torch.float32) -> Dictionary:
    r"""Roots of A_d, D_d, E_6, E_7 or E_8: lines with cosines 0 and $\pm 1/2$ only.

    Lines: A_d d(d+1)/2, D_d d(d-1), E6 36, E7 63, E8 120. The last three are the most lines at coherence 1/2 there
    can be, and E8 with both signs is the kissing configuration of 240 spheres.

    Args:
        name: letter and rank, such as "D4" or "E8".
        both_signs: give each line twice, as w and -w.
        dtype: of the atoms.

    Returns:
        A dictionary of unit atoms in R^d, d the rank.

    Raises:
        ValueError: if the name is not a letter A, D (rank at least 2) or E (rank 6, 7, 8) with a rank.

    Source:
        Conway and Sloane, "Sphere packings, lattices and groups", 1988, chapter 4.

    Example:
        >>> roots("E6")
        Dictionary(n=36, d=6, float32)
    """
    letter, rank = name[:1], int(name[1:]) if name[1:].isdigit() else 0
    if letter == "A" and rank >= 1:
        pairs = list(itertools.combinations(range(rank + 1), 2))
        lines = np.zeros((len(pairs), rank + 1))
        for row, (i, j) in enumerate(pairs):
            lines[row, i], lines[row, j] = 1.0, -1.0
    elif letter == "D" and rank >= 2:
        lines = _pairs(rank)
    elif letter == "E" and rank in (6, 7, 8):
        lines = _e8()
        # E7 is what is orthogonal to a root, E6 what is orthogonal to two roots at 120 degrees.
        first, second = np.eye(8)[0] + np.eye(8)[1], np.eye(8)[2] - np.eye(8)[0]
        if rank <= 7:
            lines = lines[lines @ first == 0]
        if rank == 6:
            lines = lines[lines @ second == 0]
    else:
        raise ValueError(f"roots: no root system is named {name!r}. Use A1, A2, ..., D2, D3, ..., E6, E7 or E8.")
    atoms = in_own_dimension(lines / np.linalg.norm(lines, axis=1, keepdims=True), rank)
    return _dictionary(atoms, both_signs, dtype)


def e8(*, both_signs: bool = False, dtype: torch.dtype = torch.float32) -> Dictionary:
    r"""120 lines in R^8 at coherence 1/2: $\pm e_i \pm e_j$ and $\frac12(\pm1, \dots, \pm1)$ with an even number of
    minuses.

    Reaches Levenshtein's bound; its mean powers of cosines are those of the sphere up to degree 6 (a 7-design).

    Args:
        both_signs: give each line twice, as w and -w (240 atoms, the kissing configuration).
        dtype: of the atoms.

    Returns:
        A dictionary of 120 (or 240) unit atoms in R^8.

    Source:
        Conway and Sloane, "Sphere packings, lattices and groups", 1988, chapter 4.

    Example:
        >>> e8()
        Dictionary(n=120, d=8, float32)
    """
    return _dictionary(_e8() / np.sqrt(2), both_signs, dtype)


def leech(*, both_signs: bool = False, dtype: torch.dtype = torch.float32) -> Dictionary:
    r"""98 280 lines in R^24 at coherence 1/2: the shortest vectors of the Leech lattice.

    Shapes, over $\sqrt{32}$: $(\pm 2^8, 0^{16})$ on octads of the Golay code, $(\mp 3, \pm 1^{23})$,
    $(\pm 4^2, 0^{22})$. Cosines are 0, ±1/4 and ±1/2 only. 9 MB in float32, built in about a second.

    Args:
        both_signs: give each line twice, as w and -w (196 560 atoms, the kissing configuration).
        dtype: of the atoms.

    Returns:
        A dictionary of 98 280 (or 196 560) unit atoms in R^24.

    Source:
        Conway and Sloane, "Sphere packings, lattices and groups", 1988, chapter 4, section 11.

    Example:
        >>> leech()
        Dictionary(n=98280, d=24, float32)
    """
    vectors = leech_vectors()
    # One of each pair of opposites: the one whose first nonzero entry is positive.
    leading = vectors[np.arange(len(vectors)), (vectors != 0).argmax(1)]
    return _dictionary(vectors[leading > 0] / np.sqrt(32), both_signs, dtype)


def golay_code() -> np.ndarray:
    """The 4 096 words of the extended binary Golay code of length 24: a quadratic-residue code and its parity bit."""
    residues = {i * i % 23 for i in range(1, 23)}
    # Idempotent generator: the polynomial with ones at the non-residues (weight 11 plus the parity bit gives 12).
    generator = np.array([1 if i not in residues and i != 0 else 0 for i in range(23)])
    rows = np.array([np.roll(generator, shift) for shift in range(23)])
    rows = np.vstack([np.hstack([rows, rows.sum(1, keepdims=True) % 2]), np.ones((1, 24), dtype=rows.dtype)])
    independent: list[np.ndarray] = []
    for row in rows:
        for word in independent:
            if row[(word != 0).argmax()]:
                row = (row + word) % 2
        if row.any():
            independent.append(row)
    bits = (np.arange(2 ** len(independent))[:, None] >> np.arange(len(independent))) & 1
    return (bits @ np.array(independent)) % 2


def leech_vectors() -> np.ndarray:
    """All 196 560 shortest vectors, as whole numbers of squared length 32."""
    code = golay_code()
    octads = np.array([np.flatnonzero(word) for word in code if word.sum() == 8])
    even = np.array([signs for signs in itertools.product((1, -1), repeat=8) if np.prod(signs) == 1])
    twos = np.zeros((len(octads), len(even), 24), dtype=np.int8)
    for row, octad in enumerate(octads):
        twos[row][:, octad] = 2 * even
    # (-3, 1^23) with the signs changed on a word of the code.
    signs = (1 - 2 * code).astype(np.int8)
    threes = np.repeat(signs[:, None, :], 24, axis=1)
    threes[:, np.arange(24), np.arange(24)] *= -3
    fours = np.vstack([4 * _pairs(24), -4 * _pairs(24)]).astype(np.int8)
    return np.vstack([twos.reshape(-1, 24), threes.reshape(-1, 24), fours])


def in_own_dimension(atoms: np.ndarray, d: int) -> np.ndarray:
    """The same Gram matrix in d coordinates, d the rank; unchanged where the atoms already have d coordinates."""
    if atoms.shape[1] == d:
        return atoms
    _, _, axes = np.linalg.svd(atoms, full_matrices=False)
    return atoms @ axes[:d].T


def _pairs(d: int) -> np.ndarray:
    """Lines e_i + e_j and e_i - e_j."""
    pairs = list(itertools.combinations(range(d), 2))
    lines = np.zeros((2 * len(pairs), d))
    for row, (i, j) in enumerate(pairs):
        lines[2 * row : 2 * row + 2, i] = 1.0
        lines[2 * row, j], lines[2 * row + 1, j] = 1.0, -1.0
    return lines


def _e8() -> np.ndarray:
    """Lines of squared length 2; the spinors with first sign positive stand for their opposites."""
    spinors = [(1.0, *signs) for signs in itertools.product((1.0, -1.0), repeat=7) if np.prod(signs) == 1]
    return np.vstack([_pairs(8), np.array(spinors) / 2])


def _dictionary(lines: np.ndarray, both_signs: bool, dtype: torch.dtype) -> Dictionary:
    atoms = np.stack([lines, -lines], axis=1).reshape(-1, lines.shape[1]) if both_signs else lines
    return Dictionary(torch.from_numpy(np.ascontiguousarray(atoms)).to(dtype))
