"""Does "Toy Models of Superposition" hold up? Every experiment, judged by a criterion stated beforehand."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import tyro

from ...core import Answer, Findings, Measurement, Run, Table, files
from ..study import Progress, Study
from .experiments import EXPERIMENTS, Lab


@dataclass(frozen=True)
class Reproduce(Study):
    """Does the paper's table of experiments hold up?

    Runs E0 to E26 of "Toy Models of Superposition" and says for each whether it met its criterion, with our figures
    beside the paper's claim. With a run folder, finished experiments are kept and not run again after an interruption.
    """

    kind: ClassVar[str] = "reproduce"

    what: Annotated[Literal["toy-models"], tyro.conf.Positional] = "toy-models"
    """What to reproduce."""
    only: tuple[str, ...] = ()
    """Experiments to run, such as E5 E8; all by default."""

    def check(self) -> None:
        if self.what != "toy-models":
            raise ValueError(f"what must be 'toy-models'; got {self.what!r}.")
        for name in self.only:
            if name not in EXPERIMENTS:
                raise ValueError(f"only knows the experiments E0 to E{len(EXPERIMENTS) - 1}; got {name!r}.")

    def answer(self, run: Run) -> Generator[Progress, None, Answer]:
        names = [name for name in EXPERIMENTS if not self.only or name in self.only]
        lab, rows = Lab(), []
        for number, name in enumerate(names):
            kept = f"{name}.json"
            row = run.kept(kept, files.read_json)
            if row is not None:
                rows.append(row)
                continue
            # Experiments take from a moment to minutes, so how many are done says nothing of the time that is left.
            stage = f"Running {name}"
            yield Progress(stage, 0, 1, f"{number + 1} of {len(names)}")
            clock, processor = time.monotonic(), time.process_time()
            row = dataclasses.asdict(EXPERIMENTS[name](lab))
            row |= {"seconds": round(time.monotonic() - clock, 1), "cpu": round(time.process_time() - processor, 1)}
            # Through JSON, so that a resumed run holds the same types as an uninterrupted one.
            rows.append(json.loads(json.dumps(row)))
            run.keep(kept, lambda path, row=row: files.write_json(path, row))
            yield Progress(stage, 1, 1, row["title"])
        answer = self._report(rows)
        run.keep("experiments.md", lambda path: files.write_text(path, table(answer.findings.tables) + "\n"))
        return answer

    def _report(self, rows: list[dict[str, Any]]) -> Answer:
        judged = [row for row in rows if row["met"] is not None]
        met = sum(row["met"] for row in judged)
        findings = [f"{met} of {len(judged)} experiments met their criterion."]
        findings += [f"{row['experiment']} fell short: {row['found']}." for row in judged if not row["met"]]
        measurement = Measurement(
            name="criteria_met",
            value=met / len(judged) if judged else None,
            unit="share of experiments",
            n=len(judged),
            of="experiments",
            how="a count; each criterion was fixed beforehand",
            reference=1.0,
            reference_is="all",
            caution="" if judged else "no experiment with a criterion was run",
        )
        return Answer(
            title="Toy Models of Superposition, reproduced",
            findings=Findings((measurement,), {"experiments": {key: [row[key] for row in rows] for key in rows[0]}}),
            sentences=tuple(findings),
        )


def table(tables: Mapping[str, Table]) -> str:
    """The experiments of a report's tables as a Markdown table, for documents."""
    columns = tables["experiments"]
    lines = ["| | experiment | criterion | found | met | note |", "|---|---|---|---|---|---|"]
    for i, name in enumerate(columns["experiment"]):
        met = {True: "yes", False: "**no**", None: "no criterion"}[columns["met"][i]]
        cells = (name, columns["title"][i], columns["criterion"][i], columns["found"][i], met, columns["note"][i])
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)
