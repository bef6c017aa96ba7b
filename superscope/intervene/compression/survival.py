"""Which features outlive a compression? By geometry, predicted and measured, and by what the network makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...core import ShapeError

_ROWS = 4096


@dataclass(frozen=True, eq=False)
class Survival:
    r"""What became of each feature: float64, one entry each, NaN for one that is never active or never silent.

    A read-out of feature j is $a_j \cdot x$, its own atom as before: the network behind was not trained again. Its
    signal-to-noise is $r^2 / (1 - r^2)$, r the correlation of the read-out with $f_j$ over rows.

    Args:
        density: share of rows on which the feature is active.
        cosine: of its atom before and after; NaN where nothing is left of it.
        before, after: signal-to-noise on the rows, before and after.
        predicted_before, predicted_after: the same from atoms and variances alone, as if features were independent.
    """

    density: Float[Tensor, "n"]
    cosine: Float[Tensor, "n"]
    before: Float[Tensor, "n"]
    after: Float[Tensor, "n"]
    predicted_before: Float[Tensor, "n"]
    predicted_after: Float[Tensor, "n"]

    @property
    def measured(self) -> Float[Tensor, "n"]:
        """Signal-to-noise after over before, on the rows."""
        return self.after / self.before

    @property
    def predicted(self) -> Float[Tensor, "n"]:
        """The same, as if features were independent."""
        return self.predicted_after / self.predicted_before


@torch.no_grad()
def survival(
    f: Float[Tensor, "rows n"],
    x: Float[Tensor, "rows d"],
    y: Float[Tensor, "rows d"],
    atoms: Float[Tensor, "n d"],
    moved: Float[Tensor, "n d"],
) -> Survival:
    r"""Geometric survival of every feature: $x = \sum_j f_j a_j + \ldots$ has become y and $a_j$ has become $a_j'$.

    Predicted, with $v_i$ the variance of $f_i$: signal $v_j (a_j \cdot a_j')^2$ over noise
    $\sum_{i \ne j} v_i (a_j \cdot a_i')^2$, and over $a_j^\top R' a_j$, what the same read-out picks up of the part of
    x that is no feature's, where y has one.

    Args:
        f: the code, dense.
        x, y: rows before and after.
        atoms, moved: a and a'. For a projection P of the stream, a' = P a; for a compressed W of x = W f, its columns.

    Raises:
        ShapeError: if shapes do not belong together.
        ValueError: if there are fewer than two rows.
    """
    rows, n = f.shape
    if x.shape != y.shape or len(x) != rows or atoms.shape != moved.shape or atoms.shape != (n, x.shape[1]):
        raise ShapeError(
            f"survival: f {tuple(f.shape)}, x {tuple(x.shape)}, y {tuple(y.shape)}, atoms {tuple(atoms.shape)} and "
            f"moved {tuple(moved.shape)} do not belong together; rows of f, x and y are the same tokens, and there is "
            "an atom for each feature, before and after."
        )
    if rows < 2:
        raise ValueError(f"survival: {rows} rows; a correlation needs at least 2.")
    a, b = atoms.double(), moved.double()
    active = torch.zeros(n, dtype=torch.float64, device=f.device)
    total, square = torch.zeros_like(active), torch.zeros_like(active)
    sums = {name: [torch.zeros_like(active) for _ in range(3)] for name in ("x", "y")}
    centres = {"x": x.double().mean(0), "y": y.double().mean(0)}
    rest = {name: torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device) for name in ("x", "y")}
    mean = f.double().mean(0)
    for at in range(0, rows, _ROWS):
        part = f[at : at + _ROWS].double()
        active += (part != 0).sum(0)
        part = part - mean
        total += part.sum(0)
        square += part.square().sum(0)
        for name, whole, own in (("x", x, a), ("y", y, b)):
            centred = whole[at : at + _ROWS].double() - centres[name]
            read = centred @ a.T
            sums[name][0] += read.square().sum(0)
            sums[name][1] += (read * part).sum(0)
            left = centred - part @ own
            rest[name] += left.T @ left / rows
    density, variance = active / rows, square / rows
    seen = (variance > 0) & (a.square().sum(1) > 0)

    def measured(name: str) -> Tensor:
        r2 = sums[name][1].square() / (sums[name][0] * square).clamp(min=torch.finfo(torch.float64).tiny)
        r2 = r2.clamp(max=1 - 1e-12)
        return torch.where(seen, r2 / (1 - r2), torch.nan)

    def predicted(own: Tensor, left: Tensor) -> Tensor:
        gram = (a @ own.T).square()
        signal = variance * gram.diagonal()
        noise = gram @ variance - signal + ((a @ left) * a).sum(1)
        return torch.where(seen, signal / noise.clamp(min=1e-12 * signal.clamp(min=1e-300)), torch.nan)

    lengths = a.norm(dim=1) * b.norm(dim=1)
    cosine = torch.where(seen & (lengths > 0), (a * b).sum(1) / lengths.clamp(min=1e-300), torch.nan)
    return Survival(
        density,
        cosine,
        measured("x"),
        measured("y"),
        predicted(a, rest["x"]),
        predicted(b, rest["y"]),
    )


@torch.no_grad()
def restored_loss(
    loss: Callable[[Tensor, Tensor], Tensor],
    f: Float[Tensor, "rows n"],
    y: Float[Tensor, "rows d"],
    atoms: Float[Tensor, "n d"],
    moved: Float[Tensor, "n d"],
    features: Int[Tensor, "m"],
    *,
    rows: int = 2000,
) -> tuple[Float[Tensor, "m"], Float[Tensor, "m"]]:
    r"""Causal survival: what the loss falls by when one feature alone is put back, $y + f_j (a_j - a_j')$.

    Args:
        loss: from rows of x and the numbers of the rows they are, to the loss of each row.
        f, y, atoms, moved: as for `survival`.
        features: which to put back, each by itself.
        rows: at most, of those on which the feature is active, the first ones.

    Returns:
        The mean fall over the rows on which each is active, and the deviation of that mean; NaN where there are fewer
        than two. Below 0 where the network is better off without it.
    """
    mean = torch.full((len(features),), torch.nan, dtype=torch.float64)
    deviation = mean.clone()
    for place, j in enumerate(features.tolist()):
        where = (f[:, j] != 0).nonzero()[:rows, 0]
        if len(where) < 2:
            continue
        back = y[where] + f[where, j, None] * (atoms[j] - moved[j])
        fall = (loss(y[where], where) - loss(back, where)).double()
        mean[place] = fall.mean()
        deviation[place] = fall.std() / len(where) ** 0.5
    return mean, deviation
