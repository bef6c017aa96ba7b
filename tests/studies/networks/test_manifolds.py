"""Circles in a world of rings, none in one without, things in an order in a model, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from superscope.studies import Evaluate, Manifolds
from superscope.studies.networks import concepts

SMALL: dict[str, Any] = {"tokens": 8000, "held_out": 6000, "batch": 512, "n": 48}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rings_are_found_and_more_than_in_the_controls(tmp_path: Path, seed: int) -> None:
    study = Manifolds(
        source="world:rings", world=("n=16", "d=32", "l0=2"), tokens=20_000, held_out=20_000, steps=400, seed=seed
    )
    report = study.run(tmp_path / "run")
    assert report.findings[0].startswith("Yes: ")
    assert (report["planes_found"][0].value or 0) >= 0.75
    rates = report["false_circle_rate"]
    assert {m.at["control"] for m in rates} == {"coordinates shuffled", "Gaussian of the same covariance"}
    assert all(m.value is None or m.value < 0.4 for m in rates)
    assert {"ring"} <= set(report.tables["groups"]["verdict"])
    assert len(report.tables["points"]["x"]) > 0


def test_there_are_none_where_features_are_directions() -> None:
    report = Manifolds(
        source="world:uniform", world=("n=24", "d=16", "l0=2"), k=2, steps=60, groups=6, **{**SMALL, "n": 32}
    ).run()
    assert report.findings[0].startswith("No: ")
    assert "planes_found" not in {m.name for m in report}


def test_things_in_an_order_are_read_in_all_contexts(
    model_folder: Callable[[str], Path], text_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = concepts.Concept(tuple("0123456"), ("It is", "She has", "Add", "Page", "There are", "Level"))
    monkeypatch.setattr(concepts, "CONCEPTS", {"digits": digits})
    monkeypatch.setattr("superscope.studies.networks.manifolds.CONCEPTS", {"digits": digits})
    study = Manifolds(
        source=str(model_folder("GPT-2")),
        site="resid_post.1",
        concepts=("digits", "positions"),
        text=str(text_folder),
        tokens=2000,
        context=24,
    )
    report = study.run()
    assert {m.at["concept"] for m in report["circle_foretold"]} == {"digits", "positions"}
    assert report.tables["things"]["thing"][:7] == list("0123456")
    with pytest.raises(ValueError, match="at least 8 tokens"):
        Manifolds(**{**vars(study), "concepts": ("positions",), "context": 6}).run()


def test_a_dictionary_is_evaluated_on_its_model(
    model_folder: Callable[[str], Path], text_folder: Path, tmp_path: Path
) -> None:
    from superscope.dictionaries import TopK

    TopK(d=16, n=40, k=4, seed=0).save(tmp_path / "sae")
    given: dict[str, Any] = {
        "dictionary": str(tmp_path / "sae"),
        "model": str(model_folder("GPT-2")),
        "text": str(text_folder),
        "rows": 1500,
        "context": 32,
        "spliced": 256,
    }
    report = Evaluate(**given).run()
    for name in ("cross_entropy_recovered", "divergence_recovered"):
        assert {m.at["ablation"] for m in report[name]} == {"zero", "mean"}
    assert all((m.value or 0) > -1e-9 for m in report["divergence_added"])
    assert {m.at["k"] for m in report["probe_accuracy"]} == {1, 5}
    assert report["description_length"][0].chance is not None
    TopK(d=8, n=40, k=4, seed=0).save(tmp_path / "other")
    with pytest.raises(ValueError, match="rows of d = 16"):
        Evaluate(**{**given, "dictionary": str(tmp_path / "other")}).run()
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        Evaluate(dictionary=str(tmp_path / "nowhere")).run()
