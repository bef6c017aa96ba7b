"""Names by a language model: a stub server that knows the answer, one that does not, one that fails half-way."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from superscope.core import Answer, Findings, FormatError, Run
from superscope.studies import Bounds, Interpret
from superscope.studies.networks import interpret

WORDS = ("apple", "river", "seven", "green", "music")


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan whose every latent is one word, which its contexts hold and no other's do."""
    findings = Findings()
    for latent, word in enumerate(WORDS):
        for rank in range(12):
            tokens = ["It is ", word, f" {rank}."]
            findings.row(
                "contexts", site="h.1", model="trained", latent=latent, rank=rank, activation=2.0, document="a",
                position=rank, tokens=tokens, activations=[0.0, 2.0, 0.0],
            )  # fmt: skip
    folder = tmp_path_factory.mktemp("scanned") / "run"
    Run.begin("scan", {"model": "pocket"}, folder).finish(Answer(title="a scan", findings=findings))
    return folder


@contextmanager
def serving(answer: Callable[[str], str | int]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server on this machine that gives `answer(prompt)`, a text or a status; and what it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body | {"path": self.path, "key": self.headers.get("Authorization")})
            found = answer(body["messages"][0]["content"])
            self.send_response(found if isinstance(found, int) else 200)
            self.end_headers()
            if isinstance(found, str):
                self.wfile.write(json.dumps({"choices": [{"message": {"content": found}}]}).encode())

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()


def knowing(prompt: str) -> str:
    """Names the word that is marked, and finds it in texts."""
    if marked := re.findall(r"<<(\w+)>>", prompt):
        return f"  the word\n{max(set(marked), key=marked.count)}"
    label = re.split("described as: the (?:word|tokens) ", prompt)[1].split("\n")[0].strip("'")
    return ", ".join(re.findall(rf"^(\d+)\. .*{label}", prompt, flags=re.MULTILINE)) or "none"


def test_a_server_that_knows_scores_1_and_by_anothers_name_it_guesses(
    scanned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", "s3cret")
    with serving(knowing) as (endpoint, asked):
        report = Interpret(str(scanned), endpoint=endpoint, name="m", send=True, key="THE_KEY").run(tmp_path / "run")
    (accuracy,) = report["label_accuracy"]
    assert accuracy.value == report["token_accuracy"][0].value == 1.0
    # Of another's texts its word names those of its own among the foreign ones at most.
    assert (accuracy.chance or 0) <= 0.5
    assert report.tables["labels"]["label"] == [f"the word {word}" for word in WORDS]
    assert json.loads((tmp_path / "run" / "labels.json").read_text())["2"] == "the word seven"
    assert len(asked) == 20 == report["interpret_requests"][0].value
    assert {each["path"] for each in asked} == {"/v1/chat/completions"}
    assert {each["key"] for each in asked} == {"Bearer s3cret"}
    assert all("s3cret" not in file.read_text(errors="replace") for file in (tmp_path / "run").rglob("*.json"))
    # What a name is tried on is none of what it was made from.
    made, tried = asked[0]["messages"][0]["content"], asked[5]["messages"][0]["content"]
    assert not set(re.findall(r"apple>> (\d+)", made)) & set(re.findall(r"apple (\d+)", tried))


def test_a_server_that_says_the_same_of_all_tells_nothing(scanned: Path) -> None:
    with serving(lambda _: "1, 2, 3, 4, 5, 6, 7, 8") as (endpoint, _):
        report = Interpret(str(scanned), endpoint=endpoint, send=True).run()
    assert report["label_accuracy"][0].value == report["token_accuracy"][0].value == 0.5
    assert "do not foretell better" in report.findings[0]
    assert "it cannot judge" in report.findings[1]


def test_one_that_fails_half_way_is_asked_for_the_rest(
    scanned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpret.time, "sleep", lambda _: None)
    left = [7]

    def failing(prompt: str) -> str | int:
        left[0] -= 1
        return knowing(prompt) if left[0] >= 0 else 500

    with serving(failing) as (endpoint, asked):
        study = Interpret(str(scanned), endpoint=endpoint, send=True)
        with pytest.raises(ConnectionError, match="it answered 500.*is kept: the same command"):
            study.run(tmp_path / "run")
        assert len(asked) == 7 + 3
        left[0] = 99
        report = study.run(tmp_path / "run")
        assert len(asked) == 7 + 3 + 13
    assert report["label_accuracy"][0].value == 1.0


def test_nothing_is_sent_unless_asked_for_and_what_it_would_cost_is_said(scanned: Path) -> None:
    with serving(knowing) as (endpoint, asked):
        report = Interpret(str(scanned), endpoint=endpoint, price_given=2.0, price_answered=10.0).run()
    assert not asked
    tokens, cost = report["interpret_tokens"][0].value or 0, report["interpret_cost"][0].value or 0
    assert 2e-6 * tokens < cost < 10e-6 * tokens
    assert any("Nothing was sent" in sentence for sentence in report.findings)


def test_what_cannot_be_named_is_said(scanned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpret.time, "sleep", lambda _: None)
    with pytest.raises(ValueError, match="write an address as"):
        Interpret(str(scanned), endpoint="localhost")
    Bounds(n=32, d=8).run(tmp_path / "bounds")
    with pytest.raises(FormatError, match="holds no contexts"):
        Interpret(str(tmp_path / "bounds")).run()
    with serving(lambda _: 401) as (endpoint, asked):
        with pytest.raises(ConnectionError, match="it answered 401"):
            Interpret(str(scanned), endpoint=endpoint, send=True).run()
        assert len(asked) == 1
