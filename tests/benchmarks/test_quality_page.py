"""Tables of trainings that are written down here: no peer is needed, and nothing is trained."""

from __future__ import annotations

from typing import Any

import pytest
from quality_forms import OURS, Form, Place
from quality_page import FASTEST, curves, met, page, summary

PLACE = Place("pocket", "resid_post.2", rows=1, held=1, windows=1, tuning=10)
FORM = Form((PLACE,), steps=40, marks=(10, 20, 40), targets=(10, 20, 40), lengths=(5, 10, 20), seeds=2)


def line(tool: str, seed: int, points: dict[int, tuple[float, float]], steps: int, **changes: Any) -> dict[str, Any]:
    """A finished training: (seconds, unexplained) by step."""
    return {
        "tool": tool,
        "place": PLACE.name,
        "n": 100,
        "steps": steps,
        "lr": 0.003,
        "seed": seed,
        "marks": list(points),
        "by": "1.0",
        "points": [
            {"step": step, "cpu": cpu, "wall": 2 * cpu, "harvest": 1.0, "unexplained": u, "recovered": 1 - u}
            for step, (cpu, u) in points.items()
        ],
        "dead": 3,
        "duplicates": 1,
        "product": 0.01,
        "when": "today",
        "commit": "abc",
        **changes,
    }


def trainings(seed: int = 0) -> list[dict[str, Any]]:
    """Ours is at .4, .2, .1 after 1, 2, 4 seconds; sparsify at the same after 4, 8, 16; SAELens never at .1."""
    made = [line(OURS, seed, {steps: (steps / 5, 2 / steps)}, steps, by="hash recipe") for steps in FORM.lengths]
    made.append(line("sparsify, Adam", seed, {10: (4, 0.4), 20: (8, 0.2), 40: (16, 0.1)}, 40))
    made.append(line("SAELens", seed, {10: (10, 0.8), 20: (20, 0.4), 40: (40, 0.2)}, 40))
    return made


def test_each_target_is_the_best_peers_and_each_ratio_is_the_seconds() -> None:
    (tools,) = curves(FORM, trainings()).values()
    found = met(FORM, tools)
    assert [each.target for each in found] == [0.4, 0.2, 0.1]
    assert [str(each.ratios["sparsify"]["cpu"]) for each in found] == ["4.0", "4.0", "4.0"]
    assert [str(each.ratios["SAELens"]["cpu"]) for each in found] == ["20.0", "20.0", "≥ 10.0"]
    assert [str(each.ratios[FASTEST]["cpu"]) for each in found] == ["4.0", "4.0", "4.0"]
    # A second of harvest for each: 5 / 2, 9 / 3, 17 / 5.
    assert [str(each.ratios["sparsify"]["with harvest"]) for each in found] == ["2.5", "3.0", "3.4"]
    assert all(each.recovered == pytest.approx((1 - each.target, 1 - each.target)) for each in found)


def test_the_summary_is_over_targets_and_seeds() -> None:
    total = summary(FORM, curves(FORM, [*trainings(0), *trainings(1)]))
    assert total is not None
    assert total.cells == 6
    assert len(total.ratios["SAELens"]["cpu"]) == 6
    assert total.recovered == pytest.approx(0.0)


def test_newer_trainings_replace_older_ones_and_other_forms_do_not_count() -> None:
    newer = [line(OURS, 0, {steps: (steps / 10, 2 / steps)}, steps, by="hash better") for steps in FORM.lengths]
    other = line("sparsify, Adam", 0, {7: (0.1, 0.01)}, 7)
    late_seed = line("sparsify, Adam", 9, {10: (0.1, 0.4), 20: (0.2, 0.2), 40: (0.3, 0.1)}, 40)
    (tools,) = curves(FORM, [*trainings(), *newer, other, late_seed]).values()
    assert [str(each.ratios["sparsify"]["cpu"]) for each in met(FORM, tools)] == ["8.0", "8.0", "8.0"]


def test_the_page_has_the_figures_and_leaves_out_who_is_missing() -> None:
    text = page(FORM, trainings())
    assert "| sparsify | 4.0 (4.0 to 4.0) |" in text
    assert "| SAELens | 20.0 (10.0 to 20.0) |" in text
    assert "dictionary_learning" not in text
    assert "| pocket resid_post.2 | late | 0.1000 |" in text
    assert "| pocket resid_post.2 | 1 | 4.0 (4.0 to 4.0) | 20.0 (10.0 to 20.0) | 4.0 (4.0 to 4.0) |" in text
    assert "3.0% | 1.0%" in text
    ours_alone = [each for each in trainings() if each["tool"] == OURS]
    assert "Nothing can be compared" in page(FORM, ours_alone)
    assert "Nothing can be compared" in page(FORM, trainings()[len(ours_alone) :])
