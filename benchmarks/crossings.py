"""When does a curve of seconds and unexplained variance meet a target, and how do two such moments compare?"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Crossing:
    """Where a curve first is at its target.

    Args:
        index: the point before it; the last one of a curve that does not come so far.
        share: of the way to the next point, by the logarithm of what falls.
        bound: "" where it is between two points; "at most" where the first point is there already; "at least" where
            no point is.
    """

    index: int
    share: float
    bound: Literal["", "at most", "at least"]

    def seconds(self, seconds: Sequence[float]) -> float:
        """When that was, between the two points' seconds on a logarithmic axis."""
        return math.exp(self.at([math.log(each) for each in seconds]))

    def at(self, values: Sequence[float]) -> float:
        """Any other number of the curve's points there, on a line between two of them."""
        value = values[self.index]
        return value if not self.share else value + self.share * (values[self.index + 1] - value)


def crossing(unexplained: Sequence[float], target: float) -> Crossing:
    """The first place at which a curve is at or below a target.

    Args:
        unexplained: of each point, positive.
        target: positive.

    Raises:
        ValueError: if there is no point.
    """
    if not unexplained:
        raise ValueError("crossing: the curve has no points.")
    if unexplained[0] <= target:
        return Crossing(0, 0.0, "" if unexplained[0] == target else "at most")
    for index in range(1, len(unexplained)):
        before, here = unexplained[index - 1], unexplained[index]
        if here <= target:
            return Crossing(index - 1, math.log(before / target) / math.log(before / here), "")
    return Crossing(len(unexplained) - 1, 0.0, "at least")


@dataclass(frozen=True)
class Ratio:
    """A peer's seconds over ours to one target.

    Args:
        value: the ratio, or what it is at least or at most.
        bound: which; None where neither came so far, or both began there, and nothing can be compared.
    """

    value: float
    bound: Literal["", "at least", "at most"] | None

    def __str__(self) -> str:
        if self.bound is None:
            return "–"
        return {"": "", "at least": "≥ ", "at most": "≤ "}[self.bound] + f"{self.value:.1f}"


def ratio(peer: tuple[float, str], ours: tuple[float, str]) -> Ratio:
    """Seconds of a peer over ours, each with the bound of its crossing.

    Example:
        >>> str(ratio((30.0, "at least"), (10.0, "")))
        '≥ 3.0'
    """
    above = {"": 0, "at least": 1, "at most": -1}
    # A ratio grows with the peer's seconds and falls with ours.
    directions = {direction for direction in (above[peer[1]], -above[ours[1]]) if direction}
    value = peer[0] / ours[0]
    if len(directions) == 2:
        return Ratio(value, None)
    if not directions:
        return Ratio(value, "")
    return Ratio(value, "at least" if 1 in directions else "at most")


def middle(ratios: Iterable[Ratio]) -> Ratio:
    """The median of those that can be compared, and which way it could move if the bounds among them were known.

    Raises:
        ValueError: if none can be.

    Example:
        >>> str(middle([Ratio(2.0, ""), Ratio(3.0, ""), Ratio(4.0, "at least")]))
        '3.0'
    """
    known = [each for each in ratios if each.bound is not None]
    if not known:
        raise ValueError("middle: none of the ratios can be compared.")
    value = statistics.median(each.value for each in known)
    up = statistics.median(math.inf if each.bound == "at least" else each.value for each in known)
    down = statistics.median(0.0 if each.bound == "at most" else each.value for each in known)
    # Equal ratios differ in their last digits.
    up, down = (not math.isclose(each, value, rel_tol=1e-9) for each in (up, down))
    return Ratio(value, None if up and down else "at least" if up else "at most" if down else "")
