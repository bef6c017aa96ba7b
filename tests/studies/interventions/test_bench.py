"""The bench: what a trial says holds of the model, two trials share a desk, and what cannot be tried is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from superscope.core import Report, result_of
from superscope.core.run import Answer
from superscope.dictionaries import TopK
from superscope.intervene import concepts
from superscope.intervene.edits import Add
from superscope.intervene.side_effects import divergences
from superscope.studies import Bench
from superscope.studies.interventions.desk import Desk

OWN = {
    "targets": ("own",),
    "towards": ("raise ValueError(x)", "raise TypeError(name)", "raise KeyError(key)"),
    "away": ("the end of a line", "a list of all values", "the name of the file"),
    "tokens": 200,
    "fisher_tokens": 300,
    "draws": 24,
    "controls": 2,
    "matrix": False,
}


@pytest.fixture(scope="module")
def sae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sae") / "sae"
    TopK(d=192, n=24, k=4, seed=0).save(place)
    return place


@pytest.fixture(scope="module")
def desk(sae: Path) -> Desk:
    return result_of(Bench(**OWN, dictionary=str(sae)).opened())


@pytest.fixture(scope="module")
def answer(desk: Desk, sae: Path) -> Answer:
    return result_of(Bench(**OWN, dictionary=str(sae), doses=(0.05, 0.4), new_tokens=3).tried(desk))


def test_doses_are_what_they_say(answer: Answer, desk: Desk) -> None:
    table = answer.findings.tables["doses"]
    assert table["dose"] == pytest.approx([0.05, 0.4])
    assert table["norms"] == pytest.approx([0.05, 0.4], rel=1e-4)
    v = answer.arrays["direction"]
    assert float(v.double().norm()) == pytest.approx(float(desk.x.double().norm(dim=1).mean()), rel=1e-5)
    assert table["predicted_nats"] == pytest.approx([desk.fisher.nats(v) * s**2 for s in (0.05, 0.4)], rel=1e-4)
    (one,) = divergences(desk.subject, desk.corpus, [{desk.site: Add(v, strength=0.4)}])
    assert table["kl"][1] == pytest.approx(one.mean, rel=1e-5)
    assert table["kl_low"][1] < table["kl"][1] < table["kl_high"][1]
    assert answer.findings["steering_kl", 0.4, "unrelated"].value == table["kl"][1]
    assert table["effect"][1] > table["effect"][0] > 0


def test_controls_damage_and_the_second_order_stand_beside(answer: Answer) -> None:
    tables = answer.findings.tables
    chance = tables["chance"]
    assert all(a <= b <= c for a, b, c in zip(chance["kl_low"], chance["kl_median"], chance["kl_high"]))
    kinds = tables["steering"]["kind"]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "target": 1, "opposite": 1, "random": 2, "orthogonal": 2, "nearest atom": 1,
    }  # fmt: skip
    assert len({round(norm, 3) for norm in tables["steering"]["norm"]}) == 1
    assert set(tables["damage"]["where"]) == {"present", "absent"}
    assert tables["validity"]["predicted_nats"] == sorted(tables["validity"]["predicted_nats"])
    # Small doses cost what grows with their square, whatever F; and F of 96 draws says how much, within its errors:
    # a sum of four windows' chi-square means of 24, 14 to 29 % of itself, as one window has all of it or a quarter.
    assert tables["validity"]["kl"][1] / tables["validity"]["kl"][0] == pytest.approx(0.01 / 0.003, rel=0.1)
    assert tables["validity"]["kl"][0] == pytest.approx(0.003, rel=0.5)
    rho = [m.value for m in answer.findings if m.name == "rho"]
    assert len(rho) == 2
    assert all(value is not None and value >= 1 for value in rho)
    assert answer.findings["rho", "Fisher"].caution.startswith("at least")
    assert tables["texts"]["dose"] == [0.0, 0.05, 0.4]
    plain = [i for i, dosed in enumerate(tables["tokens"]["dose"]) if dosed == 0]
    assert [tables["tokens"]["edited"][i] for i in plain] == [tables["tokens"]["plain"][i] for i in plain]


def test_nothing_is_left_in_the_model(answer: Answer, desk: Desk) -> None:
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in desk.subject.model.modules())
    assert answer.findings["concept_log_odds_rise", 0.4].caution


@pytest.mark.parametrize(
    "more",
    [
        {"edit": "gated", "doses": (1.0,)},
        {"edit": "project_out", "doses": (0.5,)},
        {"edit": "least", "unit": "nats", "doses": (0.05,)},
        {"edit": "norm_kept", "doses": (0.2,)},
        {"targets": ("latent 3",), "doses": (0.2,)},
    ],
    ids=["gated", "project_out", "least", "norm_kept", "latent"],
)
def test_every_way_of_changing_x(desk: Desk, sae: Path, more: dict) -> None:
    longer = {side: tuple(f"{text} {text} {text}" * 6 for text in OWN[side]) for side in ("towards", "away")}
    given = OWN | longer | {"dictionary": str(sae), "new_tokens": 0, "controls": 2} | more
    found = result_of(Bench(**given).tried(desk)).findings
    table = found.tables["doses"]
    assert table["kl"][0] > 0
    if more.get("edit") == "norm_kept":
        assert table["norm_ratio"][0] == pytest.approx(1, abs=1e-4)
    if given.get("unit") == "nats":
        assert table["predicted_nats"][0] == pytest.approx(0.05, rel=1e-3)
        # Nothing that moves the read-out as much costs less by the metric it was made with.
        assert found["rho", "Fisher"].value == pytest.approx(1, rel=1e-3)
        # What chose it does not say what it costs: by its own draws this dose would be dozens of nats.
        assert table["kl"][0] == pytest.approx(0.05, rel=0.5)
    if more.get("edit") in ("gated", "project_out"):
        assert "validity" not in found.tables
        assert "opposite" not in found.tables["steering"]["kind"]
    if given["targets"] == ("latent 3",):
        assert 3 not in found.tables["latents_moved"]["latent"]
        assert found["off_target_share"].value is not None


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"targets": ()}, "there is no target"),
        ({"targets": ("latent x",)}, "there is no target 'latent x'"),
        ({"targets": ("own",), "towards": ()}, "own has two sides"),
        ({"doses": (0.0,)}, "other than 0"),
        ({"doses": ()}, "at least one"),
        ({"unit": "nats", "doses": (-0.1,)}, "in nats is above 0"),
        ({"edit": "gated", "doses": (2.0,)}, "takes out a share"),
        ({"prompts": (" ",)}, "a prompt is blank"),
    ],
)
def test_what_cannot_be_tried(more: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Bench(**OWN | more)


def test_latents_want_their_dictionary(desk: Desk, sae: Path) -> None:
    with pytest.raises(ValueError, match="there is no latent 99"):
        result_of(Bench(**OWN | {"targets": ("latent 99",)}).tried(desk))
    assert set(concepts.POCKET_CONCEPTS) == {"code", "errors", "numbers", "quoting"}
    assert Bench(**OWN).place != Bench(**OWN, dictionary=str(sae)).place
    assert Bench(**OWN).place == Bench(**OWN | {"doses": (0.3,)}).place


def test_the_run_in_the_package_is_one_of_ours() -> None:
    from superscope.studio.server.app import BUNDLED

    report = Report.load(BUNDLED / "bench")
    assert report.kind == "bench"
    assert Bench.read(report.settings).targets == ("errors",)
    table = report.tables["concept_matrix"]
    own = [rise for a, b, rise in zip(table["concept"], table["other"], table["rise"]) if a == b]
    assert len(own) == 4
    assert min(own) > 0
