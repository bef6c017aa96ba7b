"""Several orthonormal bases side by side, as unlike each other as can be."""

from __future__ import annotations

import math

import numpy as np
import torch

from ..core import Dictionary
from .fields import trace_bits
from .sizes import check_whole


def mutually_unbiased(d: int, *, dtype: torch.dtype = torch.float32) -> Dictionary:
    r"""d/2 + 1 orthonormal bases with $|\langle w_i, w_j \rangle| = 1/\sqrt d$ across: d^2/2 + d lines, d = 4^m.

    Reaches the orthoplex bound, and Levenshtein's. The standard basis, then one basis of sign vectors
    $(-1)^{Q_s(v) + \langle u, v \rangle}/\sqrt d$ per quadratic form $Q_s$ of a Kerdock set: forms on GF(2)^{2m} whose
    differences all have full rank. 144 atoms at d = 16, 2 112 at 64, 33 024 at 256.

    Args:
        d: dimension, a power of 4 from 4 to 1 024.
        dtype: of the atoms.

    Returns:
        A dictionary of d^2/2 + d unit atoms, basis after basis.

    Raises:
        ValueError: if d is not a power of 4 in that range.

    Source:
        Calderbank, Cameron, Kantor and Seidel, "Z4-Kerdock codes, orthogonal spreads, and extremal Euclidean
        line-sets", 1997. Kerdock, "A class of low-rate nonlinear binary codes", 1972.

    Example:
        >>> mutually_unbiased(4)
        Dictionary(n=12, d=4, float32)
    """
    check_whole("mutually_unbiased", d=d)
    if d not in (4, 16, 64, 256, 1024):
        raise ValueError(f"mutually_unbiased: d must be 4, 16, 64, 256 or 1024; got {d}.")
    m = d.bit_length() - 2  # forms live on GF(2^m) x GF(2), m odd
    table, trace = trace_bits(m)
    half = 2**m
    x = np.arange(half)
    blocks = [np.eye(d)]
    hadamard = _hadamard(d)
    for s in range(half):
        sx = table[s, x]
        form, conjugate = np.zeros(half, dtype=int), sx
        for _ in range((m - 1) // 2):
            conjugate = table[conjugate, conjugate]
            form ^= trace[table[sx, conjugate]]  # Tr((s x)^(1 + 2^i))
        # The second half of the coordinates has a = 1, and a Tr(s x) added.
        signs = 1 - 2 * np.concatenate([form, form ^ trace[sx]])
        blocks.append(hadamard * signs / math.sqrt(d))
    return Dictionary(torch.from_numpy(np.vstack(blocks)).to(dtype))


def gold(d: int, *, dtype: torch.dtype = torch.float32) -> Dictionary:
    r"""d^2 + d lines with $|\cos| \le \sqrt{2/d}$, d an odd power of 2: the forms $\mathrm{Tr}(s x^3)$.

    Where Kerdock sets do not exist; differences of the forms have rank m - 1 of m, d = 2^m. Twice the squared
    coherence of mutually unbiased bases for twice as many atoms.

    Args:
        d: dimension: 8, 32, 128 or 512.
        dtype: of the atoms.

    Returns:
        A dictionary of d^2 + d unit atoms, basis after basis.

    Raises:
        ValueError: if d is not one of these.

    Source:
        Gold, "Maximal recursive sequences with 3-valued recursive cross-correlation functions", 1968. Delsarte and
        Goethals, "Alternating bilinear forms over GF(q)", 1975.

    Example:
        >>> gold(8)
        Dictionary(n=72, d=8, float32)
    """
    check_whole("gold", d=d)
    if d not in (8, 32, 128, 512):
        raise ValueError(f"gold: d must be 8, 32, 128 or 512; got {d}.")
    table, trace = trace_bits(d.bit_length() - 1)
    x = np.arange(d)
    cube = table[table[x, x], x]
    hadamard = _hadamard(d)
    blocks = [hadamard * (1 - 2 * trace[table[s, cube]]) / math.sqrt(d) for s in range(d)]
    return Dictionary(torch.from_numpy(np.vstack([np.eye(d), *blocks])).to(dtype))


def basis_beside_hadamard(d: int, *, dtype: torch.dtype = torch.float32) -> Dictionary:
    r"""The standard basis and the Hadamard basis: 2d atoms, $\mu = 1/\sqrt d$.

    For d = 4^m a comb on a subgroup is as sparse in one basis as in the other, so $2\sqrt d$ atoms are dependent
    (spark): coherence guarantees are as good here as they can be.

    Args:
        d: dimension, a power of 2.
        dtype: of the atoms.

    Returns:
        A dictionary of 2d unit atoms.

    Raises:
        ValueError: if d is not a power of 2, at least 2.

    Source:
        Donoho and Huo, "Uncertainty principles and ideal atomic decomposition", 2001.

    Example:
        >>> basis_beside_hadamard(4)
        Dictionary(n=8, d=4, float32)
    """
    check_whole("basis_beside_hadamard", d=d)
    if d < 2 or d & (d - 1):
        raise ValueError(f"basis_beside_hadamard: d must be a power of 2, at least 2; got {d}.")
    return Dictionary(torch.from_numpy(np.vstack([np.eye(d), _hadamard(d) / math.sqrt(d)])).to(dtype))


def _hadamard(d: int) -> np.ndarray:
    """Sylvester's matrix: entry (u, v) is (-1)^(u . v) over the binary digits."""
    matrix = np.ones((1, 1))
    while len(matrix) < d:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix
