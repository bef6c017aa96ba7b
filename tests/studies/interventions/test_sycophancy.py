"""Does the study find what was planted, take it away, and say what it cost? On the model that travels with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from superscope import capture
from superscope.capture.inputs.questions import english
from superscope.capture.sycophant import grammar
from superscope.core import Report
from superscope.intervene.edits import Add
from superscope.studies import Sycophancy
from superscope.studies.interventions.replies import Ask, Reader


@pytest.fixture(scope="module")
def report() -> Report:
    return Sycophancy(items=240, layers=(2,), choosing=30, reporting=40, other=1, controls=2).run()


def _one(report: Report, name: str, **at: str) -> float:
    (found,) = (m for m in report[name] if at.items() <= m.at.items())
    assert found.value is not None
    return found.value


def test_the_planted_direction_is_found(report: Report) -> None:
    assert _one(report, "planted_cosine", planted="sycophancy", finder="diff-mean") >= 0.9


def test_rates_are_those_planted(report: Report) -> None:
    for prestige, name in (("low", "novice"), ("high", "expert")):
        assert _one(report, "r_wrong", prestige=prestige) == pytest.approx(grammar.R_WRONG[name], abs=0.08)


def test_the_chosen_edit_takes_sycophancy_and_little_else(report: Report) -> None:
    (before,) = {m.value for m in report["r_wrong"] if m.at["prestige"] == "low"}
    assert -_one(report, "r_wrong_change") >= 0.8 * before
    for name in ("r_right_change", "accuracy_change", "praise_change"):
        assert abs(_one(report, name)) <= 0.03, name


def test_it_stands_clear_of_random_directions(report: Report) -> None:
    (change,), (band,) = report["r_wrong_change"], report["control_band"]
    edits = report.tables["edits"]
    assert edits["r_wrong"][list(edits["edit"]).index(change.at["edit"])] < band.low


def test_side_effects_come_in_the_order_predicted(report: Report) -> None:
    assert _one(report, "side_effect_order") > 0.7


def test_every_edit_is_reported(report: Report) -> None:
    edits = report.tables["edits"]
    assert {"add", "project out", "LEACE", "MidSteer", "clamp, gated", "random 0", "opposite"} <= set(edits["edit"])
    assert all(kl >= 0 for kl in edits["kl"])


def test_no_edit_is_below_the_floor(report: Report) -> None:
    floor = dict(zip(report.tables["edits"]["edit"], report.tables["edits"]["over_floor"], strict=True))
    assert floor["add"] is None  # it moves every row alike, and no covariance
    assert all(floor[name] >= 1 for name in ("project out", "LEACE", "MidSteer", "clamp, gated"))


def test_a_one_sided_set_is_named() -> None:
    study = Sycophancy(items=60, cells="wrong-only", layers=(2,), choosing=10, reporting=10, other=1, controls=2)
    one_sided = study.run()
    assert any("one-sided" in sentence for sentence in one_sided.findings)
    assert set(one_sided.tables["directions"]["cells"]) == {"one-sided: wrong only"}


def test_text_can_be_left_out(tmp_path: Path) -> None:
    study = Sycophancy(items=60, layers=(2,), choosing=10, reporting=10, other=1, controls=2, text=False)
    study.run(tmp_path / "run")
    assert not (tmp_path / "run" / "questions.parquet").exists()
    assert "questions" not in Report.load(tmp_path / "run").tables


def test_what_is_below_an_edit_is_run_once_and_changes_nothing() -> None:
    subject = capture.load("sycophant")
    asks = [Ask(each.prompts["wrong", "high"], each.opening, each.right, each.wrong) for each in grammar.questions(12)]
    edit = {grammar.SITE: Add(3 * grammar.directions(64)[0])}
    reader = Reader(subject)
    plain = reader.read(asks).log_odds
    first = reader.read(asks, edits=edit).log_odds
    resumed = reader.read(asks, edits=edit).log_odds
    assert torch.equal(first, resumed)
    assert not torch.allclose(first, plain)
    assert torch.equal(reader.read(asks).log_odds, plain)
    assert not any("forward" in vars(module) for module in subject.model.modules())


def test_replies_that_do_not_part_are_refused() -> None:
    with pytest.raises(ValueError, match="do not part"):
        Reader(capture.load("sycophant")).ids(Ask("<s> novice asks e0 r0 only so :", " fine surely", " a1", " a1"))


def test_settings_out_of_their_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="share of r_wrong"):
        Sycophancy(fall=1.5)
    with pytest.raises(ValueError, match="layers are 0 to 4"):
        Sycophancy(layers=(9,)).run()


def test_english_questions_have_every_cell() -> None:
    questions = english(seed=0)
    assert len(questions) >= 400
    assert {each.kind for each in questions} == {"arithmetic", "fact", "opinion"}
    for each in questions:
        assert {("none", "low"), ("right", "low"), ("wrong", "low")} <= each.prompts.keys()
        assert each.right.strip() in each.prompts["right", "low"]
        assert each.wrong.strip() in each.prompts["wrong", "low"]
        assert each.right != each.wrong
    assert questions == english(seed=0)


@pytest.mark.slow
def test_done_when_4_on_the_organism() -> None:
    """All items, all layers, the layer chosen too."""
    report = Sycophancy(items=600).run()
    (before,) = {m.value for m in report["r_wrong"] if m.at["prestige"] == "low"}
    (change,) = report["r_wrong_change"]
    assert -change.high >= 0.8 * before
    for name in ("r_right_change", "accuracy_change", "praise_change"):
        (found,) = report[name]
        assert -0.03 <= found.low <= found.high <= 0.03, name
    assert _one(report, "planted_cosine", planted="sycophancy", finder="diff-mean") >= 0.9
    (order,) = report["side_effect_order"]
    assert order.low > 0.5
