"""What holds for every test of the package, its examples included."""

import importlib.util
import os

import torch

# Triton reads this when it is first imported, and other packages import it: so before anything else does.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# Modules that begin by importing an extra cannot be looked into without it.
collect_ignore_glob = [] if importlib.util.find_spec("triton") else ["superscope/kernels/*/triton.py"]
