"""What are the latents that are no feature: dead, double, a mixture, or a child that took over its parent?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...core import Dictionary, Measured, Measurement, ShapeError, SparseCoder
from ..interval import jackknife, wilson
from ..stream import BlockSums, Groups, Rows, read
from .matching import Matching, match, pairs_above
from .stability import near_pairs, random_atoms

_BLOCK = 2**24
_OWN_STREAM = 0x5EED_0002
_TRIED = 8
"""True atoms nearest to a latent's that are tried as one half of a mixture; the other half is any."""
_LEANING = 2**14
"""Pairs of a latent and a feature whose correlation is looked at: those that lean most."""
_Z = 3.0
"""Standard errors from which a correlation of two features counts as one."""

LATENT_KINDS = ("feature", "dead", "duplicate", "composite", "other")


@dataclass(frozen=True, eq=False)
class LatentKinds(Measured):
    """What `latent_kinds` measured; iterating gives the measurements.

    Args:
        measurements: shares of latents, of parent-child pairs, and the rate of absorption.
        kind: of each latent, one of `LATENT_KINDS`.
        hedges: for each latent whether its atom leans towards a missed feature that goes with its own.
        absorbs: for each latent whether it stands for a child and has taken its parent's place.
        halves: of each composite latent the two features that it is made of; -1, -1 for others.
    """

    measurements: tuple[Measurement, ...]
    kind: tuple[str, ...]
    hedges: Bool[Tensor, "n"]
    absorbs: Bool[Tensor, "n"]
    halves: Int[Tensor, "n 2"]

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements)


@dataclass(frozen=True, eq=False)
class _Family:
    """Parent-child pairs whose parent has a latent of its own."""

    parent: Tensor
    child: Tensor
    parent_latent: Tensor
    child_latent: Tensor
    leans: Tensor


