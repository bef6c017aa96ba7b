from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superscope.core import Report
from superscope.studies.geometry.bounds import Bounds


def value(report, name, **at):
    (found,) = [m for m in report[name] if all(m.at.get(key) == wanted for key, wanted in at.items())]
    return found.value


def test_numbers_of_a_usual_dictionary():
    report = Bounds(n=24_576, d=768, k=40, snr=10.0).run()
    assert value(report, "coherence_lower_bound", bound="Welch") == pytest.approx(
        math.sqrt((24_576 - 768) / (768 * 24_575))
    )
    assert value(report, "random_coherence") == pytest.approx(0.2133, abs=2e-4)
    assert value(report, "coherence_guarantee", coherence="random dictionary") == 2
    assert value(report, "coherence_guarantee", coherence="best coherence there could be") == 14
    ladder = dict(zip(report.tables["ladder"]["criterion"], report.tables["ladder"]["k"], strict=True))
    assert (ladder["one-step read-out"], ladder["strong l1"], ladder["weak l1"]) == (22, 28, 105)
    assert ladder["rate bound"] == 151
    assert value(report, "weak_threshold", law="l1") == pytest.approx(0.136856, abs=2e-6)
    assert value(report, "amp_threshold", law="l1, nonnegative") == pytest.approx(1.9388, abs=1e-4)
    (directions,) = [m for m in report["log10_directions"] if m.at["cosine"] == "absolute"]
    assert directions.low == pytest.approx(math.log10(295_680))
    assert "k = 40" in report.findings[-1]
    assert "weak l1" in report.findings[-1]
    assert "one-step" not in report.findings[-1]
    assert "RIP" not in report.findings[-1]


def test_the_best_bound_is_the_largest_and_the_hundred_and_twenty_lines_of_e8_attain_it():
    report = Bounds(n=120, d=8).run()
    bounds = {m.at["bound"]: m.value for m in report["coherence_lower_bound"]}
    best = next(v for name, v in bounds.items() if name.startswith("best"))
    assert best == pytest.approx(0.5, abs=1e-9)
    assert best == pytest.approx(max(bounds.values()))


@settings(max_examples=12, deadline=None)
@given(d=st.integers(2, 60), more=st.integers(1, 400), k=st.integers(1, 60), eps=st.floats(0.0, 0.99))
def test_every_small_question_has_an_answer(d, more, k, eps):
    n = d + more
    report = Bounds(n=n, d=d, k=min(k, n - 1), eps=eps).run()
    table = report.tables["bounds"]
    assert len(table["name"]) == len(report.measurements)
    assert all(table["says"])
    assert all(table["good_for"])
    for m in report:
        assert m.value is None or m.value >= 0 or m.name == "signed_cosine_lower_bound" or "log10" in m.name
    low = {m.at["law"]: m.value for m in report["weak_threshold"]}
    strong = {m.at["law"]: m.value for m in report["strong_threshold"]}
    assert all(strong[law] <= low[law] + 1e-9 for law in low)


def test_beyond_the_threshold_the_error_is_undefined_and_says_so():
    report = Bounds(n=64, d=16, k=15).run()
    assert all(m.value is None and "beyond" in m.caution for m in report["noise_sensitivity"])


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"n": 4, "d": 8}, "exchanged"),
        ({"n": 8, "d": 1}, "d must be"),
        ({"n": 8, "d": 4, "k": 0}, "k must"),
        ({"n": 8, "d": 4, "k": 8}, "k must"),
        ({"n": 8, "d": 4, "eps": 1.0}, "eps"),
        ({"n": 8, "d": 4, "snr": 0.0}, "snr"),
        ({"n": 8, "d": 4, "snr": float("nan")}, "snr"),
    ],
)
def test_impossible_questions_are_refused_in_a_sentence(given_, says):
    with pytest.raises(ValueError, match=says):
        Bounds(**given_)


def test_run_folder(tmp_path):
    report = Bounds(n=30, d=8, k=2).run(tmp_path / "run")
    again = Report.load(tmp_path / "run")
    assert again.measurements == report.measurements
    assert again.tables["ladder"] == report.tables["ladder"]
    assert again.settings["k"] == 2
