"""How did the count do on worlds whose truth is known? Writes the tables of docs/calibration.md from a calibration.

python scripts/calibration_page.py RUN_FOLDER
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from superscope.core import files
from superscope.studies.counting.calibrate import summary

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "calibration.md"
BEGIN, END = "<!-- tables: written by scripts/calibration_page.py -->", "<!-- end of tables -->"


def tables(worlds: list[dict[str, Any]]) -> str:
    """The table of estimators, and that of worlds, as Markdown."""
    found = summary(worlds)
    rows = found.findings.tables["estimators"]
    lines = [*(f"- {sentence}" for sentence in found.sentences), ""]
    lines += [
        "| | estimator | worlds | answers | at least | median error | 90 % of errors below | bias | coverage of 90 % "
        "| width | most on nulls |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for i in range(len(rows["group"])):
        cell = {name: column[i] for name, column in rows.items()}
        bias = f"{cell['bias']:+.3f}" if cell["answers"] else "–"
        lines.append(
            f"| {cell['group']} | `{cell['estimator']}` | {cell['worlds']} | {cell['answers']} | {cell['at_least']} | "
            f"{_number(cell['median_error'])} | {_number(cell['p90_error'])} | "
            f"{bias} | {_number(cell['coverage'])} | {_number(cell['width'])} | "
            f"{_number(cell['most_on_nulls'], 0)} |"
        )
    lines += [
        "",
        "| family | n, d, l0 | true | count (interval), seed by seed | certified | F1 of directions | CPU s |",
        "|---|---|--:|---|--:|--:|--:|",
    ]
    places = defaultdict(list)
    for world in sorted(worlds, key=lambda w: (w["null"], not w["held_out"], w["family"], w["size"], w["seed"])):
        places[world["family"], tuple(world["size"])].append(world)
    for (family, size), seeds in places.items():
        first, counts = seeds[0], [world["counts"] for world in seeds]
        cells = [
            family + (" (held out)" if first["held_out"] else " (null)" if first["null"] else ""),
            ", ".join(f"{x:g}" for x in size),
            "; ".join(dict.fromkeys(str(world["n"]) for world in seeds)),
            "; ".join(_answer(each["feature_count"]) for each in counts),
            "; ".join(_number(each.get("directions_certified", {}).get("value"), 0) for each in counts),
            "; ".join(_number(world["identity"], 2) for world in seeds),
            "; ".join(f"{each['feature_count']['seconds']:.0f}" for each in counts),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _answer(own: dict[str, Any]) -> str:
    if own["value"] is None:
        return "abstains"
    ends = f"{own['low']:.0f} to {own['high']:.0f}" if own["high"] else f"at least {own['low']:.0f}"
    return f"{own['value']:.0f} ({ends})"


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or value < 0 else f"{value:.{digits}f}"


def main() -> None:
    folder = Path(sys.argv[1]) / "worlds"
    worlds = [files.read_json(path) for path in sorted(folder.glob("*.json"))]
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables(worlds)}\n\n{END}{after}", encoding="utf-8")
    print(f"{PAGE.relative_to(REPOSITORY)}: {len(worlds)} worlds.")


if __name__ == "__main__":
    main()
