"""What has become of one dictionary's atoms in another: matched, split, merged, tangled or not there at all?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from ...core import Dictionary, Measured, Measurement, ShapeError
from ..interval import wilson
from .matching import nearest_rows
from .stability import random_atoms

CORRESPONDENCES = ("matched", "split", "merged", "tangled", "unmatched")
"""What an atom can be, seen from the first dictionary: a split one is a single atom there and several in the second, a
merged one the other way round, tangled several in both."""

_OWN_STREAM = 0x5EED_0003


@dataclass(frozen=True, eq=False)
class Correspondence(Measured):
    """What `correspondence` measured; iterating gives the measurements, of the first dictionary's atoms first.

    Args:
        measurements: for each side the share of its atoms of each kind, beside chance.
        kind, other_kind: of each atom of the first and of the second dictionary, one of `CORRESPONDENCES`.
        group, other_group: the number of each atom's group, the same for those that belong together; -1 for none.
        nearest, other_nearest: the nearest atom of the other dictionary.
        cosine, other_cosine: with that one; magnitudes unless signed.
        chance, other_chance: the same cosines where the other dictionary's atoms are drawn at random, one row a draw.
    """

    measurements: tuple[Measurement, ...]
    kind: tuple[str, ...]
    other_kind: tuple[str, ...]
    group: Int[Tensor, "n"]
    other_group: Int[Tensor, "m"]
    nearest: Int[Tensor, "n"]
    other_nearest: Int[Tensor, "m"]
    cosine: Float[Tensor, "n"]
    other_cosine: Float[Tensor, "m"]
    chance: Float[Tensor, "draws n"]
    other_chance: Float[Tensor, "draws m"]

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements)


@torch.no_grad()
def correspondence(
    a: Dictionary, b: Dictionary, *, threshold: float = 0.7, signed: bool = True, draws: int = 3, seed: int = 0
) -> Correspondence:
    r"""Groups of atoms that are each other's nearest: i and j are tied if either is the other's nearest.

    Ties are $\{(i, j) : \langle \hat a_i, \hat b_j \rangle \ge \theta,\ j = \arg\max_{j'} \langle \hat a_i, \hat b_{j'}
    \rangle \text{ or } i = \arg\max_{i'} \langle \hat a_{i'}, \hat b_j \rangle\}$; a group is a connected part of the
    graph they make. One atom on either side is matched, one against several split, several against one merged,
    several against several tangled; an atom without a tie is unmatched. So every atom is of one kind, and exchanging
    the dictionaries exchanges split and merged. Unlike a one-to-one matching it pairs nothing for want of a better
    partner.

    Chance: the other dictionary's atoms drawn from a Gaussian of their own second moment, so that directions that all
    atoms favour tie nothing. The interval is Wilson's, as if atoms were drawn independently. Costs O(n m d) time and
    memory for a block of cosines.

    Args:
        a, b: dictionaries of one space. Norms do not matter.
        threshold: theta.
        signed: cosines as they are; without it their magnitudes, for codes that may be negative.
        draws: random dictionaries for each side; 0 leaves chance out.
        seed: of the draws.

    Raises:
        ShapeError: if the dictionaries differ in d.
        ValueError: if an atom is zero, or the threshold is not in (0, 1).

    Example:
        >>> wide = Dictionary(torch.tensor([[1.0, 0.1], [1.0, -0.1], [0.0, 1.0]]))
        >>> correspondence(Dictionary(torch.eye(2)), wide).kind
        ('split', 'matched')
    """
    if a.d != b.d:
        raise ShapeError(
            f"correspondence: the dictionaries have d = {a.d} and d = {b.d}. Compare dictionaries of one space."
        )
    if not 0 < threshold < 1:
        raise ValueError(f"correspondence: threshold must be a cosine in (0, 1); got {threshold}.")
    first, second = (W.unit().atoms.detach().double().cpu() for W in (a, b))
    cosine, nearest = nearest_rows(first, second, signed=signed)
    other_cosine, other_nearest = nearest_rows(second, first, signed=signed)
    group, other_group = _groups(cosine, nearest, other_cosine, other_nearest, threshold)
    kinds = _kinds(group, other_group)
    generator = torch.Generator().manual_seed(seed + _OWN_STREAM)
    chance: list[tuple[Tensor, Tensor]] = []
    counts: list[tuple[list[str], list[str]]] = []
    for _ in range(draws):
        drawn = [random_atoms(len(W), W.shape[1], generator, W.T @ W).double() for W in (first, second)]
        own = nearest_rows(first, drawn[1], signed=signed), nearest_rows(drawn[1], first, signed=signed)
        theirs = nearest_rows(drawn[0], second, signed=signed), nearest_rows(second, drawn[0], signed=signed)
        chance.append((own[0][0], theirs[1][0]))
        counts.append(
            (
                _kinds(*_groups(*own[0], *own[1], threshold))[0],
                _kinds(*_groups(*theirs[0], *theirs[1], threshold))[1],
            )
        )
    measurements = [
        _share(side, kind, kinds[side], [count[side] for count in counts], threshold)
        for side in (0, 1)
        for kind in CORRESPONDENCES
    ]
    return Correspondence(
        measurements=tuple(measurements),
        kind=tuple(kinds[0]),
        other_kind=tuple(kinds[1]),
        group=group,
        other_group=other_group,
        nearest=nearest,
        other_nearest=other_nearest,
        cosine=cosine.clamp(max=1.0),
        other_cosine=other_cosine.clamp(max=1.0),
        chance=torch.stack([one for one, _ in chance]) if chance else cosine.new_empty(0, len(first)),
        other_chance=torch.stack([one for _, one in chance]) if chance else cosine.new_empty(0, len(second)),
    )


def _groups(
    cosine: Tensor, nearest: Tensor, other_cosine: Tensor, other_nearest: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """The number of each atom's group, -1 where it has no tie."""
    n, m = len(cosine), len(other_cosine)
    near, far = (cosine >= threshold).nonzero()[:, 0], (other_cosine >= threshold).nonzero()[:, 0]
    i = torch.cat([near, other_nearest[far]]).numpy()
    j = torch.cat([nearest[near], far]).numpy()
    graph = coo_matrix((np.ones(len(i), dtype=np.int8), (i, n + j)), shape=(n + m, n + m))
    label = connected_components(graph, directed=False)[1]
    tied = np.zeros(n + m, dtype=bool)
    tied[i], tied[n + j] = True, True
    # Groups are numbered in the order of the first dictionary's atoms.
    numbers = {int(one): number for number, one in enumerate(dict.fromkeys(label[tied].tolist()))}
    group = torch.tensor([numbers[one] if is_tied else -1 for one, is_tied in zip(label.tolist(), tied.tolist())])
    return group[:n], group[n:]


