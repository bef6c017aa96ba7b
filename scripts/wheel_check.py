"""Does a wheel of a clean clone open every screen where there is nothing else? Builds it, installs it, looks.

`python scripts/wheel_check.py` clones this repository's last commit, builds the wheel there (with Node, or the one
from PyPI), installs it with the extra `studio` in an empty environment, starts `superscope studio` with no Node on
its PATH, and opens each screen and each run of the package in headless Chromium. Prints the wheel's size and what
each screen said; its exit code is 1 if a screen failed, something else was asked for, or the wheel is above 30 MB.
Needs Chromium, Playwright and 2 GB of disk.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
MOST = 30e6
SCREENS = ("/", "/start", "/start/toy", "/jobs", "/bench", "/compare", "/learn")


def told(*command: str | Path, cwd: Path, path: str | None = None) -> None:
    """Runs a command, and says so."""
    print("+", *command, flush=True)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run(
        [str(word) for word in command], cwd=cwd, check=True, env=environment | ({"PATH": path} if path else {})
    )


def look(address: str, screens: Sequence[str]) -> list[str]:
    """Opens each screen; what went wrong, in sentences."""
    home, wrong = address.split("/?")[0], []
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium-headless-shell") or shutil.which("chromium")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page()
        page.set_default_timeout(300_000)
        page.on("request", lambda r: None if r.url.startswith((home, "data:", "blob:")) else wrong.append(r.url))
        page.on("console", lambda message: wrong.append(f"{page.url}: {message.type}: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(f"{page.url}: {error}"))
        page.goto(address)
        page.locator(".card a").first.wait_for()
        runs = page.locator(".card a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
        for screen in [*screens, *runs]:
            began = time.monotonic()
            page.goto(home + screen)
            page.locator("[data-view]").first.wait_for()
            page.wait_for_function("() => !document.querySelector('[data-state=\"loading\"]')")
            title = page.locator("h1").first.inner_text()
            alerts = page.get_by_role("alert").all_inner_texts()
            wrong += [f"{screen}: {alert}" for alert in alerts]
            print(f"  {screen:24} {time.monotonic() - began:6.1f} s  {title}", flush=True)
        browser.close()
    return wrong


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        told("git", "clone", "--quiet", "--no-hardlinks", ROOT, place / "clone", cwd=place)
        told(
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--wheel-dir",
            place,
            place / "clone",
            cwd=place,
        )
        (wheel,) = place.glob("*.whl")
        size = wheel.stat().st_size
        told(sys.executable, "-m", "venv", place / "empty", cwd=place)
        python, lone = place / "empty" / "bin" / "python", str(place / "empty" / "bin")
        constraints = place / "clone" / "constraints.txt"
        told(python, "-m", "pip", "install", "--quiet", "--constraint", constraints, f"{wheel}[studio]", cwd=place)
        shutil.rmtree(place / "clone")
        assert shutil.which("node", path=lone) is None
        environment = {"PATH": lone, "HOME": folder}
        command = [f"{lone}/superscope", "studio", "--no-browser"]
        server = subprocess.Popen(command, cwd=place, env=environment, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        try:
            address = next(line.strip() for line in server.stdout if line.startswith("http"))
            wrong = look(address, SCREENS)
        finally:
            server.terminate()
            server.wait()
    print(f"{wheel.name}: {size / 1e6:.1f} MB (at most {MOST / 1e6:.0f})")
    for sentence in wrong:
        print(f"wrong: {sentence}")
    return int(bool(wrong) or size > MOST)


if __name__ == "__main__":
    sys.exit(main())
