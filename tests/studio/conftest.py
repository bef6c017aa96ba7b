"""One example run for all tests of the page, one browser to open it in, and studios that serve runs to it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, Page, Route, sync_playwright

from superscope.core import Report
from superscope.studio import write_html
from superscope.studio.server import Place, make_app, server_of


@pytest.fixture(scope="session")
def example_run() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_run", Path(__file__).with_name("example_run.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def report(example_run: ModuleType) -> Report:
    return example_run.example()


@pytest.fixture(scope="session")
def page_file(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "example"
    report.save(folder)
    return write_html(folder)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = os.environ.get("CHROMIUM") or shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if found is None:
        pytest.fail("The page is tested in Chromium and there is none. Install it: scripts/chromium")
    # Without the flags against background networking Chromium asks for its own services at every start.
    flags = (
        "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update "
        "disable-sync"
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=[f"--{flag}" for flag in flags.split()])
        yield browser
        browser.close()


@dataclass
class Opened:
    """A page with everything it complained about and everything it asked for that it may not."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


Open = Callable[..., Opened]


@pytest.fixture(scope="session")
def windows(browser: Browser) -> Callable[[str, bool], BrowserContext]:
    """One window of the browser for each colour scheme, with the network and without: a second page in it opens in half
    the time of a first."""

    @cache
    def window(scheme: str, offline: bool) -> BrowserContext:
        return browser.new_context(color_scheme=scheme, offline=offline, accept_downloads=True)  # type: ignore[arg-type]

    return window


@pytest.fixture
def open_address(windows: Callable[[str, bool], BrowserContext]) -> Iterator[Open]:
    """Opens an address in a page of its own; whatever it asks for that it may not is refused and written down."""
    pages: list[Page] = []

    def open_address(
        address: str, may: Callable[[str], bool], *, scheme: str, width: int, offline: bool, timeout: float
    ) -> Opened:
        page = windows(scheme, offline).new_page()
        pages.append(page)
        page.set_default_timeout(timeout)
        page.set_viewport_size({"width": width, "height": 900})
        opened = Opened(page)

        def handle(route: Route) -> None:
            if may(route.request.url):
                route.continue_()
            else:
                opened.requests.append(route.request.url)
                route.abort()

        page.route("**/*", handle)
        page.on("console", lambda m: opened.complaints.append(f"{m.type}: {m.text} {m.location.get('url', '')}"))
        page.on("pageerror", lambda error: opened.complaints.append(f"error: {error}"))
        page.goto(address)
        return opened

    yield open_address
    for page in pages:
        # What a reader chose in one test is not to be found by the next.
        page.evaluate("() => localStorage.clear()")
        page.close()


@pytest.fixture
def open_page(open_address: Open, page_file: Path) -> Open:
    """Opens a file with the network cut."""

    def open_page(address: str = "", *, scheme: str = "light", width: int = 1280, file: Path = page_file) -> Opened:
        start = file.as_uri()
        opened = open_address(
            start + address,
            lambda asked: asked.split("#")[0] == start,
            scheme=scheme,
            width=width,
            offline=True,
            timeout=20_000,
        )
        settle(opened.page)
        return opened

    return open_page


def settle(page: Page) -> None:
    """Waits until every view has its data and has drawn it."""
    page.locator('[data-view="report"]').wait_for()
    page.wait_for_function("() => !document.querySelector('[data-state=\"loading\"]')")
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


@pytest.fixture
def settled() -> Callable[[Page], None]:
    return settle


@dataclass
class Studio:
    """A server that runs, with its address and its key."""

    home: str
    key: str
    root: Path
    app: FastAPI
    stop: Callable[[], None]


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[[Path], Studio]]:
    """Starts a studio on a folder of runs, stopped after the last test of its file if not before."""
    with ExitStack() as running:

        def serve(root: Path) -> Studio:
            listening = socket.create_server(("127.0.0.1", 0))
            app = make_app(Place(root))
            server = server_of(app)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
            thread.start()

            def stop() -> None:
                server.should_exit = True
                thread.join()

            running.callback(stop)
            return Studio(f"http://127.0.0.1:{listening.getsockname()[1]}", app.state.token, root, app, stop)

        yield serve


@pytest.fixture
def visit(open_address: Open, studio: Studio) -> Open:
    """Opens an address of the studio that the test's file has started as `studio`."""

    def visit(address: str = "/", *, scheme: str = "light", width: int = 1280) -> Opened:
        path, hashmark, rest = address.partition("#")
        seen = open_address(
            f"{studio.home}{path}{'&' if '?' in path else '?'}token={studio.key}{hashmark}{rest}",
            lambda asked: asked.startswith(f"{studio.home}/"),
            scheme=scheme,
            width=width,
            offline=False,
            timeout=60_000,
        )
        wait_until_ready(seen.page)
        return seen

    return visit


def wait_until_ready(page: Page) -> None:
    page.locator("[data-view]").first.wait_for()
    page.wait_for_function('() => !document.querySelector(\'[data-state="loading"], [data-state="working"]\')')


@pytest.fixture
def ready() -> Callable[[Page], None]:
    return wait_until_ready


# Contrast is nine tenths of what axe takes, and the same for all texts of one look: their ink, size and weight, and all
# grounds beneath. Of each look the first and the last are judged, and all that stand out of the flow, where any ground
# may lie beneath.
_JUDGED = """() => {
    const plain = 'rgba(0, 0, 0, 0) none 1 none normal', looks = new Map();
    const walk = (element, grounds, loose) => {
        if (!element.checkVisibility({ visibilityProperty: true }) && element !== document.documentElement) return;
        const style = getComputedStyle(element);
        const of = (...names) => names.map(name => style[name]).join(' ');
        const ground = of('backgroundColor', 'backgroundImage', 'opacity', 'filter', 'mixBlendMode');
        if (ground !== plain) grounds += ` | ${ground}`;
        loose ||= ['absolute', 'fixed', 'sticky'].includes(style.position);
        if ([...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim())) {
            const ink = of('color', 'fontSize', 'fontWeight', 'textShadow');
            const look = loose ? element : ink + grounds;
            looks.set(look, { first: element, ...looks.get(look), last: element });
        }
        for (const child of element.children) walk(child, grounds, loose);
    };
    for (const old of document.querySelectorAll('[data-look]')) old.removeAttribute('data-look');
    walk(document.documentElement, '', false);
    for (const { first, last } of looks.values()) for (const one of [first, last]) one.setAttribute('data-look', '');
    axe.configure({ rules: [{ id: 'color-contrast', selector: '[data-look]' }] });
    return axe.run({ resultTypes: ['violations'] }).then(found => found.violations);
}"""


def violations_of(page: Page) -> list[dict[str, Any]]:
    page.evaluate(Axe().axe_script)
    return page.evaluate(_JUDGED)


@pytest.fixture
def violations() -> Callable[[Page], list[dict[str, Any]]]:
    """What axe finds on a page."""
    return violations_of


@pytest.fixture
def serious() -> Callable[[Page], list[str]]:
    """What axe finds on a page that keeps somebody from using it."""
    return lambda page: [
        f"{violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in violations_of(page)
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]
