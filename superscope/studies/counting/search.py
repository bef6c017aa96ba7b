"""With which k, width and length of training do dictionaries agree on most? The procedure that chooses all three."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...capture import MemorySource
from ...core import Activations, Dictionary, Run, SparseCoder
from ...measure import Wanted, moments
from ...measure.counts import Consensus, Richness, certified_count, consensus, richness
from ...recovery import NNOMP
from ..learned import learned
from ..study import Progress

RUNS = 3
"""Dictionaries of a look, each of rows of its own: two say that a direction recurs, a third how often one is missed."""

_PLAUSIBLE = 0.8
"""A setting whose score is this share of the best one's might as well have been chosen."""

_WIDTH, _STEPS, _BATCH = 8, 200, 1024
"""The first look: latents for each dimension, steps, and rows in a step."""

_FLAT = 0.05
"""A doubling that changes the logarithm of the count by less has found what there is."""

_CANDIDATES, _WORTH = 3, 0.6
"""How many k are trained for longer, and the share of the best score that they must have."""

_HELD = 0.97
"""Share of its score that a look keeps when it is trained for longer, if it looked well for good reason."""

_ALL, _EVERY = 0.97, 0.99
"""Where directions that recur carry the first share of activations, each dictionary finds the second of them, and
latents are left over, there is nothing left that longer training or more latents could find."""

_BETTER = 1.02
"""A wider look must have a score so many times the narrower one's: else what it found more of is combinations."""

_SHARE = 0.5
"""Looks at which less of the activations recurs do not say how many features are active in a row."""

_ROOM = 2.0
"""How many directions a row is given to be explained, in features active on average."""

_MOST, _AS_WELL, _TRIFLE, _HARDLY_MORE = 0.02, 0.75, 0.002, 1.1
"""Directions do as well as those that leave least of the variance where they leave at most the first of these numbers
more, and at most the second times that least and the third; so many times the fewest are hardly more. What is left is
mostly how exactly directions point: in worlds of 128 features all settings found them all and left .03 to .07. Of 1 024
features 610 left .027 where 1 016 left .011."""

_JUNK = 0.5
"""Share of the best score below which a look is not asked: half of its activations are on latents that do not recur."""

_PURSUED = 8192
"""Held-out rows that are explained for it."""

_STRETCHES = 300
"""Pieces that rows are cut into before they are dealt out to the dictionaries."""

_FLOOR = 0.02
"""Share of the mean variance that is added to each direction's before it is divided by."""

_RARE = 8
"""Activations of a latent in the rows of a look, below which it is not counted as alive."""

_JUDGED = 40
"""Activations on held-out rows, as expected, below which a direction that is not certified is given the benefit of the
doubt."""

_CHOSEN = 50_000
"""Rows that a certificate's thresholds are chosen on."""

_ENCODED = 16_384
"""Rows that densities are measured on."""


@dataclass(frozen=True)
class Setting:
    """What a look is made with.

    Args:
        n: latents.
        k: active at once.
        steps: of training.
    """

    n: int
    k: int
    steps: int

    def __str__(self) -> str:
        return f"{self.n:,} latents, k = {self.k}, {self.steps} steps"


@dataclass(frozen=True, eq=False)
class Look:
    """What `RUNS` dictionaries of one setting agree on.

    Args:
        setting: of the dictionaries.
        agreed: their consensus.
        kept: which of its directions count: no sum of two others, and certified on held-out rows or too rare to judge.
        certified: how many are certified.
        count: the estimate of how many directions there are.
        explained: share of variance, mean over the dictionaries' last steps.
    """

    setting: Setting
    agreed: Consensus
    kept: Tensor
    certified: int
    count: Richness
    explained: float

    @property
    def score(self) -> float:
        """What a setting is chosen by: the squared share of activations that are those of recurring directions, times
        the share of variance explained.

        A k too small leaves variance; one too large makes dictionaries of junk, and the share falls. The number of
        directions is no part of it, for junk recurs too.
        """
        return self.agreed.share**2 * self.explained


