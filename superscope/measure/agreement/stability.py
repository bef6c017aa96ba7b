"""Which directions are found again when the same dictionary is learned from other seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...core import Dictionary, Measured, Measurement, ShapeError
from ..interval import over_seeds

_BLOCK = 2**24


@dataclass(frozen=True, eq=False)
class Recurrence(Measured):
    """What `recurring_features` found; iterating gives the measurements.

    Args:
        measurements: `recurring_features` (in all), `recurring_features_most` (in at least 3/4), both with chance,
            and `recurring_per_dimension`.
        counts: for each atom of the first dictionary, in how many dictionaries its direction occurs, itself included;
            0 for an atom left out as dead.
        histogram: for c = 1..R, how many directions occur in exactly c dictionaries.
        directions: unit mean of the members of each direction that occurs in all, most agreeing first.
        members: for each direction, its atom in each dictionary; -1 where it has none.
    """

    measurements: tuple[Measurement, ...]
    counts: Int[Tensor, "n"]
    histogram: tuple[int, ...]
    directions: Float[Tensor, "found d"]
    members: Int[Tensor, "clusters r"]

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements)


def _unit(atoms: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    return atoms / atoms.norm(dim=1, keepdim=True)


def near_pairs(a: Tensor, b: Tensor, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All (i, j) with <a_i, b_j> > threshold, by falling cosine; ties by index, so that the order is one."""
    rows, columns, cosines = [], [], []
    size = max(_BLOCK // max(len(b), 1), 1)
    for start in range(0, len(a), size):
        block = a[start : start + size] @ b.T
        i, j = (block > threshold).nonzero(as_tuple=True)
        rows.append((i + start).cpu().numpy())
        columns.append(j.cpu().numpy())
        cosines.append(block[i, j].cpu().numpy())
    i, j, c = np.concatenate(rows), np.concatenate(columns), np.concatenate(cosines)
    order = np.lexsort((j, i, -c))
    return i[order], j[order], c[order]


def cluster_directions(atoms: Sequence[Float[Tensor, "_ d"]], threshold: float) -> Int[Tensor, "clusters r"]:
    """Groups unit rows of several matrices into directions: at most one row of each matrix in a direction.

    Matrices are taken in turn. The rows of each are matched one to one with the directions so far (unit means of
    their members), closest pairs first, as long as the cosine exceeds the threshold; a row left over begins a new
    direction. So two near rows of one matrix stay two directions, and a duplicate cannot count for another seed.

    Args:
        atoms: unit rows; the matrices may differ in n.
        threshold: cosine, in (0, 1); signed, since a latent and its negative are different features.

    Returns:
        For each direction its row in each matrix, -1 where there is none. The first rows are those of the first matrix.
    """
    r = len(atoms)
    members = np.full((len(atoms[0]), r), -1)
    members[:, 0] = np.arange(len(atoms[0]))
    sums = atoms[0].clone()
    for turn in range(1, r):
        new = atoms[turn]
        cluster, row, _ = near_pairs(_unit(sums), new, threshold)
        taken_cluster, taken_row = np.zeros(len(sums), dtype=bool), np.zeros(len(new), dtype=bool)
        for c, a in zip(cluster.tolist(), row.tolist(), strict=True):
            if not taken_cluster[c] and not taken_row[a]:
                taken_cluster[c] = taken_row[a] = True
                members[c, turn] = a
        joined = members[:, turn] >= 0
        sums[torch.from_numpy(joined)] += new[torch.from_numpy(members[joined, turn])]
        left = np.flatnonzero(~taken_row)
        fresh = np.full((len(left), r), -1)
        fresh[:, turn] = left
        members = np.concatenate([members, fresh])
        sums = torch.cat([sums, new[torch.from_numpy(left)]])
    return torch.from_numpy(members)


def random_atoms(
    n: int, d: int, generator: torch.Generator, covariance: Float[Tensor, "d d"] | None = None
) -> Float[Tensor, "n d"]:
    """n unit directions of N(0, C) draws; uniform on the sphere where no C is given.

    Directions drawn with the data's own covariance are the honest null: where a few directions carry the variance,
    random draws fall near each other far more often than uniform ones.
    """
    draws = torch.randn(n, d, generator=generator, dtype=torch.float64)
    if covariance is not None:
        values, vectors = torch.linalg.eigh(covariance.double().cpu())
        draws = (draws * values.clamp(min=0).sqrt()) @ vectors.T
    return _unit(draws).float()


@torch.no_grad()
def recurring_features(
    dictionaries: Sequence[Dictionary],
    *,
    threshold: float = 0.7,
    alive: Sequence[Bool[Tensor, "_"]] | None = None,
    covariance: Float[Tensor, "d d"] | None = None,
    draws: int = 3,
    seed: int = 0,
) -> Recurrence:
    r"""#directions that occur in all R dictionaries (and in at least 3R/4), an atom matching at cosine > threshold.

    R dictionaries learned on the same data from different seeds agree on what the data hold and differ in what their
    start left over: on noise nothing recurs, while every latent may be alive. An undercount where the dictionaries
    are too narrow or k is far too large; a right count may be of composites (absorption), not of the true features.

    Chance is the same procedure on R dictionaries of as many random directions with the data's covariance; the mean
    over the draws. In few dimensions it is large.

    Costs O(R^2 n^2 d) time at most, O(block) memory. The order of the dictionaries can move a count by the few
    directions near the threshold.

    Args:
        dictionaries: R >= 2, of one d; atoms are normalised; zero atoms are left out.
        threshold: signed cosine, in (0, 1).
        alive: for each dictionary which atoms to use; None is all.
        covariance: of x, for chance (see `moments`); None draws directions uniformly.
        draws: repetitions of the chance procedure; 0 leaves chance out.
        seed: of those draws.

    Raises:
        ValueError: if there are fewer than 2 dictionaries or the threshold is not in (0, 1).
        ShapeError: if they differ in d, or `alive` does not fit.

    Example:
        >>> W = Dictionary(torch.eye(3))
        >>> recurring_features([W, W, W], draws=0).measurements[0].value
        3.0
    """
    if len(dictionaries) < 2:
        raise ValueError(
            f"recurring_features: needs at least 2 dictionaries from different seeds; got {len(dictionaries)}."
        )
    if not 0 < threshold < 1:
        raise ValueError(f"recurring_features: threshold must be in (0, 1); got {threshold}.")
    d = dictionaries[0].d
    if any(W.d != d for W in dictionaries):
        raise ShapeError(
            f"recurring_features: dictionaries of one d are needed; got d = {[W.d for W in dictionaries]}."
        )
    if covariance is not None and covariance.shape != (d, d):
        raise ShapeError(f"recurring_features: covariance must be {d} x {d}; got {tuple(covariance.shape)}.")
    if alive is None:
        alive = [torch.ones(W.n, dtype=torch.bool) for W in dictionaries]
    if len(alive) != len(dictionaries) or any(len(a) != W.n for a, W in zip(alive, dictionaries, strict=False)):
        raise ShapeError("recurring_features: alive needs one mask per dictionary with one entry per atom.")
    kept = [(a.cpu() & (W.norms > 0).cpu()).nonzero().squeeze(1) for a, W in zip(alive, dictionaries, strict=True)]
    atoms = [_unit(W.atoms.detach().float().cpu()[rows]) for W, rows in zip(dictionaries, kept, strict=True)]
    r = len(atoms)
    members = cluster_directions(atoms, threshold)
    occurs = (members >= 0).sum(1)
    counts = torch.zeros(dictionaries[0].n, dtype=torch.long)
    counts[kept[0]] = occurs[: len(kept[0])]
    histogram = tuple(int((occurs == c).sum()) for c in range(1, r + 1))

    generator = torch.Generator().manual_seed(seed)
    null = []
    for _ in range(draws):
        random = [random_atoms(len(rows), d, generator, covariance) for rows in kept]
        null.append((cluster_directions(random, threshold) >= 0).sum(1))
    matched = "uniform random dictionaries" if covariance is None else "covariance-matched random dictionaries"
    how = f"no interval: one count over {r} seeds"

    def measured(name: str, least: int) -> Measurement:
        chance = [float((c >= least).sum()) for c in null]
        spread = over_seeds(chance, of="draws")
        return Measurement(
            name=name,
            value=float((occurs >= least).sum()),
            unit=f"directions at cosine > {threshold:g}",
            n=r,
            of="dictionaries",
            how=how,
            chance=sum(chance) / len(chance) if chance else None,
            chance_is=f"{matched}, {draws} draws ({spread.low:g} to {spread.high:g})"
            if spread.low is not None
            else matched,
        )

    whole = measured("recurring_features", r)
    most = measured("recurring_features_most", math.ceil(3 * r / 4))
    per_dimension = Measurement(
        name="recurring_per_dimension",
        value=(whole.value or 0.0) / d,
        unit="directions per dimension",
        n=r,
        of="dictionaries",
        how=how,
        chance=None if whole.chance is None else whole.chance / d,
        chance_is=whole.chance_is,
    )
    everywhere = members[occurs == r]
    found = sum((atoms[s][everywhere[:, s]] for s in range(r)), torch.zeros(len(everywhere), d))
    # Members that agree add up to a long sum.
    order = found.norm(dim=1).argsort(descending=True, stable=True)
    original = torch.stack(
        [torch.where(members[:, s] >= 0, kept[s][members[:, s].clamp(min=0)], -1) for s in range(r)], 1
    )
    return Recurrence(
        measurements=(whole, most, per_dimension),
        counts=counts,
        histogram=histogram,
        directions=_unit(found[order]),
        members=original,
    )
