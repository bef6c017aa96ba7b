"""Directions drawn at random: the null model beside every learned dictionary."""

from __future__ import annotations

import torch

from ..core import Dictionary
from .sizes import check_whole


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
    check_whole("random_unit", n=n, d=d)
    if n < 1 or d < 1:
        raise ValueError(f"random_unit: n and d must be at least 1; got n = {n}, d = {d}.")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"random_unit: dtype must be torch.float32 or torch.float64; got {dtype}.")
    # Always drawn in float64 and rounded once, so that dtype changes digits, not directions.
    atoms = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Dictionary((atoms / atoms.norm(dim=1, keepdim=True)).to(dtype))


@torch.no_grad()
def spectrum_matched(W: Dictionary, *, seed: int = 0, rounds: int = 20) -> Dictionary:
    r"""Random unit atoms with the frame operator of W: $\sum_i v_i v_i^\top = \sum_i \hat w_i \hat w_i^\top$.

    The null model of a dictionary that crowds into some dimensions: it shares shape with W and nothing else. Overlaps
    that W has and this has not are neighbours and clusters; overlaps that both have follow from the shape. Made by
    turns: atoms are mapped to the wanted frame operator, then normalised; 20 rounds leave the frame potential within
    1 %. Costs O(n d^2) per round.

    Args:
        W: dictionary of nonzero atoms. Norms do not matter.
        seed: fixes the draw.
        rounds: turns, at least 1.

    Returns:
        A dictionary of as many unit atoms, in the dtype of W.

    Raises:
        ValueError: if W has a zero atom, or rounds < 1.

    Source:
        Tropp, Dhillon, Heath and Strohmer, "Designing structured tight frames via an alternating projection method",
        2005 (the turns, there towards a tight frame).

    Example:
        >>> crowded = Dictionary(random_unit(n=200, d=10).atoms * torch.tensor([3.0, 3.0] + [0.1] * 8)).unit()
        >>> null = spectrum_matched(crowded)
        >>> float((null.atoms.T @ null.atoms - crowded.atoms.T @ crowded.atoms).abs().max()) < 2.0
        True
    """
    check_whole("spectrum_matched", rounds=rounds)
    if rounds < 1:
        raise ValueError(f"spectrum_matched: rounds must be at least 1; got {rounds}.")
    given = W.atoms.detach().double()
    norms = given.norm(dim=1, keepdim=True)
    if not bool((norms > 0).all()):
        raise ValueError("spectrum_matched: W has a zero atom, which has no direction. Leave zero atoms out.")
    unit = given / norms
    wanted, axes = torch.linalg.eigh(unit.T @ unit)
    root = (axes * wanted.clamp(min=0).sqrt()) @ axes.T
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.randn(W.n, W.d, generator=generator, dtype=torch.float64).to(unit.device) @ root
    for _ in range(rounds):
        atoms = atoms / atoms.norm(dim=1, keepdim=True)
        have, own = torch.linalg.eigh(atoms.T @ atoms)
        # Directions that neither has stay empty.
        scale = torch.where(have > 1e-12 * have[-1], have.clamp(min=1e-300).rsqrt(), 0)
        atoms = atoms @ ((own * scale) @ own.T) @ root
    return Dictionary((atoms / atoms.norm(dim=1, keepdim=True)).to(W.atoms.dtype))
