"""How anything of ours reaches the disk: atomic writes, safetensors and JSON only, and the run folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import safetensors
import safetensors.torch
from torch import Tensor

from .errors import FormatError, nearest


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on leaving without an exception it becomes `path` in one step.

    A reader, a crash or a full disk sees the old file or the new one, never a part of either.

    Raises:
        OSError: if the disk is full or the folder cannot be written; `path` is then as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        # mkstemp makes files private to the user; a result is as readable as any other file of theirs.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, atomically. NaN and infinities are refused: JSON has none, and 9999 in their place would be a lie.

    Raises:
        ValueError: if a number is NaN or infinite.
    """
    write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
        FileNotFoundError: if there is no such file.
        FormatError: if it is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{path} is not valid JSON ({error}). It may be damaged; make it again.") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> None:
    """Writes tensors as safetensors, atomically."""
    with atomic(path) as temporary:
        contiguous = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
        safetensors.torch.save_file(contiguous, temporary, metadata=dict(about or {}))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads safetensors.

    Raises:
        FileNotFoundError: if there is no such file.
        FormatError: if it is truncated, damaged or of another format.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise FormatError(
            f"{path} is not a readable safetensors file ({error}). It may be truncated; copy or make it again."
        ) from error


def read_array(path: Path) -> np.ndarray:
    """Reads a `.npy` file, one array of numbers.

    Raises:
        FileNotFoundError: if there is no such file.
        FormatError: if it is truncated, damaged, an archive, or holds objects or text.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, OverflowError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(
            f"{path} is not a readable .npy array of numbers ({reason}). Save it again with numpy.save, without "
            "objects."
        ) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise FormatError(f"{path} is an archive of arrays, not one array. Save the array alone with numpy.save.")
    if array.dtype.kind not in "biufc":
        raise FormatError(f"{path} holds {array.dtype}, which are no numbers. Save numbers with numpy.save.")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def write_table(path: Path, table: pyarrow.Table) -> None:
    """Writes a table as Parquet, atomically."""
    with atomic(path) as temporary:
        pyarrow.parquet.write_table(table, temporary, compression="zstd", compression_level=9)


def sha256(path: Path) -> str:
    """Hash of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_unknown(found: Mapping[str, Any], known: Iterator[str] | set[str] | tuple[str, ...], where: str) -> None:
    """An unknown key is an error that names the file: dropping it would silently change what a run means.

    Raises:
        FormatError: naming the first unknown key and the nearest known one.
    """
    known = tuple(known)
    for key in found:
        if key not in known:
            raise FormatError(
                f"{where} has an unknown key {key!r}.{nearest(key, known)} Known keys: {', '.join(known)}."
            )


