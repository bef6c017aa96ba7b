"""Bad luck on the disk: full, killed half-way, damaged. What stood before still stands."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from superscope.core import FormatError, RunFolder, files


def start(path: Path, **settings: Any) -> RunFolder:
    return RunFolder.start(path, kind="scan", settings=settings, environment={}, version="0", created="now")


def test_an_exception_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    files.write_json(target, {"old": 1})

    def half_way() -> None:
        with files.atomic(target) as temporary:
            temporary.write_text("half of the new o")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half_way()
    assert files.read_json(target) == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.safetensors"
    files.write_tensors(target, {"w": torch.ones(2)})

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_tensors(target, {"w": torch.zeros(2)})
    assert files.read_tensors(target)["w"].tolist() == [1, 1]
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_kill_9_while_writing_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    files.write_json(target, {"round": -1, "load": []})
    script = f"""
        from pathlib import Path
        from superscope.core import files
        for round in range(10**9):
            files.write_json(Path({str(target)!r}), {{"round": round, "load": list(range(20000))}})
            if round == 0:
                print("writing", flush=True)
    """
    for delay in (0.0, 0.013, 0.041):
        worker = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE)
        assert worker.stdout is not None
        worker.stdout.readline()
        time.sleep(delay)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker.stdout.close()
        found = files.read_json(target)
        assert found["load"] == list(range(20000))


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        files.write_json(tmp_path / "a.json", float("nan"))
    assert os.listdir(tmp_path) == []


def test_damaged_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    files.write_tensors(path, {"w": torch.ones(64)})
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(FormatError, match=r"not a readable safetensors file .* copy or make it again"):
        files.read_tensors(path)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        files.read_tensors(tmp_path / "b.safetensors")


def test_arrays_that_are_none(tmp_path: Path) -> None:
    array = np.arange(6.0).reshape(2, 3)
    for name, kept in (("a", array), ("big-endian", array.astype(">f4"))):
        np.save(tmp_path / f"{name}.npy", kept)
        read = files.read_array(tmp_path / f"{name}.npy")
        assert read.dtype.isnative
        assert torch.from_numpy(read).tolist() == array.tolist()
    np.save(tmp_path / "objects.npy", np.array([{}, None]), allow_pickle=True)
    np.save(tmp_path / "text.npy", np.array(["one", "two"]))
    np.savez(tmp_path / "archive.npz", a=array)
    (tmp_path / "archive.npz").rename(tmp_path / "archive.npy")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-8])
    (tmp_path / "none.npy").write_bytes(b"")
    for name, words in (
        ("objects", "not a readable .npy array"),
        ("text", "holds <U3, which are no numbers"),
        ("archive", "an archive of arrays"),
        ("cut", "not a readable .npy array"),
        ("none", "not a readable .npy array"),
    ):
        with pytest.raises(FormatError, match=words):
            files.read_array(tmp_path / f"{name}.npy")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        files.read_array(tmp_path / "nowhere.npy")


def test_too_little_room_is_said_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(
        OSError,
        match=r"needs about \d+ MB and its disk has \d+ MB free. Make room, or choose another folder with --out",
    ):
        files.require_space(tmp_path / "not" / "there" / "yet", 10**18)
    files.require_space(tmp_path, 1)


def test_an_unfinished_run_resumes_only_with_its_own_settings(tmp_path: Path) -> None:
    run = start(tmp_path / "run", k=4, sites=("a",))
    files.write_text(run / "a.txt", "part")
    run.keep("a.txt", seconds=1.5)
    again = start(tmp_path / "run", k=4, sites=("a",))
    assert again.has("a.txt")
    assert not again.has("b.txt")
    with pytest.raises(FileExistsError, match=r"another unfinished run \(k differ\). Repeat its settings to resume it"):
        start(tmp_path / "run", k=5, sites=("a",))


def test_a_listed_file_that_changed_is_not_had(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    files.write_text(run / "a.txt", "part")
    run.keep("a.txt")
    (run / "a.txt").write_text("trap")
    assert not run.has("a.txt")
    with pytest.raises(FormatError, match=r"a.txt is missing or has changed"):
        run.verify()


def test_every_flipped_bit_of_about_json_is_found_or_changes_nothing(tmp_path: Path) -> None:
    run = start(
        tmp_path / "run", k=4, lr=1e-30, sites=("a", "b"), text="\u00e9 \n", whole=None, by_number={10: 1.0, 9: True}
    )
    files.write_text(run / "a.txt", "part")
    run.keep("a.txt", seconds=1.5)
    run.finish("A title", "later")
    path = run / "about.json"
    whole, entries = path.read_bytes(), files.read_json(path)
    found = harmless = 0
    for place in range(0, len(whole), 3):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            try:
                about = RunFolder.open(run.path).about
            except FormatError:
                found += 1
                if not bit:
                    with pytest.raises(FormatError):
                        run.verify()
            else:
                harmless += 1
                assert repr(about) == repr(entries), (place, bit)
    # What changes nothing is a space that has become another kind of space.
    assert found > 50 * harmless
    path.write_bytes(whole)
    assert repr(RunFolder.open(run.path).about) == repr(entries)


def test_a_run_without_a_hash_of_its_own_is_refused(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    entries = files.read_json(run / "about.json")
    del entries["sha256"]
    files.write_json(run / "about.json", entries)
    with pytest.raises(FormatError, match=r"lacks sha256. It may come from another version; make the run again"):
        RunFolder.open(run.path)


def test_entries_changed_by_hand_are_noticed(tmp_path: Path) -> None:
    run = start(tmp_path / "run", k=4)
    entries = files.read_json(run / "about.json")
    files.write_json(run / "about.json", entries | {"settings": {"k": 5}})
    with pytest.raises(FormatError, match=r"about.json has changed since the run wrote it"):
        RunFolder.open(run.path)
    files.write_json(run / "about.json", files.seal(entries | {"settings": {"k": 5}}))
    assert RunFolder.open(run.path).about["settings"] == {"k": 5}
