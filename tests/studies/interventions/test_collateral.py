"""Is what edits will move told beforehand? On a model of a few thousand weights, and where the truth is known."""

from __future__ import annotations

import pytest

from superscope.studies import Collateral

TINY = {"tokens": 1200, "held_out": 200, "context": 32, "n": 32, "k": 4, "steps": 4, "batch": 64}


def test_of_a_smooth_model_the_gradients_tell_all(model_folder, text_folder) -> None:
    report = Collateral(
        str(model_folder("GPT-2")), text=str(text_folder), edits=16, concepts=(), controls=3, **TINY
    ).run()
    edits = report.tables["edits"]
    assert list(edits["kind"]) == 2 * (["feature"] * 16 + ["random"] * 3)
    assert list(edits["dose"]) == ["natural"] * 19 + ["equal"] * 19
    assert min(edits["moved predictions"]) > 0
    assert min(edits["moved latents"]) > 0
    assert edits["norm"][19:] == pytest.approx([edits["norm"][19]] * 19)
    order = {(m.at["moved"], m.at["dose"], m.at["by"]): m.value for m in report["collateral_order"]}
    assert order["predictions", "natural", "fisher"] > 0.7
    # At one length the length is no rival.
    rivals = {(m.at["dose"], m.at["over"]) for m in report["collateral_order_gain"]}
    assert rivals == {("natural", "density"), ("natural", "norm"), ("equal", "density")}
    assert len(report.tables["all_edits"]["n"]) == 12


def test_in_a_toy_network_features_tell_it_beyond_density_and_norm() -> None:
    report = Collateral("world:toy_networks", world=("n=24", "d=8", "steps=400"), controls=2).run()
    (natural, *_) = (m for m in report["collateral_order"] if m.at["by"] == "features")
    assert natural.value > 0.8
    assert report.findings[0].startswith("How far outputs move is foretold best by atoms, densities and co-activations")


def test_bad_input_is_refused_in_sentences() -> None:
    with pytest.raises(ValueError, match="there is no built-in concept 'love'"):
        Collateral(concepts=("love",))
    with pytest.raises(ValueError, match="has no network behind x"):
        Collateral("world:zipf", world=("n=24", "d=12", "l0=1")).run()
