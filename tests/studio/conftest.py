"""One example run for all tests of the page, and one browser to open it in."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from superscope.core import Report
from superscope.studio import write_html


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
    """A page with everything it complained about and everything it asked for."""

    page: Page
    context: BrowserContext
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


Open = Callable[..., Opened]


@pytest.fixture
def open_page(browser: Browser, page_file: Path) -> Iterator[Open]:
    """Opens a file with the network cut; whatever it asks for besides itself is refused and written down."""
    contexts: list[BrowserContext] = []

    def open_page(address: str = "", *, scheme: str = "light", width: int = 1280, file: Path = page_file) -> Opened:
        context = browser.new_context(
            color_scheme=scheme,  # type: ignore[arg-type]
            viewport={"width": width, "height": 900},
            accept_downloads=True,
        )
        contexts.append(context)
        context.set_offline(True)
        context.set_default_timeout(20_000)
        page = context.new_page()
        opened = Opened(page, context)
        start = file.as_uri()

        def handle(route) -> None:  # type: ignore[no-untyped-def]
            asked = route.request.url
            if asked.split("#")[0] == start:
                route.continue_()
            else:
                opened.requests.append(asked)
                route.abort()

        context.route("**/*", handle)
        page.on("console", lambda message: opened.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: opened.complaints.append(f"error: {error}"))
        page.goto(start + address)
        settle(page)
        return opened

    yield open_page
    for context in contexts:
        context.close()


def settle(page: Page) -> None:
    """Waits until every view has its data and has drawn it."""
    page.locator('[data-view="report"]').wait_for()
    page.wait_for_function("() => !document.querySelector('[data-state=\"loading\"]')")
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


@pytest.fixture
def settled() -> Callable[[Page], None]:
    return settle
