"""How many features are there? One estimator a file; scans run all of `COUNTERS` at every site."""

from .base import Counter as Counter
from .recurring import RecurringFeatures as RecurringFeatures

COUNTERS: tuple[Counter, ...] = (RecurringFeatures(),)
