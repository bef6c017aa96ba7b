"""Reading features out linearly: how large is the interference, and would independent features explain it?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats
import torch
from jaxtyping import Float
from torch import Tensor

from ...core import Dictionary, Measurement, ShapeError, SparseCode

_NUMBERS = 2**24
"""Largest rows x n block held at once."""
_GROUPS = 20


@dataclass(frozen=True, eq=False)
class ReadOutInterference:
    """What each feature's linear read-out suffers from the others, predicted and measured: float64, one entry per atom.

    The read-out of feature i is f_i + I_i. Entries of a zero atom are NaN.

    Args:
        signal: mean square of f_i where it is active; 0 for a feature that never is.
        predicted_mean, predicted_variance: of I_i, from each feature's own mean and variance, as if independent.
        measured_mean, measured_variance: of I_i on the rows.
        rows: how many.
        measurements: the aggregates, each with its chance level.
    """

    signal: Float[Tensor, "n"]
    predicted_mean: Float[Tensor, "n"]
    predicted_variance: Float[Tensor, "n"]
    measured_mean: Float[Tensor, "n"]
    measured_variance: Float[Tensor, "n"]
    rows: int
    measurements: tuple[Measurement, ...]

    @property
    def signal_to_noise(self) -> Float[Tensor, "n"]:
        """Mean square of an active feature over the mean square of its interference about its mean; inf without any."""
        return self.signal / self.measured_variance

    @property
    def ratio(self) -> Float[Tensor, "n"]:
        """Measured over predicted variance: above 1 where overlapping features fire together."""
        return self.measured_variance / self.predicted_variance

    def __str__(self) -> str:
        return "\n".join(str(m) for m in self.measurements)


@torch.no_grad()
def read_out_interference(W: Dictionary, f: SparseCode | Float[Tensor, "rows n"]) -> ReadOutInterference:
    r"""$\langle w_i, W f \rangle / \lVert w_i \rVert^2 = f_i + I_i$: what is I?

    $I_i = \sum_{j \ne i} g_{ij} f_j$. With $g_{ij} = \langle w_i, w_j \rangle / \lVert w_i \rVert^2$ and independent
    features of means m and variances v the interference has mean $\sum_j g_{ij} m_j$ and variance $\sum_j g_{ij}^2 v_j
    = w_i^\top C w_i / \lVert w_i \rVert^4 - v_i$, $C = \sum_j v_j w_j w_j^\top$: no n x n matrix. Measured is what the
    given rows do. Their ratio is the effect of co-activation alone: 1 for independent features, above it where
    overlapping features fire together, below it where they avoid each other, as trained representations are expected
    to.

    Args:
        W: dictionary of n >= 2 atoms, as trained. A bias adds the same to every row and is left out.
        f: features of at least two rows: known ones, or a code.

    Returns:
        Everything per atom, and three measurements: `interference_ratio`, the summed measured over the summed predicted
        variance, and the medians over active features `interference_variance` and `read_out_signal_to_noise`. Chance is
        what independent features would give. The reference of the variance is the floor $\bar v (n/d - 1)$ of unit
        atoms, which its mean cannot be below if features are independent and of one variance.

    Raises:
        ShapeError: if f has another number of features than W has atoms.
        TypeError: if f is not floating point.
        ValueError: if there are fewer than two rows or two nonzero atoms, f is nowhere active, or an entry of it is NaN
            or infinite.

    Source:
        Benedetto and Fickus, "Finite normalized tight frames", 2003 (the floor).

    Example:
        >>> W = Dictionary(torch.tensor([[1.0, 0.0], [0.6, 0.8]]))
        >>> f = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
        >>> found = read_out_interference(W, f)
        >>> [round(v, 4) for v in found.measured_variance.tolist()], round(found.measurements[0].value, 4)
        ([0.09, 0.09], 1.0)
    """
    if not isinstance(W, Dictionary):
        raise TypeError(
            f"read_out_interference: W must be a Dictionary; got {type(W).__name__}. "
            "Write Dictionary(matrix) with one atom per row."
        )
    features = f.n if isinstance(f, SparseCode) else f.shape[-1]
    if features != W.n:
        hint = (
            " f looks transposed: one row per activation is meant."
            if not isinstance(f, SparseCode) and len(f) == W.n
            else ""
        )
        raise ShapeError(f"read_out_interference: f has {features} features but W has {W.n} atoms.{hint}")
    rows = math.prod(f.values.shape[:-1]) if isinstance(f, SparseCode) else math.prod(f.shape[:-1])
    if rows < 2:
        raise ValueError(f"read_out_interference: f must have at least two rows to have a variance; got {rows}.")
    values = f.values if isinstance(f, SparseCode) else f
    if not values.is_floating_point():
        raise TypeError(f"read_out_interference: f must be floating point; got {values.dtype}. Convert with f.float().")
    # A finite sum needs finite terms, and takes no copy.
    if not bool(torch.isfinite(values.sum())) and not bool(torch.isfinite(values).all()):
        raise ValueError("read_out_interference: f has a NaN or infinite entry. Remove or repair that row.")
    atoms = W.atoms.detach().double()
    squares = atoms.square().sum(1)
    zero = squares == 0
    if int((~zero).sum()) < 2:
        raise ValueError("read_out_interference: W must have at least two nonzero atoms.")
    safe = torch.where(zero, 1, squares)

    # Sums over rows, in float64 and about a first guess of the mean, so that large means do not swallow variances.
    total, square, active = (atoms.new_zeros(W.n) for _ in range(3))
    noise, noise_square = atoms.new_zeros(W.n), atoms.new_zeros(W.n)
    shift: tuple[Tensor, Tensor] | None = None
    groups: list[tuple[int, Tensor, Tensor]] = []
    # At least _GROUPS parts, so that their spread can say how sure the sums are.
    for part in _dense_rows(f, max(1, min(_NUMBERS // W.n, -(-rows // _GROUPS)))):
        part = part.to(atoms.device).double()
        error = (part @ atoms) @ atoms.T / safe - part
        if shift is None:
            shift = (part.mean(0), error.mean(0))
        active += (part != 0).sum(0)
        total += (part - shift[0]).sum(0)
        square += (part - shift[0]).square().sum(0)
        error -= shift[1]
        groups.append((len(part), error.sum(0), error.square().sum(0)))
        noise += groups[-1][1]
        noise_square += groups[-1][2]
    assert shift is not None
    mean = total / rows + shift[0]
    variance = (square / rows - (total / rows).square()).clamp(min=0)
    measured_mean = noise / rows + shift[1]
    measured = (noise_square / rows - (noise / rows).square()).clamp(min=0)
    if not bool(active.any()):
        raise ValueError("read_out_interference: f is zero everywhere, so nothing interferes with anything.")

    write = (atoms * variance[:, None]).T @ atoms
    predicted_mean = atoms @ (mean @ atoms) / safe - mean
    predicted = ((atoms @ write) * atoms).sum(1) / safe.square() - variance
    # What is left below rounding of the two nearly equal terms is zero, not a tiny negative variance.
    predicted = torch.where(predicted > 1e-12 * variance, predicted, 0)
    signal = torch.where(active > 0, (variance + mean.square()) * rows / active.clamp(min=1), 0)
    for each in (predicted_mean, predicted, measured_mean, measured):
        each[zero] = math.nan
    alive = (active > 0) & ~zero
    centre, expected = noise / rows, float(predicted[alive].sum())
    ratios = [
        float((square - 2 * centre * total + count * centre.square())[alive].sum()) / count / expected
        for count, total, square in groups
        if expected and count == groups[0][0]
    ]
    return ReadOutInterference(
        signal=signal,
        predicted_mean=predicted_mean,
        predicted_variance=predicted,
        measured_mean=measured_mean,
        measured_variance=measured,
        rows=rows,
        measurements=_aggregates(W, rows, alive, signal, predicted, measured, variance, int(zero.sum()), ratios),
    )


def _aggregates(
    W: Dictionary,
    rows: int,
    alive: Tensor,
    signal: Tensor,
    predicted: Tensor,
    measured: Tensor,
    variance: Tensor,
    zeros: int,
    ratios: list[float],
) -> tuple[Measurement, ...]:
    left_out = f"{zeros} zero atom{'s' if zeros > 1 else ''} left out" if zeros else ""
    n, of = int(alive.sum()), f"features active in {rows} rows"
    expected, found = float(predicted[alive].sum()), float(measured[alive].sum())
    nothing = "no two features that are ever active overlap"
    quiet = float(variance[alive].mean()) * max(W.n / W.d - 1, 0)
    ratio = Measurement(
        name="interference_ratio",
        value=found / expected if expected else None,
        unit="measured / predicted variance",
        n=n,
        of=of,
        **_spread(found / expected if expected else 0.0, ratios),
        chance=1.0,
        chance_is="independent features",
        caution=left_out if expected else nothing,
    )
    size = Measurement(
        name="interference_variance",
        value=float(measured[alive].median()),
        unit="squared feature units",
        n=n,
        of=of,
        low=float(measured[alive].quantile(0.05)),
        high=float(measured[alive].quantile(0.95)),
        how="median over features; from the 5 to the 95 % quantile of features",
        reference=quiet,
        reference_is="least possible mean for unit atoms",
        chance=float(predicted[alive].median()),
        chance_is="independent features",
        caution=left_out,
    )
    heard = alive & (measured > 0)
    read = (signal / measured)[heard]
    clear = Measurement(
        name="read_out_signal_to_noise",
        value=float(read.median()) if len(read) else None,
        unit="mean square active value / variance of interference",
        n=int(heard.sum()),
        of=of,
        low=float(read.quantile(0.05)) if len(read) else None,
        high=float(read.quantile(0.95)) if len(read) else None,
        how="median over features; from the 5 to the 95 % quantile of features",
        chance=float((signal / predicted)[heard & (predicted > 0)].median())
        if bool((heard & (predicted > 0)).any())
        else None,
        chance_is="independent features",
        caution=left_out if len(read) else nothing,
    )
    return ratio, size, clear


def _spread(value: float, ratios: list[float]) -> dict[str, Any]:
    if len(ratios) < 5:
        return {"how": "no interval: too few rows"}
    error = float(np.std(ratios, ddof=1)) / len(ratios) ** 0.5 * float(scipy.stats.t.ppf(0.975, len(ratios) - 1))
    return {"low": value - error, "high": value + error, "how": f"95 %, from {len(ratios)} groups of consecutive rows"}


def _dense_rows(f: SparseCode | Tensor, rows: int) -> Iterator[Tensor]:
    if isinstance(f, SparseCode):
        values, indices = f.values.reshape(-1, f.k), f.indices.reshape(-1, f.k)
        for start in range(0, len(values), rows):
            yield SparseCode(values[start : start + rows], indices[start : start + rows], f.n).dense()
    else:
        yield from f.reshape(-1, f.shape[-1]).split(rows)
