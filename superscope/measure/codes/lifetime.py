"""How sparse is a code over latents, at one token, and over tokens, for one latent?"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core import Measurement, SparseCode, SparseCoder
from ..interval import bootstrap, jackknife
from ..stream import BlockSums, Groups, GroupSums, Rows, read
from .sparsity import effective_number, mean_measurement

_POWERS = 5
"""Sums kept of each latent: f, |f|, f^2, f^3, f^4."""
_NAMES = {
    "code_hoyer": "Hoyer sparseness",
    "code_treves_rolls": "Treves-Rolls sparseness",
    "participating_latents": "latents",
    "lifetime_treves_rolls": "Treves-Rolls sparseness",
    "lifetime_kurtosis": "excess kurtosis",
}


@torch.no_grad()
def feature_sparsity(
    coder: SparseCoder,
    rows: Rows,
    *,
    documents: Int[Tensor, "sequences"] | None = None,
    batches: int | None = None,
    size: int = 4096,
    seed: int = 0,
) -> tuple[Measurement, ...]:
    r"""Hoyer and Treves-Rolls at a token, N2 of the mass, Treves-Rolls and excess kurtosis of a latent over tokens.

    What `evaluate` does not say of a code (it has L0, Gini, the used latents N0 and the entropy number N1):

    - `code_hoyer`, `code_treves_rolls`: means over rows of the indices of |f| over all n latents; rows without any
      nonzero are left out.
    - `participating_latents`: $N_2 = 1 / \sum p_i^2$ of the activation mass $p_i \propto E|f_i|$.
    - `lifetime_treves_rolls`: median over alive latents of $(1 - (E|f_i|)^2 / E f_i^2) / (1 - 1/T)$ over the T rows: 1
      for a latent that speaks on one of them.
    - `lifetime_kurtosis`: median over alive latents of $E(f_i - \bar f_i)^4 / (E(f_i - \bar f_i)^2)^2 - 3$, zeros
      included: for an on-off latent of density p, $1/(p(1-p)) - 6$, so it mostly says how rare latents are. Its
      sampling error is large for latents that fire a few times.

    One pass, power sums in float64, memory O(n) for each of 64 groups of documents, which are what is resampled.

    Args:
        coder: an SAE, or any other coder.
        rows: a source, or batches.
        documents: the document of each sequence.
        batches: read at most so many of them; None reads one epoch.
        size: rows per batch asked of a source.
        seed: of the source's order and of the bootstrap.

    Raises:
        ValueError: if there is nothing to read, or the dictionary has one atom.

    Source:
        That of `hoyer`, `treves_rolls` and `effective_number`.
    """
    n, groups = coder.dictionary.n, Groups(documents)
    if n < 2:
        raise ValueError("feature_sparsity: the dictionary has 1 atom; sparsity over latents needs at least 2.")
    means, powers = GroupSums(4), BlockSums((_POWERS + 1, n))
    tokens = 0
    for batch in read(rows, size=size, most=batches, seed=seed):
        code, number = coder.encode(batch.x), groups(batch)
        hoyer, treves = (each.cpu() for each in _at_tokens(code))
        there = hoyer.isfinite().double()
        means.add(number, torch.stack([hoyer.nan_to_num(0.0), there, treves.nan_to_num(0.0), there], 1))
        block = torch.from_numpy(powers.numbers(number))
        # The last row of each block holds how many tokens it has, once for every latent.
        powers.sums[:, _POWERS] += np.bincount(block.numpy(), minlength=powers.blocks)[:, None]
        flat = (block[:, None] * n + code.indices.cpu().reshape(len(block), -1)).reshape(-1)
        values = code.values.double().cpu().reshape(-1)
        for power, each in enumerate((values, values.abs(), values**2, values**3, values**4)):
            added = torch.bincount(flat, each, minlength=powers.blocks * n)
            powers.sums[:, power] += added.reshape(powers.blocks, n).numpy()
        tokens += len(block)
    used, of = powers.used, f"groups of {groups.of}"
    alive = used[:, 1].sum(0) > 0
    if not alive.any():
        about = {"value": None, "n": tokens, "of": "tokens", "caution": "no latent fires on these tokens"}
        return tuple(Measurement(name=name, unit=unit, **about) for name, unit in _NAMES.items())
    empty = int(tokens - means.sums[:, 1].sum())
    caution = f"{empty} rows without a nonzero left out" if empty else ""
    found = [
        mean_measurement(
            name, _NAMES[name], means.sums[:, part], of="tokens", groups=groups.of, caution=caution, seed=seed
        )
        for name, part in (("code_hoyer", slice(0, 2)), ("code_treves_rolls", slice(2, 4)))
    ]
    found.append(
        Measurement(
            name="participating_latents",
            value=_participating(used[:, 1].sum(0)),
            unit="latents",
            n=tokens,
            of="tokens",
            reference=float(alive.sum()),
            reference_is="alive latents",
            **jackknife(_participating, used[:, 1], of=of, logarithmic=True).fields,
        )
    )
    table = used[:, :, alive]
    for name, statistic in (
        ("lifetime_treves_rolls", _lifetime_treves_rolls),
        ("lifetime_kurtosis", _lifetime_kurtosis),
    ):
        interval = bootstrap(
            lambda s, statistic=statistic: np.median(statistic(s.reshape(len(s), *table.shape[1:])), axis=1),
            table.reshape(len(table), -1),
            of=of,
            draws=200,
            seed=seed,
        )
        found.append(
            Measurement(
                name=name,
                value=float(np.median(statistic(table.sum(0)[None])[0])),
                unit=_NAMES[name],
                n=int(alive.sum()),
                of="alive latents",
                **interval.fields,
            )
        )
    return tuple(found)


def _at_tokens(code: SparseCode) -> tuple[Float[Tensor, "rows"], Float[Tensor, "rows"]]:
    """hoyer(code.dense()) and treves_rolls(code.dense()), without the dense rows."""
    values, n = code.values.double().reshape(-1, code.k), code.n
    largest = values.abs().amax(1, keepdim=True)
    c = values.abs() / torch.where(largest > 0, largest, 1)
    total, square = c.sum(1), c.square().sum(1)
    hoyer = ((math.sqrt(n) - total / square.sqrt()) / (math.sqrt(n) - 1)).clamp(0, 1)
    treves = ((1 - total.square() / square / n) / (1 - 1 / n)).clamp(0, 1)
    nothing = largest[:, 0] == 0
    return hoyer.masked_fill(nothing, math.nan), treves.masked_fill(nothing, math.nan)


def _participating(mass: np.ndarray) -> float:
    return float(effective_number(torch.from_numpy(np.maximum(mass, 0.0)), 2))


def _lifetime_treves_rolls(sums: np.ndarray) -> np.ndarray:
    """(draws, latents) from (draws, powers, latents). A latent that a draw leaves silent is as sparse as can be."""
    tokens = sums[:, _POWERS]
    share = np.divide(sums[:, 1] ** 2, tokens * sums[:, 2], out=np.zeros_like(sums[:, 1]), where=sums[:, 2] > 0)
    return np.clip((1 - share) / (1 - 1 / np.maximum(tokens, 2)), 0, 1)


def _lifetime_kurtosis(sums: np.ndarray) -> np.ndarray:
    """The same of the excess kurtosis; of a latent that a draw leaves silent, that of one which fires once."""
    tokens = sums[:, _POWERS]
    m1, m2, m3, m4 = (sums[:, power] / tokens for power in (0, 2, 3, 4))
    second = m2 - m1**2
    fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
    varies = second > 1e-12 * m2
    once = tokens + 1 / np.maximum(tokens - 1, 1) - 5
    return np.where(varies, np.divide(fourth, second**2, out=np.zeros_like(fourth), where=varies) - 3, once)
