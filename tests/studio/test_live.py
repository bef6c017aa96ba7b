"""The live studio in a browser: runs, forms and jobs, from an address that holds the key."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect

from superscope.core import Report
from superscope.studio.server import Place, make_app, server_of
from superscope.studio.server.app import BUNDLED


@dataclass
class Studio:
    """A server with its address, and its key."""

    home: str
    key: str
    root: Path


@pytest.fixture(scope="module")
def studio(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    root = tmp_path_factory.mktemp("studio")
    report.save(root / "hostile")
    (root / "damaged").mkdir()
    (root / "damaged" / "about.json").write_text("{")
    report.save(root / "partial")
    (root / "partial" / "latents.parquet").write_bytes(b"PAR1")
    listening = socket.create_server(("127.0.0.1", 0))
    app = make_app(Place(root))
    server = server_of(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    home = f"http://127.0.0.1:{listening.getsockname()[1]}"
    yield Studio(home, app.state.token, root)
    server.should_exit = True
    thread.join()


@dataclass
class Seen:
    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


Visit = Callable[..., Seen]


@pytest.fixture
def visit(browser: Browser, studio: Studio) -> Iterator[Visit]:
    """Opens an address of the studio; whatever is asked of another server is refused and written down."""
    contexts: list[BrowserContext] = []

    def visit(address: str = "/", *, scheme: str = "light", width: int = 1280) -> Seen:
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})  # type: ignore[arg-type]
        contexts.append(context)
        context.set_default_timeout(60_000)
        page = context.new_page()
        seen = Seen(page)

        def handle(route) -> None:  # type: ignore[no-untyped-def]
            if route.request.url.startswith(f"{studio.home}/"):
                route.continue_()
            else:
                seen.requests.append(route.request.url)
                route.abort()

        context.route("**/*", handle)
        page.on("console", lambda m: seen.complaints.append(f"{m.type}: {m.text} {m.location.get('url', '')}"))
        page.on("pageerror", lambda error: seen.complaints.append(f"error: {error}"))
        path, hashmark, rest = address.partition("#")
        page.goto(f"{studio.home}{path}{'&' if '?' in path else '?'}token={studio.key}{hashmark}{rest}")
        ready(page)
        return seen

    yield visit
    for context in contexts:
        context.close()


def ready(page: Page) -> None:
    page.locator("[data-view]").first.wait_for()
    page.wait_for_function("() => !document.querySelector('[data-state=\"loading\"]')")


def serious(page: Page) -> list[str]:
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{violation['id']}: {node['target']}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def test_runs_are_listed_found_and_opened(visit: Visit, studio: Studio) -> None:
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


def test_the_live_run_is_its_single_file(visit: Visit, open_page: Callable, page_file: Path) -> None:
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


def test_what_cannot_be_read_is_told_where_it_is_missed(visit: Visit) -> None:
    page = visit("/run/partial").page
    expect(page.get_by_role("alert")).to_contain_text("latents.parquet has changed since the run wrote it")
    expect(page.locator('section[data-view="superposition"]')).to_be_visible()
    page = visit("/run/damaged").page
    expect(page.get_by_role("alert")).to_contain_text("not valid JSON")
    page = visit("/run/none").page
    expect(page.get_by_role("alert")).to_contain_text("there is no run 'none'")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 400)])
def test_everyone_can_use_it(visit: Visit, scheme: str, width: int) -> None:
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
}


@pytest.mark.parametrize("name", sorted(place.name for place in BUNDLED.iterdir()))
def test_a_run_of_the_package_opens_live_where_its_address_says(visit: Visit, name: str) -> None:
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


def test_a_study_is_started_cancelled_resumed_and_read(visit: Visit, studio: Studio) -> None:
    seen = visit("/start/toy?n=4&d=2")
    page = seen.page
    expect(page.get_by_label("n", exact=True)).to_have_value("4")
    page.get_by_label("densities").fill("0.5 2")
    page.get_by_label("seeds").fill("0")
    page.get_by_label("steps").fill("90000")
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
    page.wait_for_function("max => document.querySelector('.scrub input').max > max", arg=frames)
    expect(page.locator("#toy [role=status]").first).to_contain_text("step 0:")
    bar = page.locator(".live")
    bar.get_by_role("button", name="Cancel").click()
    expect(bar).to_have_attribute("data-job-state", "cancelled", timeout=60_000)
    assert serious(page) == []
    page.goto(jobs)
    expect(job).to_have_attribute("data-job-state", "cancelled", timeout=60_000)
    job.get_by_role("button", name="Resume").click()
    expect(job).to_have_attribute("data-job-state", "finished", timeout=300_000)
    assert serious(page) == []
    job.get_by_role("link", name="Open the run").click()
    page.locator('[data-view="report"]').wait_for()
    ready(page)
    expect(page.locator("h1")).to_contain_text("4 features in 2 dimensions")
    run = page.url.rsplit("/", 1)[1].split("#")[0]
    assert Report.load(studio.root / run).arrays["snapshot_steps"][-1] == 90_000
    assert seen.complaints == []
    assert seen.requests == []


def test_a_page_says_when_the_server_has_gone(browser: Browser, tmp_path: Path) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    app = make_app(Place(tmp_path))
    server = server_of(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{listening.getsockname()[1]}/jobs?token={app.state.token}")
    ready(page)
    expect(page.locator("main")).to_contain_text("Nothing was started here yet")
    server.should_exit = True
    thread.join()
    expect(page.get_by_role("alert")).to_contain_text("The server is away", timeout=30_000)
    page.close()
