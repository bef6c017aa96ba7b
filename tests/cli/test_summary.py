"""What the terminal shows of a report."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from superscope.cli.summary import averaged, number, show
from superscope.core import Measurement, Report
from superscope.studies import Bounds, ToySweep


def shown(*measurements: Measurement, width: int = 100) -> str:
    return printed(Report(title="A run", kind="train", measurements=measurements), width)


def printed(report: Report, width: int) -> str:
    out = io.StringIO()
    show(report, Path("page.html"), Console(file=out, width=width))
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
        ["Active", "latents"],
        ["Variance", "unexplained"],
        ["Recall", "(threshold"],
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


def test_figures_that_differ_by_their_seed_are_a_mean_with_its_range() -> None:
    models = [
        measured("loss", value, density=density, seed=seed)
        for density, values in ((1.0, (1.0, 2.0, 6.0)), (0.03, (0.25, 0.5, 0.75)))
        for seed, value in enumerate(values)
    ]
    dense, rare = averaged(models)
    assert (dense.value, dense.low, dense.high, dense.seeds, dict(dense.at)) == (3.0, 1.0, 6.0, 3, {"density": 1.0})
    assert (rare.value, rare.low, rare.high) == (0.5, 0.25, 0.75)
    text = shown(*models)
    assert [line.split() for line in text.splitlines() if "density" in line] == [
        ["density", "1", "3", "(1", "to", "6)"],
        ["density", "0.03", "0.5", "(0.25", "to", "0.75)"],
    ]
    assert "In brackets: the range over seeds." in text
    assert "seed 0" not in text


def test_a_seed_without_a_value_is_counted_and_left_out_of_the_mean() -> None:
    lost = Measurement(name="loss", value=None, unit="share", n=9, of="steps", at={"seed": 2}, caution="diverged")
    (figure,) = averaged([measured("loss", 1.0, seed=0), measured("loss", 2.0, seed=1), lost])
    assert (figure.value, figure.seeds, figure.lost) == (1.5, 3, 1)
    assert "Loss (2 of 3 seeds)" in shown(measured("loss", 1.0, seed=0), measured("loss", 2.0, seed=1), lost)


def test_one_seed_alone_is_no_range() -> None:
    (figure,) = averaged([measured("loss", 1.0, seed=0)])
    assert (figure.value, figure.seeds, dict(figure.at)) == (1.0, 0, {"seed": 0})


EXAMPLES = {
    "bounds": Bounds(n=1536, d=192, k=16),
    "toy": ToySweep(n=5, d=2, steps=40, batch=64),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_read_well_in_eighty_columns(name: str) -> None:
    report = EXAMPLES[name].run()
    lines = printed(report, 80).splitlines()
    assert max(map(len, lines)) <= 80
    figures = [line for line in lines[lines.index("", 1) + 1 :] if line and not line.startswith("Report:")]
    # No cell goes over two lines: all that is printed of a figure stands on one, and so does the name of its place.
    for f in averaged(report):
        cells = [number(f.value), number(f.reference)]
        if f.low is not None and f.high is not None:
            cells.append(f"{number(f.low)} to {number(f.high)}")
        assert any(all(cell in line for cell in cells) for line in figures), f
        for key, value in f.at.items():
            label = value if isinstance(value, str) else f"{key} {number(value)}"
            assert any(label in line for line in figures), label
    assert not any("…" in line or line.endswith((",", " to", "(")) for line in figures)
    assert len(figures) < 70


def test_a_long_list_is_cut_to_the_middle_of_what_was_varied() -> None:
    sizes = (0.25, 0.5, 1.0)
    names = ("damage", "damage_ratio", "l0")
    many = [measured(name, 0.5, move=f"kind {i}", size=s) for name in names for i in range(7) for s in sizes]
    text = shown(*many, measured("interference_gain", 1.7))
    kinds = [line.split()[1] for line in text.splitlines() if line.startswith("  kind")]
    assert kinds == ["0", "1", "2", "3", "4", "5", "6"] * 3
    assert "Gain through interference" in text
    assert "Shown are 22 of 64 figures, those at size 0.5; the report has all." in text
    assert "Shown are" not in shown(*many[:42], measured("interference_gain", 1.7))
    wide = [measured(name, 0.5, move=f"kind {i}") for name in names for i in range(16)]
    assert "Shown are 19 of 49 figures, the first of each quantity; the report has all." in shown(
        *wide, measured("interference_gain", 1.7)
    )


def test_what_is_undefined_has_a_sign_and_a_reason() -> None:
    none = Measurement(
        name="domain_latents", value=None, unit="share", n=0, of="latents", caution="no document has a kind"
    )
    text = shown(measured("l0", 4.0), none)
    assert any("—" in line and "share" in line for line in text.splitlines())
    assert "no document has a kind." in text
