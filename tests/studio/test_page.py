"""The page in a browser: complete, silent, safe, usable by everyone, and the same from the same address."""

from __future__ import annotations

import base64
import csv
import gzip
import importlib
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from playwright.sync_api import expect

from superscope.core import Measurement, Report
from superscope.core.files import write_json
from superscope.studio import html, write_html
from superscope.studio.html import payload

# The package's name for the function hides its module of the same name.
module = importlib.import_module("superscope.studio.html")

SECTIONS = (
    "overview",
    "site",
    "superposition",
    "sparsity",
    "reconstruction",
    "geometry",
    "neurons",
    "atlas",
    "features",
    "beside",
    "others",
    "method",
    "downloads",
)
SITE = "transformer.h.1.mlp.c_proj:in"


def clearest(report: Report, site: str, model: str, place: int = 0) -> int:
    table = report.tables["latents"]
    rows = [r for r in range(len(table["latent"])) if (table["site"][r], table["model"][r]) == (site, model)]
    return sorted((-table["clarity"][r], table["latent"][r]) for r in rows)[place][1]


def unfold(page, tables: int = 99) -> None:
    """Opens everything that can be opened, and so many of the charts' tables."""
    page.evaluate("() => document.querySelectorAll('details').forEach(d => d.open = true)")
    closed = "document.querySelectorAll('.tools button[aria-expanded=\"false\"]')"
    page.evaluate(f"() => [...{closed}].slice(0, {tables}).forEach(b => b.click())")


def test_every_section_is_there_in_silence(open_page) -> None:
    opened = open_page()
    for name in SECTIONS:
        section = opened.page.locator(f'section[data-view="{name}"]')
        expect(section).to_be_visible()
        expect(section).to_have_attribute("data-state", "loaded")
        expect(section.locator("h2, h3").first).not_to_be_empty()
    unfold(opened.page)
    assert opened.complaints == []
    assert opened.requests == []


def test_a_table_that_cannot_be_unpacked_is_told_where_it_is_missed(open_page, page_file: Path, tmp_path: Path) -> None:
    page = page_file.read_text(encoding="utf-8")
    begin = page.index(">", page.index('type="application/gzip"')) + 1
    first, *tables = page[begin : page.index("</script>", begin)].split("\n")
    number = json.loads(gzip.decompress(base64.b64decode(first)))["names"].index("neurons")
    torn = tmp_path / "torn.html"
    torn.write_text(page.replace(tables[number], tables[number][: len(tables[number]) // 8 * 4]), encoding="utf-8")
    opened = open_page(file=torn)
    neurons = opened.page.locator('[data-view="neurons"]')
    expect(neurons).to_have_attribute("data-state", "failed")
    expect(neurons.get_by_role("alert")).to_contain_text("This file is damaged")
    expect(opened.page.locator('[data-view="geometry"]')).to_have_attribute("data-state", "loaded")
    assert opened.complaints == []


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 400), ("dark", 400)], ids=lambda value: str(value)
)
def test_axe_finds_nothing_serious(open_page, serious, report: Report, scheme: str, width: int) -> None:
    latent = clearest(report, SITE, "trained", 3)
    opened = open_page(f"#/features?site={SITE}&feature={latent}", scheme=scheme, width=width)
    # One table twin: all are drawn by one component, and axe looks at each cell.
    unfold(opened.page, tables=1)
    assert serious(opened.page) == []
    assert opened.complaints == []


def test_a_narrow_screen_scrolls_only_downwards(open_page, report: Report) -> None:
    latent = clearest(report, "transformer.h.0", "trained", 3)
    page = open_page(f"#/features?feature={latent}", width=400).page
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_hostile_text_is_shown_and_does_nothing(open_page, report: Report) -> None:
    opened = open_page(f"#/features?feature={clearest(report, 'transformer.h.0', 'trained', 3)}")
    page = opened.page
    assert page.title() == report.title
    assert page.locator("img, iframe, object, embed").count() == 0
    assert page.locator("script").count() == 2
    shown = page.locator("#feature .context").all_inner_texts()
    for text in (
        "</script>",
        "<img·src=x·onerror=\"document.title='broken'\">",
        "{{7*7}}",
        "a⟨U+2028⟩b⟨U+2029⟩c",
        "⟨U+202E⟩right·to·left",
        "שלום",
        "nul␀byte",
        "\ufffd\ufffd",
        "&lt;b&gt;&amp;",
        "tab⇥here",
        "line␍↵end",
        "]]>-->",
    ):
        assert any(text in context for context in shown), text
    assert "<b>bold</b>" in page.locator("#feature .place").nth(1).inner_text()
    assert opened.complaints == []
    assert opened.requests == []


