"""Makes the pictures of docs/studio.md: the studio on the runs in the package, in both themes and at 400 px.

`python scripts/studio_pictures.py [FOLDER [NAME ...]]` needs Chromium, Playwright, and the front end built; with names
it makes these alone.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import sys
import tempfile
import threading
from pathlib import Path

from playwright.sync_api import sync_playwright

from superscope.studio.server import Place, make_app, server_of

PICTURES = {
    "runs": ("/", "light", 1280),
    "runs-dark": ("/", "dark", 1280),
    "scan": ("/run/@scan", "light", 1280),
    "toy-narrow": ("/run/@toy", "dark", 400),
    "learn-narrow": ("/learn", "light", 400),
    "lesson": ("/learn#/interference", "light", 1280),
    "toy": ("/run/@toy#/toy?instance=2&pick=2", "light", 1280),
    "phase-dark": ("/run/@phase#/phases?cell=620", "dark", 1280),
    "start": ("/start/toy?n=9&d=3&densities=0.1+0.03", "light", 1280),
    "bench": ("/bench", "light", 1280),
    "bench-narrow": ("/bench#/steering?dose=0.25", "dark", 400),
    "compare-dark": ("/compare", "dark", 1280),
    "truth": ("/run/@compare-world#/truth", "light", 1280),
    "calibration-narrow": ("/run/@calibration#/calibration", "light", 400),
    "atlas": ("/run/@scan#/atlas?feature=122", "light", 1280),
    "feature-dark": ("/run/@scan#/features?feature=122", "dark", 1280),
    "neuron-narrow": ("/run/@scan#/neurons?site=transformer.h.3.mlp.c_proj%3Ain&neuron=194", "light", 400),
    "recovery-dark": ("/run/@bounds#/recovery", "dark", 1280),
    "jobs-dark": ("/jobs", "dark", 1280),
}


def main() -> None:
    out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / "docs" / "studio").resolve()
    out.mkdir(parents=True, exist_ok=True)
    wanted = {name: PICTURES[name] for name in sys.argv[2:] or PICTURES}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), sync_playwright() as playwright:
        # By its name from here, so that no picture shows where it was made.
        app = make_app(Place(Path("runs")))
        listening = socket.create_server(("127.0.0.1", 0))
        server = server_of(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        home = f"http://127.0.0.1:{listening.getsockname()[1]}"
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium-headless-shell") or shutil.which("chromium"), args=["--no-sandbox"]
        )
        jobs = [
            ("bounds", {"n": 256, "d": 32}),
            ("toy", {"n": 6, "d": 2, "steps": 1_000_000}),
            ("phase", {"size": 60}),
        ] * any(path == "/jobs" for path, _, _ in wanted.values())
        started = [app.state.jobs.start(study, settings) for study, settings in jobs]
        try:
            for name, (path, scheme, width) in wanted.items():
                context = browser.new_context(
                    color_scheme=scheme,  # type: ignore[arg-type]
                    viewport={"width": width, "height": 860},
                )
                context.set_default_timeout(120_000)
                page = context.new_page()
                page.goto(f"{home}/?token={app.state.token}")
                page.goto(f"{home}{path}")
                if "#" in path:
                    page.reload()  # Sections scroll to where they are once their data has been drawn.
                page.locator("[data-view]").first.wait_for()
                page.wait_for_function("() => !document.querySelector('[data-state=\"loading\"]')")
                if path == "/jobs":
                    page.get_by_text("Training").wait_for()
                    page.locator('[data-job-state="running"] summary').click()
                page.wait_for_timeout(300)
                page.screenshot(path=out / f"{name}.png")
                context.close()
        finally:
            for job in started[::-1]:
                if job.id in {each.id for each in app.state.jobs.all().jobs if each.state in ("queued", "running")}:
                    app.state.jobs.cancel(job.id)
            while any(each.state == "running" for each in app.state.jobs.all().jobs):
                threading.Event().wait(0.2)
            browser.close()
            server.should_exit = True
            thread.join()


if __name__ == "__main__":
    main()
