"""One function per quantity; each returns Measurements with their n, unit, interval and bound or chance level."""

from .metric import Declaration, metric

__all__ = ["Declaration", "metric"]
