"""Bench and comparisons: in a browser on the runs in the package, live and as one file, and what the server refuses."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from starlette.testclient import TestClient

from superscope.core import Report
from superscope.core.files import sha256
from superscope.studies import Bench
from superscope.studies.interventions import bench
from superscope.studio import html
from superscope.studio.server import Place, make_app
from superscope.studio.server.app import BUNDLED

JSON = {"origin": "http://127.0.0.1", "content-type": "application/json"}
OWN = "targets=own&towards=raise+ValueError(x)%0Araise+TypeError(name)&away=the+end+of+a+line%0Aa+list+of+values"
SMALL = f"{OWN}&doses=0.1+0.3&tokens=200&matrix=off&prompt=If+the"


@pytest.fixture(scope="module")
def studio(serve: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return serve(tmp_path_factory.mktemp("bench"))


@dataclass(frozen=True)
class Quick(Bench):
    """A bench that is content with a rough Fisher matrix."""

    fisher_tokens: int = 300
    draws: int = 1


def test_a_direction_is_steered_on_the_pocket_model(
    visit: Callable[..., Any],
    ready: Callable[[Page], None],
    studio: Any,
    open_page: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench, "Bench", Quick)
    seen = visit(f"/bench?{SMALL}")
    page = seen.page
    expect(page.locator(".bench .note")).to_contain_text("an example that travels in the package")
    expect(page.get_by_label("Texts that have it")).to_have_value("raise ValueError(x)\nraise TypeError(name)")
    page.get_by_role("button", name="Steer", exact=True).click()
    expect(page.locator(".bench")).to_have_attribute("data-state", "working")
    expect(page.locator(".bench [role=status]")).to_contain_text("pocket is kept, at transformer.h.1", timeout=300_000)
    page.get_by_role("link", name="Save as one file").wait_for()
    steering = page.locator("#steering")
    expect(steering).to_have_attribute("data-state", "loaded")
    expect(steering.locator(".text").first).to_contain_text("If the")
    steering.get_by_label("0.1", exact=True).check()
    expect(steering.locator("output").first).to_contain_text("0.100 mean norms")
    assert "dose=0.1" in page.url
    assert steering.locator("tr[data-measurement=steering_kl]").count() == 1
    expect(page.locator("#damage")).to_contain_text("where the target is")
    # The address brings another page to the same numbers, without steering again.
    again = visit(page.url.split("/", 3)[3].join(["/", ""]))
    expect(again.page.locator("#steering output").first).to_have_text(steering.locator("output").first.inner_text())
    assert again.page.url == page.url
    again.page.get_by_label("Prompt", exact=True).fill("When")
    expect(again.page.locator("[data-stale]")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Save as one file").click()
    assert download.value.suggested_filename == "superscope-bench.html"
    download.value.save_as(tmp_path / "saved.html")
    saved = open_page("#/steering?dose=0.1", file=tmp_path / "saved.html")
    expect(saved.page.locator("#steering output").first).to_have_text(steering.locator("output").first.inner_text())
    assert saved.complaints == []
    page.get_by_role("button", name="Keep as a run").click()
    page.get_by_role("link", name="Open the run").click()
    ready(page)
    expect(page.locator("#steering")).to_be_visible()
    (folder,) = studio.root.glob("bench-*")
    report = Report.load(folder)
    assert report.tables["doses"]["dose"] == [0.1, 0.3]
    assert report.tables["doses"]["kl"][0] < report.tables["doses"]["kl"][1]
    assert seen.complaints == []
    assert seen.requests == []


def test_runs_are_compared_live_and_saved(visit: Callable[..., Any], ready: Callable[[Page], None]) -> None:
    seen = visit("/compare")
    page = seen.page
    expect(page.locator(".compare .note")).to_contain_text("an example that travels")
    for name in ("@world-sae:sae", "@world-sae-wide:sae"):
        page.get_by_label("Add").select_option(name)
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_role("link", name="Save as one file").wait_for()
    ready(page)
    section = page.locator("#compare")
    expect(section).to_contain_text("of 32 atoms of world-sae/sae have one partner")
    section.get_by_label("that are").select_option("split")
    counted = section.locator("output").nth(1).inner_text()
    address = page.url
    assert "type=split" in address
    again = visit(address.split("/", 3)[3].join(["/", ""]))
    assert again.page.locator("#compare output").nth(1).inner_text() == counted
    assert again.page.url == address
    page.get_by_label("Atoms are one from cosine").fill("0.9")
    expect(page.locator("[data-stale]")).to_be_visible()
    page.get_by_label("Atoms are one from cosine").fill("2")
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("threshold")
    complaints = [each for each in seen.complaints if "422" not in each]
    assert complaints == []
    assert seen.requests == []


LOOKS = (
    ("bench", "#/steering?dose=0.25&axis=nats", "steering", "light", 1280),
    ("compare-world", "#/truth?feature=all", "truth", "dark", 400),
    ("compare", "#/compare?type=split", "compare", "light", 400),
    ("calibration", "#/calibration?family=zipf", "calibration", "dark", 1280),
    ("spare", "#/sparing", "sparing", "light", 400),
)


@pytest.mark.parametrize(("name", "address", "section", "scheme", "width"), LOOKS, ids=[look[0] for look in LOOKS])
def test_what_is_in_the_package_stands_in_one_file(
    open_page: Callable[..., Any],
    serious: Callable[[Page], list[str]],
    tmp_path: Path,
    name: str,
    address: str,
    section: str,
    scheme: str,
    width: int,
) -> None:
    file = tmp_path / f"{name}.html"
    file.write_text(html(BUNDLED / name), encoding="utf-8")
    opened = open_page(address, scheme=scheme, width=width, file=file)
    page = opened.page
    expect(page.locator(f"#{section}")).to_have_attribute("data-state", "loaded")
    assert page.evaluate("location.hash") == address
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(f"#{section} figure").count() >= 1
    page.locator(f"#{section} figure").first.get_by_role("button", name="Show as table").click()
    assert page.locator(f"#{section} figure").first.locator("tbody tr").count() >= 1
    assert serious(page) == []
    assert opened.complaints == []
    assert opened.requests == []


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with TestClient(
        make_app(Place(tmp_path_factory.mktemp("api")), token="key"), base_url="http://127.0.0.1"
    ) as client:
        client.get("/?token=key")
        yield client


@pytest.mark.parametrize(
    ("asked", "status", "sentence"),
    [
        ({"targets": []}, 422, "targets"),
        ({"targets": ["braid"]}, 422, "there is no target 'braid'"),
        ({"targets": ["own"]}, 422, "own has two sides"),
        ({"targets": ["code"], "doses": [1.0] * 9}, 422, "doses"),
        ({"targets": ["code"], "doses": [0.0]}, 422, "other than 0"),
        ({"targets": ["code"], "prompts": ["x" * 501]}, 422, "prompts"),
        ({"targets": ["code"], "new_tokens": 65}, 422, "new_tokens"),
        ({"targets": ["code"], "edit": "project_out", "doses": [1.5]}, 422, "takes out a share"),
        ({"targets": ["code"], "model": "someone/model"}, 422, "models of this machine"),
        ({"targets": ["code"], "dictionary": "@pocket-sae:../../x"}, 404, "there is no dictionary"),
    ],
)
def test_what_the_bench_does_not_take_is_refused(client: TestClient, asked: dict, status: int, sentence: str) -> None:
    answer = client.post("/api/bench", json=asked, headers=JSON)
    assert answer.status_code == status
    assert sentence in answer.json()["error"]
    assert client.get("/api/bench").json()["state"] == "idle"


def test_the_bench_of_a_read_only_studio_rests(tmp_path: Path) -> None:
    with TestClient(make_app(Place(tmp_path, read_only=True), token="key"), base_url="http://127.0.0.1") as client:
        client.get("/?token=key")
        assert not client.get("/api/bench").json()["can_try"]
        answer = client.post("/api/bench", json={"targets": ["code"]}, headers=JSON)
        assert answer.status_code == 409
        assert client.get("/api/bench/none").status_code == 404


def test_a_trial_can_be_stopped_and_fails_in_a_sentence(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from superscope.studies.study import Progress

    waits, closed = threading.Event(), threading.Event()

    def opened(self: Bench):  # type: ignore[no-untyped-def]
        try:
            yield Progress("Loading", 0, 1)
            waits.wait(30)
            yield Progress("Loading", 1, 1)
        except GeneratorExit:
            closed.set()
            raise
        raise ValueError("this model has no such site.")

    monkeypatch.setattr(Bench, "opened", opened)
    post = lambda path, body: client.post(f"/api/bench{path}", json=body, headers=JSON)  # noqa: E731
    assert post("", {"targets": ["code"]}).json()["state"] == "working"
    assert "at work" in post("", {"targets": ["errors"]}).json()["error"]
    state = post("/stop", {}).json()
    assert (state["state"], state["stage"]) == ("working", "Stopping")
    waits.set()
    state = settled(client)
    assert (state["state"], state["trial"]) == ("idle", "")
    assert closed.is_set()
    # Nothing is waited for any more: each trial fails at once, is told as begun, and leaves the bench free.
    for _ in range(20):
        assert post("", {"targets": ["code"]}).json()["state"] == "working"
        state = settled(client)
        assert (state["state"], state["error"]) == ("failed", "this model has no such site.")
    assert client.get(f"/api/bench/{state['trial']}").status_code == 404


def test_a_trial_stopped_in_its_last_step_has_no_answer(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from superscope.core import Answer, Findings
    from superscope.studies.study import Progress

    waits = threading.Event()

    def opened(self: Bench):  # type: ignore[no-untyped-def]
        yield Progress("Loading", 0, 1)
        return SimpleNamespace(subject=SimpleNamespace(name="none"), site="nowhere")

    def tried(self: Bench, desk: SimpleNamespace):  # type: ignore[no-untyped-def]
        yield Progress("Writing", 0, 1)
        waits.wait(30)
        return Answer(title="tried", findings=Findings(), sentences=("It was tried.",))

    monkeypatch.setattr(Bench, "opened", opened)
    monkeypatch.setattr(Bench, "tried", tried)
    post = lambda path: client.post(f"/api/bench{path}", json={"targets": ["numbers"]}, headers=JSON)  # noqa: E731
    name = post("").json()["trial"]
    post("/stop")
    waits.set()
    state = settled(client)
    assert (state["state"], state["trial"], state["kept"]) == ("idle", "", [])
    assert client.get(f"/api/bench/{name}").status_code == 404
    assert post("").json()["state"] == "working"
    state = settled(client)
    assert (state["state"], state["trial"], state["kept"]) == ("idle", name, [name])


def settled(client: TestClient) -> dict[str, Any]:
    for _ in range(200):
        state = client.get("/api/bench").json()
        if state["state"] != "working":
            return state
        time.sleep(0.05)
    raise AssertionError(state)


def test_what_cannot_be_compared_is_refused(client: TestClient, tmp_path_factory: pytest.TempPathFactory) -> None:
    ask = lambda *of: client.get("/api/compare", params=[("of", each) for each in of])  # noqa: E731
    assert ask("@toy").status_code == 422
    assert "named twice" in ask("@toy", "@toy").json()["error"]
    assert ask("@toy", "@none").status_code == 404
    assert ask("@toy", "@scan:saes/../../x").status_code == 404
    root = client.app.state.place.root  # type: ignore[attr-defined]
    large = root / "large"
    Report(title="x", kind="train", measurements=(), settings={"source": "world:zipf", "world": ["n=900000000"]}).save(
        large
    )
    assert "too large for a page" in ask("@toy", "large").json()["error"]
    sources = [each["id"] for each in client.get("/api/compare/sources").json()["sources"]]
    assert {"@toy", "@pocket-sae", "@pocket-sae:sae"} <= set(sources)
    report = ask("@toy", "@toy-3d").json()
    assert report["kind"] == "compare"
    assert report["tables"]["measured"]["source"]
    # It may travel, so it says what was read and not where this machine has it.
    assert report["settings"]["sources"] == ["superscope/studio/examples/toy", "superscope/studio/examples/toy-3d"]
    assert report["tables"]["sources"]["path"] == report["settings"]["sources"]
    assert report["environment"]["sha256 of superscope/studio/examples/toy"] == sha256(BUNDLED / "toy" / "about.json")
    assert str(BUNDLED) not in json.dumps(report)
    assert re.search("None of these 2 sources", " ".join(report["findings"]))
    assert json.dumps(report)
