"""`superscope studio`: what it opens, what it refuses, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

from superscope.cli import help_text, main
from superscope.core import Measurement, Report


def test_help_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(r"^  studio +See runs in a browser", help_text(), re.M)
    assert main(["studio", "--help"]) == 0
    text = capsys.readouterr().out
    for word in ("--port", "--read-only", "--no-browser", "A run to open"):
        assert word in text


def test_a_run_is_opened_alone_and_served_until_it_is_interrupted(tmp_path: Path) -> None:
    one = Measurement(name="coherence", value=0.5, unit="cosine", n=3, of="atoms")
    for name in ("one", "two"):
        Report(title=name, kind="superposition", measurements=(one,)).save(tmp_path / name)
    command = [sys.executable, "-m", "superscope.cli", "studio", str(tmp_path / "one"), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        assert str(tmp_path / "one") in server.stdout.readline()
        address = server.stdout.readline().strip()
        home, _, token = address.partition("/?token=")
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", home)
        assert len(token) > 40
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{home}/api/runs")
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        assert b"<title>Superscope studio</title>" in browser.open(address).read()
        session = json.load(browser.open(f"{home}/api/session"))
        assert (session["folder"], session["opens"]) == (str(tmp_path), "one")
        runs = json.load(browser.open(f"{home}/api/runs"))["runs"]
        assert [run["id"] for run in runs if not run["bundled"]] == ["one"]
        browser.close()
        os.kill(server.pid, signal.SIGINT)
        assert server.wait(timeout=30) == 0
        assert "Traceback" not in server.stderr.read()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_what_cannot_be_served_is_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["studio", str(tmp_path / "none")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["studio", str(tmp_path), "--port", str(port)]) == 2
    assert f"port {port} is taken" in capsys.readouterr().err
    assert main(["studio", str(tmp_path), "--port", "99999"]) == 2
    assert "Give another one with --port" in capsys.readouterr().err
    for name in [name for name in sys.modules if name.startswith("superscope.studio.server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["studio", str(tmp_path)]) == 2
    assert "pip install 'superscope[studio]'" in capsys.readouterr().err
