"""Where does a function of one number change sign?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from scipy.optimize import brentq


def root(function: Callable[[float], float], low: float, high: float, tolerance: float = 1e-14) -> float:
    """The point between `low` and `high`, where `function` has opposite signs, at which it is 0 (Brent's method)."""
    # scipy's annotations admit the answer's long form too; asked for the short one, it is a number.
    return float(cast(Any, brentq(function, low, high, xtol=tolerance)))
