"""How unevenly a nonnegative mass is spread: few large entries and many small ones, or all alike.

The functions of a vector work on the last axis of any batch and take magnitudes. A row without any mass has no
spread: the result is NaN there, and the streaming measurements leave such rows out and say how many. Padding enters
every one of them except the effective numbers: a vector with zeros appended is sparser. So compare only at equal
length, or compare effective numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...core import Measurement, SparseCode
from ..interval import bootstrap
from ..metric import metric

_SPREAD = ("scale", "permutation", "sign")


def _mass(c: Float[Tensor, "*batch n"]) -> tuple[Tensor, Tensor]:
    """Magnitudes over the row's largest (so that squares neither overflow nor vanish), and where there is any."""
    c = c.double().abs()
    largest = c.amax(-1, keepdim=True)
    return c / torch.where(largest > 0, largest, torch.ones_like(largest)), largest.squeeze(-1) > 0


def _where_any(value: Tensor, any_mass: Tensor) -> Tensor:
    return torch.where(any_mass, value, torch.full_like(value, math.nan))


@metric(range=(0.0, 1.0), unit="Gini index", invariant=_SPREAD)
def gini(c: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    r"""$1 - 2 \sum_{r=1}^{n} \frac{c_{(r)}}{|c|_1} \frac{n - r + 1/2}{n}$, magnitudes in ascending order.

    0 where all entries are alike, 1 - 1/n where one entry has all the mass; NaN for a zero row. Of the common measures
    the only one that has all six properties asked of sparsity (Robin Hood, Scaling, Rising Tide, Cloning, Bill Gates,
    Babies): adding zeros raises it, so compare at equal n.

    Args:
        c: one vector per row; signs do not matter.

    Source:
        Hurley and Rickard, "Comparing measures of sparsity", 2009.

    Example:
        >>> gini(torch.tensor([0.0, 0.0, 0.0, 5.0])).item()
        0.75
    """
    mass, any_mass = _mass(c)
    n = mass.shape[-1]
    ascending = mass.sort(-1).values
    weight = (n - torch.arange(1, n + 1, dtype=torch.float64, device=c.device) + 0.5) / n
    return _where_any(1 - 2 * (ascending * weight).sum(-1) / ascending.sum(-1), any_mass)


@metric(range=(0.0, 1.0), unit="Hoyer sparseness", invariant=_SPREAD)
def hoyer(c: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    r"""$(\sqrt n - |c|_1 / |c|_2) / (\sqrt n - 1)$.

    0 where all entries are alike, 1 where one entry has all the mass; NaN for a zero row.

    Raises:
        ValueError: if n is 1, where every vector is both.

    Source:
        Hoyer, "Non-negative matrix factorization with sparseness constraints", 2004 (section 3.1).

    Example:
        >>> hoyer(torch.tensor([0.0, 3.0, 0.0])).item()
        1.0
    """
    mass, any_mass = _mass(c)
    n = mass.shape[-1]
    if n < 2:
        raise ValueError("hoyer: needs at least 2 entries per row; got 1, which is at once dense and sparse.")
    ratio = mass.sum(-1) / mass.square().sum(-1).sqrt()
    return _where_any(((math.sqrt(n) - ratio) / (math.sqrt(n) - 1)).clamp(0, 1), any_mass)


@metric(range=(1.0, math.inf), unit="entries", invariant=_SPREAD)
def effective_number(c: Float[Tensor, "*batch n"], order: float | int = 1.0) -> Float[Tensor, "*batch"]:
    r"""Hill number $N_q = (\sum_i p_i^q)^{1/(1-q)}$ of $p = |c| / |c|_1$; $N_1 = \exp(-\sum_i p_i \ln p_i)$.

    How many equally large entries are as diverse: N0 counts nonzeros, N1 is the exponential of the entropy, N2 the
    participation ratio of magnitudes. N0 >= N1 >= N2, equal only where all nonzeros are alike; a Zipf law pulls them
    apart, so one of them alone hides it. Zeros appended change nothing. NaN for a zero row.

    Args:
        order: q >= 0; larger gives rare entries less say.

    Raises:
        ValueError: if order is negative.

    Source:
        Hill, "Diversity and evenness: a unifying notation and its consequences", 1973.

    Example:
        >>> effective_number(torch.tensor([2.0, 2.0, 0.0])).item()
        2.0
    """
    if not order >= 0:
        raise ValueError(f"effective_number: order must be at least 0; got {order}.")
    mass, any_mass = _mass(c)
    p = mass / mass.sum(-1, keepdim=True)
    if order == 0:
        number = (mass > 0).sum(-1).double()
    elif order == 1:
        number = torch.special.entr(p).sum(-1).exp()
    elif math.isinf(order):
        number = 1 / p.amax(-1)
    else:
        number = p.pow(order).sum(-1).pow(1 / (1 - order))
    return _where_any(number, any_mass)


@metric(range=(1.0, math.inf), unit="entries", invariant=_SPREAD)
def participation_number(c: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    r"""$(\sum_i c_i)^2 / \sum_i c_i^2$ of magnitudes: the Hill number of order 2. NaN for a zero row.

    Of the eigenvalues of a covariance it is the participation ratio of a representation, at most d by construction:
    it cannot see superposition.

    Example:
        >>> participation_number(torch.tensor([1.0, 1.0, 1.0, 0.0])).item()
        3.0
    """
    mass, any_mass = _mass(c)
    return _where_any(mass.sum(-1).square() / mass.square().sum(-1), any_mass)


@metric(range=(0.0, 1.0), unit="Treves-Rolls sparseness", invariant=_SPREAD)
def treves_rolls(c: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    r"""$S = (1 - a) / (1 - 1/n)$ with $a = (\frac1n \sum_i c_i)^2 / (\frac1n \sum_i c_i^2)$, of magnitudes.

    0 where all entries are alike, 1 where one entry has all the mass (their a runs the other way); NaN for a zero row.

    Raises:
        ValueError: if n is 1.

    Source:
        Rolls and Tovee, "Sparseness of the neuronal representation of stimuli in the primate temporal visual cortex",
        1995, for a. Vinje and Gallant, "Sparse coding and decorrelation in primary visual cortex during natural
        vision", 2000, for S.

    Example:
        >>> treves_rolls(torch.tensor([0.0, 1.0])).item()
        1.0
    """
    mass, any_mass = _mass(c)
    n = mass.shape[-1]
    if n < 2:
        raise ValueError("treves_rolls: needs at least 2 entries per row; got 1, which is at once dense and sparse.")
    a = mass.mean(-1).square() / mass.square().mean(-1)
    return _where_any(((1 - a) / (1 - 1 / n)).clamp(0, 1), any_mass)


@metric(range=(-2.0, math.inf), unit="excess kurtosis", invariant=("permutation",))
def excess_kurtosis(c: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    r"""$m_4 / m_2^2 - 3$ with $m_r = \frac1n \sum_i (c_i - \bar c)^r$: how heavy the tails of signed entries are.

    0 for a long Gaussian row, about n for one entry among n; NaN where all entries are equal. Tails rest on few
    entries, so it wants n well above one over the density of what is active. (overcomplete's `kappa_4` is
    $\sum c^4 / (\sum c^2)^2$, which is 1/n of a fourth moment about 0: another number.)

    Args:
        c: one vector per row; signs matter.

    Example:
        >>> excess_kurtosis(torch.tensor([1.0, -1.0, 1.0, -1.0])).item()
        -2.0
    """
    centred = c.double() - c.double().mean(-1, keepdim=True)
    largest = centred.abs().amax(-1, keepdim=True)
    # What rounding leaves of equal entries is no deviation.
    varies = largest > 1e-12 * c.double().abs().amax(-1, keepdim=True)
    centred = centred / torch.where(varies, largest, 1)
    second = centred.square().mean(-1)
    return _where_any(centred.pow(4).mean(-1) / second.square() - 3, varies.squeeze(-1))


def code_gini(code: SparseCode) -> Float[Tensor, "b"]:
    """gini(code.dense()) without the dense rows: O(k log k) each.

    Example:
        >>> code_gini(SparseCode(torch.tensor([[5.0, 0.0]]), torch.tensor([[2, 0]]), 4)).item()
        0.75
    """
    mass, any_mass = _mass(code.values)
    # Zeros come first in ascending order and add nothing, so only the ranks of the k largest are needed.
    ascending = mass.sort(-1).values
    ranks = torch.arange(code.n - code.k + 1, code.n + 1, dtype=torch.float64, device=mass.device)
    weight = (code.n - ranks + 0.5) / code.n
    return _where_any(1 - 2 * (ascending * weight).sum(-1) / ascending.sum(-1), any_mass)


def _ratio(sums: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[:, 0] / sums[:, 1]


def mean_measurement(
    name: str, unit: str, sums: np.ndarray, *, of: str, groups: str, caution: str = "", seed: int = 0
) -> Measurement:
    """A mean over rows from (sum, count) per group, with its bootstrap interval."""
    total, count = sums.sum(0)
    if count == 0:
        return Measurement(name=name, value=None, unit=unit, n=0, of=of, caution=caution or "no row could be measured")
    interval = bootstrap(_ratio, sums, of=groups, seed=seed)
    return Measurement(
        name=name, value=float(total / count), unit=unit, n=int(count), of=of, caution=caution, **interval.fields
    )


def code_sparsity(codes: Iterable[SparseCode]) -> tuple[Measurement, ...]:
    """l0, code_gini, and the effective numbers of latents of orders 0, 1 and 2, over a stream of codes.

    `code_gini` is the mean over rows of the index over all n latents, dead ones included; the effective numbers are
    of the activation mass E|f_i| over latents. For intervals and the rest of an SAE's figures see `evaluate`.

    Raises:
        ValueError: if there are no codes, or they differ in n.
    """
    rows, nonzeros, gini_sum, gini_rows = 0, 0, 0.0, 0
    mass: Tensor | None = None
    for code in codes:
        if mass is None:
            mass = torch.zeros(code.n, dtype=torch.float64)
        if code.n != len(mass):
            raise ValueError(
                f"code_sparsity: codes of {code.n} and of {len(mass)} features in one stream. Give one SAE's."
            )
        values, indices = code.values.double().cpu(), code.indices.cpu()
        mass.index_add_(0, indices.reshape(-1), values.abs().reshape(-1))
        rows += values.shape[:-1].numel()
        nonzeros += int(code.l0.sum())
        per_row = code_gini(code)
        gini_rows += int(per_row.isfinite().sum())
        gini_sum += float(per_row.nan_to_num(0.0).sum())
    if mass is None or not rows:
        raise ValueError("code_sparsity: there are no codes to measure.")
    empty = "" if gini_rows == rows else f"{rows - gini_rows} rows without a nonzero left out"
    found = [
        Measurement(name="l0", value=nonzeros / rows, unit="latents", n=rows, of="tokens"),
        Measurement(
            name="code_gini",
            value=gini_sum / gini_rows if gini_rows else None,
            unit="Gini index",
            n=gini_rows,
            of="tokens",
            caution=empty,
        ),
    ]
    for order, name in ((0, "used_latents"), (1, "entropy_effective_latents"), (2, "participating_latents")):
        value = float(effective_number(mass, order))
        silent = not math.isfinite(value)
        found.append(
            Measurement(
                name=name,
                value=None if silent else value,
                unit="latents",
                n=rows,
                of="tokens",
                caution="no latent ever fires" if silent else "",
            )
        )
    return tuple(found)
