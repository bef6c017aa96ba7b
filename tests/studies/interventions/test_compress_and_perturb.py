"""What compression costs and how a layer is disturbed: on a model of a few thousand weights, and in worlds."""

from __future__ import annotations

import pytest

from superscope.studies import Compress, Perturb

TINY = {"tokens": 1200, "held_out": 400, "context": 32, "n": 32, "k": 4, "steps": 4, "batch": 64}


@pytest.fixture(scope="module")
def compressed(model_folder, text_folder):
    study = Compress(
        str(model_folder("GPT-2")), text=str(text_folder), ranks=(4, 16), sparsities=(0.0, 0.9), features=8, **TINY
    )
    return study.run()


def test_what_keeps_everything_costs_nothing(compressed) -> None:
    whole = [m for m in compressed["projected_loss_rise"] if m.at["rank"] == 16]
    assert len(whole) == 6
    for measured in whole:
        assert measured.value == pytest.approx(0, abs=1e-4), measured
    same = {m.at["by"]: m.value for m in compressed["compressed_loss_rise"] if m.at["sparsity"] == 0.0}
    assert same["magnitude"] == same["wanda"] == same["sparsegpt"] == 0
    table = compressed.tables["weights"]
    for method, sparsity, error in zip(table["method"], table["sparsity"], table["output_error"], strict=True):
        assert (error > 0.01) == (sparsity == 0.9 or method in ("svd", "svd-llm", "pca")), method


def test_tables_say_what_was_kept(compressed) -> None:
    weights, projections = compressed.tables["weights"], compressed.tables["projections"]
    assert set(weights["method"]) == {"magnitude", "wanda", "sparsegpt", "svd", "svd-llm", "pca"}
    for stored, sparsity in zip(weights["stored"], weights["sparsity"], strict=True):
        assert stored <= 1.02 - sparsity
    lost = {
        (name, rank): share
        for name, rank, share in zip(projections["projection"], projections["rank"], projections["lost"], strict=True)
    }
    assert lost["pca", 16] == pytest.approx(0, abs=1e-9)
    assert 0 < lost["pca", 4] < 1
    features = compressed.tables["features"]
    assert set(features["compression"]) == {"pca, rank 16", "fisher, rank 16"}
    assert all(0 < density <= 1 for density in features["density"])


def test_in_a_world_geometry_predicts_what_survives() -> None:
    report = Compress("world:zipf", world=("n=60", "d=12", "l0=1"), ranks=(6,), sparsities=(0.5,), features=20).run()
    by = {str(m.at["by"]): m.value for m in report["survival_predicted"] if m.at.get("rank") == 6}
    assert by["pca"] > 0.9
    rise = {str(m.at["by"]): m.value for m in report["projected_loss_rise"]}
    assert rise["fisher"] < rise["pca"] < rise["random"]
    rise = {str(m.at["by"]): m.value for m in report["compressed_loss_rise"]}
    assert rise["sparsegpt"] < rise["magnitude"]


def test_bad_input_is_refused_in_sentences(model_folder, text_folder) -> None:
    with pytest.raises(ValueError, match=r"each in \[0, 1\)"):
        Compress(sparsities=(1.0,))
    with pytest.raises(ValueError, match="ranks are dimensions that are left, each at least 1"):
        Compress(ranks=(0,))
    with pytest.raises(ValueError, match=r"x has 12 dimensions here, so none of the ranks can be above 12; got 13"):
        Compress("world:zipf", world=("n=24", "d=12", "l0=1"), ranks=(13,)).run()
    with pytest.raises(ValueError, match="no linear layer at"):
        Compress(str(model_folder("GPT-2")), text=str(text_folder), layers=("transformer.h.0.ln_1",), **TINY).run()
    with pytest.raises(TypeError, match="is an encoder and predicts no next token"):
        Compress(str(model_folder("BERT")), text=str(text_folder), **TINY).run()
    with pytest.raises(ValueError, match="are not all known row by row"):
        Compress("world:gaussian").run()
    with pytest.raises(ValueError, match="at least two lengths of a move"):
        Perturb(sizes=(1.0,))
    with pytest.raises(ValueError, match="has no network behind x"):
        Perturb("world:zipf", world=("n=24", "d=12", "l0=1")).run()


def test_farther_moves_do_more_damage(model_folder, text_folder) -> None:
    report = Perturb(
        str(model_folder("GPT-2")), text=str(text_folder), directions=8, windows=2, sizes=(0.1, 0.4), **TINY
    ).run()
    damage = {(m.at["move"], m.at["size"]): m.value for m in report["damage"]}
    for move in ("along", "between", "interference", "random", "noticed"):
        assert damage[move, 0.4] > 2 * damage[move, 0.1] > 0
    assert damage["noticed", 0.1] > damage["random", 0.1]
    # A model of random weights is smooth at so small a scale: the Fisher tells all.
    told = {(m.at["by"], m.at["moves"], m.at["size"]): m.value for m in report["damage_predicted"]}
    assert told["noticed", "all", 0.1] > 0.8


@pytest.mark.slow
def test_a_toy_is_disturbed_along_its_features() -> None:
    report = Perturb("world:toy_networks", world=("n=40", "d=16", "steps=1500"), directions=16, windows=4).run()
    ratio = {(m.at["move"], m.at["over"], m.at["size"]): m for m in report["damage_ratio"]}
    assert ratio["along", "random", 0.5].low > 1
    assert ratio["between", "along", 0.5].high < 1
    (gain,) = report["interference_gain"]
    assert gain.value >= gain.reference - 1e-6