def test_the_policy_stops_what_should_never_be_there(open_page) -> None:
    """Were markup to slip through one day, the page's own policy would keep it from acting."""
    opened = open_page()
    opened.page.evaluate(
        """() => { const div = document.createElement('div');
        div.innerHTML = '<img src=x onerror="document.title=`broken`"><img src="https://example.org/a.png">';
        document.body.append(div); }"""
    )
    opened.page.wait_for_timeout(300)
    assert opened.page.title() != "broken"
    assert opened.requests == []


def test_an_address_restores_its_view(open_page, settled, report: Report) -> None:
    latent = clearest(report, SITE, "control")
    address = f"#/features?site={SITE}&model=control&feature={latent}&q=self&sort=strength&later=kept"
    opened = open_page(address)
    page = opened.page
    expect(page.locator("#feature-title")).to_have_text(f"Latent {latent}")
    expect(page.locator("#site-title")).to_have_text(SITE)
    expect(page.get_by_role("searchbox")).to_have_value("self")
    expect(page.locator(".sites .chip[aria-current]")).to_have_text([SITE, "control"])
    expect(page.locator("#feature")).to_be_in_viewport()
    # A key from another version is kept, so that passing through this one does not lose it.
    assert "later=kept" in page.locator(".side nav a").first.get_attribute("href")

    first = page.locator("#features .latents tbody tr").all_inner_texts()
    again = open_page(page.evaluate("location.hash")).page
    assert again.locator("#features .latents tbody tr").all_inner_texts() == first
    settled(again)


def test_back_and_forward_walk_through_the_views(open_page) -> None:
    page = open_page().page
    expect(page.locator("#site-title")).to_have_text("transformer.h.0")
    page.get_by_label("Site and model").get_by_role("link", name="transformer.h.1", exact=True).click()
    expect(page.locator("#site-title")).to_have_text("transformer.h.1")
    link = page.locator("#features .latents tbody th a").first
    latent = link.inner_text()
    link.click()
    expect(page.locator("#feature-title")).to_have_text(f"Latent {latent}")
    page.go_back()
    expect(page.locator("#feature-title")).to_have_count(0)
    expect(page.locator("#site-title")).to_have_text("transformer.h.1")
    page.go_back()
    expect(page.locator("#site-title")).to_have_text("transformer.h.0")
    page.go_forward()
    expect(page.locator("#site-title")).to_have_text("transformer.h.1")
    page.go_forward()
    expect(page.locator("#feature-title")).to_have_text(f"Latent {latent}")


def test_search_and_order(open_page, report: Report) -> None:
    page = open_page().page
    page.get_by_role("searchbox").fill("raise")
    rows = page.locator("#features .latents tbody tr")
    table = report.tables["latents"]
    wanted = [
        r
        for r in range(len(table["latent"]))
        if (table["site"][r], table["model"][r]) == ("transformer.h.0", "trained")
        and any("raise" in token.lower() for token in [*table["top_tokens"][r], *table["promotes"][r]])
    ]
    expect(page.locator(".controls output")).to_have_text(f"{len(wanted)} of 192 latents")
    page.get_by_label("Order").select_option("density-high")
    densest = sorted(wanted, key=lambda r: -table["density"][r])
    assert rows.locator("th").all_inner_texts() == [str(table["latent"][r]) for r in densest[: rows.count()]]
    assert re.search(r"q=raise&sort=density-high", page.evaluate("location.hash"))
    page.get_by_role("searchbox").fill("no such token anywhere")
    expect(rows).to_have_text(["No latent matches “no such token anywhere”."])


def test_unknown_places_are_said(open_page) -> None:
    page = open_page("#/site?site=transformer.h.99").page
    expect(page.get_by_text("This run has no site “transformer.h.99”")).to_be_visible()
    page = open_page("#/features?feature=123456").page
    expect(page.get_by_text("This page holds no latent 123456")).to_be_visible()


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8"), newline="")))


