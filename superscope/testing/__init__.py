"""Laws as functions, for our own architectures, sources, metrics and kernels and for anybody's."""

from .coder import CODER_LAWS, SAE_LAWS, Dense, check_coder, dense_loss, gradient, nothing_left
from .counter import check_counter
from .examples import EVERY, example
from .kernel import check_kernel
from .law import LawBroken
from .metric import check_metric
from .reading import check_reading
from .source import check_source

__all__ = [
    "CODER_LAWS",
    "EVERY",
    "SAE_LAWS",
    "Dense",
    "LawBroken",
    "check_coder",
    "check_counter",
    "check_kernel",
    "check_metric",
    "check_reading",
    "check_source",
    "dense_loss",
    "example",
    "gradient",
    "nothing_left",
]
