"""The whole table of the paper's experiments, and the same table in docs/toy-lab.md.

python benchmarks/toys_reproduction.py [--out runs/toy-models]

Stopped, it goes on from the last finished experiment if it is given the same folder again.
"""

from __future__ import annotations

import argparse
import re
import time
from datetime import date
from pathlib import Path

from superscope.studies.toys.reproduce import Reproduce, table

DOCUMENT = Path(__file__).parent.parent / "docs" / "toy-lab.md"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("runs/toy-models"))
    arguments = parser.parse_args()
    clock = time.monotonic()
    report = Reproduce().run(arguments.out)
    columns = report.tables["experiments"]
    judged = [met for met in columns["met"] if met is not None]
    sentence = (
        f"{sum(judged)} of {len(judged)} experiments with a criterion met it; the table took {sum(columns['cpu']):.0f} "
        f"seconds\nof processor time. Run of {date.today().isoformat()}."
    )
    text = DOCUMENT.read_text()
    pattern = re.compile(r"\d+ of \d+ experiments with a criterion met it;.*?(?=\n\n## )", re.DOTALL)
    text, replaced = pattern.subn(lambda _: f"{sentence}\n\n{table(report.tables)}", text)
    if replaced != 1:
        raise SystemExit(
            f"{DOCUMENT} has no place for the table: a sentence 'N of M experiments with a criterion met it;'."
        )
    DOCUMENT.write_text(text)
    print(sentence, f"{time.monotonic() - clock:.0f} seconds on the clock.")


if __name__ == "__main__":
    main()
