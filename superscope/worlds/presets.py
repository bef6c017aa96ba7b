"""Worlds that results are compared on, by name."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ..core import Dictionary
from ..features import WELL_ABOVE_ZERO, ExactlyK, Magnitude
from ..frames import random_unit
from .forest import Forest
from .world import FeatureLaw, World


def on_random_directions(law: FeatureLaw, d: int = 64, *, noise: float | int = 0.0, seed: int = 0) -> World:
    """Features of any law on unit atoms of random direction, with or without noise.

    Args:
        law: of the features; every distribution of `features/` is one.
        d: dimensions.
        noise: standard deviation in each coordinate of x.
        seed: of the directions.

    Example:
        >>> from superscope.features import Zipf
        >>> on_random_directions(Zipf(n=32), d=8).n
        32
    """
    return World(law, random_unit(n=law.n, d=d, seed=seed), noise=noise)


def exactly_k(
    n: int = 256,
    d: int = 64,
    k: int = 4,
    *,
    magnitude: Magnitude = WELL_ABOVE_ZERO,
    noise: float | int = 0.0,
    seed: int = 0,
) -> World:
    """k of n random directions in every row, magnitudes uniform on [0.5, 1.5]: the easy world, every atom as dense.

    A top-k autoencoder finds all of n = 256, d = 64, k = 4 within seconds; k = 12 is beyond what its encoder can read.

    Args:
        n, d, k: features, dimensions, active features in every row.
        magnitude: the law of an active feature.
        noise: standard deviation in each coordinate of x.
        seed: of the directions.

    Example:
        >>> exactly_k().kappa_cs < 1
        True
    """
    return on_random_directions(ExactlyK(n=n, k=k, magnitude=magnitude), d, noise=noise, seed=seed)


def synth_sae_bench(scale: float | int = 1 / 16, *, seed: int = 42) -> World:
    """The world of SynthSAEBench-16k, or a replica with `scale` times as many features and trees.

    Trees of depth 3 with 4 exclusive children each that scale with their parent, Zipf densities, correlated gates,
    a bias of length 0.5. Features and roots go with `scale`, dimensions with its square root (n = 1 024 and d = 192 at
    1/16), densities stay; so a replica is denser in its features and less crowded than the world it stands for, and
    scores on it are not those of SynthSAEBench-16k. Its autoencoders have n / 4 latents.

    The same law as the published world, not the same numbers: directions and magnitudes come from our generators.

    Args:
        scale: 1 is n = 16 384 and d = 768; at least 1/128, which is one tree.
        seed: of directions, magnitudes and correlations.

    Raises:
        ValueError: if scale is below 1/128 or not finite.

    Source:
        Chanin and Garriga-Alonso, "SynthSAEBench", 2026 (arXiv 2602.14687).

    Example:
        >>> world = synth_sae_bench(1 / 64)
        >>> world.n, world.d
        (256, 96)
    """
    if not (math.isfinite(scale) and scale >= 1 / 128):
        raise ValueError(f"synth_sae_bench: scale must be at least 1/128, for a world has one tree; got {scale}.")
    n, d = round(16_384 * scale), round(768 * math.sqrt(scale))
    random = torch.Generator().manual_seed(seed)
    bias = torch.randn(d, generator=random, dtype=torch.float64)
    W = spread_apart(random_unit(n=n, d=d, seed=seed))
    law = Forest(n=n, roots=round(128 * scale), seed=seed)
    return World(law, Dictionary(W.atoms, (0.5 * bias / bias.norm()).float()))


def spread_apart(W: Dictionary, *, steps: int = 100, lr: float | int = 3e-4) -> Dictionary:
    r"""Unit atoms after some steps of Adam on $\sum_{i \ne j} (w_i \cdot w_j)^2 + n \sum_i (|w_i|^2 - 1)^2$.

    With few and small steps, as in the source, overlaps shrink a little and stay those of a random dictionary in kind.
    The gradient goes through the d x d frame operator: O(n d^2) per step, no n x n matrix.

    Args:
        W: atoms; they are normalised first.
        steps, lr: of Adam.

    Source:
        Chanin and Garriga-Alonso, "SynthSAEBench", 2026 (100 steps at 3e-4).
    """
    atoms = W.unit().atoms.detach().clone()
    optimizer = torch.optim.Adam([atoms], lr=lr)
    for _ in range(steps):
        squares = atoms.square().sum(1, keepdim=True)
        atoms.grad = 4 * (atoms @ (atoms.T @ atoms) - squares * atoms) + 4 * W.n * (squares - 1) * atoms
        optimizer.step()
    return Dictionary(atoms, W.bias, W.labels).unit()


PRESETS: dict[str, Callable[..., World]] = {"exactly_k": exactly_k, "synth_sae_bench": synth_sae_bench}
"""Every preset by its name."""
