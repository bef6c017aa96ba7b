"""How fast and how large are the studio's views of a hundred thousand features, and the one file of a scan?

A made-up run of 100 000 latents at one site, in the live studio and as one file, and a scan of yours:

    python benchmarks/studio_features.py [--features 100000] [--scan RUN] [--rounds 5]

Chromium draws in software. Beside each wall time stands the CPU time of the page's main thread, which other work on the
machine disturbs less. Prints a line each; it exits with 1 where a budget is exceeded by CPU time or size.
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from statistics import median

import numpy as np
from playwright.sync_api import Browser, CDPSession, Page, sync_playwright

from superscope.core import Measurement, Report
from superscope.studio import html, write_html
from superscope.studio.server import Place, make_app, server_of
from superscope.studio.server.finding import Asked

SITE, MODEL = "layers.0", "trained"
WORDS = tuple(f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "r", "st", "ng", "l"))
KEYSTROKES = ("b", "ba", "bar", "st", "ing", "zzz", "17", "lun", "e", "r")


@dataclass
class Budgets:
    """What was found, beside what it may be."""

    over: list[str] = field(default_factory=list)

    def line(self, what: str, value: float, unit: str, most: float | None, beside: str = "") -> None:
        goal = "" if most is None else f"  (at most {most:g})"
        sys.stdout.write(f"{what:<64} {value:8.3g} {unit}{goal}{f'  {beside}' if beside else ''}\n")
        sys.stdout.flush()
        if most is not None and value > most:
            self.over.append(what)


def made_up(n: int) -> Report:
    """Latents with texts, and their map: numbers from one seed."""
    rng = np.random.default_rng(0)
    at = {"site": [SITE] * n, "model": [MODEL] * n, "latent": list(range(n))}
    density = np.exp(rng.normal(-6, 1.5, n)).clip(max=1.0)
    tokens = [[WORDS[i] for i in row] for row in rng.integers(0, len(WORDS), (n, 5)).tolist()]
    places = rng.normal(0, 1, (n, 2)) * 4 + rng.normal(0, 30, (40, 2))[rng.integers(0, 40, n)]
    numbers = {
        "x": places[:, 0], "y": places[:, 1], "kept": rng.beta(2, 6, n), "density": density,
        "overlap": rng.beta(5, 5, n), "energy": np.exp(rng.normal(0, 1, n)),
    }  # fmt: skip
    recurs = rng.integers(1, 4, n).tolist()
    latents = {
        **at, "density": density.tolist(), "mean_active": rng.random(n).tolist(),
        "max_active": (5 * rng.random(n)).tolist(),
        "recurs": recurs, "nearest": rng.integers(0, n, n).tolist(), "nearest_cosine": numbers["overlap"].tolist(),
        "clarity": rng.random(n).tolist(), "clear_by": ["token"] * n, "top_tokens": tokens,
        "top_token_share": [[0.3, 0.2, 0.1, 0.05, 0.02]] * n, "promotes": [row[::-1] for row in tokens],
    }  # fmt: skip
    sites = {
        "site": [SITE],
        "model": [MODEL],
        "d": [512],
        "n": [n],
        "k": [32],
        "seeds": [3],
        "rows": [10**7],
        "kind": ["residual"],
        "note": [""],
    }
    kept = Measurement(
        name="map_neighbours_kept", value=0.25, unit="share of neighbours", n=n, of="atoms",
        at={"site": SITE, "model": MODEL}, chance=12 / n, chance_is="a random map", how="no interval: made up",
    )  # fmt: skip
    tables = {
        "latents": latents,
        "atlas": {**at, **{name: v.tolist() for name, v in numbers.items()}, "recurs": recurs},
        "sites": sites,
    }
    return Report(title=f"{n:,} features", kind="scan", measurements=(kept,), tables=tables)


def six_columns(n: int) -> Report:
    """The map alone: latent, x, y, density, energy, kept."""
    atlas = made_up(n).tables["atlas"]
    names = ("latent", "x", "y", "density", "energy", "kept")
    return Report(
        title="Six columns", kind="scan", measurements=(), tables={"atlas": {name: atlas[name] for name in names}}
    )


def thread_seconds(session: CDPSession) -> float:
    """CPU time of the page's main thread so far."""
    found = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    return found["TaskDuration"]