@torch.no_grad()
def latent_kinds(
    coder: SparseCoder,
    rows: Rows,
    truth: Dictionary,
    *,
    parents: Int[Tensor, "n"] | None = None,
    threshold: float = 0.9,
    own: float = 0.7,
    lean: float = 0.25,
    batches: int | None = None,
    size: int = 4096,
    draws: int = 3,
    seed: int = 0,
) -> LatentKinds:
    r"""Shares of latents that are dead, duplicate or composite, that hedge or absorb, where the truth is known.

    $\hat a_i$ are learned and $\hat b_j$ true unit atoms; a latent and a feature belong to each other if `match` pairs
    them, and the feature *has a latent of its own* if their |cosine| is at least `own`. Every latent is of one kind,
    the first that fits:

    - `dead_latents`: active on none of the N rows read. One of density p is missed with probability (1 - p)^N.
    - `duplicate_latents`: alive, with cosine above `threshold` to a live latent of lower number.
    - a feature: in a largest one-to-one pairing at cosine above `threshold`, as in `atom_precision`.
    - `composite_latents`: no true atom is as near as `threshold` (in |cosine|), and the plane of two is. The nearest
      eight are tried as one half, every true atom as the other.
    - `other_latents`: none of these.

    And beside their kind:

    - `hedged_latents`: for a feature j *without* a latent of its own, $h = \langle \hat a_i, \hat b_j \rangle - \langle
      \hat b_i, \hat b_j \rangle$ exceeds `lean`, and j is correlated with the latent's own feature (by three standard
      errors): the latent covers for j. Chance: those that lean as far the other way, $h < -lean$.
    - `absorption_rate`: of the rows where a child and its parent are both active, the share on which the parent's own
      latent is silent while the child's fires, whose atom leans towards the parent by more than `lean`. Chance: the
      parent's latent silent as often as where the child is off, whatever the child's does.
    - `absorbed_children`: share of parent-child pairs where the child's latent leans so and silences the parent's: on
      at least half of the rows with both on which it would have fired, by its share of the rows without the child.

    The last two are over pairs whose parent has a latent of its own: one that was missed cannot be absorbed. They are
    None where the world has no parents.

    Args:
        coder: an SAE, or any other coder.
        rows: a world, or batches with their true code.
        truth: the features' atoms.
        parents: of each feature its parent's number, -1 for none; None where the world has no such thing.
        threshold: cosine from which two atoms are the same.
        own: |cosine| from which a feature's latent is its own. The sum of two orthogonal atoms has 0.71 with either.
        lean: cosine, beyond that of the true atoms, from which an atom leans towards another feature.
        batches, size, seed: as for `code_scores`.
        draws: random dictionaries for the chance levels of duplicates and composites; 0 leaves these out.

    Raises:
        ValueError: if a batch does not carry its true code, there is nothing to read, an atom is zero, or a number is
            outside (0, 1).
        ShapeError: if code and truth differ in n, coder and truth in d, or parents do not fit.

    Source:
        Chanin et al., "A is for absorption", 2024 (absorption; here with the truth in the place of probes).
        Chanin, Dulka and Garriga-Alonso, "Feature hedging", 2025 (arXiv 2505.11756).
    """
    W = coder.dictionary
    _check(W, truth, parents, {"threshold": threshold, "own": own, "lean": lean})
    a, b = (V.unit().atoms.detach().double().cpu() for V in (W, truth))
    pairs = match(W, truth)
    # A latent of an atom that points the other way stands for minus its feature.
    sign = torch.ones(W.n, dtype=torch.float64)
    sign[pairs.first] = torch.where((a[pairs.first] * b[pairs.second]).sum(1) < 0, -1.0, 1.0).double()
    latent_of = torch.full((truth.n,), -1)
    latent_of[pairs.second] = pairs.first
    has_own = torch.zeros(truth.n, dtype=torch.bool)
    has_own[pairs.second] = pairs.cosines >= own
    leaning = _leaning(a * sign[:, None], b, pairs, has_own, own, lean)
    family = None if parents is None else _family(a * sign[:, None], b, parents.cpu(), latent_of, has_own, lean)
    seen = _Counts(W.n, truth.n, leaning, family)
    for batch in read(rows, size=size, most=batches, seed=seed):
        if batch.code is None:
            raise ValueError(
                "latent_kinds: the batches do not carry their true code. Give a world, or Activations with `code`."
            )
        if batch.code.n != truth.n:
            raise ShapeError(f"latent_kinds: the true code has {batch.code.n} features, the truth {truth.n} atoms.")
        seen.add(batch, coder)
    alive = seen.fired > 0
    duplicate = _duplicates(a, alive, threshold)
    is_feature = torch.from_numpy(pairs_above(a, b, threshold) >= 0) & alive & ~duplicate
    halves = _halves(a, b, threshold)
    composite = (halves[:, 0] >= 0) & alive & ~duplicate & ~is_feature
    other = alive & ~duplicate & ~is_feature & ~composite
    toward, away = (seen.hedging(leaning, signum, W.n) for signum in (1, -1))
    generator = torch.Generator().manual_seed(seed + _OWN_STREAM)
    random = [random_atoms(W.n, W.d, generator).double() for _ in range(draws)]
    everyone = torch.ones(W.n, dtype=torch.bool)
    chance = {
        "duplicate_latents": [float(_duplicates(r, everyone, threshold).double().mean()) for r in random],
        "composite_latents": [float((_halves(r, b, threshold)[:, 0] >= 0).double().mean()) for r in random],
    }
    at: dict[str, str | int | float] = {"threshold": threshold}
    measurements = [
        _share("dead_latents", ~alive, at={"rows": seen.rows}, caution=_rarest(seen.rows)),
        *(
            _share(name, flags, at=at, chance=chance[name], chance_is="random dictionaries")
            for name, flags in (("duplicate_latents", duplicate), ("composite_latents", composite))
        ),
        _share("other_latents", other, at=at),
        _share(
            "hedged_latents",
            toward & alive,
            at={"lean": lean},
            chance=[float((away & alive).double().mean())],
            chance_is="latents that lean as far away from such features",
            caution=f"of all leaning pairs only the {_LEANING} strongest were looked at"
            if len(leaning[0]) == _LEANING
            else "",
        ),
    ]
    absorbed, absorbs = _absorption(seen, family, W.n, lean)
    return LatentKinds(
        measurements=(*measurements, *absorbed),
        kind=tuple(
            LATENT_KINDS[int(i)]
            for i in torch.stack([is_feature, ~alive, duplicate & alive, composite, other]).int().argmax(0)
        ),
        hedges=toward & alive,
        absorbs=absorbs,
        halves=torch.where(composite[:, None], halves, -1),
    )


def _check(W: Dictionary, truth: Dictionary, parents: Tensor | None, numbers: dict[str, float]) -> None:
    if W.d != truth.d:
        raise ShapeError(f"latent_kinds: the dictionaries have d = {W.d} and d = {truth.d}. Give two of one space.")
    for name, number in numbers.items():
        if not 0 < number < 1:
            raise ValueError(f"latent_kinds: {name} must be in (0, 1); got {number}.")
    if parents is not None and (
        len(parents) != truth.n or int(parents.max()) >= truth.n or bool((parents == torch.arange(truth.n)).any())
    ):
        raise ShapeError(
            f"latent_kinds: parents must name another of the {truth.n} features for each, or -1; got "
            f"{len(parents)} numbers up to {int(parents.max()) if len(parents) else -1}."
        )


def _rarest(rows: int) -> str:
    return f"a latent active in fewer than {3 / rows:.2g} of all rows may be alive and unseen on {rows}"


