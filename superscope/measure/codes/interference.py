r"""What do the other active features add to the read-out of one: help, harm while it is on, or a false alarm while off?

The read-out of feature i is $\langle \hat w_i, \hat x \rangle = z_i + J_i$, with z_i its value in the length of its
atom and $J_i = \sum_{j \ne i} \langle \hat w_i, \hat w_j \rangle z_j$ what the others add. An unsigned energy calls all
of J a cost; where features that go together are laid out so that they add to one another it is none. Only what is added
while i is off, and what is taken while it is on, costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...core import Measured, Measurement, SparseCode, SparseCoder
from ..agreement.stability import random_atoms
from ..interval import bootstrap
from ..stream import BlockSums, Groups, Rows, read

_BLOCKS = 32
_GRAM = 2**26
"""Largest table of cosines that is made, in numbers."""
_NUMBERS = 2**22
"""Numbers gathered at once."""
_DRAWS = 8


class Features(NamedTuple):
    """One number per feature that is active often enough; the order is that of `SignedInterference.features`.

    Args:
        energy: $I_i = \\sum_{j \\ne i} \\cos_{ij}^2 E z_j^2 / E z_i^2$, unsigned, as if features were independent.
        while_on: $S_i = E[z_i J_i] / E[z_i^2]$: what others add while i is on, as a share of it.
        false_alarm: $N_i = E[J_i^2 | z_i = 0] / E[z_i^2 | z_i \\ne 0]$: power of the read-out while i is off.
    """

    energy: Float[Tensor, "active"]
    while_on: Float[Tensor, "active"]
    false_alarm: Float[Tensor, "active"]


@dataclass(frozen=True, eq=False)
class SignedInterference(Measured):
    """What `signed_interference` measured; iterating gives the measurements of the layer.

    Args:
        measurements: `interference_energy_ratio`, `interference_while_on`, `false_alarm_power`.
        features: which features are active on enough rows to say anything of.
        each: of those.
        low, high: each less and plus 1.96 standard errors from leaving out groups of documents; NaN for the energy, and
            where there are too few groups.
        random: the same codes on random directions: how they would be distributed by chance, several draws of each.
    """

    measurements: tuple[Measurement, ...]
    features: Int[Tensor, "active"]
    each: Features
    low: Features
    high: Features
    random: Features

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements)


@torch.no_grad()
def signed_interference(
    coder: SparseCoder,
    rows: Rows,
    *,
    documents: Int[Tensor, "sequences"] | None = None,
    batches: int | None = None,
    size: int = 4096,
    least: int = 20,
    seed: int = 0,
) -> SignedInterference:
    r"""I, S and N of every feature (see `Features`), and of the layer: sums over features before dividing.

    - `interference_energy_ratio`: $\sum_i \sum_{j \ne i} \cos_{ij}^2 E z_j^2 / \sum_i E z_i^2$.
    - `interference_while_on`: $\sum_i E[z_i J_i] / \sum_i E z_i^2 = E|\hat x|^2 / \sum_i E z_i^2 - 1$: above 0, active
      features add to each other, below 0 they cancel. 0 for independent features of mean zero, and for random
      directions whatever the codes; nonnegative codes have a mean, so a dictionary whose atoms lean to one side is
      above 0 without any co-activation.
    - `false_alarm_power`: $\sum_i \sum_{z_i = 0} J_i^2 / N_{off}$ over $\sum_i \sum_{z_i \ne 0} z_i^2 / N_{on}$, per
      feature and row. A threshold at half of a feature's usual value is safe where this is well below 1/4.

    Chance is the expectation over random directions that carry the same codes, exact: $E \cos^2 = 1/d$, and the
    cosines of different pairs are uncorrelated. J counts what the code holds; what it leaves unexplained also disturbs
    a read-out, but is nobody's interference. No n x n product of codes: the false alarms of all features are one
    quadratic form in the second moments of $\hat x$, O(rows d^2), and O(n d^2) for each of up to 32 groups of
    documents. Products are made in the dtype of x, sums in float64.

    Args:
        coder: an SAE, or another coder with its dictionary.
        rows: a source, or batches.
        documents: the document of each sequence, to resample by.
        batches: read at most so many of them; None reads one epoch.
        size: rows per batch asked of a source.
        least: rows on which a feature must be active, and be silent, to be counted.
        seed: of the source's order, the bootstrap and the random directions.

    Returns:
        No numbers, with a caution, where fewer than two features are active on `least` rows.

    Raises:
        ValueError: if there is nothing to read.

    Source:
        Prieto et al., "From data statistics to feature geometry: how correlations shape superposition", 2026
        (interference that helps). The three numbers are ours.

    Example:
        >>> from superscope.core import Activations, Dictionary, SparseCode, SparseCoder
        >>> class Opposite(SparseCoder):                        # two features share one dimension
        ...     dictionary = Dictionary(torch.tensor([[1.0], [-1.0]]))
        ...     def encode(self, x):
        ...         return SparseCode.from_dense(torch.cat([x, -x], 1).relu())
        >>> x = torch.tensor([[1.0], [-1.0]]).repeat(40, 1)
        >>> [m.value for m in signed_interference(Opposite(), [Activations(x)])]
        [1.0, 0.0, 1.0]
    """
    W, groups = coder.dictionary, Groups(documents)
    held: list[tuple[np.ndarray, SparseCode]] = []
    for batch in read(rows, size=size, most=batches, seed=seed):
        code = coder.encode(batch.x)
        held.append((groups(batch), SparseCode(code.values.reshape(-1, code.k), code.indices.reshape(-1, code.k), W.n)))
    total = sum(len(code) for _, code in held)
    on = torch.zeros(W.n, dtype=torch.float64, device=W.atoms.device)
    for _, code in held:
        on.index_add_(0, code.indices.reshape(-1), (code.values != 0).double().reshape(-1))
    norms = W.norms.detach()
    active = (on >= least) & (total - on >= least) & (norms > 0)
    if int(active.sum()) < 2:
        caution = (
            f"{int(active.sum())} features are active, and silent, on at least {least} of the rows; two are needed"
        )
        return _nothing(total, caution)
    unit = W.atoms.detach() / torch.where(norms > 0, norms, 1)[:, None]
    # Half precision holds data; it does not add up.
    unit = unit if unit.dtype == torch.float64 else unit.float()
    sums, chance = _sums(unit, norms, held, active, groups)
    each = _of(sums.used.sum(0), active, unit)
    half = _errors(sums.used, active, each)
    return SignedInterference(
        measurements=_layer(sums.used, chance.used, active, unit, f"groups of {groups.of}", total, seed),
        features=active.nonzero()[:, 0].cpu(),
        each=each,
        low=Features(*(value - less for value, less in zip(each, half, strict=True))),
        high=Features(*(value + more for value, more in zip(each, half, strict=True))),
        random=_random(norms, held, active, W.d, torch.Generator().manual_seed(seed)),
    )


_ON, _SQUARE, _SHARED, _READ, _ALL = range(5)
"""What is summed for each feature: times on, z^2, z J, the square of the read-out while on, and over all rows. A last
column holds the number of rows."""


def _sums(
    unit: Float[Tensor, "n d"],
    norms: Float[Tensor, "n"],
    held: list[tuple[np.ndarray, SparseCode]],
    active: Tensor,
    groups: Groups,
) -> tuple[BlockSums, BlockSums]:
    """Sums per block of documents and feature; and, per block, what random directions would add up to."""
    n, d = unit.shape
    # As many blocks as 64 MB of second moments hold, at least one.
    blocks = max(min(_BLOCKS, 2**23 // d**2), 1)
    sums, chance = BlockSums((5, n + 1), blocks), BlockSums((2,), blocks)
    moments = torch.zeros(blocks, d, d, dtype=torch.float64, device=unit.device)
    number, k = int(active.sum()), max(code.k for _, code in held)
    gram = unit @ unit.T if n * n <= _GRAM and k * k <= 4 * d else None
    for numbers, code in held:
        block = torch.from_numpy(sums.numbers(numbers)).to(unit.device)
        z = code.values.to(unit.dtype) * norms[code.indices]
        x_hat = nn.functional.embedding_bag(code.indices, unit, per_sample_weights=z, mode="sum")
        read_out = _read_outs(unit, gram, z, code.indices, x_hat)
        z, read_out, used = z.double(), read_out.double(), (z != 0).double()
        flat = (block[:, None] * (n + 1) + code.indices).reshape(-1)
        for column, values in enumerate((used, z**2, z * (read_out - z), read_out**2 * used)):
            added = torch.bincount(flat, values.reshape(-1), minlength=blocks * (n + 1))
            sums.sums[:, column] += added.reshape(blocks, n + 1).cpu().numpy()
        count = torch.bincount(block, minlength=blocks)
        sums.sums[:, _ON, n] += count.cpu().numpy()
        for each in count.nonzero()[:, 0].tolist():
            part = x_hat[block == each]
            moments[each] += (part.T @ part).double()
        # The expected square of a cosine of random directions is 1/d, and those of different pairs are uncorrelated.
        counts = used * active[code.indices]
        square, own = z.square().sum(1), (z.square() * counts).sum(1)
        chance.numbers(numbers)
        for column, values in enumerate(((number * square - own) / d, (number - counts.sum(1)) * square / d)):
            chance.sums[:, column] += torch.bincount(block, values, minlength=blocks).cpu().numpy()
    for each in range(sums.filled):
        sums.sums[each, _ALL, :n] = ((unit @ moments[each].to(unit.dtype)) * unit).sum(1).double().cpu().numpy()
    return sums, chance


def _read_outs(
    unit: Float[Tensor, "n d"],
    gram: Float[Tensor, "n n"] | None,
    z: Float[Tensor, "rows k"],
    indices: Int[Tensor, "rows k"],
    x_hat: Float[Tensor, "rows d"],
) -> Float[Tensor, "rows k"]:
    """<w, x_hat> for each w in it: from the cosines where they are few, else from the atoms."""
    parts = []
    k, d = indices.shape[1], unit.shape[1]
    for part in range(0, len(z), step := max(_NUMBERS // (k * min(k, d) if gram is not None else k * d), 1)):
        rows = slice(part, part + step)
        at = indices[rows]
        if gram is not None:
            parts.append((gram[at[:, :, None], at[:, None, :]] @ z[rows, :, None])[:, :, 0])
        else:
            atoms = unit.index_select(0, at.reshape(-1)).reshape(*at.shape, d)
            parts.append((atoms @ x_hat[rows, :, None])[:, :, 0])
    return torch.cat(parts)


def _of(sums: np.ndarray, active: Tensor, unit: Float[Tensor, "n d"]) -> Features:
    """The three numbers of the active features from their sums."""
    table, kept, atoms = torch.from_numpy(sums[:, :-1]), active.cpu(), unit.double().cpu()
    square = table[_SQUARE]
    energy = ((atoms @ (atoms.T @ (square[:, None] * atoms))) * atoms).sum(1) - square
    return _features(table[:, kept], float(sums[_ON, -1]), energy[kept].clamp(min=0) / square[kept])


def _features(table: Tensor, rows: Any, energy: Tensor) -> Features:
    on, square, shared, read_out, every = table.unbind(-2)
    false_alarm = ((every - read_out) / (rows - on)).clamp(min=0) / (square / on)
    return Features(energy, shared / square, false_alarm)


def _errors(used: np.ndarray, active: Tensor, each: Features) -> Features:
    """1.96 standard errors of each feature's numbers, from leaving out each block in turn."""
    nothing = torch.full_like(each.energy, torch.nan)
    blocks = len(used)
    if blocks < 8:
        return Features(nothing, nothing, nothing)
    left = torch.from_numpy(used.sum(0) - used)
    without = _features(left[:, :, :-1][:, :, active.cpu()], left[:, _ON, -1:], each.energy)
    half = (1.959964 * ((blocks - 1) / blocks * (v - v.mean(0)).square().sum(0)).sqrt() for v in without[1:])
    # The energy of one feature rests on the whole frame; the layer's has an interval.
    return Features(nothing, *half)


