"""The rows that a classical learner works on: it wants them all at once, where an autoencoder takes a stream."""

from __future__ import annotations

import importlib
import math
import operator
import warnings
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...core import ActivationSource

Source = ActivationSource | Tensor
"""A source to read rows from, or the rows themselves."""


def training_rows(caller: str, source: Source, rows: int, seed: int) -> Float[Tensor, "rows d"]:
    """At most so many rows: of a tensor the first, of a source those its first batches hold.

    Raises:
        ValueError: if there are none, or one is not finite.
    """
    if rows < 1:
        raise ValueError(f"{caller}.fit: rows must be at least 1; got {rows}.")
    if isinstance(source, Tensor):
        if source.ndim != 2:
            raise ValueError(f"{caller}.fit: rows must be a matrix of (rows, d); got shape {tuple(source.shape)}.")
        x = source[:rows]
    else:
        parts, have = [], 0
        # A source that says how many rows it has gives no batch of more.
        size = min(1024, rows, max(operator.length_hint(source, rows), 1))
        for batch in source.batches(size, seed=seed):
            parts.append(batch.x[: rows - have])
            have += len(parts[-1])
            if have == rows:
                break
        x = torch.cat(parts) if parts else torch.empty(0, source.d)
    if not len(x):
        raise ValueError(f"{caller}.fit: the source has no batch of {min(1024, rows)} rows. Ask for fewer rows.")
    finite = torch.isfinite(x).all(1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        raise ValueError(f"{caller}.fit: row {row} holds a NaN or infinite number. Remove such rows first.")
    return x.detach().cpu().float()


def check(caller: str, **least: tuple[float | int, float | int]) -> None:
    """Numbers below their least value are errors that name the learner and the argument."""
    for name, (value, lowest) in least.items():
        if not (math.isfinite(value) and value >= lowest):
            raise ValueError(f"{caller}.fit: {name} must be at least {lowest:g}; got {value}.")


def scikit_learn(caller: str, module: str) -> ModuleType:
    """A module of scikit-learn, which is asked for only where a learner needs it.

    Raises:
        ModuleNotFoundError: if it is not installed, with the command that installs it.
    """
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{caller} needs scikit-learn; install it with: pip install 'superscope[classical]'."
        ) from error


def fitted(caller: str, learner: Any, x: Float[Tensor, "rows d"]) -> bool:
    """Fits a learner of scikit-learn; whether every iteration inside it met its tolerance.

    Not converging is what a learner says of itself, in a field, and no warning.
    """
    exceptions = scikit_learn(caller, "exceptions")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", exceptions.ConvergenceWarning)
        learner.fit(x.numpy())
    ours = [warning for warning in caught if issubclass(warning.category, exceptions.ConvergenceWarning)]
    for warning in caught:
        if warning not in ours:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return not ours
