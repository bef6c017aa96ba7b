"""Superscope: an instrument for superposition. One equation organises it: x = W f.

Subpackages load on first use, so that `import superscope` costs nothing and `superscope --help` never imports torch.
"""

from __future__ import annotations

import importlib
from typing import Any

from ._version import __version__

_FOLDERS = (
    "capture",
    "core",
    "dictionaries",
    "features",
    "frames",
    "intervene",
    "measure",
    "plots",
    "recovery",
    "studies",
    "studio",
    "testing",
    "theory",
    "toys",
    "worlds",
)
# Conveniences at the root, each the public name of a module that is loaded on first use.
_NAMES = {
    "Dictionary": "core",
    "SparseCode": "core",
    "Measurement": "core",
    "Report": "core",
    "analyze_superposition": "studies",
    "count": "studies",
    "measure_interference": "studies",
    "show": "studio",
}

__all__ = ["__version__", *_FOLDERS, *_NAMES]


def __getattr__(name: str) -> Any:
    if name in _FOLDERS:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"superscope has no attribute {name!r}. It has: {', '.join(sorted(__all__))}.")


def __dir__() -> list[str]:
    return sorted(__all__)
