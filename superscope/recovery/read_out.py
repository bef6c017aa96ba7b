"""One feature out of an activation: alignment times magnitude, with the error that the other features cause."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import scipy.stats
import torch
from jaxtyping import Float
from torch import Tensor

from ..core import Dictionary, ShapeError
from .problem import check_dictionary, check_rows, working


@dataclass(frozen=True, eq=False)
class ReadOut:
    """A feature's value per row, and how far interference may have moved it.

    Args:
        value: estimate of f_i, the expected interference already subtracted.
        error: standard deviation of the interference in it.
        low, high: value -+ the normal quantile of the asked level times error.
        alignment: cosine of x with the atom.
        magnitude: norm of x.
        bias: expected interference that was subtracted.
        how: where the error comes from, in words.
    """

    value: Float[Tensor, "*batch"]
    error: Float[Tensor, "*batch"]
    low: Float[Tensor, "*batch"]
    high: Float[Tensor, "*batch"]
    alignment: Float[Tensor, "*batch"]
    magnitude: Float[Tensor, "*batch"]
    bias: float
    how: str


@torch.no_grad()
def read_out(
    W: Dictionary,
    x: Float[Tensor, "*batch d"],
    feature: int | str,
    *,
    mean: Float[Tensor, "n"] | None = None,
    variance: Float[Tensor, "n"] | None = None,
    direction: Literal["matched", "least variance"] = "matched",
    level: float = 0.95,
) -> ReadOut:
    r"""$\hat f_i = \langle w_i, x \rangle / \lVert w_i \rVert^2 = \cos(w_i, x) \, \lVert x \rVert / \lVert w_i \rVert$.

    Alignment times magnitude, less the interference to be expected. Since x = W f, $\hat f_i = f_i + \sum_{j \ne i}
    g_{ij} f_j$ with $g_{ij} = \langle w_i, w_j \rangle / \lVert w_i \rVert^2$. Given every feature's mean m and
    variance v, and independence, the interference has mean $\sum_j g_{ij} m_j$ and variance $\sum_j g_{ij}^2 v_j$, the
    same for all rows. Given neither, its size is taken from the row itself: what x has outside the atom, spread evenly
    over the other d - 1 dimensions, would leave $\lVert x_\perp \rVert / (\lVert w_i \rVert \sqrt{d - 1})$ along it;
    that is right for a typical atom of an isotropic dictionary and too small for one in a cluster of active atoms.

    The interval is a normal one. Sums of many sparse features have heavier tails: at a density of 1 % with a hundred
    overlapping atoms trust it to a few points of coverage, not to a fraction.

    Args:
        W: dictionary; its bias is subtracted from x.
        x: activations.
        feature: an atom's number or label.
        mean, variance: of every feature over the data (zeros counted), both or neither. The entry of `feature` itself
            is not used.
        direction: "matched" reads along the atom; "least variance" along $C^{-1} w_i$, C the covariance of the
            interference, which turns away from the neighbours that are active most. It needs `variance`.
        level: of the interval.

    Returns:
        Value, error and interval per row, in units of the feature.

    Raises:
        ValueError: if the atom is zero, only one of mean and variance is given, or level is outside (0, 1).
        ShapeError: if mean or variance do not have n entries.

    Source:
        Capon, "High-resolution frequency-wavenumber spectrum analysis", 1969 (the least-variance direction).

    Example:
        >>> W = Dictionary(torch.tensor([[2.0, 0.0], [0.6, 0.8]]))
        >>> f = torch.tensor([1.0, 0.5])
        >>> found = read_out(W, W.compose(f), 0, mean=torch.tensor([0.0, 0.5]), variance=torch.tensor([1.0, 0.25]))
        >>> round(float(found.value), 4), round(float(found.error), 4)
        (1.0, 0.15)
    """
    check_dictionary("read_out", W)
    rows = check_rows("read_out", W, x)
    if not 0 < level < 1:
        raise ValueError(f"read_out: level must lie in (0, 1); got {level}.")
    if direction not in ("matched", "least variance"):
        raise ValueError(f"read_out: direction must be 'matched' or 'least variance'; got {direction!r}.")
    if (mean is None) != (variance is None):
        raise ValueError("read_out: give both mean and variance of the features, or neither.")
    if direction == "least variance" and variance is None:
        raise ValueError("read_out: the least-variance direction needs mean and variance of every feature.")
    index = feature if isinstance(feature, int) else _index(W, feature)
    atoms = working(W.atoms.detach()).double()
    if not -W.n <= index < W.n:
        raise ValueError(f"read_out: feature must be an atom in [0, {W.n}); got {index}.")
    atom = atoms[index]
    length = float(atom.norm())
    if length == 0:
        raise ValueError(f"read_out: atom {feature} is zero, so x carries nothing of that feature.")
    rows = rows.double()
    if W.bias is not None:
        rows = rows - W.bias.detach().double()
    magnitude = rows.norm(dim=-1)
    along = rows @ (atom / length)
    alignment = torch.where(magnitude > 0, along / torch.where(magnitude > 0, magnitude, 1), 0)
    if mean is None or variance is None:
        across = (magnitude.square() - along.square()).clamp(min=0).sqrt()
        error = across / (length * math.sqrt(max(W.d - 1, 1)))
        raw, bias = along / length, 0.0
        how = "interference estimated from the row: what lies outside the atom, spread evenly over d - 1 dimensions"
    else:
        others_mean, others_variance = (
            _per_feature(W, t, name, index) for t, name in ((mean, "mean"), (variance, "variance"))
        )
        reader = atom / length**2
        if direction == "least variance":
            covariance = (atoms * others_variance[:, None]).T @ atoms
            # A hair of white noise: dimensions that no other feature uses would otherwise divide by zero.
            floor = 1e-10 * float(covariance.trace()) / W.d or 1.0
            reader = torch.linalg.solve(
                covariance + floor * torch.eye(W.d, dtype=torch.float64, device=atoms.device), atom
            )
            reader = reader / (reader @ atom)
        overlap = atoms @ reader
        bias = float(overlap @ others_mean)
        raw = rows @ reader
        error = (overlap.square() @ others_variance).sqrt().expand_as(raw)
        how = f"independent features of given mean and variance, read along the {direction} direction"
    value = raw - bias
    reach = float(scipy.stats.norm.ppf((1 + level) / 2)) * error
    out = (t.to(x.dtype) for t in (value, error, value - reach, value + reach, alignment.clamp(-1, 1), magnitude))
    return ReadOut(*out, bias=bias, how=how)


def _index(W: Dictionary, label: str) -> int:
    W[label]  # the dictionary's own error offers the nearest labels
    return (W.labels or ()).index(label)


def _per_feature(W: Dictionary, given: Tensor, name: str, index: int) -> Float[Tensor, "n"]:
    if given.shape != (W.n,):
        raise ShapeError(
            f"read_out: {name} must have n = {W.n} entries, one per feature; got shape {tuple(given.shape)}."
        )
    if not bool(torch.isfinite(given).all()) or (name == "variance" and bool((given < 0).any())):
        raise ValueError(f"read_out: {name} must be finite{' and not negative' if name == 'variance' else ''}.")
    others = given.detach().double().clone()
    others[index] = 0.0
    return others
