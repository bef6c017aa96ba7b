"""The harvest as a command: what it writes is what trainers read; again, it goes on; and its refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from superscope.capture import Policy, StoreSource
from superscope.core import Report, SiteNotFound
from superscope.dictionaries import TopK, train
from superscope.studies import Harvest, Sites


def harvest(model: Path, text: Path, **changes: object) -> Harvest:
    settings: dict[str, object] = {"model": str(model), "text": str(text), "tokens": 3000, "compute": "float32"}
    settings |= {"sites": ("resid_post.0", "mlp_act.1"), "policy": Policy(context=32), "per_unit": 16}
    return Harvest(**(settings | changes))  # type: ignore[arg-type]


def test_a_harvest_is_trained_on(model_folder: Callable[[str], Path], text_folder: Path, tmp_path: Path) -> None:
    report = harvest(model_folder("GPT-2"), text_folder).run(tmp_path / "run")
    assert Report.load(tmp_path / "run").measurements == report.measurements
    (rows,) = report["rows"]
    source = StoreSource(tmp_path / "run" / "store", site="resid_post.0")
    assert rows.value == len(source) == 3000
    assert report.tables["stored"]["name"] == ["resid_post.0", "mlp_act.1"]
    sae = TopK(d=source.d, n=24, k=3, seed=0)
    steps = list(train(sae, source, steps=30, batch=256))
    assert steps[-1].numbers["fraction_variance_unexplained"] < steps[0].numbers["fraction_variance_unexplained"]
    assert any("For three dictionaries" in finding for finding in report.findings)


def test_it_goes_on_where_it_was(model_folder: Callable[[str], Path], text_folder: Path, tmp_path: Path) -> None:
    study = harvest(model_folder("GPT-2"), text_folder)
    whole = study.run(tmp_path / "whole")
    stages = study.stages(tmp_path / "part")
    units = tmp_path / "part" / "store" / "units"
    while len(list(units.glob("*.json"))) < 2:
        next(stages)
    stages.close()
    written = {path.name: path.stat().st_mtime_ns for path in units.glob("*.json")}
    assert study.run(tmp_path / "part").measurements == whole.measurements
    assert all((units / name).stat().st_mtime_ns == at for name, at in written.items())


@pytest.mark.parametrize("family", ["BERT", "GPT-2"])
def test_encoders_and_auto(family: str, model_folder: Callable[[str], Path], text_folder: Path, tmp_path: Path) -> None:
    report = harvest(model_folder(family), text_folder, sites=(), compute="auto", store=str(tmp_path / "s")).run()
    assert len(report["outliers_dropped"]) == 1
    assert next(StoreSource(tmp_path / "s").batches(64, seed=0)).x.dtype == torch.float32
    assert any("a batch took" in finding for finding in report.findings)


def test_refusals(model_folder: Callable[[str], Path], text_folder: Path, tmp_path: Path) -> None:
    model = model_folder("GPT-2")
    with pytest.raises(ValueError, match="needs a place to write to"):
        harvest(model, text_folder).run()
    with pytest.raises(SiteNotFound, match="Did you mean|past the last layer"):
        harvest(model, text_folder, sites=("resid_post.9",)).run(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    with pytest.raises(ValueError, match="this model takes"):
        harvest(model, text_folder, policy=Policy(context=4096), tokens=None).run(tmp_path / "b")
    with pytest.raises(ValueError, match="tokens must be at least 1"):
        Harvest(tokens=0)
    store = str(tmp_path / "s")
    harvest(model, text_folder, store=store).run()
    with pytest.raises(ValueError, match="already holds another harvest: sites"):
        harvest(model, text_folder, store=store, sites=("resid_post.1",)).run()
    with pytest.raises(ValueError, match="windows of another text: limit is 3000 there and 2000 here"):
        harvest(model, text_folder, store=store, tokens=2000).run()


@pytest.mark.parametrize("family", ["BERT", "GPT-2"])
def test_sites_are_listed(family: str, model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    report = Sites(model=str(model_folder(family))).run(tmp_path / "run")
    table = Report.load(tmp_path / "run").tables["roles"]
    assert table == {name: list(column) for name, column in report.tables["roles"].items()}
    assert {"resid_post.1", "z.0", "mlp_act.1", "embed"} <= set(table["name"])
    assert dict(zip(table["name"], table["kind"], strict=True))["mlp_act.1"] == "neurons"
    with pytest.raises(ValueError, match="there is no role 'residual'"):
        Sites(roles=("residual",))
