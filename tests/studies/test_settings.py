"""Settings: what a study's fields say of themselves, and the limits that every number keeps to."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pytest

from superscope.core.errors import FormatError
from superscope.studies import STUDIES
from superscope.studies.settings import Count, Setting, above, at_least, at_most, check, fields, read
from superscope.studies.study import Study

NEEDED: dict[str, dict[str, Any]] = {
    "harvest": {"policy": {"context": 64, "drop_ids": (1, 2)}},
    "train": {"source": "world:exactly_k", "world": ("n=12",)},
    "frontier": {"source": "world:exactly_k", "ks": (1, 2, 3)},
    "count": {"source": "world:uniform"},
    "sweep": {"study": "bounds", "vary": ("d=8,16",), "given": ("n=32",)},
    "bounds": {"n": 32, "d": 8},
    "theory": {"dictionary": "matrix.npy"},
    "recover": {"dictionary": "matrix.npy", "ks": (1, 2)},
    "plan": {"latents": 64, "tokens": 1e6, "k": 4, "d": 8},
    "convert": {"source": "a", "target": "b"},
    "interpret": {"scan": "run"},
    "neuronpedia": {"scan": "run", "target": "pages"},
    "judge": {"dictionary": "sae", "world": ("uniform",)},
    "compare": {"sources": ("a", "b")},
    "manifolds": {"source": "world:rings"},
    "evaluate": {"dictionary": "sae"},
}

# Numbers that may be anything, or whose limits depend on other settings and stand in the study's `check`.
FREE = {
    "seed",
    "input_scale",
    "eps",
    "ks",
    "densities",
    "seeds",
    "widths",
    "ratios",
    "correlations",
    "strengths",
    "doses",
}
BESIDE = {
    ("bounds", "n"),
    ("bounds", "k"),
    ("compress", "sparsities"),
    ("compress", "ranks"),
    ("perturb", "sizes"),
    ("steer", "at"),
}


def kinds() -> list[Any]:
    return [pytest.param(entry.command, entry.load(), id=entry.command) for entry in STUDIES]


def example(command: str, kind: type[Study], **changes: Any) -> Study:
    return read(kind, NEEDED.get(command, {}) | changes)


def numbers() -> list[Any]:
    return [
        pytest.param(entry.command, entry.load(), setting, id=f"{entry.command}-{setting.name}")
        for entry in STUDIES
        for setting in fields(entry.load())
        if setting.kind in (int, float)
    ]


@pytest.mark.parametrize(("command", "kind", "setting"), numbers())
def test_a_number_out_of_its_limits_is_refused_by_name(command: str, kind: type[Study], setting: Setting) -> None:
    if not setting.limits:
        assert setting.name in FREE or (command, setting.name) in BESIDE
        return
    example(command, kind)
    for limit in setting.limits:
        beyond = [limit.low if limit.is_open else limit.low - 1, limit.high + 1, float("inf"), float("nan")]
        # No whole number is infinite.
        beyond = [setting.kind(number) for number in beyond if setting.kind is float or math.isfinite(number)]
        refused = [number for number in beyond if not limit.admits(number)]
        assert refused
        for number in refused:
            with pytest.raises(ValueError, match=rf"^{setting.name} must be .*; got "):
                example(command, kind, **{setting.name: (number,) if setting.many else number})


@pytest.mark.parametrize(("command", "kind"), kinds())
def test_a_study_is_read_back_from_its_settings(command: str, kind: type[Study]) -> None:
    study = example(command, kind)
    saved = dataclasses.asdict(study)
    assert kind.read(saved) == study
    assert kind.read(json.loads(json.dumps(saved))) == study
    with pytest.raises(FormatError, match="about.json has an unknown key 'braid'"):
        kind.read(saved | {"braid": 1}, where="about.json")


@pytest.mark.parametrize(("command", "kind"), kinds())
def test_every_field_says_what_it_means(command: str, kind: type[Study]) -> None:
    for setting in fields(kind):
        parts = setting.parts or (setting,)
        assert all(part.help.endswith(".") for part in parts), setting.name
        assert setting.kind in (int, float, str, bool) or setting.parts
        assert not setting.required or setting.name in NEEDED[command]


@dataclass(frozen=True)
class Braid(Study):
    """How many strands?"""

    kind: ClassVar[str] = "braid"

    name: str
    """Its name."""
    strands: Count = 3
    """How many strands
    there are."""
    weight: Annotated[float, above(0, finite=True), at_most(9, because="or it breaks")] | None = None
    """Of the whole."""
    steps: tuple[Annotated[int, at_least(2, why="One crosses nothing.")], ...] = (4, 5)
    """Crossings."""
    hand: Literal["left", "right"] = "left"
    """Which begins."""

    def check(self) -> None:
        if self.hand == "right" and self.strands < 3:
            raise ValueError("a right braid needs three strands.")

    def answer(self, run: Any) -> Any:
        raise NotImplementedError


def test_what_a_field_says_is_read_off_it() -> None:
    name, strands, weight, steps, hand = fields(Braid)
    assert (name.kind, name.required, name.help) == (str, True, "Its name.")
    assert (strands.kind, strands.required, strands.default) == (int, False, 3)
    assert strands.help == "How many strands there are."
    assert (weight.kind, weight.optional, len(weight.limits)) == (float, True, 2)
    assert (steps.kind, steps.many, steps.default) == (int, True, (4, 5))
    assert (hand.kind, hand.choices) == (str, ("left", "right"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"strands": 0}, "strands must be at least 1; got 0."),
        ({"weight": 0.0}, "weight must be above 0 and finite; got 0.0."),
        ({"weight": float("inf")}, "weight must be above 0 and finite; got inf."),
        ({"weight": 9.5}, "weight must be at most 9, or it breaks; got 9.5."),
        ({"steps": (4, 1)}, "steps must be at least 2; got 1. One crosses nothing."),
        ({"strands": 2, "hand": "right"}, "a right braid needs three strands."),
    ],
)
def test_a_refusal_is_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Braid("b", **changes)


def test_the_largest_finite_number_is_finite() -> None:
    check(Braid("b", weight=None))
    assert at_least(0, finite=True).admits(1.7976931348623157e308)
    assert not at_least(0, finite=True).admits(float("inf"))
