"""What the terminal shows of a report."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from superscope.cli.summary import show
from superscope.core import Measurement, Report


def shown(*measurements: Measurement) -> str:
    out = io.StringIO()
    show(
        Report(title="A run", kind="train", measurements=measurements), Path("page.html"), Console(file=out, width=100)
    )
    return out.getvalue()


def measured(name: str, value: float, *, chance: float | None = None, **at: str | float) -> Measurement:
    return Measurement(
        name=name,
        value=value,
        unit="share",
        n=9,
        of="tokens",
        chance=chance,
        chance_is="chance" if chance else "",
        at=at,
    )


def test_figures_of_no_place_are_a_list() -> None:
    text = shown(
        measured("l0", 4.0), measured("fraction_variance_unexplained", 0.25), measured("recall", 0.5, threshold=0.9)
    )
    assert [line.split()[:2] for line in text.splitlines() if "share" in line] == [
        ["l0", "4"],
        ["fraction", "variance"],
        ["recall", "(threshold"],
    ]
    assert "In brackets" not in text


def test_figures_of_several_places_are_an_overview_without_rows_that_say_nothing() -> None:
    pairs = [
        measured(name, value, chance=chance, k=k)
        for k in (2, 4)
        for name, value, chance in (("l0", float(k), None), ("fraction_variance_unexplained", 0.25, 0.9))
    ]
    text = shown(*pairs, measured("recommended_k", 2.0))
    rows = [line.split() for line in text.splitlines() if line.startswith("k ")]
    assert rows == [["k", "2", "0.25", "(0.9)", "2"], ["k", "4", "0.25", "(0.9)", "4"]]
    assert "recommended" not in text
    assert "In brackets: what chance gives." in text


def test_brackets_are_explained_only_where_there_are_any() -> None:
    pairs = [measured(name, 0.5, k=k) for k in (2, 4) for name in ("l0", "fraction_variance_unexplained")]
    assert "brackets" not in shown(*pairs)
