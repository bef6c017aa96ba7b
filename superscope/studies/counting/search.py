"""With which k, width and length of training do dictionaries agree on most? The procedure that chooses all three."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...capture import MemorySource
from ...core import Run, SparseCoder
from ...measure import Wanted
from ...measure.counts import Consensus, Richness, consensus, richness
from ..learned import learned
from ..study import Progress

RUNS = 3
"""Dictionaries of a look, each of rows of its own: two say that a direction recurs, the third how often one is missed."""

_KS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_WIDTH, _STEPS, _BATCH = 8, 200, 1024
"""The first look: latents for each dimension, steps, and rows in a step."""

_FLAT = 0.03
"""A doubling that changes the logarithm of the count by less has found what there is."""

_RARE = 8
"""Activations of a latent in the rows of a look, below which it is not counted as alive."""

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
        count: the estimate of how many directions there are.
        seconds: it took.
    """

    setting: Setting
    agreed: Consensus
    count: Richness
    seconds: float

    @property
    def score(self) -> float:
        """What a k is chosen by: directions agreed on, times the share of activations that are theirs.

        A k too large makes dictionaries of junk, whose share is what falls; a k too small loses directions.
        """
        return self.count.counted * self.agreed.share


@dataclass(frozen=True, eq=False)
class Search:
    """All looks, and what came of them.

    Args:
        looks: in the order they were taken.
        best: the setting that the answer is read at.
        flat: for "n", "k" and "steps", whether more of it was tried and changed nothing.
        spent: seconds.
        main: a dictionary of the best setting.
    """

    looks: tuple[Look, ...]
    best: Look
    flat: Mapping[str, bool]
    spent: float
    main: SparseCoder


@dataclass(frozen=True)
class Given:
    """What the caller fixes; None is chosen by the procedure.

    Args:
        n, k, steps: of the dictionaries.
        budget: seconds; no look is begun that would end beyond.
        seed: of everything random.
    """

    n: int | None = None
    k: int | None = None
    steps: int | None = None
    budget: float = 180.0
    seed: int = 0


def search(rows: Tensor, run: Run, given: Given, *, place: str = "looks") -> Generator[Progress, None, Search]:
    """Takes looks until a doubling of the width and of the training changes nothing, or the budget is spent.

    First k: from 1 up with narrow, short looks, until the score has fallen for good; the best is kept. Then steps and
    width are doubled in turn, as long as the estimate rises by more than `_FLAT`; what was raised is tried again after
    the other was. At the end the neighbours of k are looked at once more with the setting reached.

    Args:
        rows: x, centred or not; about a third go to each dictionary.
        run: keeps the dictionaries, so that an interrupted search takes up where it was.
        given: settings that are fixed, and the budget.
        place: folder of the run.
    """
    begun = time.perf_counter()
    looker = _Looker(rows, run, given, place)
    d = rows.shape[1]
    start = Setting(given.n or _WIDTH * d, given.k or 1, given.steps or _STEPS)
    flat = {"n": given.n is not None, "k": given.k is not None, "steps": given.steps is not None}
    best: Look | None = None
    if given.k is None:
        fallen = 0
        for k in (k for k in _KS if k <= max(1, d // 2)):
            look = yield from looker.at(replace(start, k=k))
            if best is None or look.score > best.score:
                best, fallen = look, 0
            elif look.score < 0.9 * best.score or not best.score:
                fallen += 1
            if fallen == 2 and best.score:
                flat["k"] = True
                break
    else:
        best = yield from looker.at(start)
    assert best is not None
    raised = {"steps": given.steps is None, "n": given.n is None}
    while any(raised.values()) and best.count.counted:
        name = "steps" if raised["steps"] else "n"
        wider = replace(best.setting, **{name: 2 * getattr(best.setting, name)})
        if not looker.affords(wider):
            break
        look = yield from looker.at(wider)
        change = math.log(look.count.value / best.count.value) if look.count.counted else -math.inf
        raised[name] = False
        flat[name] = abs(change) <= _FLAT or change < 0
        if change > _FLAT:
            best = look
            raised = {other: getattr(given, other) is None for other in raised}
    if given.k is None and best.count.counted:
        for k in _neighbours(best.setting.k, d):
            beside = replace(best.setting, k=k)
            if beside in looker.looks or not looker.affords(beside):
                continue
            look = yield from looker.at(beside)
            if look.score > 1.02 * best.score:
                best = look
    return Search(tuple(looker.looks.values()), best, flat, time.perf_counter() - begun, looker.main[best.setting])


def _neighbours(k: int, d: int) -> list[int]:
    at = _KS.index(k) if k in _KS else None
    if at is None:
        return [each for each in (k - 1, k + 1) if 0 < each <= d // 2]
    return [each for each in (*_KS[max(at - 1, 0) : at], *_KS[at + 1 : at + 2]) if each <= max(1, d // 2)]


class _Looker:
    """Takes looks, each once, and knows what they cost."""

    def __init__(self, rows: Tensor, run: Run, given: Given, place: str) -> None:
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(given.seed)).to(rows.device)
        self.parts = [MemorySource(rows[order[part::RUNS]]) for part in range(RUNS)]
        self.run, self.given, self.place = run, given, place
        self.looks: dict[Setting, Look] = {}
        self.main: dict[Setting, SparseCoder] = {}
        self.begun = time.perf_counter()
        self.rate = 0.0
        """Seconds for each latent and step."""

    def affords(self, setting: Setting) -> bool:
        """Whether a look would end within the budget, by the time that those before it took."""
        spent = time.perf_counter() - self.begun
        return spent + self.rate * setting.n * setting.steps <= self.given.budget

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
        )
        atoms, densities = [], []
        for part, each in enumerate(wanted):
            sae = found[each][0]
            density, n = _densities(sae, self.parts[(part + 1) % RUNS].x[:_ENCODED])
            alive = density * n >= _RARE
            atoms.append(sae.dictionary.atoms.detach()[alive])
            densities.append(density[alive])
        agreed = consensus(atoms, densities)
        seconds = time.perf_counter() - begun
        look = Look(setting, agreed, richness(agreed), seconds)
        self.looks[setting], self.main[setting] = look, found[wanted[0]][0]
        self.rate = max(seconds / (setting.n * setting.steps), 0.5 * self.rate)
        yield Progress(f"Looking with {setting}", 1, 1, f"{look.count.counted} directions agreed on")
        return look


@torch.no_grad()
def _densities(sae: SparseCoder, x: Tensor) -> tuple[Tensor, int]:
    """How often each latent is active, and over how many rows."""
    code = sae.encode(x)
    on = torch.bincount(code.indices[code.values != 0].flatten(), minlength=code.n)
    return on.double() / len(x), len(x)
