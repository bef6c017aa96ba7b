"""What does a scan find in a real language model? Runs it, and writes its figures and pictures into docs/real-model.md.

    .venv/bin/python scripts/real_scan.py                          # the scan that the page shows, and the page
    .venv/bin/python scripts/real_scan.py --seeds 5 --steps 1000   # with other settings
    .venv/bin/python scripts/real_scan.py --run runs/real-model    # the page alone, of a run that is there

An interrupted scan goes on where it was. No number in the page's figures is typed. Needs Chromium for the pictures.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from superscope.cli import main
from superscope.core import Measurement, Report, files

REPOSITORY = Path(__file__).parent.parent
PAGE = REPOSITORY / "docs" / "real-model.md"
IMAGES = REPOSITORY / "docs" / "images"
MODEL = "models/smollm2-135m-instruct"
RUN = "runs/real-model"
SCAN = (
    *("--sites", "resid_post.7", "resid_post.15", "resid_post.22", "--control"),
    *("--tokens", "40000", "--held-out", "5000", "--n", "2304", "--k", "32", "--steps", "300"),
)
"""Some fifteen minutes on two idle cores."""
SHOWN = 8
"""Latents of each site in the page."""
WIDTH = 1000
COLOURS = 128
"""Of a picture: the pages have few, and a palette makes files a third as large."""
MARGIN = 16


def figures(report: Report) -> str:
    """The tables of the page, as Markdown."""
    settings, made = report.settings, report.environment
    sites = list(dict.fromkeys(report.tables["sites"]["site"]))
    found = {(m.name, m.at.get("site"), m.at.get("model")): m for m in report}
    head = (
        f"Scanned on {str(made['created'])[:10]} with superscope {made['superscope']}, transformers "
        f"{made['transformers']}, torch {made['torch']}: {found['tokens', sites[0], 'trained'].value:,.0f} tokens to "
        f"learn from, {found['fraction_variance_unexplained', sites[0], 'trained'].n:,} held out, windows of "
        f"{settings['context']}; {settings['seeds']} dictionaries a site, n = {settings['n']:,}, k = {settings['k']}, "
        f"{settings['steps']} steps of {settings['batch']:,} rows; {made['seconds'] / 60:,.0f} minutes. Intervals: "
        "95 % bootstrap over documents."
    )
    rows = ["| block | | dimensions in use | unexplained variance | cross entropy recovered | recurring | by chance |"]
    rows += ["|--:|---|--:|--:|--:|--:|--:|"]
    for site in sites:
        for model in ("trained", "control"):
            cells = [
                shown(found.get((name, site, model)), digits)
                for name, digits in (
                    ("participation_ratio", 1),
                    ("fraction_variance_unexplained", 3),
                    ("cross_entropy_recovered", 3),
                )
            ]
            recurring = found["recurring_features", site, model]
            cells += [f"{recurring.value:,.0f}", f"{recurring.chance:,.0f}"]
            rows.append(f"| {site.rpartition('.')[2]} | {model} | {' | '.join(cells)} |")
    said = "\n".join(f"- {sentence}" for sentence in report.findings)
    parts = [head, "\n".join(rows), "In the report's own words:\n\n" + said]
    parts += [latents(report, site) for site in sites]
    return "\n\n".join(parts)


def shown(m: Measurement | None, digits: int) -> str:
    """A value with its interval; a dash where there is none, or none that can be relied on."""
    if m is None or m.value is None or m.caution:
        return "–"
    between = "" if m.low is None else f" [{m.low:,.{digits}f}, {m.high:,.{digits}f}]"
    return f"{m.value:,.{digits}f}{between}"


def latents(report: Report, site: str) -> str:
    """The clearest of what every seed found at a site, one for each strongest token."""
    table, contexts = report.tables["latents"], report.tables["contexts"]
    strongest: dict[int, tuple[str, str]] = {}
    for row, rank in enumerate(contexts["rank"]):
        if rank == 0 and (contexts["site"][row], contexts["model"][row]) == (site, "trained"):
            tokens, activations = contexts["tokens"][row], contexts["activations"][row]
            at = max(range(len(tokens)), key=activations.__getitem__)
            around = [cell(token) for token in tokens[max(at - 7, 0) : at + 4]]
            middle = min(at, 7)
            around[middle] = f"**{around[middle].strip()}**" if around[middle].strip() else "**␣**"
            strongest[contexts["latent"][row]] = ("".join(around).strip(), contexts["document"][row])
    rows = ["| latent | found by | density | clarity | mostly on | promotes | strongest context |"]
    rows += ["|--:|--:|--:|--:|---|---|---|"]
    tokens_shown: set[str] = set()
    for row, latent in enumerate(table["latent"]):
        if (table["site"][row], table["model"][row]) != (site, "trained") or len(tokens_shown) == SHOWN:
            continue
        top = [word.strip().lower() for word in table["top_tokens"][row][:3]]
        # White space is what code is full of: one latent for it is enough.
        word = top[0] if top else ""
        if word in tokens_shown or latent not in strongest:
            continue
        tokens_shown.add(word)
        context, document = strongest[latent]
        cells = [
            f"{latent}",
            f"{table['recurs'][row]} of {report.settings['seeds']}",
            f"{table['density'][row]:.2%}",
            f"{table['clarity'][row]:.2f}",
            " ".join(f"`{code(token)}`" for token in table["top_tokens"][row][:3]),
            " ".join(f"`{code(token)}`" for token in table["promotes"][row][:4]),
            f"{context} ({document.rpartition('/')[2]})",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return f"Behind block {site.rpartition('.')[2]}:\n\n" + "\n".join(rows)


def code(token: str) -> str:
    """A token inside back quotes, inside a table."""
    return re.sub(r"\s*\n\s*", "↵", token).replace("`", "´").replace("|", "¦") or "␣"


def cell(text: str) -> str:
    """Text inside a table, none of it markup."""
    return re.sub(r"([\\`*_{}\[\]()#+!<>~$|])", r"\\\1", re.sub(r"\s*\n\s*", "↵", text))


def pictures(run: Path, site: str) -> None:
    """Parts of the report's page as it is seen, opened at `site`."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium-headless-shell") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 900})
        page.set_default_timeout(120_000)
        page.goto(f"{(run / 'report.html').absolute().as_uri()}#/overview?site={site}")
        page.locator('[data-view="report"]').wait_for()
        page.wait_for_function("() => !document.querySelector('[data-state=\"loading\"]')")
        # What sticks to the window's edge would lie over what is photographed.
        page.evaluate(
            "() => document.querySelectorAll('*').forEach(e => "
            "{ if (getComputedStyle(e).position === 'sticky') e.style.position = 'static' })"
        )
        take(page, "overview", most=948)
        take(page, "superposition", most=600)
        take(page, "features", most=760)
        browser.close()


