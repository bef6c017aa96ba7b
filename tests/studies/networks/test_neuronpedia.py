"""Feature pages as Neuronpedia imports them: what stands in the files is what the scan holds, and what is refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from superscope import capture
from superscope.core import FormatError, Report, SiteNotFound
from superscope.dictionaries import load
from superscope.studies import Bounds, Neuronpedia, Scan

SITE = "transformer.h.1"


@pytest.fixture(scope="module")
def scanned(model_folder: Callable[[str], Path], text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scanned") / "run"
    Scan(
        model=str(model_folder("GPT-2")), text=str(text_folder), sites=("resid_post.0", "resid_post.1"), tokens=2000,
        held_out=500, context=24, n=30, k=3, seeds=2, steps=6, batch=128,
    ).run(folder)  # fmt: skip
    return folder


def _lines(folder: Path, name: str) -> list[dict[str, Any]]:
    files = sorted(
        (folder / name).glob("batch-*.jsonl.gz"), key=lambda file: int(file.name.split("-")[1].split(".")[0])
    )
    return [json.loads(line) for file in files for line in gzip.decompress(file.read_bytes()).splitlines()]


def test_every_feature_has_its_page(scanned: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.json"
    labels.write_text('{"7": "the seventh"}', encoding="utf-8")
    given: dict[str, Any] = {"scan": str(scanned), "target": str(tmp_path / "pages"), "site": SITE, "model_id": "tiny"}
    Neuronpedia(**given, creator="me", labels=str(labels), batch=8).run()
    folder = tmp_path / "pages" / "tiny" / "1-superscope"
    assert {file.name for file in folder.iterdir()} == {
        "model.jsonl", "release.jsonl", "sourceset.jsonl", "source.jsonl", "features", "activations", "explanations",
    }  # fmt: skip
    assert json.loads((folder / "source.jsonl").read_text())["hookName"] == "blocks.1.hook_resid_post"
    features, report = _lines(folder, "features"), Report.load(scanned)
    assert len(list((folder / "features").iterdir())) == 4
    assert sorted(feature["index"] for feature in features) == list(range(30))
    table = report.tables["latents"]
    known = {
        table["latent"][i]: i for i, site in enumerate(table["site"]) if site == SITE and table["model"][i] == "trained"
    }
    sae = load(scanned / "saes" / "trained" / SITE / "seed0")
    subject = capture.load(str(report.settings["model"]))
    head = subject.model.get_output_embeddings().weight
    atoms = sae.dictionary.atoms.detach()
    unit = torch.nn.functional.normalize(atoms, dim=1)
    cosines = (unit @ unit.T).fill_diagonal_(-1)
    logits = (atoms @ (head - head.mean(0)).T).detach()
    spelled = capture.spelling(subject.tokenizer)
    for feature in features:
        row = known[feature["index"]]
        assert feature["frac_nonzero"] == table["density"][row]
        assert feature["maxActApprox"] == feature["vectorDefaultSteerStrength"] == table["max_active"][row]
        assert feature["vector"] == pytest.approx(atoms[feature["index"]].tolist())
        best = logits[feature["index"]].topk(10)
        assert feature["pos_values"] == pytest.approx(best.values.tolist(), abs=1e-5)
        assert feature["pos_str"][0] == spelled[int(best.indices[0])]
        assert feature["neg_values"][0] == pytest.approx(float(logits[feature["index"]].min()), abs=1e-5)
        # The table's nearest atom may be an opposite one; of neighbours there, the sign counts.
        assert feature["topkCosSimIndices"][0] == int(cosines[feature["index"]].argmax())
    first = features[0]
    assert first["topkCosSimValues"][0] == pytest.approx(
        float(unit[first["index"]] @ unit[first["topkCosSimIndices"][0]]), abs=1e-5
    )
    contexts = _lines(folder, "activations")
    assert len({each["id"] for each in contexts}) == len(contexts) > 30
    for each in contexts:
        assert len(each["tokens"]) == len(each["values"])
        assert each["values"][each["maxValueTokenIndex"]] == each["maxValue"] > 0
    said = {each["index"]: each["description"] for each in _lines(folder, "explanations")}
    assert said[7] == "the seventh"
    with pytest.raises(FileExistsError, match="is there already"):
        Neuronpedia(**given).run()


def test_what_is_no_scan_or_no_label_is_refused(scanned: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"scan": str(scanned), "target": str(tmp_path / "pages")}
    with pytest.raises(ValueError, match="has 2 sites; give one with --site"):
        Neuronpedia(**given).run()
    with pytest.raises(SiteNotFound, match="has no site h.9"):
        Neuronpedia(**given, site="h.9").run()
    labels = tmp_path / "labels.json"
    for body, why in (("[1]", "is no object of labels"), ('{"300": "x"}', "labels '300', and the site has no such")):
        labels.write_text(body, encoding="utf-8")
        with pytest.raises(FormatError, match=why):
            Neuronpedia(**given, site=SITE, labels=str(labels)).run()
    Bounds(n=32, d=8).run(tmp_path / "bounds")
    with pytest.raises(FormatError, match="holds no features"):
        Neuronpedia(scan=str(tmp_path / "bounds"), target=str(tmp_path / "pages")).run()
    assert not (tmp_path / "pages").exists()