def remove(path: Path) -> None:
    """A file, or a folder with all that is in it, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def require_space(folder: Path, wanted: int) -> None:
    """Checks before long work that the disk can hold its result.

    Raises:
        OSError: with the room there is and the room that is needed.
    """
    standing = next(parent for parent in (Path(folder).absolute(), *Path(folder).absolute().parents) if parent.exists())
    free = shutil.disk_usage(standing).free
    if free < wanted:
        raise OSError(
            f"{folder} needs about {wanted / 1e6:.0f} MB and its disk has {free / 1e6:.0f} MB free. "
            "Make room, or choose another folder with --out."
        )


_SEAL = "sha256"
_ABOUT = (
    "kind",
    "title",
    "superscope",
    "state",
    "settings",
    "environment",
    "files",
    "created",
    "finished",
    "notes",
    _SEAL,
)


def seal(about: Mapping[str, Any]) -> dict[str, Any]:
    """The same entries with `sha256`, the hash of all others: of their JSON, keys in order, without spaces.

    Example:
        >>> sealed = seal({"kind": "scan"})
        >>> sealed == seal(sealed), sealed["sha256"][:8]
        (True, 'f604f968')
    """
    content = {key: value for key, value in about.items() if key != _SEAL}
    # By way of text, since keys that are numbers are words once they have been read.
    text = json.dumps(json.loads(json.dumps(content)), sort_keys=True, separators=(",", ":"))
    return content | {_SEAL: hashlib.sha256(text.encode()).hexdigest()}


class RunFolder:
    """The folder of one study: `about.json` says what it is and lists every file with its hash, its own entries' too.

    States: "running" (unfinished; the same settings resume it) and "finished". A folder that holds anything else is
    never written to.

    Args:
        path: the folder.
        about: the contents of its about.json.
    """

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path = Path(path)
        self.about = about

    @classmethod
    def standing(cls, path: Path, *, kind: str, settings: Mapping[str, Any]) -> RunFolder | None:
        """The unfinished run with the same settings that is already there; None if the folder is free.

        Raises:
            FileExistsError: if the folder holds another run, a finished one, or files that are no run.
        """
        path = Path(path)
        if (path / "about.json").exists():
            run = cls.open(path)
            if run.about["state"] == "finished":
                raise FileExistsError(
                    f"{path} already holds a finished run. Choose another folder with --out, or remove this one."
                )
            settings = json.loads(json.dumps(settings))
            if (run.about["kind"], run.about["settings"]) != (kind, settings):
                differing = [key for key in settings if run.about["settings"].get(key) != settings[key]] or ["kind"]
                raise FileExistsError(
                    f"{path} already holds another unfinished run ({', '.join(differing)} differ). "
                    "Repeat its settings to resume it, or choose another folder with --out."
                )
            return run
        # A process that was killed as it wrote the first about.json leaves a part of it, and has begun no run.
        if path.exists() and (not path.is_dir() or any(not _is_beginning(file) for file in path.iterdir())):
            raise FileExistsError(f"{path} is not empty and holds no run of ours. Choose a new folder with --out.")
        return None

    @classmethod
    def start(
        cls,
        path: Path,
        *,
        kind: str,
        settings: Mapping[str, Any],
        environment: Mapping[str, Any],
        version: str,
        created: str,
    ) -> RunFolder:
        """A new run, or the unfinished one with the same settings that is already there.

        Raises:
            FileExistsError: if the folder holds another run, a finished one, or files that are no run.
        """
        run = cls.standing(path, kind=kind, settings=settings)
        if run is not None:
            return run
        about = {
            "kind": kind,
            "title": "",
            "superscope": version,
            "state": "running",
            "settings": json.loads(json.dumps(settings)),
            "environment": dict(environment),
            "files": {},
            "created": created,
            "finished": None,
            "notes": [],
        }
        run = cls(path, about)
        if path.is_dir():
            for file in filter(_is_beginning, path.iterdir()):
                remove(file)
        run._write()
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The run in a folder, finished or not.

        Raises:
            FileNotFoundError: if the folder holds no run.
            FormatError: if about.json is damaged, has unknown or missing keys, or has changed since it was written; one
                without a hash of its own was written before runs had it, and the run has to be made again.
        """
        return cls(path, _read_about(Path(path)))

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def keep(self, name: str, **facts: Any) -> None:
        """Lists a file that has been written, with its size and hash; the listing is the mark that it is whole."""
        path = self.path / name
        self.about["files"][name] = {"bytes": path.stat().st_size, "sha256": sha256(path), **facts}
        self._write()

    def has(self, name: str) -> bool:
        """Whether a file is listed and still is what it was when listed."""
        listed = self.about["files"].get(name)
        path = self.path / name
        return (
            bool(listed)
            and path.is_file()
            and path.stat().st_size == listed["bytes"]
            and sha256(path) == listed["sha256"]
        )

    def verify(self) -> None:
        """Checks about.json and every file it lists against their hashes.

        Raises:
            FormatError: naming the first file that is missing or changed.
        """
        _read_about(self.path)
        for name in self.about["files"]:
            if not self.has(name):
                raise FormatError(
                    f"{self.path / name} is missing or has changed since the run wrote it. Make the run again."
                )

    def finish(self, title: str, finished: str) -> None:
        """Marks the run as finished."""
        self.about |= {"title": title, "state": "finished", "finished": finished}
        self._write()

    def _write(self) -> None:
        self.about |= seal(self.about)
        write_json(self.path / "about.json", self.about)


def _is_beginning(file: Path) -> bool:
    return file.name.startswith(".about.json.")


def _read_about(folder: Path) -> dict[str, Any]:
    """The entries of a run's about.json, checked."""
    where = folder / "about.json"
    if not where.is_file():
        raise FileNotFoundError(
            f"{folder} holds no run: there is no about.json. Make one with `superscope scan --out {folder}`."
        )
    about = read_json(where)
    if not isinstance(about, dict):
        raise FormatError(f"{where} does not describe a run.")
    refuse_unknown(about, _ABOUT, str(where))
    missing = [key for key in _ABOUT if key not in about]
    if missing:
        raise FormatError(f"{where} lacks {', '.join(missing)}. It may come from another version; make the run again.")
    if seal(about)[_SEAL] != about[_SEAL]:
        raise FormatError(
            f"{where} has changed since the run wrote it: its entries have another hash than it says. Copy it again "
            "from where it was whole, or make the run again."
        )
    return about
