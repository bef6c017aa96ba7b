"""Makes the runs that travel in the package, which `superscope studio` shows as examples: superscope/studio/examples/.

`python scripts/studio_runs.py` makes those that are missing; remove a folder to make it anew. A minute or two each.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from superscope.studies import Bounds, PhaseDiagram, Scan, ToySweep
from superscope.studies.study import Study

FOLDER = Path(__file__).resolve().parents[1] / "superscope" / "studio" / "examples"
RUNS: dict[str, Study] = {
    "toy": ToySweep(n=5, d=2, densities=(1.0, 0.3, 0.1, 0.03), seeds=(0, 1, 2), importance=0.9, record=60, steps=4000),
    "toy-3d": ToySweep(n=9, d=3, densities=(0.3, 0.1, 0.03), seeds=(0, 1), record=60, steps=6000),
    "phase": PhaseDiagram(size=40, restarts=6, steps=400),
    "bounds": Bounds(n=512, d=64, k=4),
    "scan": Scan(
        tokens=40_000, held_out=10_000, n=384, k=12, seeds=2, steps=150,
        sites=("transformer.h.2", "transformer.h.3.mlp.c_proj:in"),
    ),
}  # fmt: skip

DICTIONARIES = {"scan": ("saes/trained/transformer.h.2/seed0",)}
"""Those that travel with their run, so that a text of one's own can be read with them: half a megabyte each."""


def main() -> None:
    for name, study in RUNS.items():
        folder = FOLDER / name
        if (folder / "about.json").is_file():
            continue
        sys.stdout.write(f"{name}\n")
        with tempfile.TemporaryDirectory() as place:
            # Saved by its report, a run has no files that only a study going on would read.
            study.run(Path(place) / "run").save(folder)
            for kept in DICTIONARIES.get(name, ()):
                shutil.copytree(Path(place) / "run" / kept, folder / kept, ignore=shutil.ignore_patterns("training.*"))
    size = sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file())
    sys.stdout.write(f"{size / 1e6:.2f} MB\n")


if __name__ == "__main__":
    main()
