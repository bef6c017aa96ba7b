"""Prints the tables of docs/extending.md and docs/worlds.md.

The first: every family, where a member of it goes, who reads it, and who is in it. The second, of `families.py worlds`:
every family of worlds, what it is and what it asks.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable

from superscope import dictionaries, features, recovery, toys, worlds
from superscope.dictionaries import formats
from superscope.intervene.compression import METHODS
from superscope.measure.counts import COUNTERS
from superscope.studies import STUDIES
from superscope.studies.networks.readings import READINGS


def names(kinds: Iterable[type]) -> list[str]:
    return [kind.__name__ for kind in kinds]


FAMILIES = (
    ("SAE", "dictionaries/sae", "superscope train --architecture", names(dictionaries.ARCHITECTURES)),
    (
        "Predictor, or SAE",
        "dictionaries/transcoders",
        "superscope train --architecture",
        names(dictionaries.TRANSCODERS),
    ),
    ("Learner", "dictionaries/classical", "superscope train --architecture", names(dictionaries.CLASSICAL)),
    ("RecoveryCoder", "recovery", "superscope recover --solver", names(recovery.SOLVERS)),
    ("Refinement", "recovery/refinement.py", "superscope train --refine", names(map(type, recovery.REFINEMENTS))),
    ("Family", "toys", "superscope toy --family", names(toys.FAMILIES)),
    ("FeatureDistribution", "features", "superscope train world:NAME", names(features.DISTRIBUTIONS)),
    ("Magnitude", "features", "--world magnitude=, toy --magnitude", names(features.MAGNITUDES)),
    ("a function", "worlds/presets.py", "superscope train world:NAME", list(worlds.PRESETS)),
    ("a function", "worlds/families", "superscope train world:NAME, calibration", list(worlds.FAMILIES)),
    ("Method", "intervene/compression", "superscope compress", [each.name for each in METHODS]),
    ("Format", "dictionaries/formats", "superscope convert", [each.name for each in formats.FORMATS]),
    ("Counter", "measure/counts", "superscope scan", names(map(type, COUNTERS))),
    ("Reading", "studies/networks/readings", "superscope scan", names(map(type, READINGS))),
    ("Study", "studies", "superscope NAME", [entry.command for entry in STUDIES]),
)


def table() -> str:
    """In Markdown, a line for each family."""
    lines = ["| what a member is | its folder | who reads the family | members |", "|---|---|---|---|"]
    lines += [
        f"| `{base}` | `{folder}` | `{reader}` | {', '.join(f'`{member}`' for member in members)} |"
        for base, folder, reader, members in FAMILIES
    ]
    return "\n".join(lines)


def table_of_worlds() -> str:
    """In Markdown, a line for each family of worlds; those that are kept from tuning have a star."""
    lines = ["| `world:` | what it is | what it asks of a count |", "|---|---|---|"]
    for name, family in worlds.FAMILIES.items():
        what = " ".join((inspect.getdoc(family.make) or "").split("\n\n")[0].split())
        lines.append(f"| `{name}`{' *' * family.held_out} | {what} | {family.question} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table_of_worlds() if "worlds" in sys.argv else table())
