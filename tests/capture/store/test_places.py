"""What a place writes is what safetensors reads, named by a hash of its content; a full disk leaves nothing."""

from __future__ import annotations

import errno
import fcntl
import resource
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from superscope.capture import place
from superscope.capture.store.places import hash_tensors

TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool)


def mixed(rows: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    numbers = torch.randint(0, 2, (rows, 3), generator=generator)
    return {str(dtype): numbers.to(dtype) for dtype in TYPES} | {"strided": torch.arange(2.0 * rows).view(2, rows).T}


@settings(deadline=None, max_examples=20)
@over(rows=st.integers(0, 3000))
def test_any_size_is_read_back_as_it_was(rows: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    there = place(tmp_path_factory.mktemp("written"))
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


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"x\.safetensors could not be written: .*File too large"):
            place(tmp_path).write_tensors("units/x.safetensors", {"x": torch.zeros(10_000)}, "sha256")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "units").iterdir()) == []


def test_a_claim_is_one_processs_until_it_lets_go(tmp_path: Path) -> None:
    here, again = place(tmp_path), place(tmp_path)
    release = here.claim("units/1.claim")
    assert release is not None
    assert again.claim("units/1.claim") is None
    assert here.claim("units/1.claim") is None
    other = again.claim("units/2.claim")
    assert other is not None
    for each in (release, other, release):
        each()
    assert list((tmp_path / "units").iterdir()) == []
    once_more = again.claim("units/1.claim")
    assert once_more is not None
    once_more()


@pytest.mark.parametrize("why", ["no fcntl", "no locks"])
def test_where_there_are_no_locks_everybody_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    if why == "no locks":
        monkeypatch.setattr(fcntl, "flock", refuse)
    else:
        monkeypatch.setitem(sys.modules, "fcntl", None)
    claims = [place(tmp_path).claim("units/1.claim") for _ in range(2)]
    for release in (*claims, place("memory://claims").claim("1")):
        assert release is not None
        release()
