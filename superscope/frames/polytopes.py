"""Vertices of regular and nearly regular bodies: the shapes that small models fold their features into."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch

from ..core import Dictionary
from .sizes import check_whole

GOLDEN = (1 + math.sqrt(5)) / 2


def simplex(d: int, *, dtype: torch.dtype = torch.float32) -> Dictionary:
    r"""d + 1 atoms in R^d with all cosines $-1/d$: digon, triangle, tetrahedron, and so on.

    Equiangular and tight; no d + 1 directions are farther apart, signed or not.

    Args:
        d: dimension, at least 1.
        dtype: of the atoms.

    Returns:
        A dictionary of d + 1 unit atoms.

    Raises:
        ValueError: if d < 1.

    Source:
        Coxeter, "Regular polytopes", 1973.

    Example:
        >>> simplex(d=3)
        Dictionary(n=4, d=3, float32)
    """
    check_whole("simplex", d=d)
    if d < 1:
        raise ValueError(f"simplex: d must be at least 1; got {d}.")
    # Helmert's matrix: d orthonormal rows orthogonal to (1, ..., 1); its columns, stretched, are the vertices.
    rows = np.zeros((d, d + 1))
    for j in range(1, d + 1):
        rows[j - 1, :j] = 1 / math.sqrt(j * (j + 1))
        rows[j - 1, j] = -j / math.sqrt(j * (j + 1))
    return _dictionary(rows.T * math.sqrt((d + 1) / d), dtype)


def basis(d: int, *, dtype: torch.dtype = torch.float32) -> Dictionary:
    r"""d orthonormal atoms: one dimension for each feature, no superposition.

    Args:
        d: dimension, at least 1.
        dtype: of the atoms.

    Returns:
        A dictionary of d unit atoms.

    Raises:
        ValueError: if d < 1.

    Source:
        The definition.

    Example:
        >>> basis(3).W.tolist()[0]
        [1.0, 0.0, 0.0]
    """
    check_whole("basis", d=d)
    if d < 1:
        raise ValueError(f"basis: d must be at least 1; got {d}.")
    return _dictionary(np.eye(d), dtype)


def cross_polytope(d: int, *, dtype: torch.dtype = torch.float32) -> Dictionary:
    r"""2d atoms $\pm e_i$: d antipodal pairs; square, octahedron, and so on.

    The most directions with no positive cosine. As lines they are only d, and the coherence is 1.

    Args:
        d: dimension, at least 1.
        dtype: of the atoms.

    Returns:
        A dictionary of 2d unit atoms, each followed by its opposite.

    Raises:
        ValueError: if d < 1.

    Source:
        Rankin, "The closest packing of spherical caps in n dimensions", 1955.

    Example:
        >>> cross_polytope(2).atoms.tolist()
        [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]
    """
    check_whole("cross_polytope", d=d)
    if d < 1:
        raise ValueError(f"cross_polytope: d must be at least 1; got {d}.")
    atoms = np.zeros((2 * d, d))
    atoms[np.arange(0, 2 * d, 2), np.arange(d)] = 1.0
    atoms[np.arange(1, 2 * d, 2), np.arange(d)] = -1.0
    return _dictionary(atoms, dtype)


def polygon(k: int, *, dtype: torch.dtype = torch.float32) -> Dictionary:
    r"""k atoms in the plane at angles $2 \pi j / k$. The pentagon is `polygon(5)`: cosines .309 and -.809.

    For odd k the lines are the best packing of k lines in the plane, coherence cos(pi/k); for even k they come in
    antipodal pairs.

    Args:
        k: number of vertices, at least 3.
        dtype: of the atoms.

    Returns:
        A dictionary of k unit atoms in R^2.

    Raises:
        ValueError: if k < 3.

    Source:
        The definition.

    Example:
        >>> polygon(5)
        Dictionary(n=5, d=2, float32)
    """
    check_whole("polygon", k=k)
    if k < 3:
        raise ValueError(f"polygon: k must be at least 3; got {k}. Two opposite atoms are simplex(d=1).")
    angles = 2 * math.pi * np.arange(k) / k
    return _dictionary(np.stack([np.cos(angles), np.sin(angles)], axis=1), dtype)


def square_antiprism(*, dtype: torch.dtype = torch.float32) -> Dictionary:
    r"""8 atoms in R^3: squares at heights $\pm 1/\sqrt3$, one turned by 45 degrees.

    The height that makes the frame tight (each atom then has feature dimensionality 3/8); the antiprism with equal
    edges and the best packing of 8 points are a little flatter.

    Args:
        dtype: of the atoms.

    Returns:
        A dictionary of 8 unit atoms in R^3.

    Source:
        Elhage et al., "Toy models of superposition", 2022, where toy models find it.

    Example:
        >>> square_antiprism()
        Dictionary(n=8, d=3, float32)
    """
    angles = math.pi / 4 * np.concatenate([np.arange(0, 8, 2), np.arange(1, 8, 2)])
    radius, height = math.sqrt(2 / 3), math.sqrt(1 / 3)
    heights = np.repeat([height, -height], 4)
    return _dictionary(np.stack([radius * np.cos(angles), radius * np.sin(angles), heights], axis=1), dtype)


def cube(d: int = 3, *, dtype: torch.dtype = torch.float32) -> Dictionary:
    r"""$2^d$ atoms $(\pm 1, \dots, \pm 1)/\sqrt d$.

    Args:
        d: dimension, from 1 to 20.
        dtype: of the atoms.

    Returns:
        A dictionary of 2^d unit atoms.

    Raises:
        ValueError: if d is out of range.

    Source:
        Coxeter, "Regular polytopes", 1973.

    Example:
        >>> cube()
        Dictionary(n=8, d=3, float32)
    """
    check_whole("cube", d=d)
    if not 1 <= d <= 20:
        raise ValueError(f"cube: d must be from 1 to 20, for 2^d atoms; got {d}.")
    return _dictionary(np.array(list(itertools.product((1.0, -1.0), repeat=d))) / math.sqrt(d), dtype)


def icosahedron(*, dtype: torch.dtype = torch.float32) -> Dictionary:
    r"""12 atoms in R^3, cyclic shifts of $(0, \pm 1, \pm \varphi)$: 6 lines with cosines $\pm 1/\sqrt5$.

    Args:
        dtype: of the atoms.

    Returns:
        A dictionary of 12 unit atoms in R^3, each followed by its opposite.

    Source:
        Coxeter, "Regular polytopes", 1973.

    Example:
        >>> icosahedron()
        Dictionary(n=12, d=3, float32)
    """
    half = [np.roll([0.0, 1.0, sign * GOLDEN], shift) for shift in range(3) for sign in (1, -1)]
    return _dictionary(_both_signs(np.array(half)) / math.sqrt(1 + GOLDEN**2), dtype)


def dodecahedron(*, dtype: torch.dtype = torch.float32) -> Dictionary:
    r"""20 atoms in R^3: the cube and the cyclic shifts of $(0, \pm 1/\varphi, \pm \varphi)$.

    Args:
        dtype: of the atoms.

    Returns:
        A dictionary of 20 unit atoms in R^3, each followed by its opposite.

    Source:
        Coxeter, "Regular polytopes", 1973.

    Example:
        >>> dodecahedron()
        Dictionary(n=20, d=3, float32)
    """
    corners = [np.array([1.0, a, b]) for a in (1, -1) for b in (1, -1)]
    shifts = [np.roll([0.0, 1 / GOLDEN, sign * GOLDEN], shift) for shift in range(3) for sign in (1, -1)]
    return _dictionary(_both_signs(np.array(corners + shifts)) / math.sqrt(3), dtype)


def polytope(name: str, *, dtype: torch.dtype = torch.float32) -> Dictionary:
    r"""One of the named bodies of `POLYTOPES`, vertices as atoms.

    Args:
        name: such as "digon", "triangle", "tetrahedron", "pentagon", "square antiprism", "icosahedron".
        dtype: of the atoms.

    Returns:
        A dictionary of unit atoms.

    Raises:
        ValueError: if the name is unknown; the known ones are listed.

    Source:
        That of the function for each.

    Example:
        >>> polytope("pentagon")
        Dictionary(n=5, d=2, float32)
    """
    if name not in POLYTOPES:
        raise ValueError(f"polytope: no body is named {name!r}. Known: {', '.join(POLYTOPES)}.")
    match name:
        case "digon" | "triangle" | "tetrahedron":
            return simplex(POLYTOPES.index(name) + 1, dtype=dtype)
        case "square" | "octahedron":
            return cross_polytope(2 if name == "square" else 3, dtype=dtype)
        case "pentagon" | "hexagon" | "heptagon" | "octagon":
            return polygon({"pentagon": 5, "hexagon": 6, "heptagon": 7, "octagon": 8}[name], dtype=dtype)
        case "square antiprism":
            return square_antiprism(dtype=dtype)
        case "cube":
            return cube(dtype=dtype)
        case "icosahedron":
            return icosahedron(dtype=dtype)
        case _:
            return dodecahedron(dtype=dtype)


POLYTOPES = (
    "digon",
    "triangle",
    "tetrahedron",
    "square",
    "pentagon",
    "hexagon",
    "heptagon",
    "octagon",
    "octahedron",
    "square antiprism",
    "cube",
    "icosahedron",
    "dodecahedron",
)
"""Names that `polytope` knows; the first three are simplices."""


def _both_signs(half: np.ndarray) -> np.ndarray:
    return np.stack([half, -half], axis=1).reshape(-1, half.shape[1])


def _dictionary(atoms: np.ndarray, dtype: torch.dtype) -> Dictionary:
    return Dictionary(torch.from_numpy(np.ascontiguousarray(atoms)).to(dtype))
