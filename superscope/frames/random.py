"""Directions drawn at random: the null model beside every learned dictionary."""

from __future__ import annotations

import torch

from ..core import Dictionary


def random_unit(n: int, d: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Dictionary:
    r"""n independent uniform directions: $w_i = g_i / \|g_i\|$ with $g_i \sim N(0, I_d)$.

    Cosines of two of them have mean 0 and variance 1/d; the largest of all is `theory.random_coherence(n, d)`.

    Args:
        n: number of atoms, at least 1.
        d: dimension, at least 1.
        seed: fixes the draw; the same seed gives the same directions in either dtype, up to rounding.
        dtype: torch.float32 or torch.float64.

    Returns:
        A dictionary of n unit atoms.

    Raises:
        ValueError: if n < 1, d < 1, or dtype is not a float type of at least 32 bits.

    Source:
        Muller, "A note on a method for generating points uniformly on n-dimensional spheres", 1959.

    Example:
        >>> random_unit(n=512, d=64, seed=0)
        Dictionary(n=512, d=64, float32)
    """
    if n < 1 or d < 1:
        raise ValueError(f"random_unit: n and d must be at least 1; got n = {n}, d = {d}.")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"random_unit: dtype must be torch.float32 or torch.float64; got {dtype}.")
    # Always drawn in float64 and rounded once, so that dtype changes digits, not directions.
    atoms = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Dictionary((atoms / atoms.norm(dim=1, keepdim=True)).to(dtype))
