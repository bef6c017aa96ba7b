"""Writing a harvest's units, hashed, flushed to the disk and committed, beside bare safetensors files of the same rows.

    python benchmarks/store_writing.py [--small]

CPU seconds of one thread; both flush each file to the disk. What is called quality is bytes on disk per byte of rows.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import safetensors.torch
import torch
from timing import Contest, environment

from superscope.capture import Manifest, Store
from superscope.capture.places import preferred_hash


def main() -> None:
    """Prints the table and writes it beside this file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, d, units = (4096, 256, 3) if options.small else (65_536, 768, 4)
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
        sequences=units,
        per_unit=1,
        batch_tokens=1,
        hashed=preferred_hash(),
    )

    def ours() -> Path:
        store = Store.create(folder / "ours", manifest)
        for unit in range(units):
            store.write(unit, {"x": x, "origin": origin})
        return folder / "ours"

    def bare() -> Path:
        (folder / "bare").mkdir(exist_ok=True)
        for unit in range(units):
            file = folder / "bare" / f"{unit}.safetensors"
            safetensors.torch.save_file({"x": x, "origin": origin}, file)
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())
        return folder / "bare"

    def overhead(where: Path) -> float:
        return sum(file.stat().st_size for file in where.rglob("*") if file.is_file()) / (units * rows * (2 * d + 20))

    trial = Contest(3 if options.small else 9)
    trial.add("superscope", units * rows, ours, overhead)
    trial.add("bare safetensors", units * rows, bare, overhead)
    text = f"{environment()}, {units} units of {rows} x {d}, hashed by {preferred_hash()}\n"
    text += trial.run().table(("superscope", "bare safetensors"))
    shutil.rmtree(folder)
    print(text)
    if not options.small:
        with Path(__file__).with_name("capture_results.md").open("a") as file:
            file.write(f"\n```\n{text}\n```\n")


if __name__ == "__main__":
    main()
