"""Layers laid flat: every map with its score, its null and its layer before; and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from superscope.core import Report
from superscope.studies import Populations
from superscope.studies.networks.populations import GAUSSIAN

SMALL: dict[str, Any] = {"rows": 240, "neighbours": 8, "context": 32}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    random = Random(0)
    for i in range(10):
        (folder / f"{i}.txt").write_text("".join(random.choices("01234567", k=300)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def report(text: Path, model_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("run") / "run"
    Populations(str(model_folder("GPT-2")), **SMALL, layers=(0, 1), text=str(text)).run(folder)
    return Report.load(folder)


def test_every_map_has_a_score_its_chance_and_that_of_rows_with_nothing_in_them(report: Report) -> None:
    scores = report["row_neighbours_kept"]
    assert {(m.at["map"], m.at["model"]) for m in scores} == {
        (how, label) for how in ("pca", "flat", "tsne") for label in ("trained", GAUSSIAN)
    }
    assert len(scores) == 2 * 3 * 2
    for m in scores:
        assert m.chance == pytest.approx(8 / 239)
        assert m.low is not None
        assert m.value is not None
        assert m.low <= m.value <= 1


def test_layers_lie_on_each_other_and_rows_are_the_same_in_all(report: Report) -> None:
    agreement = {m.at["map"]: m for m in report["map_agreement"]}
    assert set(agreement) == {"pca", "flat", "tsne"}
    for m in agreement.values():
        assert m.value is not None
        assert m.chance is not None
        assert m.value > m.chance
    maps, rows = report.tables["maps"], report.tables["rows"]
    assert len(maps["x"]) == 6 * 240
    assert len(rows["token"]) == 240
    assert set(rows["token"]) <= set("01234567")
    assert set(rows["kind"]) == {"number"}


def test_dimensions_stand_beside_random_weights(report: Report) -> None:
    for name in ("two_nn_dimension", "likelihood_dimension", "participation_ratio"):
        found = report[name]
        assert sorted(str(m.at["model"]) for m in found) == ["control"] * 2 + ["trained"] * 2
        assert all(m.value is None or 0 < m.value <= m.reference for m in found if m.reference)
    assert sum(sentence.startswith("Dimensions at") for sentence in report.findings) == 2


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"role": "soul"}, "there is no role 'soul'"),
        ({"maps": ()}, "at least one"),
        ({"maps": ("pca", "pca")}, "different ways"),
        ({"rows": 100}, "rows must be at least 200; got 100. Fewer have no neighbours"),
        ({"rows": 200, "neighbours": 200}, "Give more --rows"),
    ],
)
def test_settings_that_lay_nothing_flat(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Populations(**settings)


def test_a_layer_or_rows_that_are_not_there(text: Path, model_folder: Callable[[str], Path]) -> None:
    model = str(model_folder("GPT-2"))
    with pytest.raises(ValueError, match="there is no layer 9"):
        Populations(model, **SMALL, layers=(9,), text=str(text)).run()
    with pytest.raises(ValueError, match="Give more text"):
        Populations(model, **SMALL | {"rows": 5000}, text=str(text)).run()
