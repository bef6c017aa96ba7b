"""Laws as functions, for our own architectures, sources, metrics and kernels and for anybody's."""

from .examples import EVERY, example

__all__ = ["EVERY", "example"]
