"""Where does a store live? In a folder of this machine or of an object store, written so that nothing is half there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...core import FormatError, files

log = logging.getLogger(__name__)


class Place(ABC):
    """A folder of files that appear whole or not at all. Names are relative, with forward slashes."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Files right inside `folder`, sorted; none if there is no such folder."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Bytes of a file; None if there is none."""

    @abstractmethod
    def age(self, name: str) -> float:
        """Seconds since a file was written."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """A file's bytes.

        Raises:
            FileNotFoundError: if there is no such file.
        """

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Puts a file there in one step, over an older one."""

    @abstractmethod
    def write_tensors(self, name: str, tensors: Mapping[str, Tensor], algorithm: str) -> tuple[str, str, int]:
        """Writes safetensors in one step; the file's name, the hash of its content (see `hash_tensors`), its bytes.

        Args:
            name: of the file; `{hash}` in it stands for the first 16 digits of the hash, which is known when all is
                written.
        """

    @abstractmethod
    def tensors(self, name: str) -> dict[str, Tensor]:
        """A file of tensors; mapped into memory, not read, where that can be done.

        Raises:
            FormatError: if it is truncated or no safetensors file.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Takes a file away, if it is there."""

    def claim(self, name: str) -> Callable[[], object] | None:
        """Makes `name` this process's own until it calls what is returned, or dies; None where another has it.

        Object stores know no such thing: there everybody gets what they ask for, and two may do the same work.
        """
        return lambda: None

    @abstractmethod
    def write_new(self, name: str, value: Any) -> None:
        """Writes JSON where there is no such file; one that is there stays, also where two write at once."""

    def write_json(self, name: str, value: Any) -> None:
        """Writes JSON; NaN and infinities are refused."""
        self.write(name, _json(value))

    def read_json(self, name: str) -> Any:
        """Reads JSON.

        Raises:
            FileNotFoundError: if there is no such file.
            FormatError: if it is not JSON.
        """
        try:
            return json.loads(self.read(name).decode())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise FormatError(f"{self}/{name} is not valid JSON ({error}). It may be damaged; remove it.") from error


def place(where: str | Path) -> Place:
    """The folder at a path, or at an address of `fsspec` such as `s3://bucket/run` or `memory://run`.

    Raises:
        ValueError: if the address names a protocol that is not known, or whose library is not installed.

    Example:
        >>> place("memory://example").names("units")
        []
    """
    if "://" not in str(where):
        return Local(Path(where).expanduser())
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(str(where))
    except (ValueError, ImportError) as error:
        raise ValueError(f"'{where}' cannot be used: {error}. Give a folder, or install what it asks for.") from error
    return Remote(system, root, str(where))


def preferred_hash() -> str:
    """ "xxh3", eight to fifteen times faster, where the package xxhash is installed; else "sha256"."""
    try:
        import xxhash  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        return "sha256"
    return "xxh3"