def _share(
    name: str, flags: Tensor, *, chance: list[float] | None = None, chance_is: str = "", **about: Any
) -> Measurement:
    hits, n = int(flags.sum()), len(flags)
    return Measurement(
        name=name,
        value=hits / n,
        unit="share",
        n=n,
        of="latents",
        reference=0.0,
        reference_is="none",
        chance=sum(chance) / len(chance) if chance else None,
        chance_is=chance_is if chance else "",
        **about,
        **wilson(hits, n, of="latents").fields,
    )


def _duplicates(a: Float[Tensor, "n d"], alive: Bool[Tensor, "n"], threshold: float) -> Bool[Tensor, "n"]:
    """Which live rows have a live one of lower number nearer than the threshold."""
    living = alive.nonzero()[:, 0]
    second = torch.zeros(len(a), dtype=torch.bool)
    if len(living):
        i, j, _ = near_pairs(a[living], a[living], threshold)
        second[living[torch.from_numpy(j[i < j])]] = True
    return second


def _halves(a: Float[Tensor, "_ d"], b: Float[Tensor, "n d"], threshold: float) -> Int[Tensor, "_ 2"]:
    """For each row of a two rows of b whose plane is nearer than the threshold where no single one is; else -1, -1."""
    answer = torch.full((len(a), 2), -1)
    tried = min(_TRIED, len(b))
    if len(b) < 2:
        return answer
    for start in range(0, len(a), size := max(_BLOCK // (4 * tried * len(b)), 1)):
        c = a[start : start + size] @ b.T
        first = c.abs().topk(tried, 1).indices
        g = b[first] @ b.T
        one = c.gather(1, first)[:, :, None]
        # Squared length of the projection on the plane of two unit vectors with cosine g; none where they are parallel.
        apart = 1 - g.square()
        inside = (one.square() + c[:, None].square() - 2 * g * one * c[:, None]) / apart.clamp(min=1e-9)
        best, place = inside.masked_fill(apart < 1e-6, -1).flatten(1).max(1)
        fits = (best > threshold**2) & (c.abs().amax(1) <= threshold)
        two = torch.stack([first.gather(1, (place // len(b))[:, None])[:, 0], place % len(b)], 1)
        answer[start : start + size] = torch.where(fits[:, None], two, -1)
    return answer


def _leaning(
    a: Float[Tensor, "_ d"],
    b: Float[Tensor, "n d"],
    pairs: Matching,
    has_own: Bool[Tensor, "n"],
    own: float,
    lean: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latent, its own feature, a feature without a latent of its own, and h where |h| exceeds `lean`."""
    kept = pairs.cosines >= own
    latent, feature = pairs.first[kept], pairs.second[kept]
    missed = (~has_own).nonzero()[:, 0]
    found = []
    for part in torch.arange(len(latent)).split(max(_BLOCK // max(len(missed), 1), 1)):
        h = (a[latent[part]] - b[feature[part]]) @ b[missed].T
        i, j = (h.abs() > lean).nonzero(as_tuple=True)
        found.append((latent[part[i]], feature[part[i]], missed[j], h[i, j]))
    if not found:
        none = torch.zeros(0, dtype=torch.int64)
        return none, none, none, torch.zeros(0, dtype=torch.float64)
    columns = [torch.cat(column) for column in zip(*found, strict=True)]
    strongest = columns[3].abs().argsort(descending=True, stable=True)[:_LEANING]
    latent, feature, other, h = (column[strongest] for column in columns)
    return latent, feature, other, h


def _family(
    a: Float[Tensor, "_ d"],
    b: Float[Tensor, "n d"],
    parents: Int[Tensor, "n"],
    latent_of: Int[Tensor, "n"],
    has_own: Bool[Tensor, "n"],
    lean: float,
) -> _Family:
    child = ((parents >= 0) & has_own[parents.clamp(min=0)] & (latent_of >= 0)).nonzero()[:, 0]
    parent = parents[child]
    atom = a[latent_of[child]]
    toward = (atom * b[parent]).sum(1) - (b[child] * b[parent]).sum(1)
    leans = (toward > lean) & ((atom * b[child]).sum(1) > lean)
    return _Family(parent, child, latent_of[parent], latent_of[child], leans)


class _Counts:
    """Sums of one pass over the rows."""

    def __init__(
        self, latents: int, features: int, leaning: tuple[Tensor, Tensor, Tensor, Tensor], family: _Family | None
    ) -> None:
        self.rows, self.of = 0, ""
        self.fired = torch.zeros(latents, dtype=torch.float64)
        self.first, self.second = (torch.zeros(features, dtype=torch.float64) for _ in range(2))
        self._one, self._two = leaning[1], leaning[2]
        self.both = torch.zeros(len(self._one), dtype=torch.float64)
        self._family, self._groups = family, Groups()
        # Rows with both, silent, absorbed, leaning child fires; with the parent alone, and silent there.
        self.pairs = BlockSums((6, 0 if family is None else len(family.child)))

    def add(self, batch: Any, coder: SparseCoder) -> None:
        number, code = self._groups(batch), coder.encode(batch.x)
        self.of = self._groups.of
        self.rows += len(batch)
        widest = max(len(self.fired), len(self.first), len(self._one), 1)
        for start in range(0, len(batch), step := max(_BLOCK // widest, 1)):
            part = slice(start, start + step)
            f = batch.code[part].dense().double().cpu()
            fires = code[part].dense().cpu() != 0
            self.fired += fires.sum(0)
            self.first += f.sum(0)
            self.second += f.square().sum(0)
            self.both += (f[:, self._one] * f[:, self._two]).sum(0)
            if self._family is not None and len(self._family.child):
                blocks = torch.from_numpy(self.pairs.numbers(number[part]))
                torch.from_numpy(self.pairs.sums).index_add_(0, blocks, self._relatives(f != 0, fires).double())

    def _relatives(self, on: Tensor, fires: Tensor) -> Tensor:
        family = self._family
        assert family is not None
        parent, child = on[:, family.parent], on[:, family.child]
        silent = ~fires[:, family.parent_latent]
        both, alone = parent & child, parent & ~child
        takes = both & fires[:, family.child_latent] & family.leans
        return torch.stack([both, both & silent, takes & silent, takes, alone, alone & silent], 1)

    def hedging(self, leaning: tuple[Tensor, Tensor, Tensor, Tensor], signum: int, n: int) -> Bool[Tensor, "n"]:
        """Which latents lean to (or away from) a missed feature that goes with their own."""
        latent, one, two, h = leaning
        mean, variance = self.first / self.rows, self.second / self.rows - (self.first / self.rows).square()
        spread = (variance[one] * variance[two]).clamp(min=0).sqrt()
        correlation = (self.both / self.rows - mean[one] * mean[two]) / spread.clamp(min=1e-300)
        goes_along = (spread > 0) & (correlation > _Z / max(self.rows, 1) ** 0.5)
        flags = torch.zeros(n, dtype=torch.bool)
        flags[latent[goes_along & (signum * h > 0)]] = True
        return flags


def _absorption(
    seen: _Counts, family: _Family | None, n: int, lean: float
) -> tuple[list[Measurement], Bool[Tensor, "n"]]:
    absorbs = torch.zeros(n, dtype=torch.bool)
    units = {"absorption_rate": "rows with child and parent", "absorbed_children": "parent-child pairs"}

    def missing(why: str) -> list[Measurement]:
        return [Measurement(name=name, value=None, unit="share", n=0, of=of, caution=why) for name, of in units.items()]

    if family is None:
        return missing("this world has no parents and children"), absorbs
    if not len(family.child):
        return missing("no parent has a latent of its own, so none can be absorbed"), absorbs
    blocks = seen.pairs.used
    both, silent, absorbed, takes, alone, silent_alone = blocks.sum(0)
    met = both > 0
    if not met.any():
        return missing("no parent with a latent of its own was active together with a child on these rows"), absorbs
    usual = np.divide(silent_alone, alone, out=np.zeros_like(alone), where=alone > 0)
    rate = np.divide(silent, both, out=np.zeros_like(both), where=met)
    leans = family.leans.numpy()
    taken = met & leans & (rate > usual) & (rate - usual >= (1 - usual) / 2)
    absorbs[family.child_latent[torch.from_numpy(taken)]] = True
    at: dict[str, str | int | float] = {"lean": lean}
    pairs = int(met.sum())
    return [
        Measurement(
            name="absorption_rate",
            value=float(absorbed.sum() / both.sum()),
            unit="share",
            n=int(both.sum()),
            of=units["absorption_rate"],
            reference=0.0,
            reference_is="none",
            chance=float((takes * usual).sum() / both.sum()),
            chance_is="the parent's latent silent as often as where the child is off",
            at=at,
            **jackknife(lambda s: float(s[2].sum() / s[0].sum()), blocks, of=f"groups of {seen.of}").fields,
        ),
        Measurement(
            name="absorbed_children",
            value=float(taken.sum() / pairs),
            unit="share",
            n=pairs,
            of=units["absorbed_children"],
            reference=0.0,
            reference_is="none",
            chance=0.0,
            chance_is="the parent's latent silent as often as where the child is off",
            at=at,
            **wilson(int(taken.sum()), pairs, of="parent-child pairs").fields,
        ),
    ], absorbs
