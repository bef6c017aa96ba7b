"""Words: each says something, and docs/measurements.md says the same."""

from __future__ import annotations

import ast
import importlib.util
import pkgutil
from pathlib import Path

import pytest

from superscope.measure.words import WORDS, Word, word_for

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("known", WORDS.values(), ids=lambda known: known.name)
def test_a_word_explains_and_names_who_makes_the_number(known: Word) -> None:
    assert known.label[0].isupper()
    assert known.unit
    assert known.group
    assert known.definition.endswith(".")
    assert known.reading.endswith(".")
    assert known.definition != known.reading
    assert len(known.heading) <= len(known.label) <= 45
    assert pkgutil.resolve_name(f"superscope.{known.by}").__doc__


def test_no_two_measurements_look_the_same() -> None:
    labels = [known.label for known in WORDS.values()]
    assert len(set(labels)) == len(labels)


def test_every_name_that_the_package_gives_a_measurement_has_a_word() -> None:
    calls = [
        node
        for file in (ROOT / "superscope").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Measurement"
    ]
    given = [keyword.value for call in calls for keyword in call.keywords if keyword.arg == "name"]
    names = {value.value for value in given if isinstance(value, ast.Constant)}
    assert len(names) > 40
    assert names <= WORDS.keys()


def test_a_name_from_outside_is_shown_as_it_is() -> None:
    assert word_for("strands_per_braid").label == word_for("strands_per_braid").heading == "Strands per braid"
    assert word_for("k").label == "k"
    assert word_for("").label == ""
    assert word_for("l0") is WORDS["l0"]


def test_the_page_of_docs_is_made_of_these_words() -> None:
    spec = importlib.util.spec_from_file_location("measurements_page", ROOT / "scripts" / "measurements_page.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = script.page()
    assert script.PAGE.read_text(encoding="utf-8") == page, "Run: python scripts/measurements_page.py"
    assert all(f"`{name}`" in page for name in WORDS)
