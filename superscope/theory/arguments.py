"""Which numbers a formula of this folder accepts, and the sentence a caller reads when it got another one."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import SupportsFloat, SupportsIndex, TypeAlias

import numpy as np

Number: TypeAlias = SupportsFloat
"""A float, an int, a numpy scalar or a tensor of one element."""

Numbers: TypeAlias = Sequence[SupportsFloat] | np.ndarray
"""A list, a tuple or an array of numbers."""


def whole(caller: str, name: str, value: SupportsIndex, least: int) -> int:
    """`value` as an int no smaller than `least`, or an error that names `caller` and the argument."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{caller}: {name} must be a whole number; got {value!r} ({type(value).__name__}). Pass an int."
        ) from None
    if number < least:
        raise ValueError(f"{caller}: {name} must be at least {least}; got {number}.")
    return number


def real(
    caller: str,
    name: str,
    value: SupportsFloat,
    low: Number,
    high: Number,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """`value` as a float in the interval from `low` to `high`, or an error that names `caller` and the argument."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"{caller}: {name} must be one number; got {value!r} ({type(value).__name__}). Pass a float."
        ) from None
    inside = (float(low) < number if open_low else float(low) <= number) and (
        number < float(high) if open_high else number <= float(high)
    )
    if math.isnan(number) or not inside:
        interval = f"{'(' if open_low else '['}{float(low):g}, {float(high):g}{')' if open_high else ']'}"
        raise ValueError(f"{caller}: {name} must lie in {interval}; got {number!r}.")
    return number
