"""Forms: every study's settings go through a form's JSON to the very command that means them."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import pytest
import tyro

from superscope.studies import STUDIES
from superscope.studies.settings import fields
from superscope.studio.server.forms import forms, options

# What each study cannot do without, and something of every kind that it has.
GIVEN: dict[str, dict[str, Any]] = {
    "scan": {
        "model": "other",
        "tokens": 500,
        "text": "my text.txt",
        "sites": ["a.*", "b"],
        "control": True,
        "budget": 2,
    },
    "harvest": {"policy.context": 64, "policy.drop_ids": [1, 2], "sites": ["a"]},
    "train": {"source": "world:exactly_k", "world": ["n=12", "l0=3"], "n": 24, "lr": 0.01, "whiten": "none"},
    "frontier": {"source": "world:exactly_k", "ks": [1, 2, 3]},
    "count": {"source": "world:uniform"},
    "calibrate": {"short": True},
    "sweep": {"study": "bounds", "vary": ["d=8,16"], "given": ["n=32"]},
    "toy": {"n": 6, "densities": [0.5], "family": "untied", "schedule": "cosine", "magnitude": "uniform:-1:1"},
    "bounds": {"n": 32, "d": 8, "snr": 2.5},
    "theory": {"dictionary": "matrix.npy", "signed": True},
    "recover": {"dictionary": "matrix.npy", "ks": [1, 2]},
    "plan": {"latents": 64, "tokens": 1e6, "k": 4, "d": 8},
    "interpret": {"scan": "run", "latents": 5, "send": True},
    "neuronpedia": {"scan": "run", "target": "pages", "batch": 20},
    "convert": {"source": "a", "target": "b", "subtract_bias": False},
    "judge": {"dictionary": "sae", "world": ["uniform"], "ceilings": False, "subtract_bias": True},
    "compare": {"sources": ["a", "b"], "threshold": 0.8, "signs": "dropped"},
    "bench": {"targets": ["code", "latent 3"], "dictionary": "sae", "unit": "nats", "doses": [0.01, 0.1]},
    "manifolds": {"source": "world:rings", "concepts": ["weekdays", "digits"], "groups": 20},
    "evaluate": {"dictionary": "sae", "world": ["uniform"]},
    "survey": {"layers": [0, 2], "domains": ["stdlib", "topics"], "minutes": 5},
    "layers": {"layers": [0, 2], "controls": ["control"]},
    "scale": {"widths": [16, 24, 32, 48], "models": 3},
    "maximise": {"units": [3, 4], "fluency": [0, 0.5], "position": "best", "control": False},
    "populations": {"layers": [0, 1], "maps": ["pca", "umap"]},
    "transfer": {"a": "pocket@resid_post.0"},
    "steer": {"strengths": [0.0, 1.5], "latent": 3, "sae": "sae"},
    "ablate": {"towards": ["yes"], "away": ["no"]},
    "sycophancy": {"layers": [1], "cells": "wrong-only"},
    "compress": {"ranks": [4, 8]},
    "perturb": {"sizes": [0.5, 1.0]},
    "collateral": {"concepts": ["code"]},
}


def parsed(kind: type, words: list[str]) -> Any:
    """What the command line makes of words, as superscope.cli.command does."""
    flat = tyro.conf.arg(name="")
    command = dataclasses.make_dataclass("Command", [("study", Annotated[kind, flat])])
    return tyro.cli(command, args=words, config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)).study


@pytest.mark.parametrize("entry", STUDIES, ids=lambda entry: entry.command)
def test_a_form_stands_for_its_command(entry: Any) -> None:
    values = GIVEN.get(entry.command, {})
    study = parsed(entry.load(), options(entry.command, values))
    for name, value in values.items():
        found: Any = study
        for part in name.split("."):
            found = getattr(found, part)
        assert (list(found) if isinstance(found, tuple) else found) == value, name
    asked = {name.partition(".")[0] for name in values}
    for setting in fields(entry.load()):
        if setting.name not in asked:
            assert getattr(study, setting.name) == setting.default


def test_every_study_has_a_form_with_every_setting() -> None:
    assert [form.command for form in forms()] == [entry.command for entry in STUDIES]
    for form in forms():
        assert form.about
        assert all(setting.help.endswith(".") for setting in form.settings)
    (toy,) = (form for form in forms() if form.command == "toy")
    steps = next(setting for setting in toy.settings if setting.name == "steps")
    assert (steps.kind, steps.default, steps.low, steps.limits) == ("whole", 10_000, 1, ["at least 1"])


@pytest.mark.parametrize(
    ("study", "values", "sentence"),
    [
        ("toy", {"n": 0}, "n must be at least 1; got 0."),
        ("toy", {"n": "6"}, "n needs a whole number; got '6'."),
        ("toy", {"n": True}, "n needs a whole number"),
        ("toy", {"n": None}, "n needs a value."),
        ("toy", {"densities": 0.5}, "densities needs a list of values."),
        ("toy", {"densities": [2.0]}, r"densities must be numbers in \(0, 1\]"),
        ("toy", {"schedule": "cosin"}, "schedule is one of constant, linear, cosine"),
        ("toy", {"set": ["help"]}, "can set"),
        ("toy", {"out": "/tmp/x"}, "toy has no setting 'out'"),
        ("scan", {"model": "--out=/tmp/x"}, "may not begin with a hyphen"),
        ("scan", {"sites": ["--out", "/tmp/x"]}, "may not begin with a hyphen"),
        ("scan", {"text": "a\nb"}, "control characters"),
        ("bounds", {"n": 32}, "bounds needs d: Dimensions"),
        ("studio", {}, "there is no study 'studio'"),
    ],
)
def test_what_a_study_does_not_take_is_refused_before_it_waits(study: str, values: dict, sentence: str) -> None:
    with pytest.raises((ValueError, LookupError), match=sentence):
        options(study, values)