def _kinds(group: Tensor, other_group: Tensor) -> tuple[list[str], list[str]]:
    count = int(max(group.max(), other_group.max())) + 1
    sizes = [torch.bincount(part[part >= 0], minlength=count) for part in (group, other_group)]
    names = {(True, True): "matched", (True, False): "split", (False, True): "merged", (False, False): "tangled"}
    of = [names[one, other] for one, other in zip((sizes[0] == 1).tolist(), (sizes[1] == 1).tolist())]
    first, second = ([of[g] if g >= 0 else "unmatched" for g in part.tolist()] for part in (group, other_group))
    return first, second


def _share(side: int, kind: str, kinds: list[str], drawn: list[list[str]], threshold: float) -> Measurement:
    hits, n = kinds.count(kind), len(kinds)
    chance = [one.count(kind) / n for one in drawn]
    span = f", {len(chance)} draws ({min(chance):.3f} to {max(chance):.3f})" if chance else ""
    return Measurement(
        name="atom_correspondence",
        value=hits / n,
        unit="share of atoms",
        n=n,
        of="atoms",
        chance=sum(chance) / len(chance) if chance else None,
        chance_is=f"directions of the other's own second moment{span}" if chance else "",
        at={"atoms_of": ("first", "second")[side], "kind": kind, "threshold": threshold},
        **wilson(hits, n, of="atoms, as if independent").fields,
    )
