"""Contestants run in turn, several rounds, timed in CPU seconds: other load on the machine then falls on all alike."""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy
import torch

from superscope._version import __version__


@dataclass
class Contest:
    """Rounds in which every contestant does its work once.

    Args:
        rounds: how often; the median is reported.
    """

    rounds: int
    _work: dict[str, tuple[int, Callable[[], Any], Callable[[Any], float]]] = field(default_factory=dict)
    _seconds: dict[str, list[float]] = field(default_factory=dict)
    _quality: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, rows: int, work: Callable[[], Any], quality: Callable[[Any], float]) -> None:
        """A contestant: what it does to `rows` rows, and how good its answer is (outside the clock)."""
        self._work[name] = (rows, work, quality)
        self._seconds[name] = []

    def run(self) -> Contest:
        for _, work, _ in self._work.values():
            work()  # compilation, caches, first allocations
        order = list(self._work.items())
        for _ in range(self.rounds):
            order.append(order.pop(0))  # none is always behind the same one
            for name, (_, work, quality) in order:
                start = time.process_time()
                answer = work()
                self._seconds[name].append(time.process_time() - start)
                self._quality[name] = quality(answer)
        return self

    def rate(self, name: str) -> float:
        """Rows per CPU second, from the median round."""
        return self._work[name][0] / statistics.median(self._seconds[name])

    def ratio(self, name: str, peer: str) -> str:
        """Rate over a peer's, medians; in brackets from the least to the most favourable pair of rounds."""
        low, high = (
            self._work[name][0] / one / (self._work[peer][0] / other)
            for one, other in (
                (max(self._seconds[name]), min(self._seconds[peer])),
                (min(self._seconds[name]), max(self._seconds[peer])),
            )
        )
        return f"{self.rate(name) / self.rate(peer):.3g} ({low:.3g} to {high:.3g})"

    def paired(self, name: str, peer: str) -> tuple[float, float, float]:
        """Rate over a peer's, median of the rounds' own ratios, and its 95 % interval, from order statistics.

        A round's two stand side by side, so that what else the machine does for longer than a round falls out.
        """
        works = self._work[name][0] / self._work[peer][0]
        ratios = sorted(works * b / a for a, b in zip(self._seconds[name], self._seconds[peer], strict=True))
        reach = 0.98 * len(ratios) ** 0.5  # 1.96 deviations of how many of n lie below their median
        low = max(math.floor(len(ratios) / 2 - reach), 0)
        return statistics.median(ratios), ratios[low], ratios[len(ratios) - 1 - low]

    def best(self, name: str, peer: str) -> float:
        """Rate over a peer's, each in its fastest round, which other work on the machine lengthens least."""
        rates = [self._work[one][0] / min(self._seconds[one]) for one in (name, peer)]
        return rates[0] / rates[1]

    def quality(self, name: str) -> float:
        """Of the last answer."""
        return self._quality[name]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._work)

    def table(self, against: tuple[str, ...]) -> str:
        """Rate, its range over rounds, the ratio of medians to each peer, quality."""
        peers = [name for name in against if name in self._work]
        wide = {p: len(p) + 4 for p in peers}
        head = f"{'':28s}{'rows/s':>10s}{'from':>10s}{'to':>10s}" + "".join(f"{'x ' + p:>{wide[p]}s}" for p in peers)
        lines = [head + f"{'quality':>14s}"]
        for name in sorted(self._work, key=self.rate, reverse=True):
            rows, seconds = self._work[name][0], self._seconds[name]
            ratios = "".join(f"{self.rate(name) / self.rate(p):{wide[p]}.2f}" for p in peers)
            lines.append(
                f"{name:28s}{self.rate(name):10.1f}{rows / max(seconds):10.1f}{rows / min(seconds):10.1f}{ratios}"
                f"{self._quality[name]:14.6f}"
            )
        return "\n".join(lines)


def environment() -> str:
    """What the numbers were taken on."""
    return (
        f"{date.today().isoformat()}, superscope {__version__}, torch {torch.__version__}, numpy {numpy.__version__}, "
        f"Python {platform.python_version()}, {_processor()}, single thread"
    )


_INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "VNNI",
    "avx512_bf16": "bfloat16",
    "amx_bf16": "AMX",
}


def _processor() -> str:
    """The processor's name and which of the instructions that our loops and torch's choose by it has."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    said = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = set(said.get("flags", "").split())
    has = " ".join(name for flag, name in _INSTRUCTIONS.items() if flag in flags)
    return said.get("model name", platform.machine()) + (f" ({has})" if has else "")
