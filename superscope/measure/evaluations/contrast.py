"""Do two texts that differ in one thing differ in some latent, more than so many latents would by chance?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ...core import Measurement, ShapeError, SparseCode
from ..interval import bootstrap


@torch.no_grad()
def contrast(
    pairs: Sequence[tuple[SparseCode, SparseCode]], *, permutations: int = 50, seed: int = 0
) -> tuple[Measurement, ...]:
    r"""$\max_i |\bar f_i^{(1)} - \bar f_i^{(2)}| / s$ for each pair of texts, s the root mean square of active latents.

    A maximum over n latents grows with n and with the scale of f. So f is divided by its own scale, and the same is
    computed with the tokens of the two texts exchanged at random, for the same latents: the excess over it is what the
    contrast gives. Published scores have neither, and rank wide dictionaries first.

    Args:
        pairs: the codes of the tokens of two texts about one subject.
        permutations: of the tokens of each pair.
        seed: of them.

    Returns:
        `contrast` with the exchanged tokens' as chance, and `contrast_excess`, the mean difference.

    Raises:
        ValueError: if there are fewer than 2 pairs, or a text has no tokens.
        ShapeError: if codes are of different dictionaries.

    Source:
        CE-Bench, 2025 (arXiv 2509.00691), contrastive score; the null is our own.
    """
    if len(pairs) < 2:
        raise ValueError(f"contrast: at least 2 pairs of texts are needed; got {len(pairs)}.")
    if len({code.n for pair in pairs for code in pair}) != 1:
        raise ShapeError("contrast: the codes are of dictionaries of different width; give those of one.")
    random = np.random.default_rng(seed)
    energy = sum(float(code.values.double().square().sum()) for pair in pairs for code in pair)
    active = sum(int((code.values != 0).sum()) for pair in pairs for code in pair)
    scale = (energy / active) ** 0.5 if active else 1.0
    own, null = [], []
    for one, other in pairs:
        first, second = one.dense().double().numpy(), other.dense().double().numpy()
        if not (len(first) and len(second)):
            raise ValueError("contrast: a text has no tokens, so there is nothing to compare.")
        both = np.concatenate([first, second])
        own.append(float(np.abs(first.mean(0) - second.mean(0)).max()) / scale)
        drawn = []
        for _ in range(permutations):
            order = random.permutation(len(both))
            drawn.append(np.abs(both[order[: len(first)]].mean(0) - both[order[len(first) :]].mean(0)).max() / scale)
        null.append(float(np.mean(drawn)))
    table = np.column_stack([own, null, np.ones(len(own))])
    value, chance = float(np.mean(own)), float(np.mean(null))
    n = len(pairs)
    return (
        Measurement(
            name="contrast",
            value=value,
            unit="root mean square active latents",
            n=n,
            of="pairs of texts",
            chance=chance,
            chance_is="tokens exchanged between the texts",
            **bootstrap(lambda s: s[:, 0] / s[:, 2], table, of="pairs", seed=seed).fields,
        ),
        Measurement(
            name="contrast_excess",
            value=value - chance,
            unit="root mean square active latents",
            n=n,
            of="pairs of texts",
            chance=0.0,
            chance_is="tokens exchanged between the texts",
            **bootstrap(lambda s: (s[:, 0] - s[:, 1]) / s[:, 2], table, of="pairs", seed=seed).fields,
        ),
    )
