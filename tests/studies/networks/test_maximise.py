"""What moves a unit most: prompts and pictures with what they are compared with, taken up again, and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from superscope.capture import Subject
from superscope.core import Report, files
from superscope.dictionaries import TopK
from superscope.studies import Maximise, Scan
from superscope.studies.networks.maximise_pictures import shape_of

SMALL: dict[str, Any] = {
    "length": 3, "context": 32, "tokens": 1500, "iterations": 6, "children": 4, "top": 16, "fluency": (0.0, 0.5)
}  # fmt: skip
PIXELS: dict[str, Any] = {"steps": 20, "starts": 2}


@pytest.fixture(scope="module")
def model(model_folder: Callable[[str], Path]) -> str:
    return str(model_folder("GPT-2"))


@pytest.fixture(scope="module")
def report(model: str, text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("run") / "run"
    Maximise(model, **SMALL, site="mlp_act.1", count=3, text=str(text_folder)).run(folder)
    assert not (folder / "units").exists()
    return Report.load(folder)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=8, patch_size=4,
        num_channels=1,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = transformers.ViTModel(config)
    folder = tmp_path_factory.mktemp("vit")
    network.save_pretrained(folder / "model")
    pixels = np.random.default_rng(0).uniform(-1, 1, size=(40, 1, 8, 8)).astype("float32")
    np.save(folder / "pixels.npy", pixels)
    return str(folder)


def test_every_unit_stands_beside_text_and_chance(report: Report) -> None:
    table = report.tables["maximised"]
    assert len(table["value"]) == 2 * 3 * (2 + 1 + 1)
    for label in ("trained", "control"):
        own = [m for m in report["maximised_activation"] if m.at["model"] == label]
        assert len(own) == 3
        for m in own:
            assert None not in (m.value, m.reference, m.chance)
        for name in ("maximised_ratio", "maximised_above", "maximised_nats"):
            assert [m.at["fluency"] for m in report[name] if m.at["model"] == label] == [0.0, 0.5]
    for ratio in report["maximised_ratio"]:
        assert ratio.value is not None
        assert ratio.chance is not None
        assert ratio.n == 3
        assert ratio.low is not None
        if ratio.at["fluency"] == 0.0:
            assert ratio.value > ratio.chance
    free, held = (m.value for m in report["maximised_nats"][:2])
    assert free is not None
    assert held is not None
    assert held <= free
    assert " of 3 units are raised above their strongest in text" in report.findings[0]


def test_a_prompt_is_as_long_as_asked_and_has_a_value_at_each_token(report: Report) -> None:
    table = report.tables["maximised"]
    for what, tokens, activations, value, position in zip(
        *(table[name] for name in ("what", "tokens", "activations", "value", "position")), strict=True
    ):
        assert len(tokens) == len(activations)
        assert what == "in text" or len(tokens) == 3
        assert activations[position] == pytest.approx(value, abs=1e-4)
    assert not {"<s>", "[PAD]", "[CLS]"} & {token for row in table["tokens"] for token in row}


def test_a_front_trades_one_for_the_other(report: Report) -> None:
    table = report.tables["front"]
    rows = list(zip(*(table[name] for name in ("model", "target", "value", "nats")), strict=True))
    for before, after in pairwise(rows):
        if before[:2] == after[:2]:
            assert before[2] >= after[2]
            assert before[3] > after[3]


def test_an_interrupted_run_goes_on_where_it_was(model: str, text_folder: Path, tmp_path: Path) -> None:
    study = Maximise(model, **SMALL, site="resid_post.0", units=(0, 1), control=False, text=str(text_folder))
    stages = study.stages(tmp_path / "run")
    for progress in stages:
        if progress.stage.startswith("Climbing") and progress.done > SMALL["iterations"]:
            break
    stages.close()
    kept = tmp_path / "run" / "units" / "trained-0.json"
    first = json.loads(kept.read_text(encoding="utf-8"))
    resumed = [progress.detail for progress in study.stages(tmp_path / "run") if progress.resumed]
    assert resumed == ["coordinate 0"]
    whole = study.run()
    assert Report.load(tmp_path / "run").tables == whole.tables
    assert whole["maximised_activation"][0].n == first["evaluations"]


def test_latents_of_a_dictionary_and_of_a_scan(model: str, text_folder: Path, tmp_path: Path) -> None:
    TopK(d=16, n=24, k=3, seed=0).save(tmp_path / "sae")
    given: dict[str, Any] = {**SMALL, "control": False, "text": str(text_folder), "count": 2}
    made = Maximise(model, **given, dictionary=str(tmp_path / "sae"), site="resid_post.0").run()
    assert all(str(m.at["target"]).startswith("latent ") for m in made["maximised_activation"])
    Scan(
        model=model, sites=("resid_post.0",), text=str(text_folder), tokens=1500, held_out=600, context=32, n=24, k=3,
        steps=4, batch=64, seeds=2,
    ).run(tmp_path / "scan")  # fmt: skip
    scanned = Maximise(model, **given, dictionary=str(tmp_path / "scan")).run()
    table = Report.load(tmp_path / "scan").tables["latents"]
    assert [m.at["target"] for m in scanned["maximised_activation"]] == [f"latent {i}" for i in table["latent"][:2]]
    assert scanned["maximised_activation"][0].at["site"] == "transformer.h.0"
    with pytest.raises(ValueError, match="the scan at .* is of"):
        Maximise("pocket", **given, dictionary=str(tmp_path / "scan")).run()
    with pytest.raises(ValueError, match="has no dictionary of resid_post.1"):
        Maximise(model, **given, dictionary=str(tmp_path / "scan"), site="resid_post.1").run()
    with pytest.raises(ValueError, match="latents 0 to 23; got 24"):
        Maximise(model, **given, dictionary=str(tmp_path / "sae"), units=(24,)).run()
    with pytest.raises(ValueError, match="reads rows of d = 16"):
        Maximise(model, **given, dictionary=str(tmp_path / "sae"), site="mlp_act.0").run()


def test_what_nothing_moves_is_said_to_be_so(model: str, text_folder: Path, tmp_path: Path) -> None:
    files.write_tensors(tmp_path / "v.safetensors", {"v": torch.stack([torch.zeros(16), torch.ones(16)])})
    given: dict[str, Any] = {**SMALL, "control": False, "text": str(text_folder)}
    report = Maximise(model, **given, direction=str(tmp_path / "v.safetensors"), site="embed").run()
    zero, ones = report["maximised_activation"]
    assert zero.value is None
    assert "nothing can be raised" in zero.caution
    assert ones.value is not None
    assert [m.n for m in report["maximised_ratio"]] == [1, 1]
    assert any(said.startswith("Nothing moves direction 0") for said in report.findings)
    alone = Maximise(model, **given, direction=str(tmp_path / "v.safetensors"), site="embed", units=(0,)).run()
    assert all(m.value is None and m.caution for m in alone)


def test_pictures_are_climbed_to_and_kept(vit: str, tmp_path: Path) -> None:
    study = Maximise(f"{vit}/model", **PIXELS, site="mlp_act.1", count=2, images=f"{vit}/pixels.npy")
    study.run(tmp_path / "run")
    report = Report.load(tmp_path / "run")
    table = report.tables["pictures"]
    assert table["what"][:3] == ["maximised", "strongest real", "best noise"]
    assert set(report.arrays) == {f"pictures.{label}.{k}" for label in ("trained", "control") for k in (0, 1)}
    for array in report.arrays.values():
        assert array.shape == (3, 1, 8, 8)
        assert float(array.min()) >= table["low"][0][0] - 1e-6
        assert float(array.max()) <= table["high"][0][0] + 1e-6
    for m in report["maximised_activation"]:
        assert m.how == "min and max over 2 starts"
        assert m.reference_is == "the strongest in real pictures"
    assert len(report.tables["climbs"]["value"]) == 2 * 2 * 2 * 3
    assert "real pictures" in report.findings[0]


def test_pictures_without_real_ones_and_without_anything_that_moves(vit: str, tmp_path: Path) -> None:
    report = Maximise(f"{vit}/model", **PIXELS, units=(1,), control=False, position="best").run()
    assert report.tables["pictures"]["what"] == ["maximised", "best noise"]
    assert report["maximised_activation"][0].reference is None
    assert report["maximised_ratio"][0].value is None
    np.save(tmp_path / "zero.npy", np.zeros(16, dtype="float32"))
    still = Maximise(f"{vit}/model", **PIXELS, control=False, direction=str(tmp_path / "zero.npy")).run()
    assert still["maximised_activation"][0].value is None
    assert still.findings == (
        "Nothing moves direction 0: the value is the same on every row and every input tried, so nothing can be "
        "raised. Give another unit.",
    )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"length": 0}, "length must be at least 1; got 0"),
        ({"length": 40, "context": 32}, "longer than the 32"),
        ({"fluency": ()}, "at least one"),
        ({"fluency": (0.1, 0.1)}, "different weights"),
        ({"fluency": (-1.0,)}, "fluency must be at least 0"),
        ({"dictionary": "a", "direction": "b"}, "give one of --dictionary and --direction"),
    ],
)
def test_settings_that_move_nothing(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Maximise(**settings)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"site": "mlp_act.9"}, "no module named|has no|layer"),
        ({"site": "resid_post.*"}, "units are of one"),
        ({"site": "mlp_act.1", "units": (999,)}, "coordinates 0 to 63; got 999"),
        ({"images": "pictures"}, "reads text and no pictures"),
        ({"direction": "nothing.npy"}, "there is no file nothing.npy"),
        ({"dictionary": "nothing"}, "there is no file or folder nothing"),
    ],
)
def test_what_the_model_does_not_have(model: str, text_folder: Path, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises((ValueError, LookupError, FileNotFoundError), match=sentence):
        Maximise(model, **{**SMALL, "text": str(text_folder), "control": False, **settings}).run()


def test_models_that_say_too_little(vit: str, model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is an encoder of text"):
        Maximise(str(model_folder("BERT"))).run()
    folder = tmp_path / "vit"
    folder.mkdir()
    for file in Path(vit, "model").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    np.save(tmp_path / "flat.npy", np.zeros((3, 4)))
    np.save(tmp_path / "large.npy", np.zeros((3, 1, 16, 16)))
    for name, sentence in (("flat", r"where pictures are \(count"), ("large", "prepare them"), ("none", "no file")):
        with pytest.raises((ValueError, FileNotFoundError), match=sentence):
            Maximise(f"{vit}/model", **PIXELS, images=str(tmp_path / f"{name}.npy")).run()

    class Model:
        config = transformers.PretrainedConfig(image_size=None, patch_size=4)

    with pytest.raises(ValueError, match="does not say how large its pictures"):
        shape_of(Subject(Model(), None, "vague", "encoder"))
    assert config["image_size"] == 8
