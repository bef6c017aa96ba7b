"""Who may ask the studio's server: the holder of the key, from this machine, from a page of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from superscope.core import Measurement, Report
from superscope.studio.server import Place, make_app
from superscope.studio.server.guard import ADDRESS_BYTES, BODY_BYTES, is_loopback

HOME = "http://127.0.0.1:8745"
JSON = {"origin": HOME, "content-type": "application/json"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    one = Measurement(name="coherence", value=0.5, unit="cosine", n=3, of="atoms")
    Report(title="Three atoms", kind="superposition", measurements=(one,)).save(root / "runs" / "one")
    (root / "secret").mkdir()
    Report(title="Nobody's business", kind="superposition", measurements=(one,)).save(root / "secret" / "run")
    return root


@pytest.fixture(scope="module")
def stranger(root: Path) -> Iterator[TestClient]:
    with TestClient(make_app(Place(root / "runs"), token="key"), base_url=HOME, follow_redirects=False) as client:
        yield client


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[TestClient]:
    with TestClient(make_app(Place(root / "runs"), token="key"), base_url=HOME, follow_redirects=False) as client:
        assert client.get("/?token=key").status_code == 303
        yield client


def test_the_key_is_changed_for_a_cookie_that_scripts_and_other_sites_do_not_get(stranger: TestClient) -> None:
    for path in ("/", "/run/one", "/api/runs", "/api/session", "/api/events", "/?token=other", "/api/runs?token=key"):
        answer = stranger.get(path)
        assert answer.status_code == 401, path
        assert "it holds the key" in answer.json()["error"]
        assert "set-cookie" not in answer.headers
    answer = stranger.get("/run/one?token=key&x=1")
    assert (answer.status_code, answer.headers["location"]) == (303, "/run/one?x=1")
    cookie = answer.headers["set-cookie"]
    assert "key" not in cookie
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert stranger.get("/api/runs").status_code == 200
    stranger.cookies.clear()
    assert stranger.get("/api/runs").status_code == 401
    # The address that it leads to is this server's, whatever was asked for.
    assert stranger.get(f"{HOME}//evil.example/x?token=key").headers["location"] == "/evil.example/x"


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "evil@127.0.0.1", "0.0.0.0", "192.168.1.2", ""]
)
def test_a_name_that_was_made_to_point_here_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/api/runs", headers={"host": host}).status_code == 421


def test_a_tunnel_from_another_port_is_served(client: TestClient) -> None:
    assert client.get("/api/runs", headers={"host": "localhost:9999"}).status_code == 200
    assert is_loopback("[::1]:9")
    assert not is_loopback("127.0.0.1:port")


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:8746", "https://127.0.0.1:8745", "null"])
def test_a_page_of_another_origin_is_refused(client: TestClient, origin: str) -> None:
    assert client.get("/api/runs", headers={"origin": origin}).status_code == 403
    refused = client.post("/api/jobs", headers={**JSON, "origin": origin}, content='{"study": "bounds"}')
    assert refused.status_code == 403


def test_what_browsers_say_of_a_request_is_believed(client: TestClient) -> None:
    for site in ("cross-site", "same-site"):
        assert client.get("/api/runs", headers={"sec-fetch-site": site}).status_code == 403
        # A link that somebody follows is none: it brings no cookie, or opens the page alone.
        there = {"sec-fetch-site": site, "sec-fetch-mode": "navigate"}
        assert client.get("/", headers=there).status_code == 200
        assert client.get("/api/runs", headers=there).status_code == 403
    assert client.get("/api/runs", headers={"sec-fetch-site": "same-origin"}).status_code == 200


def test_a_form_of_another_page_cannot_post(client: TestClient) -> None:
    body = '{"study": "bounds", "settings": {"n": 32, "d": 8}}'
    assert client.post("/api/jobs", content=body, headers={"content-type": "application/json"}).status_code == 403
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert client.post("/api/jobs", content=body, headers={**JSON, "content-type": kind}).status_code == 415
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH"):
        assert client.request(method, "/api/jobs", headers=JSON).status_code == 405
    assert client.get("/api/jobs").json() == {"jobs": []}


def test_there_are_no_sockets(client: TestClient) -> None:
    with pytest.raises(WebSocketDisconnect) as ended, client.websocket_connect("/api/events"):
        pass
    assert ended.value.code == 1008


def test_requests_are_bounded(client: TestClient) -> None:
    assert client.post("/api/jobs", content=b" " * (BODY_BYTES + 1), headers=JSON).status_code == 413

    def piecewise() -> Iterator[bytes]:
        for _ in range(BODY_BYTES // 1000 + 2):
            yield b" " * 1000

    assert client.post("/api/jobs", content=piecewise(), headers=JSON).status_code == 413
    assert client.get(f"/api/runs?x={'a' * ADDRESS_BYTES}").status_code == 414
    assert client.post("/api/jobs", content="[" * 20_000, headers=JSON).status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        "/api/runs/..%2Fsecret%2Frun",
        "/api/runs/../secret/run",
        "/api/runs/..~secret~run",
        "/api/runs/%2e%2e%2fsecret%2frun",
        "/api/runs/one%2F..%2F..%2Fsecret%2Frun",
        "/api/runs/one/tables/..%2F..%2Fsecret",
        "/api/runs/one/arrays/..%2Fabout",
        "/api/runs/%00",
        "/api/runs/@..",
    ],
)
def test_no_path_leads_out(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (404, 405)
    assert "Nobody" not in answer.text


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path, root: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "link").symlink_to(root / "secret" / "run")
    (runs / "inner").mkdir()
    (runs / "inner" / "about.json").symlink_to(root / "secret" / "run" / "about.json")
    one = Measurement(name="coherence", value=0.5, unit="cosine", n=3, of="atoms")
    Report(title="Mine", kind="superposition", measurements=(one,)).save(runs / "mine")
    (runs / "mine" / "figures").symlink_to(root / "secret")
    with TestClient(make_app(Place(runs), token="key"), base_url=HOME) as client:
        client.get("/?token=key")
        listed = {run["id"]: run for run in client.get("/api/runs").json()["runs"] if not run["bundled"]}
        assert listed.keys() == {"inner", "mine"}
        assert listed["inner"]["state"] == "damaged"
        assert "links are not followed" in listed["inner"]["error"]
        assert client.get("/api/runs/link").status_code == 404
        assert client.get("/api/runs/inner").status_code == 422
        head = client.get("/api/runs/mine").json()
        assert "links are not followed" in head["problems"][0]


def test_every_answer_is_sealed(client: TestClient) -> None:
    for path in ("/", "/run/one", "/api/runs", "/api/runs/none", "/api/none", "/api/runs/one/report.html"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert not re.search(r"https?:|\*|unsafe", policy)
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers
    page = client.get("/")
    assert "connect-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["content-type"].startswith("text/html")


def test_a_studio_that_only_shows_starts_nothing(tmp_path: Path) -> None:
    with TestClient(make_app(Place(tmp_path, read_only=True), token="key"), base_url=HOME) as client:
        client.get("/?token=key")
        session = client.get("/api/session").json()
        assert not session["can_start"]
        refused = client.post("/api/jobs", json={"study": "bounds", "settings": {"n": 32, "d": 8}}, headers=JSON)
        assert (refused.status_code, refused.json()["error"]) == (409, session["why_not"])
        assert client.post("/api/jobs/x/cancel", json={}, headers=JSON).status_code == 409
    assert list(tmp_path.iterdir()) == []
