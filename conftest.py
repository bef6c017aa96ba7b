"""What pytest leaves alone when it looks for examples in the package."""

import importlib.util

# Modules that begin by importing an extra cannot be looked into without it.
collect_ignore_glob = [] if importlib.util.find_spec("triton") else ["superscope/kernels/*/triton.py"]
