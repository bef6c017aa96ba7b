"""Reading what others wrote: pickles without running them, arrays without objects, and every number checked."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core import FormatError, files
from ...core.errors import nearest

NO_DEFAULT: Any = object()


def read_pickle(path: Path) -> dict[str, Any]:
    """The dict in a `.pt` file, read with `weights_only`, so that nothing in it is run; warns that it is a pickle.

    Raises:
        FileNotFoundError: if there is no such file.
        FormatError: if it is damaged, holds code, or holds no dict.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    warnings.warn(
        f"{path} is a pickle. It is read with weights_only, which runs no code from it; "
        "convert it once to safetensors, which cannot hold code at all: superscope convert.",
        stacklevel=2,
    )
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(
            f"{path} is not a readable file of tensors ({reason[:160]}). It is damaged, or holds Python objects, "
            "which are never loaded; ask for a safetensors file."
        ) from error
    if not isinstance(found, dict):
        raise FormatError(f"{path} holds a {type(found).__name__}, not a dict of named tensors.")
    return found


def read_npz(path: Path) -> dict[str, Tensor]:
    """The arrays of an `.npz` file, without Python objects.

    Raises:
        FileNotFoundError: if there is no such file.
        FormatError: if it is damaged or holds anything but numbers.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        # Opened here: numpy leaves a file open that turns out to be no archive.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, AttributeError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(
            f"{path} is not a readable .npz of numbers ({reason[:160]}). It may be truncated; copy or make it again."
        ) from error
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            raise FormatError(f"{path}: {name} holds {array.dtype} numbers; weights are floating point.")
    return {
        name: torch.from_numpy(np.ascontiguousarray(array, np.float64 if array.dtype.itemsize >= 8 else np.float32))
        for name, array in arrays.items()
    }


class _Taken:
    """Named things taken one by one; what is left over at the end is unknown."""

    def __init__(self, found: Any, where: Path | str, *, strict: bool = True) -> None:
        if not isinstance(found, Mapping):
            raise FormatError(f"{where} holds a {type(found).__name__}, not values by name.")
        self.left: dict[str, Any] = dict(found)
        self.where, self.strict = where, strict
        self.taken: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self.left

    def ignore(self, *names: str) -> None:
        """What changes nothing of what is computed."""
        for name in names:
            self.taken.append(name)
            self.left.pop(name, None)

    def done(self) -> None:
        """Nothing else may be left, since it could change what is computed.

        Raises:
            FormatError: naming the first name left, if strict.
        """
        if not self.left:
            return
        first = next(iter(self.left))
        if self.strict:
            raise FormatError(
                f"{self.where} has an unknown key {first!r}.{nearest(first, self.taken)} It could change what the "
                "weights compute. If you know that it does not, read with strict=False."
            )
        warnings.warn(f"{self.where}: unknown keys left aside: {', '.join(map(repr, self.left))}.", stacklevel=3)


class Settings(_Taken):
    """The keys of a configuration file.

    Args:
        found: the configuration.
        where: its file, for messages.
        strict: refuse keys that are never taken; otherwise they are named in a warning.
    """

    def take(self, name: str, kind: type, default: Any = NO_DEFAULT) -> Any:
        """One setting, which must be of that type (an int passes for a float); None stands for the default, if any.

        Raises:
            FormatError: if it is missing without a default, or of another type.
        """
        self.taken.append(name)
        value = self.left.pop(name, None)
        if value is None:
            if default is NO_DEFAULT:
                raise FormatError(f"{self.where} lacks {name!r}, without which the weights cannot be read.")
            return default
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise FormatError(f"{self.where}: {name} must be a {kind.__name__}; got {value!r}.")
        return value

    def choice(self, name: str, choices: Iterable[str], default: Any = NO_DEFAULT) -> str:
        """One setting among a few words.

        Raises:
            FormatError: if it is missing without a default, or none of them.
        """
        value, choices = self.take(name, str, default), tuple(choices)
        if value not in choices:
            raise FormatError(
                f"{self.where}: {name} is {value!r}, which is not known here.{nearest(value, choices)} "
                f"Known: {', '.join(choices)}."
            )
        return value


class Weights(_Taken):
    """Named tensors: floating point, finite, of the right shape. Half precision becomes float32, without loss.

    Args:
        found: the tensors.
        where: their file, for messages.
        strict: as for `Settings`.
    """

    @classmethod
    def safetensors(cls, path: Path, *, strict: bool = True) -> Weights:
        """Those of a safetensors file."""
        return cls(files.read_tensors(path), path, strict=strict)

    def take(self, name: str, *shape: int | None) -> Tensor:
        """One tensor; None in the shape stands for any length.

        Raises:
            FormatError: if it is missing, no floating-point tensor, of another shape, or not finite.
        """
        self.taken.append(name)
        if name not in self.left:
            raise FormatError(
                f"{self.where} lacks {name!r}.{nearest(name, self.left)} It has: {', '.join(sorted(self.left)[:12])}."
            )
        tensor = self.left.pop(name)
        if not isinstance(tensor, Tensor):
            raise FormatError(f"{self.where}: {name} is a {type(tensor).__name__}, not a tensor.")
        if not tensor.is_floating_point():
            raise FormatError(f"{self.where}: {name} is {tensor.dtype}; weights are floating point.")
        if len(tensor.shape) != len(shape) or any(b not in (None, a) for a, b in zip(tensor.shape, shape, strict=True)):
            wanted = " x ".join("any" if length is None else str(length) for length in shape) or "one number"
            raise FormatError(
                f"{self.where}: {name} has shape {tuple(tensor.shape)}, and {wanted} was expected from the other "
                "weights and settings. The file may be of another format, or cut."
            )
        if not bool(torch.isfinite(tensor).all()):
            raise FormatError(f"{self.where}: {name} holds NaN or infinite numbers. Ask for an undamaged copy.")
        return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()

    def number(self, name: str) -> float | int:
        """One number stored as a tensor of any type."""
        self.taken.append(name)
        value = self.left.pop(name, None)
        if isinstance(value, Tensor):
            if value.numel() != 1:
                raise FormatError(f"{self.where}: {name} has shape {tuple(value.shape)}; one number was expected.")
            value = value.item()
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise FormatError(f"{self.where}: {name} must be a number; got {value!r}.")
        return value
