"""A search in the server: what fits, in which order, and what may not be asked."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from starlette.testclient import TestClient

from superscope.core import FormatError, Report
from superscope.studio.server import Place, make_app
from superscope.studio.server.finding import KEPT, Asked, Finder, parse_asked

TABLE = pyarrow.table(
    {
        "latent": [3, 1, 2, 12, 7],
        "density": [0.5, 0.0, 0.1, None, 0.1],
        "tokens": [[" self", "Cls"], ["RAISE"], [], ["a\x1fb", "émigré"], [" raise", "self"]],
        "why": ["one", "two", None, "THREE", "raised"],
    }
)
TEXTS = {"texts": ("tokens", "why"), "key": "latent"}


def found(**asked: Any) -> list[int]:
    return Finder().find("t", lambda: TABLE, Asked(**{**TEXTS, **asked})).keys.tolist()


@pytest.mark.parametrize(
    ("asked", "keys"),
    [
        ({}, [3, 1, 2, 12, 7]),
        ({"words": "raise"}, [1, 7]),
        ({"words": "SELF"}, [3, 7]),
        ({"words": " self"}, [3]),
        ({"words": "three"}, [12]),
        # A number is a key as well as a text.
        ({"words": "12"}, [12]),
        ({"words": "ÉMI"}, [12]),
        # Not over the end of one text into the next.
        ({"words": "selfcls"}, []),
        ({"between": (("density", 0.1, None),)}, [3, 2, 7]),
        ({"between": (("density", None, 0.1),), "words": "a"}, [1, 7]),
        ({"order": ("-density", "latent")}, [3, 2, 7, 1, 12]),
        ({"order": ("~density", "latent")}, [2, 7, 3, 1, 12]),
        ({"order": ("latent",), "words": "r"}, [1, 7, 12]),
    ],
)
def test_what_fits_in_its_order(asked: dict[str, Any], keys: list[int]) -> None:
    assert found(**asked) == keys


def test_the_first_rows_come_whole_and_the_rest_by_name() -> None:
    answer = Finder().find("t", lambda: TABLE, Asked(order=("latent",), limit=2, offset=1, **TEXTS))
    assert (answer.matching, answer.of) == (5, 5)
    assert answer.keys.tolist() == [1, 2, 3, 7, 12]
    assert answer.rows.column("latent").to_pylist() == [2, 3]


def test_a_table_is_read_once_and_the_oldest_is_let_go() -> None:
    finder, read = Finder(), []
    for name in (*range(KEPT + 1), 0, KEPT):
        finder.find(name, lambda name=name: read.append(name) or TABLE, Asked(**TEXTS))
    assert read == [*range(KEPT + 1), 0]


def test_what_cannot_be_searched_is_said() -> None:
    with pytest.raises(LookupError, match="no column 'latnt'. Did you mean latent"):
        found(key="latnt")
    with pytest.raises(FormatError, match="density holds no texts"):
        found(texts=("density",))
    with pytest.raises(FormatError, match="no column of whole numbers"):
        found(key="density")
    for wrong in ({"between": 3}, {"between": {"density": ["a", 1]}}, {"texts": 5}):
        with pytest.raises(FormatError, match="the question must name"):
            parse_asked(wrong)


@pytest.fixture
def ask(report: Report, tmp_path: Path) -> Callable[..., tuple[int, Any]]:
    report.save(tmp_path / "run")
    client = TestClient(make_app(Place(tmp_path), token="key"), base_url="http://127.0.0.1")
    client.get("/?token=key")

    def ask(path: str, **query: Any) -> tuple[int, Any]:
        answer = client.get(f"/api/runs/{path}", params=query)
        return answer.status_code, answer.json()

    return ask


def test_a_run_is_searched_and_its_columns_are_given(ask: Callable[..., tuple[int, Any]], report: Report) -> None:
    where = '{"site": "transformer.h.0", "model": "trained"}'
    asked = '{"words": "raise", "texts": ["top_tokens"], "key": "latent", "order": ["-clarity"]}'
    status, answer = ask("run/search/latents", where=where, asked=asked, limit=3)
    table = report.tables["latents"]
    rows = [
        row
        for row in range(len(table["latent"]))
        if (table["site"][row], table["model"][row]) == ("transformer.h.0", "trained")
        and any("raise" in token for token in table["top_tokens"][row])
    ]
    best = sorted(rows, key=lambda row: -table["clarity"][row])
    assert (status, answer["matching"], answer["of"]) == (200, len(rows), 192)
    assert answer["columns"]["latent"] == [table["latent"][row] for row in best[:3]]
    status, answer = ask("run/columns/atlas", where=where, names=["x", "energy"])
    x = np.frombuffer(base64.b64decode(answer["columns"]["x"]["base64"]), "<f4")
    assert (status, answer["matching"]) == (200, 192)
    own = [
        v
        for v, at in zip(report.tables["atlas"]["x"], report.tables["atlas"]["site"], strict=True)
        if at == "transformer.h.0"
    ]
    assert x.tolist() == pytest.approx(own[:192], rel=1e-6)
    assert ask("run/columns/latents", names=["top_tokens"])[0] == 422
    assert ask("run/columns/nothing", names=["x"])[0] == 404
    assert ask("run/search/nothing")[0] == 404
    assert ask("run/search/latents", asked="[1]")[0] == 422


def test_a_text_is_not_read_where_nothing_was_kept(report: Report, tmp_path: Path) -> None:
    report.save(tmp_path / "run")
    client = TestClient(make_app(Place(tmp_path), token="key"), base_url="http://127.0.0.1")
    client.get("/?token=key")
    origin = {"origin": "http://127.0.0.1"}
    for text, sentence in (("hello", "kept no dictionary"), ("  ", "at least one word")):
        asked = {"site": "transformer.h.0", "model": "trained", "text": text}
        answer = client.post("/api/runs/run/text", json=asked, headers=origin)
        assert answer.status_code == 422
        assert sentence in answer.json()["error"]
    assert client.get("/api/runs/run").json()["reads"] == []
