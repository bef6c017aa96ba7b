"""How do many megabytes of rows reach the disk with the least work? Hashed on their way, past the page cache."""

from __future__ import annotations

import errno
import json
import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core import FormatError

_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What safetensors calls them."""

_BUFFER = 4 * 2**20
"""Bytes in one write. Of 100 MB written so, 256 KiB at a time took 31 ms of processor, 1 MiB 24 ms, 4 MiB 21 ms."""

_WRITE = os.O_WRONLY | os.O_TRUNC | getattr(os, "O_BINARY", 0)

_SECTOR = 4096
"""Writes past the page cache begin and end at multiples of this."""


def in_order(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Tensors as they stand in a file, contiguous and on the CPU: widest type first, for alignment, then by name."""
    for name in sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)):
        yield name, tensors[name].detach().cpu().contiguous()


def said_of(name: str, tensor: Tensor) -> bytes:
    """What is hashed before a tensor's numbers."""
    return f"{name} {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}\n".encode()


def bytes_of(tensor: Tensor) -> memoryview:
    """A contiguous tensor's bytes as they are; numpy has no bfloat16."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else memoryview(b"")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], digest: Any) -> int:
    """Writes safetensors to `path`, which is there already, feeding `digest` what `hash_tensors` hashes; the bytes.

    Each stretch of rows is copied once, into a buffer that stays in the processor's cache, hashed there, and handed to
    the disk from there where its file system lets that be done (`O_DIRECT`): the page cache, which would cost two
    thirds of the time and push out what others read, is left alone. Elsewhere it is written as files usually are.

    Raises:
        OSError: if the disk is full or the file cannot be written.
        FormatError: if safetensors has no such type.
    """
    ordered = list(in_order(tensors))
    header: dict[str, dict[str, Any]] = {}
    end = 0
    for name, tensor in ordered:
        if tensor.dtype not in _TYPES:
            raise FormatError(f"{name} is of type {tensor.dtype}, which a store cannot hold; convert it.")
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    said = json.dumps(header, separators=(",", ":")).encode()
    # The numbers begin at a multiple of 8, as safetensors has it.
    said += b" " * (-len(said) % 8)
    with _File(path) as file:
        file.put(len(said).to_bytes(8, "little") + said, None)
        for name, tensor in ordered:
            digest.update(said_of(name, tensor))
            file.put(bytes_of(tensor), digest)
    return 8 + len(said) + end


class _File:
    """A file written from a buffer of whole sectors, in aligned memory."""

    def __init__(self, path: Path) -> None:
        # Maps begin at a page; their memory is only taken where it is touched.
        self.buffer = memoryview(mmap.mmap(-1, _BUFFER))
        self.filled = self.written = 0
        self.direct = getattr(os, "O_DIRECT", 0)
        try:
            self.handle = os.open(path, _WRITE | self.direct)
        except OSError as error:
            if error.errno != errno.EINVAL or not self.direct:
                raise
            self.direct = 0
            self.handle = os.open(path, _WRITE)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None and self.filled:
                past = self.written + self.filled
                # The last sector is written whole and cut off after.
                self._flush(self.filled if not self.direct else -(-self.filled // _SECTOR) * _SECTOR)
                os.ftruncate(self.handle, past)
        finally:
            os.close(self.handle)

    def put(self, data: memoryview | bytes, digest: Any) -> None:
        at = 0
        while at < len(data):
            n = min(_BUFFER - self.filled, len(data) - at)
            here = self.buffer[self.filled : self.filled + n]
            here[:] = data[at : at + n]
            if digest is not None:
                digest.update(here)
            self.filled, at = self.filled + n, at + n
            if self.filled == _BUFFER:
                self._flush(_BUFFER)

    def _flush(self, count: int) -> None:
        at = 0
        while at < count:
            try:
                at += os.write(self.handle, self.buffer[at:count])
            except OSError as error:
                if error.errno != errno.EINVAL or not self.direct:
                    raise
                # A file system that takes the flag and not the write, or a write that a full disk cut short. The module
                # is Unix's alone, as the flag is.
                import fcntl

                flags = fcntl.fcntl(self.handle, fcntl.F_GETFL)
                fcntl.fcntl(self.handle, fcntl.F_SETFL, flags & ~self.direct)
                self.direct = 0
        self.written, self.filled = self.written + count, 0
