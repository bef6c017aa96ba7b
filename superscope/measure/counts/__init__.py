"""How many features are there? One estimator a file; scans run all of `COUNTERS` at every site."""

from ...core.registry import members
from .base import Counter as Counter
from .recurring import RecurringFeatures as RecurringFeatures

COUNTERS: tuple[Counter, ...] = tuple(kind() for kind in members(Counter, globals()))
"""One of each kind imported above."""
