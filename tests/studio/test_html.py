"""The data inside the page: escaped, complete, rounded, bounded."""

from __future__ import annotations

import base64
import gzip
import importlib
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superscope.core import FormatError, Measurement, Report, RunFolder
from superscope.measure import word_for
from superscope.studio import html, write_html
from superscope.studio.html import embed, payload, plain, template

module = importlib.import_module("superscope.studio.html")


def data_in(page: str) -> dict:
    found = re.findall(r'<script type="application/gzip" id="run">([A-Za-z0-9+/=\n]*)</script>', page)
    assert len(found) == 1
    first, *tables = (json.loads(gzip.decompress(base64.b64decode(line))) for line in found[0].split("\n"))
    names = first.pop("names")
    assert list(first["tables"]) == names
    return first | {"tables": dict(zip(names, tables, strict=True))}


def small(**more: object) -> Report:
    one = Measurement(name="coherence", value=0.5, unit="cosine", n=3, of="atoms")
    return Report(**{"title": "Three atoms", "kind": "superposition", "measurements": (one,), **more})


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_no_text_leaves_its_script_element(value: object) -> None:
    text = embed(value)
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text) == value
    text.encode()


def test_halves_of_characters_are_written_as_escapes() -> None:
    half = "\ud83e"
    assert embed(half) == '"\\ud83e"'
    assert json.loads(embed(half)) == half


def test_hostile_text_stays_data(report: Report, example_run) -> None:
    page = html(report)
    frame = template()
    assert page.lower().count("</script>") == frame.lower().count("</script>")
    assert page.count("<img") == frame.count("<img")
    assert "\u2028" not in page.replace(frame, "")
    texts = {token for row in data_in(page)["tables"]["contexts"]["tokens"] for token in row}
    assert set(example_run.HOSTILE) <= texts


def test_title_is_text() -> None:
    page = html(small(title="</title><script>alert(1)</script>\x00"))
    head = page.split('<script type="application/gzip"')[0]
    assert "<title>&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;\ufffd</title>" in head


def test_everything_in_the_report_is_in_the_page(report: Report) -> None:
    data = data_in(html(report))
    assert data["findings"] == list(report.findings)
    assert data["settings"] == json.loads(json.dumps(report.settings))
    assert len(data["measurements"]) == len(report.measurements)
    for written, m in zip(data["measurements"], report.measurements, strict=True):
        assert written["value"] == m.value
        assert written["at"] == m.at
    for name, table in report.tables.items():
        assert data["tables"][name].keys() == table.keys()
        for column, cells in table.items():
            for found, cell in zip(data["tables"][name][column], cells, strict=True):
                if isinstance(cell, float):
                    assert found == pytest.approx(cell, rel=1e-6)
                elif isinstance(cell, list) and cell and isinstance(cell[0], float):
                    known = [i for i, each in enumerate(cell) if each is not None]
                    assert [i for i, each in enumerate(found) if each is not None] == known
                    assert [found[i] for i in known] == pytest.approx([cell[i] for i in known], rel=5e-3)
                else:
                    assert found == cell
    assert data["left_out"] == {}


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_float32_survives(value: float) -> None:
    assert np.float32(plain(value)) == np.float32(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_say_is_missing(value: float) -> None:
    assert plain(value) is None
    assert plain([value, 1.0]) == [None, 1]


def test_numpy_cells_are_plain() -> None:
    assert plain(np.float32(0.1)) == 0.1
    assert plain(np.arange(3)) == [0, 1, 2]
    assert plain(1e300) == 1e300


def test_the_page_has_the_words_of_the_names_it_holds(report: Report) -> None:
    words = payload(report)["words"]
    names = {m.name for m in report.measurements}
    # One measurement of the example is invented, as one from outside would be.
    assert names - words.keys() == {"braid_index"}
    assert words["l0"]["label"] == word_for("l0").label
    assert words["fraction_variance_unexplained"]["heading"] == "unexplained"
    one = Report(title="A training", kind="train", measurements=(), tables={"training": {"step": [1], "loss": [0.5]}})
    assert payload(one)["words"].keys() == {"loss"}


def test_a_large_run_keeps_its_most_reliable_latents(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.ROOM, "contexts", 20_000)
    monkeypatch.setitem(module.ROOM, "latents", 40_000)
    monkeypatch.setitem(module.ROOM, "neurons", 10_000)
    data = payload(report)
    latents, tables = report.tables["latents"], data["tables"]
    for name, column in (("latents", "latent"), ("contexts", "latent"), ("neurons", "neuron")):
        kept = len(tables[name][column])
        assert 0 < kept < len(report.tables[name][column])
        assert data["left_out"][name] == {"kept": kept, "of": len(report.tables[name][column])}
        assert len(embed(tables[name])) < module.ROOM[name] * 1.2
    # Of each site and model no latent left out was found by more seeds, or by as many and clearer, than one kept.
    kept = set(zip(tables["latents"]["site"], tables["latents"]["model"], tables["latents"]["latent"], strict=True))
    groups = set(zip(latents["site"], latents["model"], strict=True))
    assert {(site, model) for site, model, _ in kept} == groups
    for group in groups:
        rows = [r for r in range(len(latents["latent"])) if (latents["site"][r], latents["model"][r]) == group]
        trust = {r: (latents["recurs"][r], latents["clarity"][r]) for r in rows}
        inside = [trust[r] for r in rows if (*group, latents["latent"][r]) in kept]
        outside = [trust[r] for r in rows if (*group, latents["latent"][r]) not in kept]
        assert min(inside) >= max(outside)


def test_write_html_leaves_the_run_whole(report: Report, tmp_path: Path) -> None:
    run = report.save(tmp_path / "run")
    path = write_html(run)
    assert path == tmp_path / "run" / "report.html"
    assert data_in(path.read_text(encoding="utf-8"))["title"] == report.title
    RunFolder.open(tmp_path / "run").verify()
    assert write_html(tmp_path / "run") == path
    assert html(tmp_path / "run") == path.read_text(encoding="utf-8")


def test_a_damaged_run_leaves_the_old_page(report: Report, tmp_path: Path) -> None:
    report.save(tmp_path / "run")
    path = write_html(tmp_path / "run")
    before = path.read_bytes()
    (tmp_path / "run" / "report.json").write_text("{}")
    with pytest.raises(FormatError, match=r"report\.json"):
        write_html(tmp_path / "run")
    assert path.read_bytes() == before
    assert not list((tmp_path / "run").glob(".report.html*"))


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no run"):
        html(tmp_path)


def test_without_the_front_end_the_message_says_how_to_build_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.resources, "files", lambda package: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"python hatch_build\.py"):
        html(small())
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "report.html").write_text("<title>superscope:title</title>")
    with pytest.raises(FileNotFoundError, match="not a page of this version"):
        html(small())