def _random(
    norms: Float[Tensor, "n"],
    held: list[tuple[np.ndarray, SparseCode]],
    active: Tensor,
    d: int,
    generator: torch.Generator,
) -> Features:
    """How the numbers of the same features would be distributed on random directions: some draws of each.

    Of a feature's own random direction only its cosines with the others matter, and they are independent, distributed
    as one coordinate of a uniform unit vector.
    """
    n = len(norms)
    cosines = random_atoms(n, d, generator)[:, : min(_DRAWS, d)].double().to(norms.device)
    draws = cosines.shape[1]
    square, on = (torch.zeros(n, 1, dtype=torch.float64, device=norms.device) for _ in range(2))
    shared, loud = (torch.zeros(n, draws, dtype=torch.float64, device=norms.device) for _ in range(2))
    every, rows = torch.zeros(draws, dtype=torch.float64, device=norms.device), 0
    for _, code in held:
        z, at = code.values.double() * norms[code.indices].double(), code.indices.reshape(-1)
        added = nn.functional.embedding_bag(code.indices, cosines, per_sample_weights=z, mode="sum")
        others = added[:, None] - z[:, :, None] * cosines[code.indices]
        used = (z != 0).double()
        square.index_add_(0, at, z.square().reshape(-1, 1))
        on.index_add_(0, at, used.reshape(-1, 1))
        shared.index_add_(0, at, (others * z[:, :, None]).reshape(-1, draws))
        loud.index_add_(0, at, (added.square()[:, None] * used[:, :, None]).reshape(-1, draws))
        every += added.square().sum(0)
        rows += len(z)
    powers = cosines.square() * square
    energy = (powers.sum(0) - powers)[active] / square[active]
    false_alarm = ((every - loud) / (rows - on))[active].clamp(min=0) / (square / on)[active]
    return Features(*(v.reshape(-1).cpu() for v in (energy, (shared / square)[active], false_alarm)))


