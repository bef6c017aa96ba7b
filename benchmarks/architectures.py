"""Every architecture on one world whose truth is known: what each finds, beside what it leaves unexplained.

    python benchmarks/architectures.py            writes benchmarks/architectures_results.json
    python benchmarks/architectures.py --pages    and what is in it into docs/architectures

A run that is in the file is not made again, so what was interrupted goes on; strike runs out to make them anew.

The world is x = W f with n = 256 random unit directions in d = 64 dimensions, k = 4 features on in each row, each
uniform in size. Each architecture trains with 512 latents on the same batches. Figures are of 8 192 rows not trained
on, each row encoded by itself. Cosines of AbsTopK count without sign, since its latents have two. The coefficients of
penalised architectures were chosen by a glance at one seed, not tuned.

Transcoders see x and predict t = V f, the same f along 256 other random directions in 64 dimensions. The crosscoder
sees two sites of 64 dimensions, where 64 features live at the first alone, 64 at the second alone and 128 at both,
along directions that have nothing to do with each other.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from timing import environment

from superscope import dictionaries as learners
from superscope.core import ActivationSource, Dictionary
from superscope.dictionaries import SAE, train
from superscope.dictionaries.transcoders import Paired
from superscope.frames import random_unit
from superscope.worlds import World, presets

SETTINGS: dict[str, dict] = {
    "TopK": {"k": 4},
    "BatchTopK": {"k": 4},
    "Matryoshka": {"k": 4},
    "Matryoshka, emphasis 0": {"k": 4, "emphasis": 0.0},
    "JumpReLU": {"k": 4},
    "AbsTopK": {"k": 4},
    "MatchingPursuit": {"k": 4},
    "InterferencePenalised": {"k": 4},
    "Archetypal": {"k": 4, "candidates": 500},
    "ReLU": {"coefficient": 3.0},
    "ReLU, norm-weighted": {"coefficient": 3.0, "norm": "weighted"},
    "Gated": {"coefficient": 3.0},
    "PAnnealed": {"coefficient": 2.0},
    "Transcoder": {"k": 4, "d_out": 64},
    "SkipTranscoder": {"k": 4, "d_out": 64},
    "Crosscoder": {"k": 4, "widths": (64, 64)},
}


def unexplained(t: torch.Tensor, t_hat: torch.Tensor) -> float:
    return float((t - t_hat).double().square().sum() / (t - t.mean(0)).double().square().sum())


@torch.no_grad()
def figures(sae: SAE, source: ActivationSource, truth: Dictionary, rows: int = 8192) -> dict[str, float]:
    """MMCS, fraction of variance unexplained, L0 and dead latents on rows not trained on."""
    given = next(source.batches(rows, seed=10_007))
    target = given.x if given.target is None else given.target
    code = sae.encode(given.x)
    cosines = truth.unit().atoms @ sae.dictionary.unit().atoms.T
    cosines = (cosines.abs() if isinstance(sae, learners.sae.AbsTopK) else cosines).amax(1)
    return {
        "mmcs": float(cosines.mean()),
        "found": float((cosines > 0.9).double().mean()),
        "fraction_variance_unexplained": unexplained(target, sae(given.x)),
        "l0": float(code.l0.double().mean()),
        "dead": int((~code.support.any(0)).sum()),
    }


def one_world(seed: int) -> tuple[ActivationSource, Dictionary]:
    world = presets.exactly_k(n=256, d=64, k=4, seed=seed)
    return world, world.dictionary


def module_world(seed: int) -> tuple[ActivationSource, Dictionary]:
    """x = W f and t = V f."""
    world = presets.exactly_k(n=256, d=64, k=4, seed=seed)
    written = replace(world, dictionary=random_unit(n=256, d=64, seed=seed + 1000))
    return Paired(world, written), written.dictionary


def two_sites(seed: int) -> tuple[ActivationSource, Dictionary]:
    """Features 0 to 63 at the first site alone, 64 to 127 at the second, the others at both."""
    sites = [random_unit(n=256, d=64, seed=seed + shift).atoms.clone() for shift in (0, 1000)]
    sites[0][64:128], sites[1][:64] = 0, 0
    world = World(presets.exactly_k(n=256, d=64, k=4).features, Dictionary(torch.cat(sites, 1)))
    return world, world.dictionary


@torch.no_grad()
def of_module(sae: Any, source: Any, truth: Dictionary) -> dict[str, float]:
    """Do atoms say what the skip S leaves, V - S W, and do the latents that write it read the feature?"""
    read = source.source.dictionary.atoms
    left = truth.atoms - (sae.gain * read @ sae.skip.T if isinstance(sae, learners.SkipTranscoder) else 0)
    cosines = Dictionary(left).unit().atoms @ sae.dictionary.unit().atoms.T
    reads = torch.nn.functional.cosine_similarity(read, sae.encoder[cosines.argmax(1)])
    return {"left": float(cosines.amax(1).mean()), "reads": float(reads.mean())}


@torch.no_grad()
def of_sites(sae: Any, source: Any, truth: Dictionary) -> dict[str, float]:
    """Of how many features does the nearest atom live where they do: at one site, at the other, at both?"""
    nearest = (truth.unit().atoms @ sae.dictionary.unit().atoms.T).argmax(1)
    where = sae.relative_norm(0, 1)[nearest]
    wanted = torch.tensor([0.0] * 64 + [1.0] * 64 + [0.5] * 128)
    return {"told": float(((where - wanted).abs() < 0.1).double().mean()), "off": float((where - wanted).abs().mean())}


MORE: dict[str, tuple[Callable, Callable | None]] = {
    "Transcoder": (module_world, of_module),
    "SkipTranscoder": (module_world, of_module),
    "Crosscoder": (two_sites, of_sites),
}
"""Those that want another world: the world, and figures of their own."""


DOCS = Path(__file__).parents[1] / "docs" / "architectures"
COLUMNS = {"mmcs": 3, "fraction_variance_unexplained": 3, "l0": 1, "dead": 0}
HEADS = {
    "mmcs": "MMCS",
    "fraction_variance_unexplained": "fraction of variance unexplained",
    "l0": "L0",
    "dead": "silent latents of 512",
    "reads": "cosine of what they read",
    "left": "MMCS with V - S W",
    "told": "features told right",
    "off": "relative norm off by",
}
TRAINED = """512 latents; 600 steps of 512 rows,
lr 0.003; mean (range) over 3 seeds on 8 192 rows not trained on.
"""
WORLD = f"""On n = 256 features in d = 64 dimensions, k = 4 on in each row, {TRAINED}Chance for MMCS here is 0.37. \
`python benchmarks/architectures.py` makes these figures.
"""
MODULE = f"""On x = W f and t = V f: n = 256 features along random directions in 64 dimensions on both sides, k = 4 on
in each row, {TRAINED}MMCS is of the atoms with V (chance 0.37), and with V - S W, what the
skip S leaves to them; *what they read* is the cosine of w_i with the encoder row of the latent nearest to
v_i - S w_i (chance 0).
`python benchmarks/architectures.py` makes these figures.
"""
SITES = f"""On two sites of 64 dimensions: 64 features live at the first alone, 64 at the second alone, 128 at both
along unrelated directions; k = 4 on in each row, {TRAINED}MMCS is over both sites together (chance 0.27).
*Told right*: the relative norm of the nearest atom is within 0.1 of 0, 1/2 or 1, as it should be (chance 0.50,
since random atoms live at both). `python benchmarks/architectures.py` makes these figures.
"""
PAGES = {"transcoder": MODULE, "crosscoder": SITES}


def cells(runs: list[dict], columns: dict[str, int] = COLUMNS) -> str:
    """Mean and range of each column."""
    found = []
    for column, digits in columns.items():
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
    titles = {page: page.read_text().splitlines()[0].removeprefix("# ").split(", ") for page in DOCS.glob("*.md")}
    for page, titled in titles.items():
        mine = {name: runs for name, runs in whole.items() if name.split(",")[0] in titled}
        if not mine:
            continue
        columns = COLUMNS | {column: 3 for runs in mine.values() for column in runs[0] if column in HEADS}
        columns |= COLUMNS
        lines = "| | " + " | ".join(HEADS[column] for column in columns) + " |\n|---|" + "--:|" * len(columns) + "\n"
        for name, runs in mine.items():
            settings = ", ".join(f"{key} = {value}" for key, value in SETTINGS[name].items())
            lines += f"| {settings if len(titled) == 1 else name} | {cells(runs, columns)} |\n"
        measured = f"## Measured\n\n{PAGES.get(page.stem, WORLD)}\n{lines}"
        text = page.read_text()
        if "## Measured" in text:
            first = text.index("## Measured")
            text = text[:first] + measured + text[table(text, first)[1] :]
        else:
            at = text.index("## Source")
            short = "\nA short training: it ranks how fast each finds the truth, not where it ends.\n\n"
            text = text[:at] + measured + short + text[at:]
        page.write_text(text)
    index = DOCS / "index.md"
    text = index.read_text()
    first, past = table(text, text.index("| architecture | MMCS") - 1)
    order = sorted(set(whole) - set(MORE), key=lambda name: -sum(run["mmcs"] for run in whole[name]))
    head = "".join(text[first:past].splitlines(keepends=True)[:2])
    text = text[:first] + head + "".join(f"| {name} | {cells(whole[name])} |\n" for name in order) + text[past:]
    index.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(SETTINGS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "architectures_results.json")
    parser.add_argument("--pages", action="store_true", help="write the tables into docs/architectures")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(given.out.read_text())["runs"] if given.out.exists() else []
    for name in given.only:
        settings = SETTINGS[name]
        world, further = MORE.get(name, (one_world, None))
        for seed in range(given.seeds):
            if any((row["architecture"], row["seed"]) == (name, seed) for row in rows):
                continue
            source, truth = world(seed)
            sae = getattr(learners, name.split(",")[0])(d=source.d, n=512, seed=seed, **settings)
            began = time.process_time()
            # Half of these latents have nothing to find: woken early they only disturb the others.
            for _ in train(sae, source, steps=given.steps, batch=given.batch, lr=3e-3, seed=seed, dead_after=50_000):
                pass
            cpu = round(time.process_time() - began, 1)
            found = figures(sae, source, truth) | (further(sae, source, truth) if further else {})
            rows.append({"architecture": name, **settings, "seed": seed, **found, "cpu_seconds": cpu})
            print(json.dumps(rows[-1]), flush=True)
            about = {"on": environment(), "steps": given.steps, "batch": given.batch, "rows_measured": 8192}
            given.out.write_text(json.dumps({"about": about, "runs": rows}, indent=1) + "\n")
    if given.pages:
        write_pages(rows, given.seeds)


if __name__ == "__main__":
    main()
