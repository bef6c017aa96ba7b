"""One thread per test process: two OpenMP pools on two cores spin against each other."""

from __future__ import annotations

import os

import torch
from hypothesis import settings

torch.set_num_threads(1)
# Shared machines stall for longer than hypothesis's default deadline; a slow example is no wrong example.
settings.register_profile("superscope", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("superscope")
# No test cuts the power, which alone tells what is on the disk from what is only written: to wait for the disk at each
# of the thousands of files that the tests write, 4 ms every time, adds nothing.
os.fsync = lambda _: None
