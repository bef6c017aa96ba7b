from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch

from superscope.core import Report, ShapeError, SiteNotFound, files
from superscope.dictionaries import TopK
from superscope.studies import Ablate, Spare, Steer
from superscope.studies.interventions.offers import ABLATIONS, GATES, STEERING

WITH = tuple(f"if the file does not exist, an error is raised {i}" for i in range(3))
WITHOUT = tuple(f"the cat sat on the mat {i}" for i in range(3))


@pytest.fixture(scope="module")
def small(model_folder, text_folder, tmp_path_factory) -> dict:
    """Settings of a tiny model, a dictionary of random atoms, and a concept that is to stay."""
    sae, other = tmp_path_factory.mktemp("sae"), tmp_path_factory.mktemp("other") / "lists.json"
    TopK(d=16, n=24, k=4, seed=0).save(sae)
    positive = [f"a list has a length; an empty list has none {i}" for i in range(3)]
    negative = [f"colours such as red, green and blue {i}" for i in range(3)]
    other.write_text(json.dumps({"name": "lists", "positive": positive, "negative": negative}))
    return {
        "model": str(model_folder("GPT-2")),
        "site": "resid_post.0",
        "towards": WITH,
        "away": WITHOUT,
        "sae": str(sae),
        "latent": 3,
        "protect": (str(other),),
        "unrelated": str(text_folder),
        "tokens": 200,
        "metered": 130,
        "controls": 2,
        "new_tokens": 3,
    }


@pytest.fixture(scope="module")
def steer(small) -> dict:
    asked = {"prompts": ("The cat sat",), "wanted": " file", "unwanted": " mat", "strengths": (0.0, 0.25, 0.5)}
    return small | asked | {"fisher_tokens": 60, "draws": 1}


@pytest.fixture(scope="module")
def ablated(small, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "ablate"
    Ablate(**small).run(folder)
    return folder


def test_every_edit_of_a_setting_is_offered_and_every_offer_is_named():
    hints = get_type_hints(Steer)
    assert set(get_args(hints["edit"])) == set(STEERING)
    assert set(get_args(hints["gate"])) == set(GATES)


@pytest.mark.parametrize("edit", STEERING)
def test_each_edit_says_how_far_it_is_from_the_best_and_what_it_assumes(edit, steer):
    made = Steer(**(steer | {"edit": edit, "new_tokens": 0, "controls": 1})).run()
    assert {m.at["metric"] for m in made["rho"]} == {"second moment", "Fisher"}
    assert all(m.value is None or m.value >= 1 - 1e-9 for m in made["rho"])
    assert any(f"Edit: {edit}: {STEERING[edit].words}; it reads " in each for each in made.findings)
    assert any(each.startswith("Read-outs assumed") for each in made.findings)
    # At strength 0 no edit does anything.
    rows = made.tables["doses"]
    assert rows["norm_ratio"][rows["strength"].index(0.0)] == pytest.approx(1.0)


def test_a_steering_run_has_its_control_band_and_what_was_foretold(steer, tmp_path):
    Steer(**(steer | {"strengths": (-0.5, 0.0, 0.25, 0.5, 1.0)})).run(tmp_path / "run")
    report = Report.load(tmp_path / "run")
    table = report.tables["side_effects"]
    at_size = [i for i, way in enumerate(table["matched"]) if way == "size"]
    assert [table["kind"][i] for i in at_size] == ["edit", "opposite", "random", "random", "orthogonal", "nearest atom"]
    assert [table["size"][i] for i in at_size] == pytest.approx([table["size"][0]] * len(at_size), rel=1e-4)
    kl = {m.at["strength"]: m for m in report["steering_kl"]}
    assert set(kl) == {0.5}
    assert kl[0.5].value == pytest.approx(table["kl"][0])
    assert kl[0.5].chance is not None
    assert kl[0.5].low is not None
    for name in ("steering_delta_loss", "steered_norm_ratio", "off_target_share", "probe_shift", "repetition"):
        assert report[name][0].chance is not None
    for name in ("looping_answers", "empty_answers", "refused_answers"):
        assert report[name][0].low is not None
    # Where a control was dosed to the same KL, it has it.
    same = [table["kl"][i] for i, way in enumerate(table["matched"]) if way == "kl"]
    assert all(one == pytest.approx(table["kl"][0], rel=0.15) for one in same)
    assert {m.at["over"] for m in report["collateral_order_gain"]} == {"size", "frequency"}
    assert {m.at["by"] for m in report["collateral_order"]} == {"features", "fisher"}
    assert any("edits of the same size elsewhere" in each for each in report.findings)


def test_ablations_stand_above_the_oracle(ablated):
    report = Report.load(ablated)
    floor = {m.at["edit"]: m.value for m in report["over_floor"]}
    assert set(floor) == {"oracle_leace", *ABLATIONS} - ({"gated"} if "gated" not in floor else set())
    assert floor["oracle_leace"] == pytest.approx(1.0)
    assert all(value is None or value >= 1 - 1e-9 for value in floor.values())
    left = {m.at["edit"]: m.value for m in report["difference_left"]}
    for name in ("oracle_leace", "leace", "splince"):
        assert left[name] == pytest.approx(0.0, abs=0.15 if name == "splince" else 1e-4)
    changed = {m.at["edit"]: m.value for m in report["squared_change"] if m.at["where"] == "contrast"}
    assert changed["oracle_leace"] <= changed["leace"] * (1 + 1e-6)
    oracle = [m.at["where"] for m in report["loss_added"] if m.at["edit"] == "oracle_leace"]
    assert oracle == ["towards", "away"], "unrelated text has no label"
    for name in ("steering_kl", "off_target_share", "probe_shift", "looping_answers", "refused_answers", "rho"):
        assert {m.at["edit"] for m in report[name]} <= {"oracle_leace", *ABLATIONS}
        assert len(report[name]) >= len(ABLATIONS) - 2


def test_what_is_protected_moves_least_under_the_edits_that_protect_it(small):
    made = Steer(
        **(small | {"latent": None, "edit": "protected", "new_tokens": 0, "strengths": (0.5,), "controls": 1})
    ).run()
    (shift,) = made["probe_shift"]
    assert shift.value == pytest.approx(0.0, abs=1e-4)
    assert (shift.chance or 0.0) > 1e-3


@pytest.mark.parametrize("kind", [Steer, Ablate])
def test_without_text_no_word_of_a_prompt_is_in_the_run_folder(kind, small, steer, tmp_path):
    settings = steer if kind is Steer else small
    kind(**settings, text=False).run(tmp_path / "run")
    assert "texts" not in Report.load(tmp_path / "run").tables
    words = (b"error is raised", b"sat on the mat", b"cat sat", b" file")
    seen = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert seen
    for file in seen:
        content = file.read_bytes()
        assert not [word for word in words if word in content], file
    kind(**settings).run(tmp_path / "told")
    assert b"cat sat" in b"".join(file.read_bytes() for file in (tmp_path / "told").rglob("*") if file.is_file())


BAD = [
    ({"away": ()}, "a contrast has two sides"),
    ({"towards": ("a", " ")}, "positive text 1 is blank"),
    ({"width": 0.1}, "on 6 held-out texts the 95 % interval of an accuracy can be ± 0.31, and ± 0.10 is asked for"),
    ({"latent": 3, "sae": None}, "a latent is a number in a dictionary"),
    ({"latent": 99}, "has 24 latents and no 99"),
    ({"protect": ("love",)}, "there is no concept 'love' to protect"),
    ({"towards": WITH, "away": WITH, "sae": None, "latent": None}, "have the same mean"),
]


@pytest.mark.parametrize(("settings", "said"), BAD)
@pytest.mark.parametrize("kind", [Steer, Ablate])
def test_bad_settings_are_refused_in_a_sentence(kind, settings, said, small):
    with pytest.raises(ValueError, match=re.escape(said)):
        kind(**(small | settings)).run()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"strengths": (math.nan,)}, "strengths must be finite numbers"),
        ({"strengths": (0.0, math.inf)}, "strengths must be finite numbers"),
        ({"strengths": ()}, "strengths must be finite numbers, at least one"),
        ({"at": 3.0}, "at must be one of the strengths"),
        ({"edit": "latent", "latent": None}, "latent needs a dictionary"),
        ({"edit": "protected", "protect": ()}, "protected needs concepts that are to stay"),
        ({"gate": "latent", "latent": None}, "a gate on a latent needs a dictionary"),
    ],
)
def test_bad_settings_of_steer_are_refused_in_a_sentence(settings, said, steer):
    with pytest.raises(ValueError, match=re.escape(said)):
        Steer(**(steer | settings))