def take(page: Page, view: str, most: int) -> None:
    """The first `most` pixels of a section, as a small file."""
    box = page.locator(f'section[data-view="{view}"]').first.bounding_box()
    assert box is not None
    # A box counts from the window, a picture of the whole page from its head.
    clip = {
        "x": box["x"] - MARGIN,
        "y": box["y"] + page.evaluate("() => window.scrollY") - MARGIN,
        "width": box["width"] + 2 * MARGIN,
        "height": min(most, box["height"]) + 2 * MARGIN,
    }
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True, clip=clip))).convert("RGB")
    with files.atomic(IMAGES / f"real-{view}.png") as temporary:
        picture.quantize(COLOURS).save(temporary, format="PNG", optimize=True)


def write(report: Report) -> None:
    """The figures, between the marks of the page."""
    begin, end = "<!-- figures: written by scripts/real_scan.py -->", "<!-- end of figures -->"
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(begin)
    _, mark, after = rest.partition(end)
    assert mark, f"{PAGE} has no marks between which figures belong"
    files.write_text(PAGE, f"{before}{begin}\n\n{figures(report)}\n\n{end}{after}")


def run(arguments: list[str]) -> int:
    if arguments[:1] == ["--run"]:
        folder = Path(arguments[1])
    else:
        subprocess.run([REPOSITORY / "scripts" / "real-model"], check=True)
        folder = Path(RUN)
        code = main(["scan", MODEL, *SCAN, *arguments, "--out", str(folder)])
        if code:
            return code
    report: Any = Report.load(folder)
    write(report)
    sites = list(dict.fromkeys(report.tables["sites"]["site"]))
    pictures(folder, sites[len(sites) // 2])
    print(f"{PAGE.relative_to(REPOSITORY)} and docs/images are those of {folder}.")
    return 0


if __name__ == "__main__":
    os.chdir(REPOSITORY)
    sys.exit(run(sys.argv[1:]))
