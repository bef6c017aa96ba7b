"""Makes the runs that travel in the package, which `superscope studio` shows as examples: superscope/studio/examples/.

`python scripts/studio_runs.py` makes those that are missing; remove a folder to make it anew. A minute or two each.
The calibration takes most of a night: `python scripts/studio_runs.py FOLDER` takes it from the run folder of a
`superscope calibrate`, finished or not.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow

from superscope.core import Report, files
from superscope.studies import (
    Ablate,
    Bench,
    Bounds,
    Collateral,
    Compare,
    Compress,
    Domains,
    Maximise,
    Perturb,
    PhaseDiagram,
    Populations,
    Scale,
    Scan,
    Spare,
    Sycophancy,
    ToySweep,
    Train,
)
from superscope.studies.counting.calibrate import summary
from superscope.studies.study import Study

ROOT = Path(__file__).resolve().parents[1]
# Paths stand in settings, and are to mean the same for everyone.
FOLDER = Path("superscope", "studio", "examples")
POCKET = {"source": "pocket", "site": "resid_post.1", "tokens": 60_000, "held_out": 8_000, "k": 12, "steps": 300}
WORLD = {"source": "world:hierarchy", "world": ("n=32", "d=16", "l0=2", "roots=1"), "k": 2}
WORLD |= {"steps": 800, "batch": 256, "lr": 0.003, "held_out": 8000}
BRIEF = {"tokens": 20_000, "held_out": 4_000, "n": 256, "k": 12, "steps": 80, "seeds": 2}
"""Of studies of networks that train a dictionary at several places."""
SMALL_WORLD = {"source": "world:toy_networks", "world": ("n=24", "d=12", "steps=400")}
SCANNED = "saes/trained/transformer.h.1/seed0"
RUNS: dict[str, Study] = {
    "toy": ToySweep(n=5, d=2, densities=(1.0, 0.3, 0.1, 0.03), seeds=(0, 1, 2), importance=0.9, record=60, steps=4000),
    "toy-3d": ToySweep(n=9, d=3, densities=(0.3, 0.1, 0.03), seeds=(0, 1), record=60, steps=6000),
    "phase": PhaseDiagram(size=40, restarts=6, steps=400),
    "bounds": Bounds(n=512, d=64, k=4),
    "scan": Scan(
        tokens=60_000, held_out=10_000, n=384, k=12, seeds=2, steps=300,
        sites=("transformer.h.1", "transformer.h.3.mlp.c_proj:in"),
    ),
    "pocket-sae": Train(**POCKET, n=192, batch=1024),
    "world-sae": Train(**WORLD, n=32),
    "world-sae-wide": Train(**WORLD, n=64),
    "compare": Compare((str(FOLDER / "scan" / SCANNED), str(FOLDER / "pocket-sae")), tokens=1500),
    "compare-world": Compare((str(FOLDER / "world-sae"), str(FOLDER / "world-sae-wide")), rows=8000),
    "bench": Bench(targets=("errors",), dictionary=str(FOLDER / "pocket-sae"), prompts=("The", "If the file")),
    "spare": Spare(
        ("uniform:n=48,d=24,l0=2.5", "zipf:n=48,d=24,l0=2.5", "zipf:n=96,d=24,l0=2.5,alpha=1.2",
         "copula:n=48,d=24,l0=2.5", "hierarchy:n=48,d=24,l0=2.5"), features=4, rows=8000,
    ),
    "domains": Domains(sites=("resid_post.1",), **BRIEF),
    "scale": Scale(widths=(8, 12, 16, 24, 32), layers=1, tokens=20_000, held_out=4_000, n=96, k=6, steps=60),
    "maximise": Maximise(tokens=10_000),
    "populations": Populations(rows=300, maps=("pca", "flat")),
    "ablate": Ablate(tokens=1000, metered=300, controls=2),
    "sycophancy": Sycophancy(items=160, layers=(1, 2), choosing=60, reporting=100, other=4, controls=4),
    "compress": Compress(**SMALL_WORLD, features=24),
    "perturb": Perturb(**SMALL_WORLD, directions=16, windows=8),
    "collateral": Collateral(**SMALL_WORLD, controls=4),
}  # fmt: skip

DICTIONARIES = {"scan": (SCANNED,)}
"""Those that travel with their run, so that a text of one's own can be read with them: under 0.6 MB each."""


def smaller(report: Report) -> Report:
    """The report with numbers of five digits in its tables and of three in their lists, at single precision: a page
    shows no more, and they take half the room."""

    def rounded(cell: Any, digits: int) -> Any:
        if isinstance(cell, list):
            return [rounded(each, 3) for each in cell]
        return float(f"{cell:.{digits}g}") if isinstance(cell, float) else cell

    def column(cells: Sequence[Any]) -> pyarrow.Array:
        kind = (whole := pyarrow.array(cells)).type
        inner = kind.value_type if pyarrow.types.is_list(kind) else kind
        if not pyarrow.types.is_float64(inner):
            return whole
        single = pyarrow.float32() if inner is kind else pyarrow.list_(pyarrow.float32())
        return pyarrow.array([rounded(cell, 5) for cell in cells], single)

    tables = {name: {key: column(cells) for key, cells in table.items()} for name, table in report.tables.items()}
    return dataclasses.replace(report, tables=tables)


def calibrated(folder: Path) -> Report:
    """What a calibration has counted so far."""
    about = files.read_json(folder / "about.json")
    worlds = [files.read_json(folder / name) for name in about["files"] if name.startswith("worlds/")]
    answer = summary(worlds)
    return Report(
        title=answer.title,
        kind="calibrate",
        measurements=tuple(answer.findings.measurements),
        settings=about["settings"],
        environment=about["environment"]
        | {"created": about["created"], "finished": about["finished"] or about["created"]},
        tables=answer.findings.tables,
        findings=tuple(answer.sentences),
    )


def size_of(folder: Path) -> int:
    """Bytes of its files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    os.chdir(ROOT)
    if len(sys.argv) > 1 and not (FOLDER / "calibration").exists():
        smaller(calibrated(Path(sys.argv[1]))).save(FOLDER / "calibration")
    for name, study in RUNS.items():
        folder = FOLDER / name
        if (folder / "about.json").is_file():
            continue
        began = time.monotonic()
        # A training is its dictionary.
        if isinstance(study, Train):
            study.run(folder)
            continue
        with tempfile.TemporaryDirectory() as place:
            # Saved by its report, a run has no files that only a study going on would read.
            smaller(study.run(Path(place) / "run")).save(folder)
            for kept in DICTIONARIES.get(name, ()):
                shutil.copytree(Path(place) / "run" / kept, folder / kept, ignore=shutil.ignore_patterns("training.*"))
        sys.stdout.write(f"{name}: {time.monotonic() - began:.0f} s, {size_of(folder) / 1e3:.0f} kB\n")
    sys.stdout.write(f"{size_of(FOLDER) / 1e6:.2f} MB\n")


if __name__ == "__main__":
    main()
