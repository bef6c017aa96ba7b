"""What every classical learner is: a coder that `fit` learns from rows held all at once, saved as tensors and JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from ..._version import __version__
from ...core import ActivationSource, Dictionary, FormatError, SparseCoder, files
from ...core.source import only
from ..sae.base import read_about

KIND = "learner"
"""What `about.json` of a saved one says it is."""


class Learner(SparseCoder):
    """A subclass is a frozen dataclass; its fields are what was learned: the dictionary, tensors and numbers."""

    name: ClassVar[str]
    """What commands call it."""
    fit: ClassVar[Callable[..., Any]]
    """A class method: `fit(source, n, ...)` learns n atoms of a source, or of rows."""
    sized_by: ClassVar[tuple[str, ...]] = ()
    """Arguments of `fit` that the rows settle: none, for it reads the rows itself."""

    @classmethod
    def join(cls, sources: Sequence[ActivationSource]) -> ActivationSource:
        """The one source to learn from.

        Raises:
            ValueError: if there are several.
        """
        return only(cls.__name__, sources)

    def save(self, folder: Path | str, *, notes: Mapping[str, Any] | None = None) -> None:
        """Writes weights.safetensors and about.json, each atomically.

        Args:
            folder: made if it is not there.
            notes: anything JSON can hold: the site, the data, the figures reached.
        """
        tensors: dict[str, Tensor] = {"atoms": self.dictionary.atoms}
        if self.dictionary.bias is not None:
            tensors["bias"] = self.dictionary.bias
        arguments: dict[str, Any] = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            learned = getattr(self, field.name)
            if isinstance(learned, Tensor):
                tensors[field.name] = learned
            elif not isinstance(learned, Dictionary):
                arguments[field.name] = learned
        files.write_tensors(Path(folder) / "weights.safetensors", tensors)
        about = {"kind": KIND, "architecture": type(self).__name__, "arguments": arguments}
        files.write_json(Path(folder) / "about.json", about | {"superscope": __version__, "notes": dict(notes or {})})

    @classmethod
    def load(cls, folder: Path | str) -> Learner:
        """The one of this class that is saved in a folder.

        Raises:
            FileNotFoundError: if a file is missing.
            FormatError: if a file is damaged or holds something else.
        """
        about = read_about(folder)
        where = Path(folder) / "about.json"
        if (about["kind"], about["architecture"]) != (KIND, cls.__name__):
            raise FormatError(f"{where} describes a {about['architecture']}, not a {cls.__name__}.")
        tensors = files.read_tensors(Path(folder) / "weights.safetensors")
        if "atoms" not in tensors:
            raise FormatError(f"{folder}/weights.safetensors lacks 'atoms'. Save the dictionary again.")
        W = Dictionary(tensors.pop("atoms"), tensors.pop("bias", None))
        values = {
            name: tuple(value) if isinstance(value, list) else value for name, value in about["arguments"].items()
        }
        try:
            return cls(dictionary=W, **values, **tensors)  # type: ignore[call-arg]
        except TypeError as error:
            raise FormatError(f"{where} has arguments that {cls.__name__} does not take: {error}") from error
