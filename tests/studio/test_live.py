"""The live studio in a browser: runs, forms and jobs, from an address that holds the key."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from superscope.core import Report
from superscope.studio.server.app import BUNDLED
from superscope.studio.server.forms import forms

# The command that a job is, but that its training waits at the step that stands in a file beside it, if one does: until
# a test has seen it and cancelled it, however fast the machine.
HELD = """
import pathlib, sys, time
from superscope.cli import main
from superscope.studies.toys import sweep
held, train = pathlib.Path(__file__).with_suffix(".step"), sweep.train
def waits(step):
    try: return step >= int(held.read_text())
    except FileNotFoundError: return False
def held_back(*given, **named):
    for step in train(*given, **named):
        yield step
        while waits(step.index): time.sleep(0.02)
sweep.train = held_back
# All that is recorded is kept at once, to be watched.
sweep._PAUSE = sweep._SHARE = 0.0
sys.exit(main())
"""


def hold(studio: Any, step: int | None) -> None:
    """Lets the trainings of a studio go on to a step, and no further; None: to their end."""
    held = studio.root / ".held.step"
    if step is None:
        held.unlink()
        return
    held.with_suffix(".new").write_text(str(step))
    os.replace(held.with_suffix(".new"), held)


@pytest.fixture(scope="module")
def studio(report: Report, serve: Callable, tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("studio")
    report.save(root / "hostile")
    (root / "damaged").mkdir()
    (root / "damaged" / "about.json").write_text("{")
    report.save(root / "partial")
    (root / "partial" / "latents.parquet").write_bytes(b"PAR1")
    # Forms import every study, which on a busy machine takes longer than a page is waited for.
    forms()
    studio = serve(root)
    script = root / ".held.py"
    script.write_text(HELD)
    studio.app.state.jobs.command = (sys.executable, "-P", str(script))
    return studio


def test_runs_are_listed_found_and_opened(visit: Callable, studio: Any, ready: Callable) -> None:
    seen = visit()
    page = seen.page
    assert "token" not in page.url
    expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
    expect(page.locator(".card.damaged")).to_contain_text("not valid JSON")
    page.get_by_label("Study").select_option("toy")
    page.get_by_label("Search").fill("5 features")
    expect(page.locator("output")).to_contain_text("1 of ")
    assert page.url == f"{studio.home}/?q=5+features&study=toy"
    page.reload()
    ready(page)
    expect(page.locator("output")).to_contain_text("1 of ")
    page.locator(".card a").click()
    page.locator('[data-view="report"]').wait_for()
    ready(page)
    expect(page.locator("h1")).to_contain_text("5 features in 2 dimensions")
    assert page.url.startswith(f"{studio.home}/run/%40toy")
    page.go_back()
    ready(page)
    expect(page.get_by_label("Search")).to_have_value("5 features")
    assert seen.complaints == []
    assert seen.requests == []


def test_the_live_run_is_its_single_file(visit: Callable, open_page: Callable, page_file: Path) -> None:
    address = "#/features?q=the"
    alive, alone = visit(f"/run/hostile{address}"), open_page(address)
    shown = [seen.page.locator('section[data-view="features"]').inner_text() for seen in (alive, alone)]
    assert shown[0] == shown[1]
    names = [seen.page.locator("main section").evaluate_all("all => all.map(s => s.id)") for seen in (alive, alone)]
    assert names[0] == names[1]
    assert alive.page.locator("img[onerror], iframe, object, embed").count() == 0
    with alive.page.expect_download() as download:
        alive.page.get_by_role("link", name="Save as one file").click()
    assert download.value.suggested_filename == "superscope-hostile.html"
    assert Path(download.value.path()).read_text(encoding="utf-8") == page_file.read_text(encoding="utf-8")
    assert alive.complaints == []
    assert alive.requests == []


def test_what_cannot_be_read_is_told_where_it_is_missed(visit: Callable) -> None:
    page = visit("/run/partial").page
    expect(page.get_by_role("alert")).to_contain_text("latents.parquet has changed since the run wrote it")
    expect(page.locator('section[data-view="superposition"]')).to_be_visible()
    page = visit("/run/damaged").page
    expect(page.get_by_role("alert")).to_contain_text("not valid JSON")
    page = visit("/run/none").page
    expect(page.get_by_role("alert")).to_contain_text("there is no run 'none'")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 400)])
def test_everyone_can_use_it(visit: Callable, serious: Callable, scheme: str, width: int) -> None:
    for address in ("/", "/start", "/start/toy", "/jobs", "/nowhere"):
        seen = visit(address, scheme=scheme, width=width)
        assert serious(seen.page) == [], address
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width, address
        assert seen.complaints == [], address


SECTIONS = {
    "scan": "atlas",
    "toy": "toy",
    "phase": "phases",
    "bounds": "recovery",
    "bench": "damage",
    "spare": "sparing",
    "ablate": "ablated",
    "collateral": "collateral",
    "compare": "compare",
    "compare-world": "truth",
    "compress": "compression",
    "domains": "together",
    "maximise": "maximised",
    "perturb": "disturbance",
    "populations": "populations",
    "scale": "widths",
    "sycophancy": "sycophancy",
}


@pytest.mark.parametrize("name", sorted(place.name for place in BUNDLED.iterdir()))
def test_a_run_of_the_package_opens_live_where_its_address_says(visit: Callable, serious: Callable, name: str) -> None:
    section = SECTIONS.get(name, "method")
    scheme, width = [("light", 1280), ("dark", 400)][sum(map(ord, name)) % 2]
    seen = visit(f"/run/%40{name}#/{section}", scheme=scheme, width=width)
    page = seen.page
    place = "id => document.getElementById(id).getBoundingClientRect()"
    page.wait_for_function(f"id => (place => place.top < innerHeight && place.bottom > 0)(({place})(id))", arg=section)
    assert page.evaluate("location.hash") == f"#/{section}"
    assert page.get_by_role("alert").count() == 0
    assert page.locator("figure, table").count() >= 1
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert serious(page) == []
    assert seen.complaints == []
    assert seen.requests == []


def test_a_study_is_started_cancelled_resumed_and_read(
    visit: Callable, ready: Callable, serious: Callable, studio: Any
) -> None:
    hold(studio, 1_000)
    seen = visit("/start/toy?n=4&d=2")
    page = seen.page
    expect(page.get_by_label("n", exact=True)).to_have_value("4")
    page.get_by_label("densities").fill("0.5 2")
    page.get_by_label("seeds").fill("0")
    page.get_by_label("steps").fill("4000")
    page.get_by_label("batch").fill("64")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_contain_text("densities must be numbers in (0, 1]")
    seen.complaints.clear()  # The browser itself tells of an answer that is no success.
    page.get_by_label("densities").fill("0.5")
    assert "densities=0.5" in page.url
    page.get_by_role("button", name="Start").click()
    job = page.locator(".job.chosen")
    expect(job).to_have_attribute("data-job-state", "running")
    expect(job.locator("progress")).to_be_visible()
    job.get_by_text("The command").click()
    expect(job.locator(".command")).to_contain_text(
        re.compile(r"superscope toy --n 4 --d 2 --steps 6000 .*--densities 0.5|superscope toy --n 4 --d 2 ")
    )
    expect(job).to_contain_text("Training", timeout=60_000)
    # The run is seen while it is made: frames come, and one that was scrubbed to stays.
    jobs = page.url
    job.get_by_role("link", name="Watch it train").click()
    scrub = page.get_by_role("slider", name="Step")
    scrub.wait_for()
    frames = int(scrub.get_attribute("max") or 0)
    scrub.press("Home")
    hold(studio, 2_000)
    page.wait_for_function("max => document.querySelector('.scrub input').max > max", arg=frames)
    expect(page.locator("#toy [role=status]").first).to_contain_text("step 0:")
    bar = page.locator(".live")
    bar.get_by_role("button", name="Cancel").click()
    expect(bar).to_have_attribute("data-job-state", "cancelled", timeout=60_000)
    assert serious(page) == []
    page.goto(jobs)
    expect(job).to_have_attribute("data-job-state", "cancelled", timeout=60_000)
    hold(studio, None)
    job.get_by_role("button", name="Resume").click()
    expect(job).to_have_attribute("data-job-state", "finished", timeout=300_000)
    assert serious(page) == []
    job.get_by_role("link", name="Open the run").click()
    page.locator('[data-view="report"]').wait_for()
    ready(page)
    expect(page.locator("h1")).to_contain_text("4 features in 2 dimensions")
    run = page.url.rsplit("/", 1)[1].split("#")[0]
    assert Report.load(studio.root / run).arrays["snapshot_steps"][-1] == 4_000
    assert seen.complaints == []
    assert seen.requests == []


def test_a_page_says_when_the_server_has_gone(
    browser: Browser, serve: Callable, ready: Callable, tmp_path: Path
) -> None:
    studio = serve(tmp_path)
    page = browser.new_page()
    page.goto(f"{studio.home}/jobs?token={studio.key}")
    ready(page)
    expect(page.locator("main")).to_contain_text("Nothing was started here yet")
    studio.stop()
    expect(page.get_by_role("alert")).to_contain_text("The server is away", timeout=30_000)
    page.close()