def opened(browser: Browser, address: str, ready: str) -> tuple[Page, float, float]:
    """A page, with the wall and the CPU seconds until it shows something."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    began = time.perf_counter()
    page.goto(address, wait_until="commit", timeout=120_000)
    page.wait_for_function(ready, timeout=120_000)
    return page, time.perf_counter() - began, thread_seconds(session)


DRAWN = "() => /[1-9]/.test(document.querySelector('[data-counts]')?.textContent.split(',').at(-1) ?? '')"
SHOWN = "() => document.querySelector('[data-view=\"report\"] h1')"


def frames(page: Page, count: int = 40) -> tuple[list[float], float]:
    """Milliseconds between frames while the map is dragged, and of CPU in each."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.locator(".map").scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    before = thread_seconds(session)
    found = page.evaluate(
        """async (count) => {
        const map = document.querySelector('.map'), box = map.getBoundingClientRect();
        const [x, y] = [box.left + box.width / 2, box.top + box.height / 2];
        map.setPointerCapture = () => {};
        const send = (kind, dx) => map.dispatchEvent(
            new PointerEvent(kind, {clientX: x + dx, clientY: y, buttons: 1, pointerId: 1, bubbles: true}));
        const frame = () => new Promise((done) => requestAnimationFrame(done));
        send('pointerdown', 0);
        const times = [];
        let last = await frame();
        for (let i = 1; i <= count; i++) {
            send('pointermove', 4 + 3 * i);
            const now = await frame();
            times.push(now - last);
            last = now;
        }
        send('pointerup', 4 + 3 * count);
        return times;
    }""",
        count,
    )
    return found, 1000 * (thread_seconds(session) - before) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=100_000)
    parser.add_argument("--scan", type=Path, help="a run folder of a scan: its one file is made and opened")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    budgets, n = Budgets(), given.features
    for name in ("report", "studio"):
        page = (resources.files("superscope.studio") / "static" / f"{name}.html").read_text(encoding="utf-8")
        script = re.findall('<script type="module">(.*?)</script>', page, flags=re.DOTALL)[0]
        budgets.line(f"JavaScript of {name}.html, gzipped", len(gzip.compress(script.encode())) / 1000, "KB", 250)
    size = len(html(six_columns(n)).encode())
    budgets.line(f"one file of {n:,} features x 6 columns", size / 1e6, "MB", 4)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium-headless-shell") or shutil.which("chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        root = Path(folder)
        made_up(n).save(root / "large")
        listening = socket.create_server(("127.0.0.1", 0))
        app = make_app(Place(root))
        server = server_of(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        asked = {"texts": ("top_tokens", "promotes"), "key": "latent", "order": ("-recurs", "-clarity", "latent")}
        where = {"site": SITE, "model": MODEL}
        began = time.thread_time()
        app.state.library.find("large", "latents", where, Asked(**asked))
        budgets.line(
            "first search (the table is read, ordered and spelled), CPU",
            1000 * (time.thread_time() - began),
            "ms",
            None,
        )
        cpu, wall = [], []
        for words in KEYSTROKES * given.rounds:
            began, clock = time.thread_time(), time.perf_counter()
            app.state.library.find("large", "latents", where, Asked(words=words, **asked))
            cpu.append(1000 * (time.thread_time() - began))
            wall.append(1000 * (time.perf_counter() - clock))
        budgets.line(
            "a keystroke in the server, median CPU",
            median(cpu),
            "ms",
            50,
            f"wall {median(wall):.0f}, most {max(cpu):.0f} CPU",
        )
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        home = f"http://127.0.0.1:{listening.getsockname()[1]}/run/large?token={app.state.token}#/atlas"
        walls, cpus, paces, works = [], [], [], []
        for _ in range(given.rounds):
            page, seconds, used = opened(browser, home, DRAWN)
            walls.append(seconds)
            cpus.append(used)
            each, used = frames(page)
            paces.append(median(each))
            works.append(used)
            page.context.close()
        budgets.line(
            "first view of the atlas, live, CPU of the page", median(cpus), "s", 1.5, f"wall {median(walls):.2f}"
        )
        budgets.line("a frame while panning, CPU of the page", median(works), "ms", 100, f"wall {median(paces):.0f}")
        server.should_exit = True
        thread.join()
        for name, run in (("made-up", root / "large"), ("scan", given.scan)):
            if run is None:
                continue
            began = time.process_time()
            text = html(run)
            made = time.process_time() - began
            file = write_html(run) if run == root / "large" else root / "scan.html"
            file.write_text(text, encoding="utf-8")
            budgets.line(
                f"one file of the {name} run: size",
                len(text.encode()) / 1e6,
                "MB",
                4.25 if name == "scan" else None,
                f"made in {made:.1f} s of CPU",
            )
            walls, cpus = [], []
            for _ in range(given.rounds):
                page, seconds, used = opened(browser, file.as_uri(), SHOWN)
                walls.append(seconds)
                cpus.append(used)
                page.context.close()
            budgets.line(
                f"one file of the {name} run: opens, CPU of the page",
                median(cpus),
                "s",
                1 if name == "scan" else None,
                f"wall {median(walls):.2f}",
            )
        browser.close()
    sys.stdout.write("sae-dashboard stands beside a scan's pages in benchmarks/studio_peers.py.\n")
    if budgets.over:
        raise SystemExit(f"Over budget: {', '.join(budgets.over)}.")


if __name__ == "__main__":
    main()