def as_cell(value: object) -> object:
    """What a CSV cell must read as."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.loads(json.dumps(value))


def test_tables_download_as_they_are(open_page, report: Report) -> None:
    page = open_page().page
    data = payload(report)
    for name, table in data["tables"].items():
        with page.expect_download() as waiting:
            page.locator("#downloads").get_by_role("button", name=f"{name}.csv", exact=True).click()
        rows = read_csv(waiting.value.path())
        # Chromium drops whatever a page wants to save beyond ten files in a second, which no hand clicks.
        page.wait_for_timeout(150)
        assert waiting.value.suggested_filename == f"superscope-scan-{name}.csv"
        assert len(rows) == len(next(iter(table.values())))
        for column, cells in table.items():
            found = [row[column] for row in rows]
            wanted = [as_cell(cell) for cell in cells]
            assert [
                text if isinstance(cell, str) else json.loads(text) for text, cell in zip(found, wanted, strict=True)
            ] == wanted


def test_measurements_and_report_download(open_page, report: Report) -> None:
    page = open_page().page
    with page.expect_download() as waiting:
        page.get_by_role("button", name="measurements.csv").click()
    rows = read_csv(waiting.value.path())
    assert len(rows) == len(report.measurements)
    for row, m in zip(rows, report.measurements, strict=True):
        assert (row["name"], row["site"], row["model"], row["unit"]) == (m.name, m.at["site"], m.at["model"], m.unit)
        assert (float(row["value"]) if row["value"] else None) == m.value
    with page.expect_download() as waiting:
        page.get_by_role("button", name="report.json").click()
    whole = json.loads(waiting.value.path().read_text(encoding="utf-8"))
    assert whole["measurements"] == payload(report)["measurements"]
    assert len(whole["tables"]["contexts"]) == len(report.tables["contexts"]["latent"])


def test_every_chart_says_what_it_shows(open_page) -> None:
    page = open_page().page
    charts = page.locator("figure.figure")
    assert charts.count() == 6 + 1 + 1 + 2 + 2 + 1 + 1 + 1
    for chart in charts.all():
        drawing = chart.locator("svg[role=img]")
        assert len(drawing.get_attribute("aria-label") or "") > 20
        assert drawing.locator(".axis-label").count() >= 1
        assert all(drawing.locator(".axis-label").all_text_contents())
        assert chart.locator("svg[role=img] :is(path, circle), canvas").count() > 0
        twin = chart.get_by_role("button", name="Show as table")
        twin.click()
        assert chart.locator("tbody tr").count() > 0


def test_a_chart_downloads_as_a_drawing_of_its_own(open_page, report: Report) -> None:
    page = open_page().page
    with page.expect_download() as waiting:
        page.locator("#superposition").get_by_role("button", name="Save as SVG").click()
    root = ElementTree.fromstring(waiting.value.path().read_bytes())
    marks = root.findall(".//{http://www.w3.org/2000/svg}circle")
    assert len(marks) == 5
    assert all(mark.get("fill", "").startswith("rgb") for mark in marks)
    assert not [element for element in root.iter() if element.get("class") or element.get("style")]
    with page.expect_download() as waiting:
        page.locator("#superposition").get_by_role("button", name="Save as CSV").click()
    rows = read_csv(waiting.value.path())
    counts = {(row["quantity"], row["model"]): float(row["value"]) for row in rows}
    assert counts["Recurring features", "trained"] == 101
    assert counts["Recurring features", "control"] == 9


def test_every_number_has_its_n_and_its_interval_or_why_none(open_page) -> None:
    page = open_page().page
    readings = page.locator("article.reading")
    assert readings.count() >= 15
    for reading in readings.all():
        facts = dict(zip(reading.locator("dt").all_inner_texts(), reading.locator("dd").all_inner_texts(), strict=True))
        assert re.match(r"(\d|−).* to |none: \w", facts["interval"]), facts
        assert re.match(r"\d[\d\u202f]* \w", facts["n"]), facts
        assert reading.locator(".unit, .undefined").inner_text()
        assert "control" in facts
        reading.locator("summary").click()
        expect(reading.locator("details p").first).to_be_visible()


def test_a_measurement_the_page_has_never_met_is_shown(open_page) -> None:
    row = open_page().page.locator('#others [data-measurement="braid_index"]').first
    text = row.inner_text()
    for part in (
        "Braid index",
        "transformer.h.0",
        "3.25",
        "strands",
        "no interval: one braid each",
        "n = 12 braids",
        "An invented quantity.",
    ):
        assert part in text


def test_what_was_not_measured_takes_no_room(open_page, tmp_path: Path) -> None:
    bound = Measurement(name="capacity", value=None, unit="features", n=0, of="features", caution="Nothing was sent.")
    one = Report(title="A single bound", kind="superposition", measurements=(bound,))
    file = tmp_path / "report.html"
    file.write_text(html(one), encoding="utf-8")
    opened = open_page(file=file)
    views = opened.page.locator("section").evaluate_all("found => found.map(section => section.dataset.view)")
    assert views == ["others", "method", "downloads"]
    expect(opened.page.locator("#others")).to_contain_text("Nothing was sent.")
    expect(opened.page.locator("body")).not_to_contain_text("not available")
    assert opened.complaints == []


def test_a_training_shows_its_curves_and_the_figures_of_its_folder(open_page, tmp_path: Path) -> None:
    steps = [1, 20, 40]
    table = {"step": steps, "fraction_variance_unexplained": [1.0, 0.4, 0.2], "l0": [4.0, 4.0, 4.0], "dead": [0, 2, 1]}
    measured = (
        Measurement(name="l0", value=4.0, unit="latents", n=40, of="tokens"),
        Measurement(name="atom_recall", value=0.5, unit="share", n=4, of="atoms", at={"threshold": 0.9}),
        Measurement(name="atom_count", value=4.0, unit="atoms", n=4, of="atoms"),
    )
    one = Report(title="A training", kind="train", measurements=measured, tables={"training": table})
    one.save(tmp_path / "run")
    drawings = tmp_path / "run" / "figures"
    drawings.mkdir()
    drawing = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="90" height="40"><script>alert(1)</script><text>two</text></svg>'
    )
    (drawings / "criteria.svg").write_text(drawing)
    shown = [{"name": "criteria", "shows": "The criteria <b>over k</b>."}, {"name": "gone", "shows": "Taken away."}]
    write_json(drawings / "index.json", shown)
    opened = open_page(file=write_html(tmp_path / "run"))
    views = opened.page.locator("section").evaluate_all("found => found.map(section => section.dataset.view)")
    assert views == ["figures", "learning", "others", "method", "downloads"]
    assert opened.page.locator("#learning path.curve").count() == 3
    image = opened.page.locator("#figures img")
    assert image.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [90, 40]
    assert image.get_attribute("alt") == "The criteria <b>over k</b>."
    with opened.page.expect_download() as download:
        opened.page.locator("#figures").get_by_role("button").click()
    assert Path(download.value.path()).read_text() == drawing
    # A place that few measurements have stands behind their names.
    assert opened.page.locator('[data-measurement="atom_recall"] th').inner_text() == "Atom recall (threshold 0.9)"
    assert opened.page.locator("#others thead th").first.inner_text() == "Measurement"
    assert opened.page.locator("#others thead").inner_text().lower().count("threshold") == 0
    assert opened.complaints == []
    assert opened.requests == []


def test_a_run_without_control_speaks_of_none(open_page, example_run, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(html(example_run.example(control=False)), encoding="utf-8")
    opened = open_page(file=file)
    assert "random-weight control" not in opened.page.locator("main").inner_text()
    assert opened.page.locator(".mark.control").count() == 0
    assert opened.complaints == []


def test_what_a_large_run_leaves_out_is_said(open_page, report: Report, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(module.ROOM, "latents", 60_000)
    file = tmp_path / "report.html"
    file.write_text(html(report), encoding="utf-8")
    kept = payload(report)["left_out"]["latents"]["kept"]
    page = open_page(file=file).page
    expect(page.locator("#features")).to_contain_text(f"most reliable {kept} of 1\u202f152 latents")
    expect(page.locator("#downloads")).to_contain_text("latents.parquet")


def test_neurons_lead_to_their_features(open_page, report: Report) -> None:
    page = open_page(f"#/neurons?site={SITE}").page
    first = page.locator(".neurons > li").first
    first.locator("summary").click()
    link = first.locator(".mix a").first
    name = link.inner_text()
    link.click()
    expect(page.locator("#feature-title")).to_have_text(name.replace("latent", "Latent"))
    expect(page.locator("#neurons-title")).to_contain_text("Neurons")
    page = open_page("#/neurons?site=transformer.h.0").page
    expect(page.locator("#neurons")).to_contain_text("not neurons")


def test_colours_follow_the_system_or_the_reader(open_page) -> None:
    def ground(page) -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light, dark = open_page(scheme="light").page, open_page(scheme="dark").page
    assert ground(light) != ground(dark)
    switch = light.get_by_role("radio", name="dark")
    switch.focus()
    light.keyboard.press("Space")
    assert ground(light) == ground(dark)
    dark.get_by_role("radio", name="light").check(force=True)
    light.get_by_role("radio", name="light").check(force=True)
    assert ground(light) == ground(dark)


def test_the_keyboard_reaches_the_results(open_page) -> None:
    page = open_page().page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    expect(page.locator(".skip")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#overview-title")).to_be_in_viewport()
    page.locator(".primer > summary").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("more features than it has dimensions")).to_be_visible()


def test_on_paper_only_what_can_be_read_remains(open_page) -> None:
    page = open_page(scheme="dark").page
    page.emulate_media(media="print")
    expect(page.locator(".side")).to_be_hidden()
    expect(page.locator(".tools").first).to_be_hidden()
    expect(page.locator("h1")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    # Dark ink on white paper, whatever the screen was.
    red = page.evaluate("getComputedStyle(document.querySelector('h1')).color.match(/\\d+/)[0]")
    assert int(red) < 80