def in_order(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Tensors as they are hashed, contiguous and on the CPU: widest type first, as in files, then by name."""
    for name in sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)):
        yield name, tensors[name].detach().cpu().contiguous()


def hash_tensors(tensors: Mapping[str, Tensor], algorithm: str) -> str:
    """Hash of names, types, shapes and numbers, however they are laid out, written `algorithm:hexadecimal`.

    Raises:
        FormatError: if the algorithm is not known.
        ModuleNotFoundError: if it needs the package xxhash and that is not installed.

    Example:
        >>> import torch
        >>> hash_tensors({"x": torch.zeros(2)}, "sha256")[:20]
        'sha256:a250410883817'
    """
    digest = _hasher(algorithm)
    for name, tensor in in_order(tensors):
        digest.update(f"{name} {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}\n".encode())
        # The bytes as they are; numpy has no bfloat16.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return f"{algorithm}:{digest.hexdigest()}"


def _hasher(algorithm: str) -> Any:
    if algorithm == "sha256":
        return hashlib.sha256()
    if algorithm != "xxh3":
        raise FormatError(f"there is no hash '{algorithm}' here; known are xxh3 and sha256.")
    try:
        import xxhash  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "this store was hashed by xxh3; to check it, install xxhash: pip install 'superscope[fast]'."
        ) from error
    return xxhash.xxh3_128()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _named(name: str, said: str) -> str:
    return name.replace("{hash}", said.partition(":")[2][:16])


class Local(Place):
    """A folder of this machine's file system, or of one that several machines mount."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def names(self, folder: str) -> list[str]:
        inside = self.path / folder
        return sorted(f"{folder}/{each.name}" for each in inside.iterdir()) if inside.is_dir() else []

    def size(self, name: str) -> int | None:
        try:
            return (self.path / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def age(self, name: str) -> float:
        return time.time() - (self.path / name).stat().st_mtime

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        with files.atomic(self.path / name) as temporary:
            temporary.write_bytes(data)

    def write_new(self, name: str, value: Any) -> None:
        path = self.path / name
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, first = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        try:
            # Made whole under a name of its own, then linked, which fails where somebody else was first.
            files.write_text(Path(first), _json(value).decode())
            with contextlib.suppress(FileExistsError):
                os.link(first, path)
        finally:
            Path(first).unlink(missing_ok=True)

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor], algorithm: str) -> tuple[str, str, int]:
        said = hash_tensors(tensors, algorithm)
        name = _named(name, said)
        with files.atomic(self.path / name) as temporary:
            try:
                safetensors.torch.save_file(dict(in_order(tensors)), temporary)
            except SafetensorError as error:
                raise OSError(f"{self.path / name} could not be written: {error}") from error
            size = temporary.stat().st_size
        return name, said, size

    def claim(self, name: str) -> Callable[[], object] | None:
        try:
            import fcntl
        except ModuleNotFoundError:  # Windows
            return super().claim(name)
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # A lock and not the file's being there, since the system takes a lock back from whoever dies.
        opened = path.open("a")
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            opened.close()
            return None
        except OSError:
            log.debug("%s is on a file system without locks; others may do the same work", path)

        def release() -> None:
            path.unlink(missing_ok=True)
            opened.close()

        return release

    def tensors(self, name: str) -> dict[str, Tensor]:
        path = self.path / name
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path}.")
        try:
            with safe_open(path, framework="pt") as opened:
                return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise FormatError(f"{path} is not a readable safetensors file ({error}). It may be truncated.") from error

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)


class Remote(Place):
    """A folder of an object store, where putting a file is one step already."""

    def __init__(self, system: Any, root: str, said: str) -> None:
        self.system = system
        self.root = root.rstrip("/")
        self.said = said

    def __str__(self) -> str:
        return self.said

    def _at(self, name: str) -> str:
        return f"{self.root}/{name}"

    def names(self, folder: str) -> list[str]:
        self.system.invalidate_cache()
        try:
            found = self.system.ls(self._at(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted(f"{folder}/{name.rstrip('/').rpartition('/')[2]}" for name in found)

    def size(self, name: str) -> int | None:
        self.system.invalidate_cache()
        try:
            return int(self.system.size(self._at(name)))
        except FileNotFoundError:
            return None

    def age(self, name: str) -> float:
        return time.time() - self.system.modified(self._at(name)).timestamp()

    def read(self, name: str) -> bytes:
        return self.system.cat_file(self._at(name))

    def write(self, name: str, data: bytes) -> None:
        self.system.pipe_file(self._at(name), data)

    def write_new(self, name: str, value: Any) -> None:
        # Object stores have no "only if new" that fsspec offers; the reader of it compares what it finds.
        if self.size(name) is None:
            self.write_json(name, value)

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor], algorithm: str) -> tuple[str, str, int]:
        said = hash_tensors(tensors, algorithm)
        name = _named(name, said)
        data = safetensors.torch.save(dict(in_order(tensors)))
        self.write(name, data)
        return name, said, len(data)

    def tensors(self, name: str) -> dict[str, Tensor]:
        try:
            return safetensors.torch.load(self.read(name))
        except SafetensorError as error:
            raise FormatError(
                f"{self}/{name} is not a readable safetensors file ({error}). It may be truncated."
            ) from error

    def remove(self, name: str) -> None:
        if self.size(name) is not None:
            self.system.rm_file(self._at(name))
