"""One function per quantity; each returns Measurements with their n, unit, interval and bound or chance level."""

from .geometry import (
    Histogram,
    Nearest,
    coherence,
    cosine_histogram,
    frame_potential,
    interference_energy,
    mean_max_cosine,
    nearest,
    nearest_histogram,
    random_max_cosine,
)
from .metric import Declaration, metric

__all__ = [
    "Declaration",
    "Histogram",
    "Nearest",
    "coherence",
    "cosine_histogram",
    "frame_potential",
    "interference_energy",
    "mean_max_cosine",
    "metric",
    "nearest",
    "nearest_histogram",
    "random_max_cosine",
]
