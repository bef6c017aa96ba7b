"""Makes the runs that travel in the package, which `superscope studio` shows as examples: superscope/studio/examples/.

`python scripts/studio_runs.py` makes those that are missing; remove a folder to make it anew. A minute or two each.
The calibration takes most of a night: `python scripts/studio_runs.py FOLDER` takes it from the run folder of a
`superscope calibrate`, finished or not.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from superscope.core import Report, files
from superscope.studies import Bench, Bounds, Compare, PhaseDiagram, Scan, Spare, ToySweep, Train
from superscope.studies.counting.calibrate import summary
from superscope.studies.study import Study

ROOT = Path(__file__).resolve().parents[1]
# Paths stand in settings, and are to mean the same for everyone.
FOLDER = Path("superscope", "studio", "examples")
POCKET = {"source": "pocket", "site": "resid_post.1", "tokens": 60_000, "held_out": 8_000, "k": 12, "steps": 300}
WORLD = {"source": "world:hierarchy", "world": ("n=32", "d=16", "l0=2", "roots=1"), "k": 2}
WORLD |= {"steps": 800, "batch": 256, "lr": 0.003, "held_out": 8000}
RUNS: dict[str, Study] = {
    "toy": ToySweep(n=5, d=2, densities=(1.0, 0.3, 0.1, 0.03), seeds=(0, 1, 2), importance=0.9, record=60, steps=4000),
    "toy-3d": ToySweep(n=9, d=3, densities=(0.3, 0.1, 0.03), seeds=(0, 1), record=60, steps=6000),
    "phase": PhaseDiagram(size=40, restarts=6, steps=400),
    "bounds": Bounds(n=512, d=64, k=4),
    "scan": Scan(
        tokens=40_000, held_out=10_000, n=240, k=12, seeds=2, steps=150,
        sites=("transformer.h.2", "transformer.h.3.mlp.c_proj:in"),
    ),
    "pocket-sae": Train(**POCKET, n=384, batch=1024),
    "pocket-sae-narrow": Train(**POCKET, n=192, batch=1024),
    "world-sae": Train(**WORLD, n=32),
    "world-sae-wide": Train(**WORLD, n=64),
    "compare": Compare((str(FOLDER / "pocket-sae"), str(FOLDER / "pocket-sae-narrow")), tokens=1500),
    "compare-world": Compare((str(FOLDER / "world-sae"), str(FOLDER / "world-sae-wide")), rows=8000),
    "bench": Bench(targets=("errors",), dictionary=str(FOLDER / "pocket-sae"), prompts=("The", "If the file")),
    "spare": Spare(
        ("uniform:n=48,d=24,l0=2.5", "zipf:n=48,d=24,l0=2.5", "zipf:n=96,d=24,l0=2.5,alpha=1.2",
         "copula:n=48,d=24,l0=2.5", "hierarchy:n=48,d=24,l0=2.5"), features=4, rows=8000,
    ),
}  # fmt: skip

DICTIONARIES = {"scan": ("saes/trained/transformer.h.2/seed0",)}
"""Those that travel with their run, so that a text of one's own can be read with them: under half a megabyte each."""


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


def main() -> None:
    os.chdir(ROOT)
    if len(sys.argv) > 1 and not (FOLDER / "calibration").exists():
        calibrated(Path(sys.argv[1])).save(FOLDER / "calibration")
    for name, study in RUNS.items():
        folder = FOLDER / name
        if (folder / "about.json").is_file():
            continue
        sys.stdout.write(f"{name}\n")
        # A training is its dictionary.
        if isinstance(study, Train):
            study.run(folder)
            continue
        with tempfile.TemporaryDirectory() as place:
            # Saved by its report, a run has no files that only a study going on would read.
            study.run(Path(place) / "run").save(folder)
            for kept in DICTIONARIES.get(name, ()):
                shutil.copytree(Path(place) / "run" / kept, folder / kept, ignore=shutil.ignore_patterns("training.*"))
    size = sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file())
    sys.stdout.write(f"{size / 1e6:.2f} MB\n")


if __name__ == "__main__":
    main()
