"""The server under many clients: bounded in what it does at once, the same for all, and no larger after it than before.

scripts/studio_load.py does it in earnest: 10 000 requests by 50 clients, with the memory of the process.
"""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from superscope.studies import settings
from superscope.studies.toys.sweep import ToySweep
from superscope.studio.server import Place, app, forms, make_app, shapes

PATHS = (
    "/", "/api/runs", "/api/jobs", "/api/runs/@toy", "/api/runs/@toy/tables/features",
    "/api/runs/@toy/arrays/snapshots", "/api/runs/@toy/report.html", "/api/runs/nobody",
)  # fmt: skip


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(make_app(Place(tmp_path / "runs"), token="key"), base_url="http://127.0.0.1") as client:
        client.get("/?token=key")
        yield client


def test_answers_are_made_few_at_a_time(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def runs() -> shapes.RunList:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        return shapes.RunList(runs=[], left_out=0)

    monkeypatch.setattr(client.app.state.library, "runs", runs)  # type: ignore[attr-defined]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: client.get("/api/runs").status_code, range(48)))
    assert answers == [200] * 48
    assert most == app.AT_ONCE


def test_forms_are_made_once_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def form(entry) -> str:  # type: ignore[no-untyped-def]
        time.sleep(0.002)
        made.append(entry.command)
        return entry.command

    monkeypatch.setattr(forms, "_form", form)
    forms._forms.cache_clear()
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: forms.forms(), range(8)))
        assert len(made) == len(set(made)) == len(found[0])
        assert all(each is found[0] for each in found)
    finally:
        forms._forms.cache_clear()


def test_classes_are_read_by_many_threads() -> None:
    """CPython 3.11 fails now and then where two threads make syntax trees at once."""
    whole = settings._docstrings(ToySweep)
    with ThreadPoolExecutor(8) as pool:
        assert all(said == whole for said in pool.map(lambda _: settings._docstrings(ToySweep), range(24)))


def test_nothing_is_left_of_a_request(client: TestClient) -> None:
    def ask(times: int) -> None:
        for _ in range(times):
            for path in PATHS:
                assert client.get(path).status_code == (404 if path.endswith("nobody") else 200)

    ask(3)
    tracemalloc.start()
    try:
        ask(3)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        ask(12)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # An answer kept would be 300 kB of each page, 40 kB of the array: 12 of each several megabytes.
    assert after - before < 150_000
