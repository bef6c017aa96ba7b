"""Writing a harvest's units, hashed, flushed to the disk and committed, beside bare safetensors files of the same rows.

    python benchmarks/store_writing.py [--small] [--short]

CPU seconds of one thread, and the clock, which the disk decides. Both write each file beside its place, flush it to the
disk, rename it and flush the folder before the next; ours writes its record in the same way. What is called quality is
bytes on disk per byte of rows. Then what writing takes of a whole harvest: the pocket model's, with and without it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from results import claim
from timing import Contest, environment

from superscope import capture
from superscope.capture import Manifest, Store
from superscope.capture.store.fill import make_unit
from superscope.capture.store.places import preferred_hash


def flush(path: Path) -> None:
    """Waits until a file, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def harvests(rounds: int, tokens: int) -> str:
    """Seconds of filling a store from the pocket model by the clock, beside the same with nothing written."""
    loaded = capture.load("pocket")
    folder = Path(tempfile.mkdtemp())
    policy, sites = capture.Policy(), ["resid_post.0", "resid_post.1"]
    made = capture.write_windows(
        capture.place(folder),
        loaded.tokenizer,
        capture.stream(None, seed=0),
        policy,
        source="the text that Python carries",
        tokenizer_hash=capture.tokenizer_hash(loaded.tokenizer),
        limit=tokens,
    )
    tokens = list(made)[-1]
    windows = capture.Windows(capture.place(folder))
    store = capture.prepare(folder, loaded, sites, windows, policy, per_unit=64)
    seconds: dict[str, list[float]] = {"written": [], "not written": []}
    with torch.no_grad():
        for _ in range(rounds):
            start = time.perf_counter()
            for unit in range(store.manifest.n_units):
                make_unit(store, loaded, windows, unit)
            seconds["not written"].append(time.perf_counter() - start)
            shutil.rmtree(folder / "units", ignore_errors=True)
            start = time.perf_counter()
            list(capture.fill(store, loaded, windows))
            seconds["written"].append(time.perf_counter() - start)
    shutil.rmtree(folder)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    return (
        f"harvest of {tokens:,} tokens of the pocket model at two sites, {store.manifest.n_units} units, by the clock: "
        + ", ".join(f"{name} {median:.2f} s" for name, median in medians.items())
        + f", {medians['not written'] / medians['written']:.3f} x"
    )


def main() -> None:
    """Prints the table and writes it beside this file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--short", action="store_true", help="fewer rounds; printed only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, d = (4096, 256) if options.small else (65_536, 768)
    x = torch.randn(rows, d).bfloat16()
    origin = torch.zeros(rows, 5, dtype=torch.int32)
    folder = Path(tempfile.mkdtemp())
    manifest = Manifest(
        model="none",
        weights="",
        tokenizer="",
        attention="",
        sites={"x": {"site": "x", "d": d}},
        dtype="bfloat16",
        computed="float32",
        policy={},
        text="",
        seed=0,
        sequences=4,
        per_unit=1,
        batch_tokens=1,
        hashed=preferred_hash(),
    )

    store = Store.create(folder / "ours", manifest)
    mine, theirs = itertools.count(), itertools.count()

    def ours() -> Path:
        store.write(next(mine) % 4, {"x": x, "origin": origin})
        return folder / "ours"

    def bare() -> Path:
        (folder / "bare").mkdir(exist_ok=True)
        file = folder / "bare" / f"{next(theirs) % 4}.safetensors"
        first = file.with_suffix(".new")
        safetensors.torch.save_file({"x": x, "origin": origin}, first)
        flush(first)
        first.replace(file)
        flush(file.parent)
        return folder / "bare"

    def overhead(where: Path) -> float:
        return sum(file.stat().st_size for file in where.rglob("*") if file.is_file()) / (4 * rows * (2 * d + 20))

    waited: dict[str, list[float]] = {"superscope": [], "bare safetensors": []}

    def clocked(name: str, work: Callable[[], Path]) -> Callable[[], Path]:
        def timed() -> Path:
            start = time.perf_counter()
            where = work()
            waited[name].append(time.perf_counter() - start)
            return where

        return timed

    trial = Contest(9 if options.small or options.short else 60)
    trial.add("superscope", rows, clocked("superscope", ours), overhead)
    trial.add("bare safetensors", rows, clocked("bare safetensors", bare), overhead)
    text = f"{environment()}, units of {rows} x {d}, hashed by {preferred_hash()}\n"
    text += trial.run().table(("superscope", "bare safetensors"))
    size = rows * (2 * d + 20) / 1e6
    rates = {name: size / statistics.median(seconds[4:]) for name, seconds in waited.items()}
    text += "\nby the clock: " + ", ".join(f"{name} {rate:.0f} MB/s" for name, rate in rates.items())
    clock = rates["superscope"] / rates["bare safetensors"]
    text += f", {clock:.2f} x"
    shutil.rmtree(folder)
    text += f"\n\n{harvests(7 if not (options.small or options.short) else 3, 4_000 if options.small else 60_000)}"
    print(text)
    claim(
        "writing a store",
        "bare safetensors files, flushed and renamed alike",
        f"{trial.ratio('superscope', 'bare safetensors')}; by the clock {clock:.2f}",
        f"{trial.quality('superscope'):.4f} and {trial.quality('bare safetensors'):.4f} bytes on disk a byte of rows",
        "safetensors",
    )
    if not (options.small or options.short):
        with Path(__file__).with_name("capture_results.md").open("a") as file:
            file.write(f"\n```\n{text}\n```\n")


if __name__ == "__main__":
    main()