@dataclass(frozen=True, eq=False)
class Search:
    """All looks, and what came of them.

    Args:
        looks: in the order they were taken.
        best: the look that the answer is read at: the fewest directions among those that do as well.
        plausible: it, and others that do as well with hardly more directions.
        unexplained: of each look, what is left of held-out rows by the directions it kept, all given as many a row.
        flat: for "n", "k" and "steps", whether more of it was tried and changed nothing.
        directions: those counted, in x: unit rows, the densest first.
        decoy: how many are counted of Gaussian rows at the best k, with the first width and length of training.
    """

    looks: tuple[Look, ...]
    best: Look
    plausible: tuple[Look, ...]
    unexplained: tuple[float, ...]
    flat: Mapping[str, bool]
    directions: Tensor
    decoy: int


@dataclass(frozen=True)
class Given:
    """What the caller fixes; None is chosen by the procedure.

    Args:
        n, k, steps: of the dictionaries.
        budget: seconds; no look is begun that would end beyond, but the one at Gaussian rows, which is a short one.
        seed: of everything random.
    """

    n: int | None = None
    k: int | None = None
    steps: int | None = None
    budget: float | int = 180.0
    seed: int = 0


def search(
    rows: Tensor, held: Tensor, run: Run, given: Given, *, place: str = "looks"
) -> Generator[Progress, None, Search]:
    """Takes looks until a doubling of the training and of the width changes nothing, or the budget is spent.

    First k, with short looks of a width at which no longer most latents recur: doubled from 1 until the score has
    fallen for good, then what lies beside the best. The `_CANDIDATES` best of them are trained twice as long, and again
    as long as the count of the best moves by more than `_FLAT`: a k too small looks well until it has been trained for
    long. Then the width is doubled as long as the count rises by more and the score rises too. Neither is done where
    what recurs is all that there is (`_ALL`).

    Args:
        rows: x, centred or not; about a third go to each dictionary.
        held: other rows, on which directions are certified.
        run: keeps the dictionaries, so that an interrupted search takes up where it was.
        given: settings that are fixed, and the budget.
        place: folder of the run.
    """
    looker = Looker(rows, held, run, given, place)
    d = rows.shape[1]
    most = max(1, d // 2)
    start = Setting(given.n or _WIDTH * d, given.k or 1, given.steps or _STEPS)
    flat = {"n": given.n is not None, "k": given.k is not None, "steps": given.steps is not None}
    best = yield from looker.wide_enough(start, widen=not flat["n"])
    start = replace(start, n=best.setting.n)
    if given.k is None:
        k, fallen = 2, 0
        while k <= most and fallen < 2 and looker.affords(replace(start, k=k)):
            look = yield from looker.wide_enough(replace(start, k=k), widen=not flat["n"])
            start = replace(start, n=look.setting.n)
            if look.score > best.score:
                best, fallen = look, 0
            elif look.score < _PLAUSIBLE * best.score:
                fallen += 1 if look.score > best.score / 2 else 2
            k *= 2
        flat["k"] = fallen > 0
        for k in _between(best.setting.k, most):
            if best.count.counted and looker.affords(replace(start, k=k)):
                look = yield from looker.at(replace(start, k=k))
                best = max(best, look, key=_by_score)
    if best.agreed.share >= _ALL and best.count.found >= _EVERY and 2 * best.agreed.counted <= 1.1 * best.setting.n:
        flat |= {"steps": True, "n": True}
    before = {look.setting.k: look for look in looker.looks.values() if look.count.counted}
    while not flat["steps"] and before:
        longer: dict[int, Look] = {}
        for look in sorted(before.values(), key=_by_score, reverse=True)[:_CANDIDATES]:
            more = replace(look.setting, steps=2 * look.setting.steps)
            # The others are asked only where the best k does not look as well once it is trained for longer.
            well = max(map(_by_score, longer.values()), default=0.0) >= _HELD * look.score
            if look.score >= _WORTH * best.score and not well and looker.affords(more):
                longer[more.k] = yield from looker.at(more)
        longer = {k: look for k, look in longer.items() if look.count.counted}
        if not longer:
            break
        best = max(longer.values(), key=_by_score)
        flat["steps"] = abs(_change(before[best.setting.k], best)) <= _FLAT
        before = longer
    while not flat["n"] and best.count.counted:
        wider = replace(best.setting, n=2 * best.setting.n)
        if not looker.affords(wider):
            break
        look = yield from looker.at(wider)
        flat["n"] = not look.count.counted or _change(best, look) <= _FLAT or look.score < _BETTER * best.score
        if not flat["n"]:
            best = look
    looks = tuple(looker.looks.values())
    plausible, unexplained = fewest(looks, looker.held)
    best = plausible[0] if plausible else best
    random = torch.Generator(device=rows.device).manual_seed(given.seed)
    noise, more = (torch.randn(x.shape, generator=random, device=rows.device) for x in (rows, held))
    decoy = yield from Looker(noise, more, run, given, f"{place}/decoy").at(replace(start, k=best.setting.k))
    counted = best.agreed.directions[best.kept]
    return Search(
        looks,
        best,
        plausible,
        unexplained,
        flat,
        torch.nn.functional.normalize(counted.to(looker.back) @ looker.back, dim=1),
        decoy.count.counted,
    )


@torch.no_grad()
def fewest(looks: Sequence[Look], held: Tensor) -> tuple[tuple[Look, ...], tuple[float, ...]]:
    """Looks whose directions explain held-out rows as well as any others and are hardly more than the fewest, the best
    score first; and what each leaves unexplained.

    Where features come together, dictionaries with a small k hold many of their combinations, each of which is
    certified. They explain no more than the features themselves, which are fewer, once both are given several a row.
    Where features are rare it is the other way round: a dictionary that has not found them all has fewer, and leaves
    several times as much.
    """
    kept = [look for look in looks if look.count.counted]
    if not kept:
        return (), tuple(1.0 for _ in looks)
    sure = [look for look in kept if look.agreed.share >= _SHARE] or kept
    active = max(float(look.agreed.densities[look.kept].sum()) for look in sure)
    x = held[:_PURSUED]
    left = {}
    for look in kept:
        directions = Dictionary(look.agreed.directions[look.kept])
        k = max(1, min(math.ceil(_ROOM * active), directions.n, held.shape[1] // 2))
        codes = NNOMP(directions, k=k).solve(x).code
        left[look.setting] = float((x - directions.compose(codes)).square().sum() / x.square().sum())
    least, best = min(left.values()), max(map(_by_score, kept))
    most = least + min(_MOST, _AS_WELL * least + _TRIFLE)
    able = [look for look in kept if left[look.setting] <= most and look.score >= _JUNK * best]
    # The one that leaves least may be junk itself; the best is none.
    able = able or [max(kept, key=_by_score)]
    fewest = min(look.count.counted for look in able)
    chosen = [look for look in able if look.count.counted <= _HARDLY_MORE * fewest]
    return (
        tuple(sorted(chosen, key=_by_score, reverse=True)),
        tuple(left.get(look.setting, 1.0) for look in looks),
    )


def _by_score(look: Look) -> float:
    return look.score


def _change(before: Look, after: Look) -> float:
    """Of the logarithm of the count."""
    return math.log(after.count.value / before.count.value)


def _between(k: int, most: int) -> tuple[int, ...]:
    """What lies halfway to k/2 and 2k, and was not looked at."""
    return tuple(each for each in dict.fromkeys((3 * k // 4, 3 * k // 2)) if each not in (k // 2, k) and each <= most)


class Looker:
    """Takes looks, each once, and knows what they cost."""

    def __init__(self, rows: Tensor, held: Tensor, run: Run, given: Given, place: str) -> None:
        level, self.held, self.back = levelled(rows, held)
        self.first = level[torch.arange(len(level)) % 2 == 0][:_CHOSEN]
        # Neighbouring rows are alike where they are of one text: whole stretches go to a part, not single rows.
        stretches = torch.arange(len(rows)).tensor_split(min(_STRETCHES, len(rows)))
        order = torch.randperm(len(stretches), generator=torch.Generator().manual_seed(given.seed)).tolist()
        self.parts = [
            MemorySource(level[torch.cat([stretches[at] for at in order[part::RUNS]]).to(rows.device)])
            for part in range(RUNS)
        ]
        self.run, self.given, self.place = run, given, place
        self.looks: dict[Setting, Look] = {}
        self.begun = time.perf_counter()
        self.rate = 0.0
        """Seconds for each latent and step."""

    def affords(self, setting: Setting) -> bool:
        """Whether a look would end within the budget, by the time that those before it took."""
        spent = time.perf_counter() - self.begun
        return spent + self.rate * setting.n * setting.steps <= self.given.budget

    def wide_enough(self, setting: Setting, *, widen: bool) -> Generator[Progress, None, Look]:
        """The look at a setting, or, where most latents recur, at the width where no longer most do."""
        look = yield from self.at(setting)
        while widen and 2 * look.agreed.counted > look.setting.n:
            wider = replace(look.setting, n=2 * look.setting.n)
            if not self.affords(wider):
                break
            look = yield from self.at(wider)
        return look

    def at(self, setting: Setting) -> Generator[Progress, None, Look]:
        """The look at a setting."""
        if setting in self.looks:
            return self.looks[setting]
        begun = time.perf_counter()
        wanted = [Wanted(setting.n, setting.k, self.given.seed + part) for part in range(RUNS)]
        found = yield from learned(
            wanted,
            lambda w: self.parts[w.seed - self.given.seed],
            self.run,
            steps=setting.steps,
            batch=_BATCH,
            device=self.parts[0].x.device,
            stage=f"Looking with {setting}",
            folder=lambda w: f"{self.place}/n{w.n}-k{w.k}-steps{setting.steps}-seed{w.seed}",
            notes={"rows": len(self.parts[0])},
            # Latents that are dead may stay so: there are more of them than features. Reviving them took half the time.
            settings={"auxiliary": 0.0},
        )
        atoms, densities = [], []
        for part, each in enumerate(wanted):
            sae = found[each][0]
            density, n = _densities(sae, self.parts[(part + 1) % RUNS].x[:_ENCODED])
            alive = density * n >= _RARE
            atoms.append(sae.dictionary.atoms.detach()[alive])
            densities.append(density[alive])
        agreed = consensus(atoms, densities)
        kept, certified = self._judged(agreed)
        seconds = time.perf_counter() - begun
        unexplained = [found[each][1]["fraction_variance_unexplained"][-1] for each in wanted]
        explained = max(1 - sum(unexplained) / RUNS, 0.0)
        look = Look(setting, agreed, kept, certified, richness(agreed, kept), explained)
        self.looks[setting] = look
        self.rate = max(seconds / (setting.n * setting.steps), 0.5 * self.rate)
        yield Progress(f"Looking with {setting}", 1, 1, f"{look.count.counted} directions agreed on")
        return look

    def _judged(self, agreed: Consensus) -> tuple[Tensor, int]:
        """Which directions are certified on held-out rows, or too rare there to be; and how many are certified."""
        if not agreed.counted:
            return ~agreed.sums, 0
        sure = certified_count(self.first, Dictionary(agreed.directions), self.held, seed=self.given.seed).certified
        rare = agreed.densities * len(self.held) < _JUDGED
        return (sure | rare) & ~agreed.sums, int((sure & ~agreed.sums).sum())


def levelled(rows: Tensor, held: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""$(x - \bar x) (C + \epsilon\, \mathrm{tr}(C)/d\; I)^{-1/2}$: rows of nearly equal variance in all directions.

    x = W f becomes x = (M W) f: as many features. What is Gaussian loses its principal axes, in which dictionaries
    would agree though there is nothing to be found: of coloured rows in 32 dimensions 84 directions recurred at k = 1,
    and none when levelled. Coordinates of ten times the others' deviation no longer hide what is in the others.

    Returns:
        The rows, held-out rows with the same mean and map, and the inverse of the map, to turn directions back.
    """
    spread = moments(Activations(block) for block in rows.split(_ENCODED))
    values, vectors = torch.linalg.eigh(spread.covariance.double())
    floor = _FLOOR * values.clamp(min=0).mean().clamp(min=1e-30)
    deviations = (values.clamp(min=0) + floor).sqrt()
    level, back = (vectors / deviations) @ vectors.T, (vectors * deviations) @ vectors.T
    mean = spread.mean.to(rows)
    return (rows - mean) @ level.to(rows), (held - mean) @ level.to(rows), back.to(rows)


@torch.no_grad()
def _densities(sae: SparseCoder, x: Tensor) -> tuple[Tensor, int]:
    """How often each latent is active, and over how many rows."""
    code = sae.encode(x)
    return code.uses.double() / len(x), len(x)
