"""Every architecture on one world whose truth is known: what each finds, beside what it leaves unexplained.

    python benchmarks/architectures.py            writes benchmarks/results/architectures-<date>.json
    python benchmarks/architectures.py --pages    and what is in it into docs/architectures

A run that is in the file is not made again, so what was interrupted goes on.

The world is x = W f with n = 256 random unit directions in d = 64 dimensions, k = 4 features on in each row, each
uniform in size. Each architecture trains with 512 latents on the same batches. Figures are of 8 192 rows not trained
on, each row encoded by itself. Cosines of AbsTopK count without sign, since its latents have two. The coefficients of
penalised architectures were chosen by a glance at one seed, not tuned.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import re
import time
from pathlib import Path

import torch

from superscope import dictionaries as learners
from superscope.dictionaries import SAE, train
from superscope.worlds import presets

SETTINGS: dict[str, dict] = {
    "TopK": {"k": 4},
    "BatchTopK": {"k": 4},
    "Matryoshka": {"k": 4},
    "JumpReLU": {"k": 4},
    "AbsTopK": {"k": 4},
    "MatchingPursuit": {"k": 4},
    "InterferencePenalised": {"k": 4},
    "Archetypal": {"k": 4, "candidates": 500},
    "ReLU": {"coefficient": 3.0},
    "ReLU, norm-weighted": {"coefficient": 3.0, "norm": "weighted"},
    "Gated": {"coefficient": 3.0},
    "PAnnealed": {"coefficient": 2.0},
}


def figures(sae: SAE, world, rows: int = 8192) -> dict[str, float]:
    """MMCS, fraction of variance unexplained, L0 and dead latents on rows not trained on."""
    given = next(world.batches(rows, seed=10_007))
    with torch.no_grad():
        code, x_hat = sae.encode(given.x), sae(given.x)
    found = sae.dictionary.atoms / sae.dictionary.norms.clamp(min=1e-12)[:, None]
    cosines = world.dictionary.unit().atoms @ found.T
    cosines = (cosines.abs() if isinstance(sae, learners.sae.AbsTopK) else cosines).amax(1)
    error, spread = (given.x - x_hat).double(), (given.x - given.x.mean(0)).double()
    return {
        "mmcs": float(cosines.mean()),
        "found": float((cosines > 0.9).double().mean()),
        "fraction_variance_unexplained": float(error.square().sum() / spread.square().sum()),
        "l0": float(code.l0.double().mean()),
        "dead": int((~code.support.any(0)).sum()),
    }


DOCS = Path(__file__).parents[1] / "docs" / "architectures"
COLUMNS = {"mmcs": 3, "fraction_variance_unexplained": 3, "l0": 1, "dead": 0}
MEASURED = """## Measured

On n = 256 features in d = 64 dimensions, k = 4 on in each row, 512 latents; 600 steps of 512 rows,
lr 0.003; mean (range) over 3 seeds on 8 192 rows not trained on.
Chance for MMCS here is 0.37. `python benchmarks/architectures.py` makes these figures.

| | MMCS | fraction of variance unexplained | L0 | silent latents of 512 |
|---|--:|--:|--:|--:|
"""


def cells(runs: list[dict]) -> str:
    """Mean and range of each column."""
    found = []
    for column, digits in COLUMNS.items():
        values = [run[column] for run in runs]
        mean, low, high = (f"{value:.{digits}f}" for value in (sum(values) / len(values), min(values), max(values)))
        found.append(f"{mean} ({low} to {high})")
    return " | ".join(found)


def table(text: str, start: int) -> tuple[int, int]:
    """Where the first table after `start` begins and ends."""
    match = re.compile(r"(^\|.*\n)+", re.MULTILINE).search(text, start)
    assert match is not None
    return match.span()


def write_pages(rows: list[dict], seeds: int) -> None:
    """Each architecture's table into its page, and all of them into the index; only those with every seed."""
    whole = {name: [row for row in rows if row["architecture"] == name] for name in SETTINGS}
    whole = {name: runs for name, runs in whole.items() if len(runs) == seeds}
    lines: dict[str, str] = {}
    for name, runs in whole.items():
        settings = ", ".join(f"{key} = {value}" for key, value in SETTINGS[name].items())
        owner = name.split(",")[0]
        lines[owner] = lines.get(owner, "") + f"| {settings} | {cells(runs)} |\n"
    for name, line in lines.items():
        (page,) = [each for each in DOCS.glob("*.md") if each.read_text().splitlines()[0] == f"# {name}"]
        text = page.read_text()
        if "## Measured" in text:
            first = text.index("## Measured")
            # Some pages have a table of their own before the measured one.
            past = table(text, text.index("| | MMCS", first) - 1)[1]
            text = text[:first] + MEASURED + line + text[past:]
        else:
            at = text.index("## Source")
            short = "\nA short training: it ranks how fast each finds the truth, not where it ends.\n\n"
            text = text[:at] + MEASURED + line + short + text[at:]
        page.write_text(text)
    index = DOCS / "index.md"
    text = index.read_text()
    first, past = table(text, text.index("| architecture | MMCS") - 1)
    order = sorted(whole, key=lambda name: -sum(run["mmcs"] for run in whole[name]))
    head = "".join(text[first:past].splitlines(keepends=True)[:2])
    text = text[:first] + head + "".join(f"| {name} | {cells(whole[name])} |\n" for name in order) + text[past:]
    if set(whole) == set(SETTINGS) and "Not yet run" in text:
        text = text[: text.index("Not yet run")] + text[text.index("These are short trainings") :]
    index.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(SETTINGS))
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--pages", action="store_true", help="write the tables into docs/architectures")
    given = parser.parse_args()
    out = given.out or Path(__file__).parent / "results" / f"architectures-{datetime.date.today()}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    rows = json.loads(out.read_text())["runs"] if out.exists() else []
    for name in given.only:
        settings = SETTINGS[name]
        for seed in range(given.seeds):
            if any((row["architecture"], row["seed"]) == (name, seed) for row in rows):
                continue
            world = presets.exactly_k(n=256, d=64, k=4, seed=seed)
            sae = getattr(learners, name.split(",")[0])(d=64, n=512, seed=seed, **settings)
            began = time.process_time()
            # Half of these latents have nothing to find: woken early they only disturb the others.
            for _ in train(sae, world, steps=given.steps, batch=given.batch, lr=3e-3, seed=seed, dead_after=50_000):
                pass
            cpu = round(time.process_time() - began, 1)
            rows.append({"architecture": name, **settings, "seed": seed, **figures(sae, world), "cpu_seconds": cpu})
            print(json.dumps(rows[-1]), flush=True)
            about = {
                "torch": torch.__version__,
                "machine": platform.machine(),
                "threads": 1,
                "steps": given.steps,
                "batch": given.batch,
                "rows_measured": 8192,
            }
            out.write_text(json.dumps({"about": about, "runs": rows}, indent=1) + "\n")
    if given.pages:
        write_pages(rows, given.seeds)


if __name__ == "__main__":
    main()
