"""`make bench`: what it writes, and what it says of a peer or a benchmark that cannot run."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bench
import peers
import pytest
import results


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a benchmark that claims, one that fails and one that does not end."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    claim = {"what": "a | b", "peer": "them", "version": "1.2", "ratio": "3.0 (2.0 to 4.0)", "quality": "alike"}
    (folder / "good.py").write_text(
        "import os, sys\n"
        "print('Left out: nnsight, since nnsight is 0.3.7 in this environment, older than 0.5.')\n"
        "assert sys.argv[1:] == ['--short']\n"
        f"open(os.environ['SUPERSCOPE_CLAIMS'], 'a').write({json.dumps(claim)!r} + '\\n')\n"
    )
    (folder / "bad.py").write_text("raise SystemExit('There is no peer here.')\n")
    (folder / "slow.py").write_text("import time\ntime.sleep(60)\n")
    for name in ("results.py", "timing.py"):
        (folder / name).write_text((Path(results.__file__).parent / name).read_text())
    parts = {
        "good": bench.Part("good.py", ("--short",), "here", "README.md"),
        "bad": bench.Part("bad.py", (), "here", "docs"),
        "slow": bench.Part("slow.py", (), "here", "docs", minutes=0.01),
        "nowhere": bench.Part("good.py", (), "broken", "docs"),
    }

    def made(name: str) -> Path:
        if name == "broken":
            raise OSError("no room left on the disk")
        return Path(sys.executable)

    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr(bench, "KEPT", folder / "speed.json")
    monkeypatch.setattr(bench, "PARTS", parts)
    monkeypatch.setattr(bench, "made", made)
    monkeypatch.setattr(bench, "said", lambda python: "today, this machine")
    return tmp_path


def test_a_claim_becomes_a_row_and_what_cannot_run_a_line(place: Path) -> None:
    for name in bench.PARTS:
        bench.keep(name, bench.run(name))
    kept = json.loads((place / "benchmarks" / "speed.json").read_text())
    assert [len(kept[name]["claims"]) for name in bench.PARTS] == [1, 0, 0, 0]
    text = bench.table(kept)
    assert "| a \\| b | them (1.2) | 3.0 (2.0 to 4.0) | alike | README.md |" in text
    for line in (
        "- Left out: nnsight, since nnsight is 0.3.7 in this environment, older than 0.5.",
        "- Left out: bad, since bad.py failed: There is no peer here.",
        "- Left out: slow, since slow.py took more than 0.01 minutes.",
        "- Left out: nowhere, since its environment 'broken' could not be made: no room left on the disk",
        "- today, this machine; minutes: good 0.",
    ):
        assert line in text


def test_one_part_anew_leaves_the_others(place: Path) -> None:
    old: dict[str, Any] = {"claims": [], "left_out": [], "when": "long ago", "minutes": 1.0}
    bench.keep("bad", old)
    bench.keep("good", bench.run("good"))
    kept = json.loads((place / "benchmarks" / "speed.json").read_text())
    assert list(kept) == ["good", "bad"]
    assert kept["bad"] == old
    assert "which has not been measured; `scripts/bench --only slow` does so" in bench.table(kept)


def test_the_table_takes_the_tables_place() -> None:
    page = f"before\n\n{bench.BEGIN}\n\nold\n\n{bench.END}\n\nafter\n"
    once = bench.placed(page, "| new |")
    assert once == f"before\n\n{bench.BEGIN}\n\n| new |\n\n{bench.END}\n\nafter\n"
    assert bench.placed(once, "| new |") == once
    with pytest.raises(ValueError, match="once each"):
        bench.placed("no place", "| new |")


def test_every_part_is_there_and_the_page_has_a_place() -> None:
    folder = Path(bench.__file__).parent
    for part in bench.PARTS.values():
        assert (folder / part.script).exists()
        assert part.environment in bench.ENVIRONMENTS
        assert all((folder.parent / name.strip()).exists() for name in part.said.split(","))
    bench.placed(bench.PAGE.read_text(), "")


def test_an_environment_is_made_once_and_anew_when_its_pins_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = ["torch"]\n[project.optional-dependencies]\n'
        'bench = ["skglm", "superscope[fast]"]\nfast = ["numba"]\n'
    )
    (tmp_path / "constraints.txt").write_text("torch==1\n")
    calls: list[list[str]] = []
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr(bench, "ENVIRONMENTS", {"some": bench.Environment("venv", ("bench",), "constraints.txt")})

    def call(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        (tmp_path / "venv").mkdir(exist_ok=True)
        # No torchvision can be imported, broken or not there.
        return subprocess.CompletedProcess(command, int(command[1] == "-c"))

    monkeypatch.setattr(bench.subprocess, "run", call)
    assert bench.made("some") == tmp_path / "venv" / "bin" / "python"
    assert [command[2:4] for command in calls] == [
        ["venv", str(tmp_path / "venv")],
        ["pip", "install"],
        ["import torchvision"],
        ["pip", "uninstall"],
    ]
    assert (tmp_path / "venv" / "bench-requirements.txt").read_text().split() == ["torch", "skglm", "numba"]
    bench.made("some")
    assert len(calls) == 4
    later = time.time() + 60
    (tmp_path / "constraints.txt").touch()
    bench.os.utime(tmp_path / "constraints.txt", (later, later))
    bench.made("some")
    assert len(calls) > 4


def test_a_peer_that_is_missing_or_old_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert results.available("torch", "torch", "torch", "2.9")
    assert capsys.readouterr().out == ""
    assert not results.available("nobody's package", "no_such_module", "no-such-package")
    assert "Left out: nobody's package, since no-such-package is not installed" in capsys.readouterr().out
    assert not results.available("torch", "torch", "torch", "99.1")
    version = importlib.metadata.version("torch")
    assert f"since torch is {version} in this environment, older than 99.1." in capsys.readouterr().out
    assert results.numbers("0.10.2rc1") == (0, 10, 2)
    assert results.numbers("2.13.0+cpu") > results.numbers("2.9")


def test_contestants_are_known_by_how_their_names_begin() -> None:
    assert peers.package_of("superscope, constant rate") is None
    assert peers.package_of("sparsify, signum") == ("sparsify", "eai-sparsify")


def test_a_claim_is_written_only_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(results.CLAIMS, raising=False)
    results.claim("work", "them", "2.0", "alike")
    monkeypatch.setenv(results.CLAIMS, str(tmp_path / "claims"))
    results.claim("work", "them", "2.0", "alike", "torch")
    (line,) = (tmp_path / "claims").read_text().splitlines()
    assert json.loads(line)["version"] == importlib.metadata.version("torch")
