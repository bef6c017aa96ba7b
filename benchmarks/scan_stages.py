"""Where does the time of `superscope scan` go? Wall clock and processor seconds of each stage, and what was found.

    python benchmarks/scan_stages.py            # the pocket model at the scan's defaults

Stages of all sites are added up. Results stand dated in scan_stages_results.md.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from pathlib import Path

from superscope.studies import Scan


def main() -> None:
    wall: dict[str, float] = defaultdict(float)
    processor: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as folder:
        stages = Scan().stages(Path(folder) / "run")
        stage, clock, work = "Loading", time.monotonic(), time.process_time()
        while True:
            try:
                step = next(stages)
            except StopIteration as end:
                report = end.value
                break
            # What came before a yield belongs to the stage that it speaks of.
            stage = step.stage.split()[0]
            wall[stage] += time.monotonic() - clock
            processor[stage] += time.process_time() - work
            clock, work = time.monotonic(), time.process_time()
    print("| stage | seconds | processor seconds |\n|---|--:|--:|")
    for name in wall:
        print(f"| {name} | {wall[name]:.1f} | {processor[name]:.1f} |")
    print(f"| all | {sum(wall.values()):.1f} | {sum(processor.values()):.1f} |\n")
    print("| site | unexplained, 3 seeds | recurring | by chance |\n|---|---|--:|--:|")
    for fvu, recurring in zip(
        report["fraction_variance_unexplained_over_seeds"], report["recurring_features"], strict=True
    ):
        print(
            f"| {fvu.at['site']} | {fvu.value:.4f} ({fvu.low:.4f} to {fvu.high:.4f}) | {recurring.value:.0f} "
            f"| {recurring.chance:.1f} |"
        )


if __name__ == "__main__":
    main()
