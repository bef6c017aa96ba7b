"""How much is measured in time_to_quality.py: where, for how long, and what is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

OURS, ROUNDED, CONSTANT = "superscope", "superscope, bfloat16 products", "superscope, constant rate"
DECAYING = (OURS, ROUNDED)
"""Contestants whose rate falls over the run, so that their curves are made of whole runs of several lengths."""
BESIDE = (ROUNDED, CONSTANT)
"""Contestants that show what a part of ours is worth, trained with the first seed only."""
BATCH, K = 1024, 32
SILENT = 20
"""Batches on none of which a dead latent is on."""
ALIKE = 0.9
"""The cosine above which two atoms are duplicates."""
WHEN = ("early", "middle", "late")
"""What the targets are called."""


@dataclass(frozen=True)
class Place:
    """Where rows come from, and how many.

    Args:
        model, site: which.
        rows: to learn from; the same again, and fewer, of other documents to choose rates on.
        held: to look at.
        windows: of the held-out text, for the model's loss.
        tuning: steps after which rates are compared.
    """

    model: str
    site: str
    rows: int
    held: int
    windows: int
    tuning: int

    @property
    def name(self) -> str:
        return f"{Path(self.model).name.partition('-')[0]} {self.site}"


@dataclass(frozen=True)
class Form:
    """How much is done.

    Args:
        places: where.
        steps: of a peer.
        marks: of these a peer's curve is made.
        targets: steps of the best peer.
        lengths: of our runs.
        seeds: how many.
    """

    places: tuple[Place, ...]
    steps: int
    marks: tuple[int, ...]
    targets: tuple[int, ...]
    lengths: tuple[int, ...]
    seeds: int


POCKET = tuple(Place("pocket", f"resid_post.{block}", 125_000, 8_192, 64, 60) for block in (0, 2))
REAL = Place(
    str(Path(__file__).parent.parent / "models" / "smollm2-135m-instruct"), "resid_post.15", 40_000, 4_096, 10, 30
)
FULL = Form(
    places=(*POCKET, REAL),
    steps=120,
    marks=(3, 6, 10, 16, 24, 32, 40, 50, 60, 75, 90, 105, 120),
    targets=(24, 60, 120),
    lengths=(5, 10, 20, 40, 70, 120),
    seeds=3,
)
SHORT = Form(
    places=POCKET[1:],
    steps=60,
    marks=(3, 6, 12, 18, 24, 30, 40, 50, 60),
    targets=(12, 30, 60),
    lengths=(3, 6, 12, 24, 40, 60),
    seeds=1,
)
