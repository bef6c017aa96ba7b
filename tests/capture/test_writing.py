"""What is written past the page cache is what safetensors reads; where that is refused it is written all the same."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from superscope.capture import place, writing
from superscope.capture.places import hash_tensors
from superscope.core import FormatError

TYPES = list(writing._TYPES)


def mixed(rows: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    numbers = torch.randint(0, 2, (rows, 3), generator=generator)
    return {str(dtype): numbers.to(dtype) for dtype in TYPES} | {"strided": torch.arange(2.0 * rows).view(2, rows).T}


@settings(deadline=None, max_examples=30)
@over(rows=st.integers(0, 3000), buffer=st.sampled_from([4096, 8192]))
def test_any_size_is_read_back_as_it_was(rows: int, buffer: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    there = place(tmp_path_factory.mktemp("written"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_BUFFER", buffer)
        name, said, size = there.write_tensors("a/x-{hash}.safetensors", mixed(rows), "sha256")
    assert name == f"a/x-{said.removeprefix('sha256:')[:16]}.safetensors"
    assert there.size(name) == size
    assert there.names("a") == [name], "what it was written as first is left behind"
    assert said == hash_tensors(mixed(rows), "sha256") == hash_tensors(there.tensors(name), "sha256")
    read = safetensors.torch.load(there.read(name))
    for key, tensor in mixed(rows).items():
        assert torch.equal(read[key], tensor)
        assert read[key].dtype == tensor.dtype


def test_two_places_agree_on_the_hash(tmp_path: Path) -> None:
    here, there = place(tmp_path), place("memory://written")
    names = [each.write_tensors("x-{hash}.safetensors", mixed(77), "sha256")[:2] for each in (here, there)]
    assert names[0] == names[1]


def test_a_hash_tells_names_types_and_shapes_apart() -> None:
    x = torch.zeros(6)
    found = [{"x": x}, {"y": x}, {"x": x.view(2, 3)}, {"x": x.int()}, {"x": x[:3], "y": x[3:]}, {"x": x + 1}]
    assert len({hash_tensors(tensors, "sha256") for tensors in found}) == len(found)


def refused(call: Callable[..., Any], *, when: Callable[[tuple[Any, ...]], bool], error: int) -> Callable[..., Any]:
    def instead(*args: Any) -> Any:
        if when(args):
            raise OSError(error, os.strerror(error))
        return call(*args)

    return instead


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this system writes through its page cache alone")
@pytest.mark.parametrize("at", ["opening", "writing"])
def test_file_systems_that_do_not_take_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    import fcntl

    plain, tries = tmp_path / "plain", []

    def is_direct(args: tuple[Any, ...]) -> bool:
        flags = args[1] if at == "opening" else fcntl.fcntl(args[0], fcntl.F_GETFL)
        tries.append(bool(flags & os.O_DIRECT))
        return tries[-1]

    plain.touch()
    what = {"x": torch.arange(3_000_000)}
    call = "open" if at == "opening" else "write"
    monkeypatch.setattr(os, call, refused(getattr(os, call), when=is_direct, error=errno.EINVAL))
    size = writing.write_tensors(plain, what, hashlib.sha256())
    monkeypatch.undo()
    assert tries[:2] == [True, False], "it is asked for once, and then no more"
    assert plain.stat().st_size == size
    assert torch.equal(safetensors.torch.load_file(plain)["x"], what["x"])


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", refused(os.write, when=lambda args: len(args[1]) > 100, error=errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        place(tmp_path).write_tensors("units/x.safetensors", {"x": torch.zeros(10_000)}, "sha256")
    monkeypatch.undo()
    assert list((tmp_path / "units").iterdir()) == []


def test_types_that_cannot_be_held(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"z is of type torch.complex64, which a store cannot hold"):
        place(tmp_path).write_tensors("x", {"z": torch.zeros(2, dtype=torch.complex64)}, "sha256")
    assert list(tmp_path.iterdir()) == []
