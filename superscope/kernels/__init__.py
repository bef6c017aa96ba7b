"""Sparse times dense, on bare tensors. One folder per operation; its `reference.py` judges every other version."""

from .above import above
from .adam_rows import adam_rows
from .bags import Plan, atom_sum, bag_dot, bag_sum
from .choice import compiled_loops, repeated
from .gather_sum import gather_sum
from .screen import Screen, can_screen, screens
from .topk import encode_topk, topk

__all__ = [
    "Plan",
    "Screen",
    "above",
    "adam_rows",
    "atom_sum",
    "bag_dot",
    "bag_sum",
    "can_screen",
    "compiled_loops",
    "encode_topk",
    "gather_sum",
    "repeated",
    "screens",
    "topk",
]
