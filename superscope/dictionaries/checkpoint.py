"""A training on disk: one file, written in one step, that says whether it is whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from .._version import __version__
from ..core import FormatError, files
from .train import State

_KIND = "superscope training"


def save_state(path: Path | str, state: State) -> None:
    """Writes a training's state, atomically: a kill, a full disk or a power cut leaves the old file or the new one.

    Args:
        path: of the file; its folder is made if it is not there.
        state: as `Training.state` gives it.

    Raises:
        OSError: if the disk is full; what was there stays.
    """
    about = {
        "kind": _KIND,
        "superscope": __version__,
        "facts": json.dumps(dict(state.facts), allow_nan=False),
        "sha256": _hash(dict(state.tensors)),
    }
    files.write_tensors(Path(path), state.tensors, about)


def load_state(path: Path | str) -> State:
    """The state in a file.

    Raises:
        FileNotFoundError: if there is no such file.
        FormatError: if it is truncated, changed since it was written, or no training's.
    """
    tensors = files.read_tensors(Path(path))
    with safetensors.safe_open(path, framework="pt") as file:
        about: dict[str, Any] = file.metadata() or {}
    if about.get("kind") != _KIND:
        raise FormatError(f"{path} is no checkpoint of a training. Give the file that save_state wrote.")
    if about.get("sha256") != _hash(tensors):
        raise FormatError(
            f"{path} has changed since it was written, so its numbers cannot be trusted. "
            "Go on from an earlier checkpoint or copy it again."
        )
    return State(tensors, json.loads(about["facts"]))


def _hash(tensors: dict[str, Tensor]) -> str:
    """Over names, types, shapes and bytes, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous().cpu()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
