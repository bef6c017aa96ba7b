"""Features, neurons, the atlas, the answer and two places side by side: in a file with the network cut."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from superscope.core import Report
from superscope.studio import write_html

SITE = "transformer.h.1.mlp.c_proj:in"


def latent_with_company(report: Report, site: str = "transformer.h.0") -> int:
    table = report.tables["partners"]
    rows = zip(table["site"], table["model"], table["latent"], strict=True)
    return next(latent for at, model, latent in rows if (at, model) == (site, "trained"))


def counts(page: Page) -> tuple[int, int, int]:
    """How many features fit, of how many, and how many are in sight."""
    text = page.locator("#atlas [data-counts]").inner_text().replace("\u202f", "")
    fit, of, sight = re.findall(r"\d+", text)
    return int(fit), int(of), int(sight)


def test_a_feature_says_where_it_is_active_what_it_writes_and_who_disturbs_it(open_page, report: Report) -> None:
    latent = latent_with_company(report)
    opened = open_page(f"#/features?feature={latent}")
    feature = opened.page.locator("#feature")
    bands = feature.locator("[data-band]").evaluate_all(
        "all => all.map(list => [list.dataset.band, list.children.length])"
    )
    assert bands == [["strongest", 3], ["highest", 1], ["middle", 1], ["lowest", 1]]
    raised = feature.locator('[data-logits="raises"] li')
    assert raised.first.inner_text().split() == ["·self", "+2.5"]
    assert "</script>" in raised.nth(1).inner_text()
    expect(feature.locator('[data-logits="lowers"]')).to_contain_text("⟨U+202E⟩")
    rows = feature.locator('[data-partners="interference"] tbody tr')
    cells = rows.first.locator("td").all_inner_texts()
    assert cells[0].startswith("+")
    assert (cells[1], cells[2], cells[4]) == ("1.5\u202f%", "40", "+0.050")
    assert rows.nth(1).locator("td").first.inner_text().startswith("−")
    together = feature.locator('[data-partners="together"] tbody tr').first.locator("td").all_inner_texts()
    # 80 of 900 tokens, of which 700 have the other too, among 20 000.
    assert together[0].strip() == "5.3\u202f%"
    assert together[3] == "2.5"
    expect(feature).to_contain_text("superscope studio FOLDER")
    # Whoever it is, one is a link away.
    name = rows.first.locator("th a").inner_text()
    rows.first.locator("th a").click()
    expect(opened.page.locator("#feature-title")).to_have_text(f"Latent {name}")
    assert opened.complaints == []
    assert opened.requests == []


def test_a_neuron_is_shown_by_the_features_responsible(open_page, report: Report) -> None:
    opened = open_page(f"#/neurons?site={SITE}&neuron=2")
    page = opened.page
    neuron = page.locator("#neuron")
    expect(page.locator("#neuron-title")).to_have_text("Neuron 2")
    expect(neuron).to_contain_text(
        "1\u202f% of random directions of this space mix fewer features: this axis means something"
    )
    groups = neuron.locator("[data-responsible]")
    assert groups.evaluate_all("all => all.map(group => group.querySelectorAll('li').length)") == [3, 3]
    bars = neuron.locator("svg[role=img] rect.cell")
    # Six features and the rest, in four bands.
    assert bars.count() == 28
    neuron.get_by_role("button", name="Show as table").click()
    assert neuron.locator("figure tbody tr").count() == 24
    first = groups.first.locator("h6 a")
    name = first.inner_text()
    first.click()
    expect(page.locator("#feature-title")).to_have_text(name.replace("latent", "Latent"))
    # The neuron stays in the address, so that back and a link hold both.
    assert "neuron=2" in page.evaluate("location.hash")
    expect(neuron).to_be_attached()
    page = open_page("#/neurons?site=transformer.h.0&neuron=1").page
    expect(page.locator("#neuron")).to_contain_text("not a neuron")
    page = open_page(f"#/neurons?site={SITE}&neuron=9999").page
    expect(page.locator("#neuron")).to_contain_text("This page holds no neuron 9999")
    assert opened.complaints == []


def test_the_atlas_filters_finds_and_keeps_its_state_in_the_address(
    open_page, settled: Callable, report: Report
) -> None:
    opened = open_page("#/atlas")
    page = opened.page
    assert counts(page) == (192, 192, 192)
    expect(page.locator("#atlas .intro")).to_contain_text("26\u202f% are among the 12 nearest here")
    ink = """() => {
        const canvas = document.querySelector('.map canvas');
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        return data.filter((value, at) => at % 4 === 3 && value > 0).length;
    }"""
    drawn = page.evaluate(ink)
    assert drawn > 192 * 4
    table = report.tables["latents"]
    wanted = [
        row
        for row in range(len(table["latent"]))
        if (table["site"][row], table["model"][row]) == ("transformer.h.0", "trained")
        and any("raise" in token.lower() for token in [*table["top_tokens"][row], *table["promotes"][row]])
    ]
    page.locator("#atlas").get_by_label("Find").fill("raise")
    expect(page.locator("#atlas [data-counts]")).to_contain_text(f"{len(wanted)} of 192 features fit")
    page.locator("#atlas summary", has_text="Filters").click()
    page.get_by_label("density at least").fill("1")
    dense = [row for row in wanted if table["density"][row] >= 0.01]
    expect(page.locator("#atlas [data-counts]")).to_contain_text(f"{len(dense)} of 192 features fit")
    page.get_by_label("Colour").select_option("kept")
    page.get_by_role("button", name="Zoom in").click()
    page.locator(".map").focus()
    page.keyboard.press("ArrowRight")
    chosen = page.evaluate("new URLSearchParams(location.hash.split('?')[1]).get('feature')")
    assert int(chosen) in [table["latent"][row] for row in dense]
    expect(page.locator("#atlas .pick")).to_be_visible()
    address = page.evaluate("location.hash")
    for part in ("has=raise", "density=0.01..", "colour=kept", "box="):
        assert part in address.replace("%2C", ","), address
    seen = counts(page)
    again = open_page(address.replace("#/features", "#/atlas")).page
    assert counts(again) == seen
    expect(again.get_by_label("Colour")).to_have_value("kept")
    assert 1 <= again.locator("#atlas [data-list] tbody tr").count() <= 20
    again.get_by_role("button", name="Clear").click()
    again.get_by_label("density at least").fill("99")
    expect(again.locator("#atlas")).to_contain_text("Nothing fits; density alone leaves the fewest.")
    again.get_by_role("button", name="Clear").click()
    with again.expect_download() as waiting:
        again.locator("#atlas").get_by_role("button", name="Save as SVG").click()
    saved = Path(waiting.value.path()).read_text(encoding="utf-8")
    assert "data:image/png;base64," in saved
    assert opened.complaints == []
    assert opened.requests == []


def test_one_starts_from_words(open_page) -> None:
    opened = open_page("#/atlas")
    page = opened.page
    page.get_by_label("Start from my words").fill("raise nothing")
    page.get_by_role("button", name="Find features").click()
    found = page.locator("[data-start] li")
    expect(found.first).to_contain_text("“raise” among its tokens")
    expect(page.locator("[data-start]")).to_contain_text("Without the model at hand")
    assert counts(page)[0] == found.count()
    assert "words=raise" in page.evaluate("location.hash")
    assert opened.complaints == []


def test_the_answer_says_what_it_rests_on(open_page) -> None:
    page = open_page("#/superposition").page
    answer = page.locator("[data-answer]")
    expect(answer).to_contain_text("At least 101 features in 48 dimensions")
    checks = answer.locator("[data-check]")
    assert checks.count() == 10
    states = dict(
        zip(
            checks.locator("b").all_inner_texts(),
            checks.evaluate_all("all => all.map(c => c.dataset.check)"),
            strict=True,
        )
    )
    assert states["Counted by the calibrated procedure"] == "unknown"
    assert states["More directions recur than by chance"] == "holds"
    assert states["A model with random weights holds fewer"] == "holds"
    assert states["The dictionary explains 80 % of the variance"] == "holds"
    answer.locator("summary").click()
    expect(answer.locator("tbody tr", has_text="Recurring features")).to_contain_text("1.2")


def test_two_places_stand_side_by_side(open_page) -> None:
    opened = open_page("#/beside")
    page = opened.page
    beside = page.locator("#beside")
    expect(beside.get_by_role("combobox", name="First")).to_have_value("transformer.h.0 (trained)")
    beside.get_by_role("combobox", name="Second").select_option("transformer.h.0 (control)")
    row = beside.locator("tbody tr", has_text=re.compile("unexplained", re.IGNORECASE)).first
    assert row.locator("td").all_inner_texts()[-1] == "second higher"
    expect(beside.locator("figure .figure-title")).to_contain_text("are higher in the second")
    address = page.evaluate("location.hash")
    again = open_page(address).page
    expect(again.locator("#beside").get_by_role("combobox", name="Second")).to_have_value("transformer.h.0 (control)")
    again.locator("#beside").get_by_role("button", name="Swap").click()
    expect(again.locator("#beside").get_by_role("combobox", name="First")).to_have_value("transformer.h.0 (control)")
    lost = open_page("#/beside?a=nowhere").page
    expect(lost.locator("#beside")).to_contain_text("This run has no place “nowhere”")
    assert opened.complaints == []


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 400)])
def test_everyone_can_use_them(open_page, serious, report: Report, scheme: str, width: int) -> None:
    latent = latent_with_company(report, SITE)
    opened = open_page(f"#/atlas?site={SITE}&feature={latent}&neuron=2", scheme=scheme, width=width)
    assert serious(opened.page) == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.complaints == []


def test_a_long_map_travels_whole_and_reads_the_same(report: Report, tmp_path: Path, open_page) -> None:
    n = 5000
    at = {"site": ["s"] * n, "model": ["trained"] * n, "latent": list(range(n))}
    columns = {name: [((i * step) % 997) / 997 for i in range(n)] for name, step in (("x", 31), ("y", 57), ("kept", 3))}
    atlas = {
        **at,
        **columns,
        "density": [0.5] * n,
        "recurs": [1] * n,
        "overlap": [0.1] * n,
        "energy": [None, *[1.5] * (n - 1)],
    }
    sites = {
        "site": ["s"],
        "model": ["trained"],
        "d": [8],
        "n": [n],
        "k": [4],
        "seeds": [1],
        "rows": [9],
        "kind": ["residual"],
        "note": [""],
    }
    kept = next(m for m in report.measurements if m.name == "map_neighbours_kept")
    one = dataclasses.replace(kept, at={"site": "s", "model": "trained"})
    tables = {"atlas": atlas, "sites": sites}
    Report(title="A long map", kind="scan", measurements=(one,), tables=tables).save(tmp_path / "run")
    opened = open_page("#/atlas", file=write_html(tmp_path / "run"))
    assert counts(opened.page) == (n, n, n)
    with opened.page.expect_download() as waiting:
        opened.page.locator("#downloads").get_by_role("button", name="atlas.csv", exact=True).click()
    lines = Path(waiting.value.path()).read_text(encoding="utf-8").splitlines()
    assert len(lines) == n + 1
    # Numbers are those of float32; what is missing is empty.
    assert lines[1].split(",")[6:] == ["0.5", "1", "0.10000000149011612", ""]
    assert opened.complaints == []
