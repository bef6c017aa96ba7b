"""A run in a cell of a notebook: the single file's views, asked of the kernel; and its still picture without one."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Frame, Page, expect

import superscope
from superscope.core import Measurement, Report
from superscope.studio.html import payload
from superscope.studio.notebook import RunWidget

ROOT = Path(__file__).resolve().parents[2]
# What anywidget's host does with a widget, its kernel being Python here.
NOTEBOOK = """
import door from "/notebook.js";
const listeners = [];
const model = {
  get: () => 700,
  on: (event, take) => event === "msg:custom" && listeners.push(take),
  off: () => {},
  send: async (question) => {
    const answer = await ask(question);
    for (const take of listeners) take(answer);
  },
};
window.end = door.render({ model, el: document.body });
"""


@pytest.fixture(scope="module")
def widget(report: Report) -> RunWidget:
    return RunWidget(report)


def test_the_kernel_says_what_the_single_file_holds(widget: RunWidget, report: Report) -> None:
    page = payload(report)
    tables, packed = page.pop("tables"), page.pop("packed")
    head = json.loads(widget.answer({"ask": "head"}))
    head.pop("packed")
    assert head.pop("figures") == []
    assert head.pop("tables") == {name: len(next(iter(table.values()))) for name, table in tables.items()}
    assert head == json.loads(json.dumps(page))
    for name, table in tables.items():
        rows = json.loads(widget.answer({"ask": "rows", "table": name, "where": {}}))
        if name not in ("contexts", "neuron_contexts"):  # There the file has fewer digits of activations.
            assert rows == json.loads(json.dumps(table)), name
    for name, array in packed.items():
        assert json.loads(widget.answer({"ask": "array", "name": name})) == array
    site = report.tables["latents"]["site"][0]
    some = json.loads(widget.answer({"ask": "rows", "table": "latents", "where": {"site": site}}))
    assert set(some["site"]) == {site}
    # Whatever tokens are, what is sent is text that any channel holds.
    assert widget.answer({"ask": "rows", "table": "contexts", "where": {}}).encode("utf-8")


def test_what_cannot_be_answered_is_a_sentence(widget: RunWidget, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(widget, "send", sent.append)
    for question in (
        {"ask": "rows", "table": "none"},
        {"ask": "array", "name": "none"},
        {"ask": "quit"},
        {"ask": "rows"},
    ):
        widget._hear(widget, {"cell": "a", "number": 7, **question}, [])
        answer = sent.pop()
        assert (answer["cell"], answer["number"], bool(answer["error"])) == ("a", 7, True)
    widget._hear(widget, "nonsense", [])
    widget._hear(widget, {"number": 1}, [])
    assert sent == []


def test_a_still_picture_stands_beside_the_widget(widget: RunWidget, report: Report) -> None:
    bundle = widget._repr_mimebundle_()
    assert bundle is not None
    assert "application/vnd.jupyter.widget-view+json" in bundle[0]
    still = bundle[0]["text/html"]
    assert still == report._repr_html_()
    assert not re.search(r"<(script|style|img|link|iframe)|https?:|\son\w+=", still)
    assert report.findings[0][:20] in still or not report.findings
    assert repr(report).count("\n") == 0


def test_hostile_words_are_no_markup_in_the_still_picture() -> None:
    bad = "</td><script>alert(1)</script>\u2028\x00\ud800"
    one = Measurement(
        name=bad, value=1.0, unit=bad, n=1, of=bad, low=0.5, high=2.0, how=bad, reference=3.0, reference_is=bad,
        chance=0.1, chance_is=bad, at={"site": bad},
    )  # fmt: skip
    none = Measurement(name="none", value=None, unit="", n=1, of="rows", caution=bad)
    still = Report(title=bad, kind="toy", measurements=(one, none) * 10, findings=(bad,))._repr_html_()
    assert "<script" not in still
    assert still.encode("utf-8")
    assert still.count("<svg") == 6
    assert "8 more measurements" in still


def test_show_takes_folders_and_reports_and_lives_without_its_extra(
    report: Report, page_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(superscope.show(report), RunWidget)
    shown = superscope.show(page_file.parent, height=400)
    assert (shown.report.title, shown.height) == (report.title, 400)
    with pytest.raises(FileNotFoundError):
        superscope.show(page_file.parent / "none")
    monkeypatch.delitem(sys.modules, "superscope.studio.notebook")
    monkeypatch.setitem(sys.modules, "anywidget", None)
    assert superscope.show(report) is report


@pytest.fixture
def cell(browser: Browser, widget: RunWidget) -> Iterator[tuple[Page, list[str]]]:
    """A page that shows the widget as a notebook does; whatever it asks of the network is refused and written down."""
    page, complaints = browser.new_page(), []
    page.set_default_timeout(20_000)
    door = (resources.files("superscope.studio") / "notebook.js").read_text(encoding="utf-8")
    pages = {
        "/": (
            "text/html",
            '<!doctype html><html lang="en"><title>Notebook</title><script type="module" src="/start.js"></script>',
        ),
        "/start.js": ("text/javascript", NOTEBOOK),
        "/notebook.js": ("text/javascript", door),
    }

    def handle(route) -> None:  # type: ignore[no-untyped-def]
        path = route.request.url.removeprefix("http://notebook.test")
        if path in pages:
            route.fulfill(content_type=pages[path][0], body=pages[path][1])
        else:
            complaints.append(route.request.url)
            route.abort()

    def ask(question: dict[str, Any]) -> dict[str, Any]:
        return {name: question[name] for name in ("cell", "number")} | {"value": widget.answer(question)}

    page.context.route(re.compile("^https?:"), handle)
    page.expose_function("ask", ask)
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    yield page, complaints
    page.close()


def opened(page: Page) -> Frame:
    frame = page.locator("iframe").element_handle().content_frame()
    assert frame is not None
    frame.locator('[data-view="report"]').wait_for()
    frame.wait_for_function("() => !document.querySelector('[data-state=\"loading\"]')")
    return frame


def test_the_views_in_a_cell_are_those_of_the_single_file(
    cell: tuple[Page, list[str]], open_page: Callable, serious: Callable, report: Report
) -> None:
    page, complaints = cell
    page.goto("http://notebook.test/")
    frame = opened(page)
    assert page.locator("iframe").get_attribute("sandbox") == "allow-scripts allow-downloads"
    expect(frame.locator("h1")).to_have_text(report.title)
    alone = open_page().page
    names = [each.locator("main section").evaluate_all("all => all.map(s => s.id)") for each in (frame, alone)]
    assert names[0] == names[1]
    frame.locator('a[href^="#/features"]').first.click()
    frame.wait_for_function("() => location.hash.startsWith('#/features')")
    expect(frame.locator("footer")).to_contain_text("Read from the notebook's kernel")
    assert frame.locator("img[onerror], iframe, object, embed").count() == 0
    assert complaints == []
    assert serious(page) == []
    # axe asks frames by a message that names an origin, which a sandbox has none of.
    complaints.clear()
    page.evaluate("() => window.end()")
    assert complaints == []


def listening(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.jupyter
def test_a_notebook_in_jupyterlab(browser: Browser, tmp_path: Path) -> None:
    """JUPYTER is the `jupyter-lab` of an environment with Superscope and its extra `notebook`: see scripts/notebook."""
    bundled = ROOT / "superscope" / "studio" / "examples"
    lines = [
        "import superscope as ss",
        f"ss.show({str(bundled / 'toy')!r})",
        f"ss.core.Report.load({str(bundled / 'toy')!r})",
    ]
    cells = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": line, "outputs": [], "execution_count": None}
        for i, line in enumerate(lines)
    ]
    about = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (tmp_path / "run.ipynb").write_text(
        json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": about, "cells": cells})
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        os.environ["JUPYTER"], "--no-browser", f"--port={port}", "--ServerApp.ip=127.0.0.1", "--allow-root",
        "--IdentityProvider.token=key", "--LabApp.news_url=", "--LabApp.check_for_updates_class="
        "jupyterlab.NeverCheckForUpdate", f"--ServerApp.root_dir={tmp_path}",
    ]  # fmt: skip
    home = f"http://127.0.0.1:{port}/"
    server = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    context = browser.new_context(viewport={"width": 1280, "height": 1400})
    try:
        until = time.monotonic() + 180
        while not listening(port):
            assert time.monotonic() < until
            time.sleep(0.5)
        context.set_default_timeout(180_000)
        asked: list[str] = []

        def handle(route) -> None:  # type: ignore[no-untyped-def]
            if route.request.url.startswith(home):
                route.continue_()
            else:
                asked.append(route.request.url)
                route.abort()

        context.route(re.compile("^https?:"), handle)
        page = context.new_page()
        page.goto(f"{home}lab/tree/run.ipynb?token=key")
        page.locator(".jp-Notebook").wait_for()
        page.get_by_text("Python 3 (ipykernel) | Idle").first.wait_for()
        page.locator(".jp-MainAreaWidget:not(.lm-mod-hidden) .jp-Toolbar").first.wait_for()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        page.locator("iframe[title='A run in Superscope']").wait_for()
        frame = opened(page)
        expect(frame.locator("h1")).to_contain_text("5 features in 2 dimensions")
        slider = frame.get_by_role("slider", name="Step")
        slider.press("Home")
        expect(frame.locator("#toy [role=status]").first).to_contain_text("step 0:")
        # The still picture, which stands below it, and in the saved notebook beside the widget.
        still = page.locator(".jp-RenderedHTMLCommon table").last
        expect(still).to_contain_text("features per dimension")
        expect(still.locator("svg > circle").first).to_be_attached()
        if shots := os.environ.get("SHOTS"):
            page.screenshot(path=f"{shots}/jupyterlab.png")
        page.locator(".jp-InputPrompt").last.click()
        page.keyboard.press("Control+s")
        saved = ""
        while '"text/html"' not in saved:
            assert time.monotonic() < until + 180
            # Not asleep: the request that saves waits to be let through.
            page.wait_for_timeout(500)
            saved = (tmp_path / "run.ipynb").read_text()
        assert "superscope.show(report)" in saved
        assert len(saved) < 100_000
        assert asked == []
    finally:
        context.unroute_all(behavior="ignoreErrors")
        context.close()
        server.terminate()
        server.wait()
