"""Toy lab, phases, recovery: runs of studies of a second, looked at and touched in a browser, from one file each."""

from __future__ import annotations

import csv
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from superscope.core import Report
from superscope.measure.toy import dimensionalities
from superscope.studies import PhaseDiagram, Recover, Theory, ToySweep
from superscope.studio import html

LOOKS = (("plane", "light", 1280), ("space", "dark", 400), ("factors", "dark", 1280), ("phase", "light", 400))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Report, Path]]:
    folder = tmp_path_factory.mktemp("lab")
    np.save(folder / "W.npy", np.random.default_rng(0).standard_normal((24, 12)).astype(np.float32))
    short = {"steps": 200, "batch": 64, "lr": 0.02, "record": 10}
    studies = {
        "plane": ToySweep(n=5, d=2, densities=(1.0, 0.05), seeds=(0, 1), importance=0.8, **short),
        "space": ToySweep(n=6, d=3, densities=(0.05,), seeds=(0,), **short),
        "factors": ToySweep(n=9, d=5, densities=(0.2,), seeds=(0,), **short),
        "phase": PhaseDiagram(size=6, restarts=4, steps=40),
        "recover": Recover(str(folder / "W.npy"), trials=5, ks=(1, 3, 6)),
        "theory": Theory(str(folder / "W.npy"), trials=3, rotations=19),
    }
    found = {}
    for name, study in studies.items():
        report = study.run()
        path = folder / f"{name}.html"
        path.write_text(html(report), encoding="utf-8")
        found[name] = report, path
    return found


def own(page: Page) -> str:
    return page.evaluate("location.hash")


@pytest.mark.parametrize(("name", "scheme", "width"), LOOKS, ids=[look[0] for look in LOOKS])
def test_every_look_is_sound(runs, open_page, serious, name: str, scheme: str, width: int) -> None:
    section = {"phase": "phases"}.get(name, "toy")
    opened = open_page(f"#/{section}?cell=8&pin=0", scheme=scheme, width=width, file=runs[name][1])
    page = opened.page
    expect(page.locator(f"#{section}")).to_have_attribute("data-state", "loaded")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert serious(page) == []
    assert opened.complaints == []
    assert opened.requests == []


def test_the_scrubber_walks_through_all_of_training(runs, open_page) -> None:
    report, file = runs["plane"]
    opened = open_page("#/toy?instance=1&pick=2", file=file)
    page = opened.page
    steps = report.arrays["snapshot_steps"].tolist()
    slider = page.get_by_role("slider", name="Step")
    assert slider.get_attribute("max") == str(len(steps) - 1)

    def says(frame: int) -> None:
        W = report.arrays["snapshots"][frame, 1].double()
        status = page.locator("#toy [role=status]").first
        expect(status).to_contain_text(
            f"norm {float(W[2].norm()):.3g}, dimensionality {float(dimensionalities(W)[2]):.3g}"
        )

    says(len(steps) - 1)
    slider.focus()
    for _ in range(3):
        slider.press("ArrowLeft")
    says(len(steps) - 4)
    assert f"step={steps[-4]}" in own(page)
    page.get_by_role("button", name="Pin this step").click()
    slider.press("Home")
    says(0)
    assert page.locator("#toy .ghost").count() == 5
    address = own(page)

    again = open_page(address, file=file).page
    assert again.get_by_role("slider", name="Step").input_value() == "0"
    expect(again.get_by_role("button", name=f"Unpin step {steps[-4]}")).to_be_visible()
    assert own(again) == address

    page.locator("#toy figure").first.get_by_role("button", name="Show as table").click()
    shown = page.locator("#toy figure").first.locator("tbody tr")
    assert shown.count() == 5
    with page.expect_download() as download:
        page.locator("#toy figure").first.get_by_role("button", name="Save as CSV").click()
    with open(download.value.path(), encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [float(row["x"]) for row in rows] == pytest.approx(report.arrays["snapshots"][0, 1, :, 0].tolist())
    with page.expect_download() as download:
        page.locator("#toy figure").first.get_by_role("button", name="Save as PNG").click()
    assert Path(download.value.path()).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with page.expect_download() as download:
        page.locator("#toy figure").nth(1).get_by_role("button", name="Save as SVG").click()
    assert ElementTree.parse(download.value.path()).getroot().tag.endswith("svg")
    named = report.tables["polytopes"]["polytope"]
    assert any(name in page.locator("#toy table").last.inner_text() for name in named if name)
    assert opened.complaints == []
    assert opened.requests == []


def test_a_model_trains_on_in_the_page(runs, open_page) -> None:
    opened = open_page("#/toy?instance=0", file=runs["plane"][1])
    page = opened.page
    here = page.locator(".here")
    here.get_by_role("button", name="Train here").click()
    status = here.locator("p[role=status]")
    expect(status).to_contain_text(re.compile(r"Step 4\s000 of 4\s000"), timeout=30_000)
    expect(here).to_have_attribute("data-state", "loaded")
    # Dense features of falling importance: the first two have a direction.
    expect(status).to_contain_text("2 of 5 features")
    assert opened.complaints == []


def test_space_turns_by_keys(runs, open_page) -> None:
    page = open_page("#/toy", file=runs["space"][1]).page
    orbit = page.get_by_role("group", name="Turn with the arrow keys").first
    before = orbit.locator("line").first.get_attribute("x2")
    orbit.press("ArrowRight")
    assert orbit.locator("line").first.get_attribute("x2") != before
    assert orbit.locator(".face").count() >= 4


def test_a_cell_of_the_phases_opens_its_model(runs, open_page) -> None:
    report, file = runs["phase"]
    opened = open_page("#/phases", file=file)
    page = opened.page
    cells = report.tables["cells"]
    assert all(0 <= share <= 1 for share in cells["agreement"])
    grid = page.get_by_role("group", name="Choose a cell").first
    grid.press("ArrowRight")
    grid.press("ArrowDown")
    assert own(page).endswith("cell=7")
    expect(page.locator("#phases output").last).to_contain_text(cells["phase"][7])
    page.locator("#phases figure").nth(1).get_by_role("button", name="Show as table").click()
    shown = page.locator("#phases figure").nth(1).locator("tbody tr")
    assert shown.count() == 2
    norm = float(report.arrays["W"][7, 0].norm())
    assert shown.first.locator("td").nth(3).inner_text() == f"{norm:.4g}".ljust(5, "0") or norm == 0
    page.get_by_label("Colour").select_option("gap")
    page.get_by_label("Cut along").select_option("density")
    address = own(page)
    again = open_page(address, file=file).page
    assert again.get_by_label("Colour").input_value() == "gap"
    assert again.get_by_label("Cut along").input_value() == "density"
    assert opened.complaints == []


def test_recovery_stands_beside_donoho_and_tanner(runs, open_page, serious) -> None:
    report, file = runs["recover"]
    page = open_page("#/recovery", file=file).page
    weak = dict(zip(report.tables["predictions"]["criterion"], report.tables["predictions"]["k"], strict=True))
    expect(page.locator("#recovery .legend").first).to_contain_text("Donoho-Tanner")
    expect(page.locator("#recovery .legend").first).to_contain_text(f"{weak['Donoho-Tanner weak, nonnegative']:.3g}")
    opened = open_page("#/recovery", file=runs["theory"][1], width=400, scheme="dark")
    section = opened.page.locator("#recovery")
    expect(section).to_contain_text("Welch bound")
    expect(section).to_contain_text("random frame")
    assert section.locator("figure").count() == 5
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 400
    assert serious(opened.page) == []
    assert opened.complaints == []
