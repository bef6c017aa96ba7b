"""How far a run is and how long it will still take, judged from the Progress that its study yields.

A study that knows the stages ahead says how much work each is; how long work takes is timed here, for each kind of
stage by itself. A kind that has not been seen yet is expected to take as long as the others for the same work.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ..studies.study import Progress

_EVIDENCE = 1.0
"""Seconds of work after which a rate is believed."""


@dataclass
class _Worked:
    """Work done since the run began, and the seconds that it took; what was there already is no part of it."""

    work: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: _Worked) -> _Worked:
        return _Worked(self.work + other.work, self.seconds + other.seconds)

    @property
    def rate(self) -> float | None:
        """Seconds for each unit of work."""
        return self.seconds / self.work if self.work > 0 and self.seconds >= _EVIDENCE else None


class Course:
    """Where a run stands.

    Args:
        clock: seconds, from whenever.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.began = clock()
        self.stage: str | None = None
        self.step: Progress | None = None
        self._begun = self._base = self._latest = self.began
        self._first = self._share = 0.0
        self._ahead: dict[str, float] = {}
        self._passed = 0
        self._kinds: dict[str, _Worked] = {}

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return self.clock() - self.began

    @property
    def stage_seconds(self) -> float:
        """Since the stage began."""
        return self.clock() - self._begun

    def take(self, step: Progress) -> bool:
        """Notes what a study yields; whether a new stage begins with it."""
        now = self.clock()
        share = min(step.done / step.total, 1.0) if step.total else 0.0
        new = step.stage != self.stage
        if new:
            self.end()
            self.stage, self._begun = step.stage, now
            self._share = 0.0
        if step.ahead is not None:
            self._ahead = {name: max(work, 0.0) for name, work in step.ahead.items()}
            self._passed = 0
        if self.stage in self._ahead:
            self._passed = max(self._passed, list(self._ahead).index(self.stage))
        self._share = max(self._share, share)
        self._latest = now
        if new or step.resumed:
            self._first, self._base = self._share, now
        self.step = step
        return new

    def end(self) -> None:
        """The stage is over, whatever it said last: what comes next is timed by itself."""
        if self.stage is None:
            return
        self._share, self._latest = 1.0, self.clock()
        if self.stage in self._ahead:
            kind = _kind(self.stage)
            self._kinds[kind] = self._kinds.get(kind, _Worked()) + self._current()
            self._passed = list(self._ahead).index(self.stage) + 1
        self.stage = None

    @property
    def stage_share(self) -> float | None:
        """Share of the stage that is done; None while nothing says so."""
        return self._share if self.step is not None and self.step.total > 1 else None

    @property
    def share(self) -> float | None:
        """Share of the work announced that is done, which never falls; None where the study announces none."""
        whole = sum(self._ahead.values())
        if not whole:
            return None
        works = list(self._ahead.values())
        inside = self._share * self._ahead[self.stage] if self.stage in self._ahead else 0.0
        return min((sum(works[: self._passed]) + inside) / whole, 1.0)

    @property
    def stage_left(self) -> float | None:
        """Seconds that the stage will still take; None while too little is known, or where it is overdue."""
        if self.stage is None or self._share >= 1:
            return None
        own = expected = None
        if self._share > self._first and self._latest - self._base >= _EVIDENCE:
            own = (self._latest - self._base) / (self._share - self._first)
        if self.stage in self._ahead:
            kind = _kind(self.stage)
            rate = self._kinds.get(kind, _Worked()).rate
            if rate is None and own is None:
                rate = self._rate(kind)
            expected = None if rate is None else rate * self._ahead[self.stage]
        if own is not None and expected is not None:
            # Parts of a stage may be uneven: what the others of its kind took is believed first, its own pace last.
            whole = self._share * own + (1 - self._share) * expected
        elif own is not None or expected is not None:
            whole = own or expected or 0.0
        else:
            return None
        left = whole * (1 - self._share) - (self.clock() - self._latest)
        return left if left >= 0 else None

    @property
    def left(self) -> float | None:
        """Seconds that all the stages announced will still take; None while too little is known."""
        if self.share is None or self.share == 1.0:
            return None
        names = list(self._ahead)
        total = 0.0
        if self.stage in self._ahead:
            inside = self.stage_left if self._share < 1 else 0.0
            if inside is None:
                return None
            total, names = inside, names[self._passed + 1 :]
        elif self.stage is None:
            names = names[self._passed :]
        else:
            # Something unannounced comes between, and nobody knows how long it takes.
            return None
        for name in names:
            rate = self._rate(_kind(name))
            if rate is None:
                return None
            total += rate * self._ahead[name]
        return total

    def _current(self) -> _Worked:
        """What has been worked of this stage."""
        if self.stage not in self._ahead:
            return _Worked()
        return _Worked((self._share - self._first) * self._ahead[self.stage], self._latest - self._base)

    def _rate(self, kind: str) -> float | None:
        """Seconds for each unit of work of a kind, or of all kinds where this one has not been seen."""
        current = self._current()
        own = self._kinds.get(kind, _Worked())
        if self.stage is not None and _kind(self.stage) == kind:
            own += current
        return own.rate or sum(self._kinds.values(), current).rate


def _kind(stage: str) -> str:
    return stage.split()[0].strip(",.:") if stage.strip() else ""
