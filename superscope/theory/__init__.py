"""What W allows before any data: bounds, numbers in and numbers out, without torch."""

from __future__ import annotations

from . import toy_loss
from .coherence import coherence_guarantee
from .welch import bukh_cox, mean_power, orthoplex, rankin, welch

__all__ = ["toy_loss", "bukh_cox", "coherence_guarantee", "mean_power", "orthoplex", "rankin", "welch"]