_NAMES = {
    "interference_energy_ratio": "energy of the others / own energy",
    "interference_while_on": "share of the feature",
    "false_alarm_power": "power while off / power while on",
}


def _nothing(rows: int, caution: str) -> SignedInterference:
    """No number, and why."""
    measurements = (
        Measurement(name=name, value=None, unit=unit, n=rows, of="rows", caution=caution)
        for name, unit in _NAMES.items()
    )
    none = torch.empty(0, dtype=torch.float64)
    empty = Features(none, none, none)
    return SignedInterference(tuple(measurements), none.long(), empty, empty, empty, empty)


def _layer(
    sums: np.ndarray,
    chance: np.ndarray,
    active: Tensor,
    unit: Float[Tensor, "n d"],
    of: str,
    rows: int,
    seed: int,
) -> tuple[Measurement, ...]:
    """Sums over features before dividing, resampling blocks of documents."""
    chosen, kept = unit[active], active.cpu().numpy()
    # Of each atom, the squared cosines with all active ones but itself.
    crowd = ((unit @ (chosen.T @ chosen)) * unit).sum(1).double().cpu().numpy() - kept
    on, square, shared, read_out, every = sums[:, :, :-1].transpose(1, 0, 2)
    table = [on[:, kept], square[:, kept], shared[:, kept], read_out[:, kept], every[:, kept], square * crowd]
    table = np.stack([column.sum(1) for column in table] + [sums[:, _ON, -1] * kept.sum()], 1)

    def energy(s: np.ndarray) -> np.ndarray:
        return s[:, 5] / s[:, 1]

    def while_on(s: np.ndarray) -> np.ndarray:
        return s[:, 2] / s[:, 1]

    def false_alarm(s: np.ndarray) -> np.ndarray:
        return power(s, np.maximum(s[:, 4] - s[:, 3], 0.0))

    def power(s: np.ndarray, off: np.ndarray) -> np.ndarray:
        return off / (s[:, 6] - s[:, 0]) / (s[:, 1] / s[:, 0])

    whole, by_chance = table.sum(0)[None], chance.sum(0)
    chances = (by_chance[0] / whole[0, 1], 0.0, power(whole, by_chance[None, 1])[0])
    return tuple(
        Measurement(
            name=name,
            value=float(statistic(whole)[0]),
            unit=text,
            n=int(kept.sum()),
            of=f"features active on enough of {rows:,} rows",
            chance=float(expected),
            chance_is="random directions with the same codes (expectation)",
            **bootstrap(statistic, table, of=of, seed=seed).fields,
        )
        for (name, text), statistic, expected in zip(
            _NAMES.items(), (energy, while_on, false_alarm), chances, strict=True
        )
    )
