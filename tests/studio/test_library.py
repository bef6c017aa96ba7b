"""Runs as the server reads them: what is whole is shown, what is not is a sentence, and nothing is trusted."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
from starlette.testclient import TestClient

from superscope.core import Measurement, Report
from superscope.core.files import read_json, seal, sha256
from superscope.studio.html import payload
from superscope.studio.server import Place, library, make_app, shapes
from superscope.studio.server.app import BUNDLED

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = [
    "</script><script>alert(1)</script>",
    "a\u2028b\u2029c",
    "nul\x00",
    "\u202eright to left",
    "<img src=x>",
    "é\ufffd",
]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def ask(runs: Path) -> Iterator[Callable[..., tuple[int, Any]]]:
    """Status and JSON of a question."""
    with TestClient(make_app(Place(runs), token="key"), base_url="http://127.0.0.1") as client:
        client.get("/?token=key")

        def ask(path: str, **query: Any) -> tuple[int, Any]:
            answer = client.get(f"/api/{path}", params=query)
            return answer.status_code, answer.json()

        yield ask


def save(path: Path, **more: Any) -> Path:
    one = Measurement(name="coherence", value=0.5, unit="cosine", n=3, of="atoms")
    tables = {"rows": {"token": HOSTILE, "x": [1.0, float("nan"), float("inf"), -2.5, 0.1, 3.0], "i": list(range(6))}}
    arrays = {"W": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor([1, 2]), "on": torch.tensor([True])}
    fields = {"title": "Three atoms", "kind": "toy", "measurements": (one,), "tables": tables, "arrays": arrays, **more}
    Report(**fields).save(path)
    return path


def change(run: Path, **entries: Any) -> None:
    """An about.json that says something else, with a seal that is whole."""
    about = seal(read_json(run / "about.json") | entries)
    (run / "about.json").write_text(json.dumps(about))


def relist(run: Path, name: str) -> None:
    """An about.json that has seen a file as it is now."""
    files = read_json(run / "about.json")["files"]
    change(run, files=files | {name: {"bytes": (run / name).stat().st_size, "sha256": "0" * 64}})


def test_a_run_is_what_its_page_holds(runs: Path, ask: Callable) -> None:
    save(runs / "one")
    status, head = ask("runs/one")
    assert status == 200
    report = Report.load(runs / "one")
    page = payload(report) | {"figures": []}
    tables, packed = page.pop("tables"), page.pop("packed")
    assert {key: value for key, value in head.items() if key != "tables"} == json.loads(json.dumps(page))
    assert head["tables"] == {"rows": 6}
    assert ask("runs/one/tables/rows")[1] == {"columns": tables["rows"], "matching": 6}
    for name in ("W", "steps", "on"):
        assert ask(f"runs/one/arrays/{name}")[1] == packed[name]
    shapes.Head.model_validate(head)


def test_rows_are_chosen_sorted_and_counted(runs: Path, ask: Callable) -> None:
    save(runs / "one")
    _, found = ask("runs/one/tables/rows", sort="i", descending=True, limit=2, offset=1)
    assert (found["columns"]["i"], found["matching"]) == ([4, 3], 6)
    _, found = ask("runs/one/tables/rows", where=json.dumps({"token": HOSTILE[0], "i": 0}))
    assert found["columns"] == {"token": [HOSTILE[0]], "x": [1], "i": [0]}
    assert ask("runs/one/tables/rows", where='{"i": 99}')[1]["matching"] == 0
    assert ask("runs/one/tables/rows", where='{"i": [1, 3, 99]}')[1]["columns"]["i"] == [1, 3]
    wrong = ("[1]", "{", '{"i": []}', '{"i": [[1]]}', '{"i": ["a"]}', '{"i": {}}', '{"i": "a"}')
    for query in (*({"where": each} for each in wrong), {"limit": -1}):
        status, answer = ask("runs/one/tables/rows", **query)
        assert status == 422, query
        assert answer["error"]
    assert ask("runs/one/tables/rows", sort="j")[0] == 404
    assert "Did you mean rows?" in ask("runs/one/tables/row")[1]["error"]


def test_damage_is_a_sentence_where_it_is_and_the_rest_stands(runs: Path, ask: Callable) -> None:
    whole = save(runs / "short") / "rows.parquet"
    whole.write_bytes(whole.read_bytes()[:-20])
    relist(runs / "short", "rows.parquet")
    (save(runs / "gone") / "rows.parquet").unlink()
    (save(runs / "armless") / "arrays.safetensors").unlink()
    for name, sentence in (
        ("short", "The table rows cannot be read"),
        ("gone", "rows.parquet is missing"),
        ("armless", "arrays.safetensors is missing"),
    ):
        status, head = ask(f"runs/{name}")
        assert status == 200
        assert sentence in head["problems"][0]
        assert head["title"] == "Three atoms"
    assert ask("runs/short/tables/rows")[0] == 422
    assert ask("runs/gone/tables/rows")[0] == 422
    assert ask("runs/armless/arrays/W")[0] == 422
    assert ask("runs/armless")[1]["arrays"] == {}
    # Cut within its columns, with an end that promises more.
    text = save(runs / "hollow") / "rows.parquet"
    content = text.read_bytes()
    text.write_bytes(content[:4] + b"\xff" * 200 + content[204:])
    assert ask("runs/hollow/tables/rows")[0] == 422
    array = save(runs / "cut") / "arrays.safetensors"
    array.write_bytes(array.read_bytes()[:-8])
    relist(runs / "cut", "arrays.safetensors")
    assert "cannot be read" in ask("runs/cut/arrays/W")[1]["error"]


def test_what_is_no_report_is_refused_in_words(runs: Path, ask: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = {
        "list": "[]",
        "deep": "[" * 100_000,
        "nan": '{"title": "", "kind": "", "findings": [], "measurements": [], "tables": {}, "arrays": {"W": [NaN]}}',
        "odd": '{"title": "", "kind": "", "findings": [1], "measurements": [{}], "tables": {}, "arrays": {}}',
        "text": "{",
    }
    for name, body in bodies.items():
        (save(runs / name) / "report.json").write_text(body)
        relist(runs / name, "report.json")
    for name in bodies:
        status, answer = ask(f"runs/{name}")
        assert status == 422, (name, answer)
        assert answer["error"]
    save(runs / "path", kind="toy")
    body = read_json(runs / "path" / "report.json")
    (runs / "path" / "report.json").write_text(json.dumps(body | {"tables": {"../path/rows": "x.parquet"}}))
    relist(runs / "path", "report.json")
    assert "no name of a table" in ask("runs/path")[1]["problems"][0]
    monkeypatch.setattr(library, "JSON_BYTES", 100)
    status, answer = ask("runs/path")
    assert (status, "MB of JSON" in answer["error"]) == (422, True)


def test_a_run_that_is_not_whole_is_listed_with_its_reason(runs: Path, ask: Callable) -> None:
    save(runs / "a" / "b" / "deep")
    save(runs / "one", title="".join(HOSTILE))
    change(save(runs / "running"), state="running")
    change(save(runs / "odd"), settings=[1])
    (save(runs / "altered") / "about.json").write_text("{}")
    (runs / "empty").mkdir()
    (runs / "pipe").mkdir()
    os.mkfifo(runs / "pipe" / "about.json")
    _, answer = ask("runs")
    found = {run["id"]: run for run in answer["runs"] if not run["bundled"]}
    states = {name: run["state"] for name, run in found.items()}
    assert states == {
        "a~b~deep": "finished", "one": "finished", "running": "unfinished",
        "odd": "damaged", "altered": "damaged", "pipe": "damaged",
    }  # fmt: skip
    assert all(bool(run["error"]) == (run["state"] == "damaged") for run in found.values())
    assert "\x00" not in found["one"]["title"]
    # Of a run that goes on there is what it has kept so far.
    status, head = ask("runs/running")
    assert (status, head["finished"], head["title"]) == (200, False, "toy, not finished yet")
    assert (head["tables"], head["arrays"]["W"], head["measurements"]) == ({"rows": 6}, [2, 3], [])
    assert ask("runs/running/tables/rows")[1]["matching"] == 6
    assert ask("runs/running/arrays/W")[1]["shape"] == [2, 3]
    assert ask("runs/running/report.html")[0] == 422
    change(save(runs / "early"), state="running", files={})
    status, answer = ask("runs/early")
    assert (status, "nothing to show yet" in answer["error"]) == (422, True)
    assert ask("runs/a~b~deep")[0] == 200


def test_a_run_that_goes_on_is_trusted_no_more_than_others(runs: Path, ask: Callable, tmp_path: Path) -> None:
    secret = save(tmp_path / "secret")
    change(save(runs / "named"), state="running", kind=HOSTILE[0])
    whole = read_json(save(runs / "paths") / "about.json")["files"]
    listed = {
        "../../secret/rows.parquet": whole["rows.parquet"],
        "a/b.parquet": {},
        "rows.parquet": whole["rows.parquet"],
    }
    change(runs / "paths", state="running", files=listed)
    change(save(runs / "link"), state="running")
    (runs / "link" / "rows.parquet").unlink()
    (runs / "link" / "rows.parquet").symlink_to(secret / "rows.parquet")
    change(save(runs / "cut"), state="running")
    (runs / "cut" / "arrays.safetensors").write_bytes((runs / "cut" / "arrays.safetensors").read_bytes()[:20])
    assert ask("runs/named")[1]["title"] == f"{HOSTILE[0]}, not finished yet"
    assert ask("runs/paths")[1]["tables"] == {"rows": 6}
    status, head = ask("runs/link")
    assert (status, head["tables"], "links are not followed" in head["problems"][0]) == (200, {}, True)
    assert ask("runs/link/tables/rows")[0] == 422
    status, answer = ask("runs/cut")
    assert (status, "cannot be read" in answer["error"]) == (422, True)


def test_too_much_is_left_out_and_told(runs: Path, ask: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    save(runs / "one")
    save(runs / "two")
    monkeypatch.setattr(library, "ROWS", 4)
    assert ask("runs/one")[1]["left_out"] == {"rows": {"kept": 4, "of": 6}}
    _, found = ask("runs/one/tables/rows")
    assert (len(found["columns"]["i"]), found["matching"]) == (4, 6)
    monkeypatch.setattr(library, "TABLE_BYTES", 10)
    assert "GB in memory" in ask("runs/one/tables/rows")[1]["error"]
    monkeypatch.setattr(library, "ARRAY_NUMBERS", 5)
    assert "6 numbers" in ask("runs/one/arrays/W")[1]["error"]
    monkeypatch.setattr(library, "LISTED", 1)
    answer = ask("runs")[1]
    assert len(answer["runs"]) == 1
    assert answer["left_out"] >= 1


def test_the_runs_in_the_package_are_whole_and_small(ask: Callable) -> None:
    bundled = [run for run in ask("runs")[1]["runs"] if run["bundled"]]
    assert {run["kind"] for run in bundled} >= {"toy", "phase", "scan"}
    for run in bundled:
        status, head = ask(f"runs/{run['id']}")
        assert (status, head["problems"]) == (200, []), run["id"]
    folder = ROOT / "superscope" / "studio" / "examples"
    for path in folder.iterdir():
        Report.load(path)
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 3_000_000


def test_the_types_of_the_page_are_those_of_the_server() -> None:
    path = ROOT / "scripts" / "api_types.py"
    spec = importlib.util.spec_from_file_location("api_types", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PATH.read_text(encoding="utf-8") == module.text(), "Run: python scripts/api_types.py"


def test_what_was_read_is_named_without_its_place_on_this_machine(runs: Path) -> None:
    shelf = library.Library(runs, BUNDLED)
    save(runs / "own")
    shutil.copytree(BUNDLED / "world-sae" / "sae", runs / "own" / "sae")
    sources = [shelf.source(name) for name in ("own:sae", "@world-sae:sae", "own")]
    settings = {"dictionary": str(sources[0]), "sources": tuple(map(str, sources)), "n": 3}
    report = Report(title="Tried", kind="bench", measurements=(), settings=settings, tables={"rows": {"x": [1.0]}})
    named = shelf.portable(report, sources)
    assert named.settings == {
        "dictionary": "own/sae",
        "sources": ["own/sae", "superscope/studio/examples/world-sae/sae", "own"],
        "n": 3,
    }
    weights = sha256(BUNDLED / "world-sae" / "sae" / "weights.safetensors")
    assert named.environment == {
        "sha256 of own/sae": weights,
        "sha256 of superscope/studio/examples/world-sae/sae": weights,
        "sha256 of own": sha256(runs / "own" / "about.json"),
    }
    assert named.tables == report.tables


def test_a_large_table_gives_the_rows_that_are_asked_for(runs: Path, ask: Callable) -> None:
    """Of 100 000 rows the few that are asked for come without the others being made into JSON."""
    n = 100_000
    save(runs / "big", tables={"latents": {"latent": list(range(n)), "density": [i / n for i in range(n)]}})
    assert pyarrow.parquet.read_metadata(runs / "big" / "latents.parquet").num_rows == n
    _, found = ask("runs/big/tables/latents", sort="density", descending=True, limit=3)
    assert found["columns"]["latent"] == [n - 1, n - 2, n - 3]
