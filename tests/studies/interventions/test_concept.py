from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from superscope.core import Report, SiteNotFound
from superscope.dictionaries import TopK
from superscope.studies import Concept

WITH = ("if the file does not exist, an error is raised", "an error is raised for a list", "an error is raised if {i}")
WITHOUT = ("the cat sat on the mat", "a list has a length", "colours such as red and green {i}")


@pytest.fixture(scope="module")
def contrast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pairs, as a file."""
    place = tmp_path_factory.mktemp("contrast") / "errors.jsonl"
    lines = [
        {"concept": name, "positive": f"{a} {i}", "negative": f"{b} {i}", "group": str(i)}
        for name, first, second in (("errors", WITH, WITHOUT), ("lists", WITHOUT[1:2] * 3, WITH[:1] * 3))
        for i in range(20)
        for a, b in [(first[i % 3], second[i % 3])]
    ]
    place.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def small(model_folder, contrast, text_folder, tmp_path_factory) -> dict:
    sae = tmp_path_factory.mktemp("sae")
    TopK(d=16, n=32, k=4, seed=0).save(sae)
    return {
        "model": str(model_folder("GPT-2")),
        "contrast": str(contrast),
        "sites": ("resid_post.0",),
        "sae": str(sae),
        "unrelated": str(text_folder),
        "tokens": 200,
        "controls": 2,
        "rise": 0.02,
    }


def test_a_run_says_where_a_concept_is_and_what_moves_beside_it(small, tmp_path):
    Concept(**small).run(tmp_path / "run")
    report = Report.load(tmp_path / "run")
    accuracy = {(m.at["concept"], m.at["finder"]): m for m in report["probe_accuracy"]}
    assert len(accuracy) == 2 * 4
    for m in report.measurements:
        assert m.how
        if m.name == "probe_accuracy":
            assert m.value is not None
            assert m.low is not None
            assert m.low <= m.value <= (m.high or 0)
            assert m.chance == 0.5
            assert m.value > 0.7
    rise = report["concept_log_odds_rise"][0]
    assert rise.value == pytest.approx(0.02, rel=0.05)
    kl = report["steering_kl"][0]
    assert kl.value is not None
    assert kl.value > 0
    assert kl.low is not None
    assert kl.chance is not None
    steering = report.tables["steering"]
    kinds = {k for k, m in zip(steering["kind"], steering["matched"]) if m == "norm"}
    assert kinds == {"concept", "opposite", "random", "orthogonal", "nearest atom"}
    own = steering["norm"][0]
    for norm, matched, concept in zip(steering["norm"], steering["matched"], steering["concept"]):
        if matched == "norm" and concept == steering["concept"][0]:
            assert norm == pytest.approx(own, rel=1e-5)
    by_kl = [
        (kl, m)
        for kl, m, c in zip(steering["kl"], steering["matched"], steering["concept"])
        if m == "kl" and c == "errors"
    ]
    first = next(kl for kl, c in zip(steering["kl"], steering["concept"]) if c == "errors")
    assert by_kl
    assert all(kl == pytest.approx(first, rel=0.15) for kl, _ in by_kl)
    assert set(report.tables) >= {
        "entanglement",
        "latents",
        "shared_features",
        "probes",
        "answers",
        "texts",
        "latents_moved",
    }
    assert any(key.endswith("/errors/lda") for key in report.arrays)
    assert any("errors: adding it at" in sentence for sentence in report.findings)


def test_without_text_no_prompt_is_in_the_run_folder(small, tmp_path):
    Concept(**small, text=False).run(tmp_path / "run")
    report = Report.load(tmp_path / "run")
    assert "answers" not in report.tables
    assert "text" not in report.tables["texts"]
    assert all(re.fullmatch(r"[0-9a-f]{16}", each) for each in report.tables["texts"]["sha256"])
    for file in (tmp_path / "run").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert b"error is raised" not in content, file
            assert b"sat on the mat" not in content, file


def test_an_encoder_is_read_and_not_steered(small, model_folder):
    made = Concept(**(small | {"model": str(model_folder("BERT")), "sae": None})).run()
    assert made["probe_accuracy"]
    assert "steering_kl" not in {m.name for m in made.measurements}
    assert any("is an encoder and predicts no next token, so nothing was steered" in each for each in made.findings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"contrast": None, "concepts": ("love",)}, "no built-in concept 'love'"),
        ({"concepts": ("love",)}, "has no concept 'love'; it has errors, lists"),
        ({"finders": ("guess",)}, "no finder 'guess'"),
        ({"width": 0.01}, "95 % interval of an accuracy can be"),
        ({"held_out": 1.0}, "held_out must be a share below 1"),
        ({"rise": float("nan")}, "rise must be above 0 and finite"),
        ({"rise": float("inf")}, "rise must be above 0 and finite"),
        ({"sites": ()}, "a dictionary belongs to one site"),
        ({"finders": ("lda",)}, "name it among --finders, or give --no-steer"),
    ],
)
def test_bad_settings_are_refused_in_a_sentence(small, settings, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Concept(**(small | settings)).run()


def test_a_site_that_is_not_there_and_a_one_sided_set_are_refused(small, tmp_path):
    with pytest.raises(SiteNotFound):
        Concept(**(small | {"sites": ("no.such.site",)})).run()
    (tmp_path / "one.json").write_text(json.dumps({"name": "x", "positive": ["a", "b"]}))
    with pytest.raises(ValueError, match="one-sided"):
        Concept(**(small | {"contrast": str(tmp_path / "one.json")})).run()
    TopK(d=5, n=8, k=2, seed=0).save(tmp_path / "sae")
    with pytest.raises(ValueError, match="d = 5"):
        Concept(**(small | {"sae": str(tmp_path / "sae")})).run()


def test_a_cell_of_one_side_is_named_in_the_report(small, tmp_path):
    lines = [
        {"text": f"{text} {i}", "label": label, "cell": cell, "group": str(i)}
        for i in range(12)
        for text, label, cell in ((WITH[0], True, "wrong"), (WITHOUT[0], False, "wrong"), (WITH[1], True, "right"))
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
    made = Concept(**(small | {"contrast": str(tmp_path / "x.jsonl"), "sae": None, "steer": False})).run()
    assert any("'right' has positive texts only" in each for each in made.findings)
    assert all("one-sided" in m.caution for m in made["probe_accuracy"])
    assert torch.isfinite(next(iter(made.arrays.values()))).all()
