"""Sparse times dense, on bare tensors. One folder per operation; its `reference.py` judges every other version."""

from .gather_sum import gather_sum

__all__ = ["gather_sum"]