def test_bad_settings_of_ablate_are_refused_in_a_sentence(small):
    for settings, said in (
        ({"ablations": ("guess",)}, "there is no ablation 'guess'"),
        ({"ablations": ("latent",), "latent": None}, "latent needs a dictionary"),
        ({"ablations": ("splince",), "protect": ()}, "splince needs concepts that are to stay"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            Ablate(**(small | settings))


@pytest.mark.parametrize("kind", [Steer, Ablate])
def test_sites_directions_and_models_that_do_not_fit(kind, small, model_folder, tmp_path):
    with pytest.raises(SiteNotFound):
        kind(**(small | {"site": "no.such.site"})).run()
    files.write_tensors(tmp_path / "v.safetensors", {"v": torch.ones(5)})
    with pytest.raises(ValueError, match="holds 5 numbers and x has 16"):
        kind(**(small | {"sae": None, "latent": None, "direction": str(tmp_path / "v.safetensors")})).run()
    files.write_tensors(tmp_path / "w.safetensors", {"v": torch.full((16,), math.nan)})
    with pytest.raises(ValueError, match="NaN or infinite"):
        kind(**(small | {"sae": None, "latent": None, "direction": str(tmp_path / "w.safetensors")})).run()
    TopK(d=5, n=8, k=2, seed=0).save(tmp_path / "sae")
    with pytest.raises((ValueError, ShapeError), match="reads rows of 5 numbers and x has 16"):
        kind(**(small | {"sae": str(tmp_path / "sae")})).run()
    with pytest.raises(TypeError, match="is an encoder and predicts no next token; give a causal model"):
        kind(**(small | {"model": str(model_folder("BERT"))})).run()


def test_a_protected_concept_that_is_the_concept_itself_is_refused_with_the_angle(small, steer, tmp_path):
    (tmp_path / "same.json").write_text(json.dumps({"name": "same", "positive": WITH, "negative": WITHOUT}))
    same = {"protect": (str(tmp_path / "same.json"),), "sae": None, "latent": None}
    with pytest.raises(ValueError, match=r"lies 0\.00 degrees from the span of what is protected"):
        Steer(**(steer | same | {"edit": "protected"})).run()
    with pytest.raises(ValueError, match=r"degrees apart.*taking one takes the other"):
        Ablate(**(small | same | {"ablations": ("splince",)})).run()


def test_ablations_in_a_known_world_stand_above_the_oracle():
    made = Spare(worlds=("uniform:n=16,d=8,l0=1",), features=2, rows=2000).run()
    for name in ("projection_over_floor", "gated_over_floor"):
        assert all((m.value or 0) >= 1 - 1e-9 for m in made[name])
    gated, projected = made["gated_over_floor"][0].value or 0, made["projection_over_floor"][0].value or 0
    assert gated < projected
