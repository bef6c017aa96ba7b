"""Does a quantity grow or fall as a power of another, with which exponent, and is there a power at all?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import f as f_distribution
from scipy.stats import t as t_distribution

from .interval import Interval

_STEEPEST = 4.0
"""Exponents of a law above a floor are sought up to here."""


@dataclass(frozen=True)
class PowerLaw:
    """y = scale x^exponent + floor.

    Args:
        exponent: with its sign.
        scale, floor: of the fit; floor is 0 for a pure power.
        explained: share of the variance of log y, or of y above a floor, that the law has; NaN where y is constant.
        interval: of the exponent.
    """

    exponent: float
    scale: float
    floor: float
    explained: float
    interval: Interval

    @property
    def is_none(self) -> bool:
        """Whether the interval of the exponent holds 0: then there may be no law."""
        low, high = self.interval.low, self.interval.high
        return low is None or high is None or low <= 0 <= high


def power_law(x: Sequence[float], y: Sequence[float], *, of: str = "points") -> PowerLaw:
    r"""$\ln y = \ln a + b \ln x$ by least squares; 95 % of b by Student's t with as many degrees as points less two.

    The interval takes residuals as independent draws of one size: give one point for each x, the mean of repetitions.
    Where the law is no power, residuals bend and the interval is too narrow.

    Args:
        x, y: positive.
        of: what the points are.

    Raises:
        ValueError: if there are fewer than three points, x is one number, or a number is not positive.

    Example:
        >>> found = power_law([1, 2, 4, 8], [8, 4, 2, 1])
        >>> round(found.exponent, 6), round(found.scale, 6)
        (-1.0, 8.0)
    """
    a, b = (np.log(_positive(each, name)) for each, name in ((x, "x"), (y, "y")))
    slope, interval, left = straight_line(a, b, of=of)
    total = float(((b - b.mean()) ** 2).sum())
    return PowerLaw(
        slope,
        math.exp(float(b.mean()) - slope * float(a.mean())),
        0.0,
        1 - left / total if total > 1e-24 else math.nan,
        replace(interval, how=f"{interval.how} in log-log; if the law is no power, the interval is too narrow"),
    )


def straight_line(
    x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray, *, of: str = "points"
) -> tuple[float, Interval, float]:
    """The slope of y against x by least squares, its 95 % interval by Student's t, and the squares that are left.

    Args:
        x, y: any numbers; one point for each x, for the interval takes them as independent.
        of: what the points are.

    Raises:
        ValueError: if there are fewer than three points, or x is one number.
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(a) < 3 or len(a) != len(b) or np.ptp(a) == 0:
        raise ValueError(
            f"straight_line: {len(a)} values of x and {len(b)} of y are no line; give three or more, at different x."
        )
    centred = a - a.mean()
    across = float(centred @ centred)
    slope = float(centred @ b) / across
    left = float(((b - b.mean() - slope * centred) ** 2).sum())
    degrees = len(a) - 2
    half = float(t_distribution.ppf(0.975, degrees)) * math.sqrt(left / degrees / across)
    return slope, Interval(slope - half, slope + half, f"95 % of least squares over {len(a)} {of}"), left


def power_law_above_floor(x: Sequence[float], y: Sequence[float], *, of: str = "points") -> PowerLaw:
    r"""$y = c\, x^b + y_\infty$ with $c, y_\infty \ge 0$ and $b \in [-4, 0)$, by least squares; interval by profile.

    In the interval is each b whose best fit leaves no more than $1 + F_{.95}(1, m - 3) / (m - 3)$ times the squares
    that the best of all leaves, m points. Where it reaches -4 or 0 the points do not tell the exponent from the floor,
    and the end is no bound; with few points over less than a decade of x that is the rule.

    Args:
        x, y: positive; y should fall.
        of: what the points are.

    Raises:
        ValueError: if there are fewer than four points at different x, or a number is not positive.

    Example:
        >>> found = power_law_above_floor([1, 2, 4, 8, 16], [9, 5, 3, 2, 1.5])
        >>> round(found.exponent, 2), round(found.floor, 2)
        (-1.0, 1.0)
    """
    a, b = (_positive(each, name) for each, name in ((x, "x"), (y, "y")))
    if len(a) != len(b) or len(np.unique(a)) < 4:
        raise ValueError(
            f"power_law_above_floor: {len(a)} values of x and {len(b)} of y; give four or more, at different x."
        )
    exponents = -np.linspace(0.01, _STEEPEST, 400)
    squares, scales, floors = _above_floor(a, b, exponents)
    best = int(squares.argmin())
    degrees = max(len(a) - 3, 1)
    # Squares at rounding's size are none.
    least = max(float(squares[best]), 1e-18 * float(b @ b))
    inside = exponents[squares <= least * (1 + float(f_distribution.ppf(0.95, 1, degrees)) / degrees)]
    low, high = min(float(inside.min()), float(exponents[best])), max(float(inside.max()), float(exponents[best]))
    ends = [name for name, end in (("below", low <= -_STEEPEST + 1e-9), ("above", high >= -0.011)) if end]
    beyond = f"; not bounded {' nor '.join(ends)}" if ends else ""
    total = float(((b - b.mean()) ** 2).sum())
    return PowerLaw(
        float(exponents[best]),
        float(scales[best]),
        float(floors[best]),
        1 - float(squares[best]) / total if total > 0 else math.nan,
        Interval(low, 0.0 if "above" in ends else high, f"95 % profile of the squares over {len(a)} {of}{beyond}"),
    )


def _above_floor(x: np.ndarray, y: np.ndarray, exponents: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Squares left, scale and floor of the best fit with each exponent."""
    power = x ** exponents[:, None]
    centred = power - power.mean(1, keepdims=True)
    scale = (centred @ (y - y.mean()) / (centred**2).sum(1)).clip(min=0.0)
    floor = y.mean() - scale * power.mean(1)
    # Where the floor would be negative it is 0, and the scale that of a pure power.
    scale = np.where(floor < 0, power @ y / (power**2).sum(1), scale)
    floor = floor.clip(min=0.0)
    left = y - scale[:, None] * power - floor[:, None]
    return (left**2).sum(1), scale, floor


def _positive(values: Sequence[float], name: str) -> np.ndarray:
    found = np.asarray(values, dtype=np.float64)
    if not (np.isfinite(found).all() and (found > 0).all()):
        raise ValueError(
            f"a power law has positive numbers; {name} holds {found[~(found > 0)].tolist() or 'no number'}."
        )
    return found
