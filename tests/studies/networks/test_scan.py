"""The main job: a model's folder in, a run folder out; the same twice, also after an interruption; and its refusals."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from superscope.capture import load
from superscope.core import Report, RunFolder, files
from superscope.studies import Scan
from superscope.studies.study import Progress

from ..conftest import CONFIGS

# The columns that the report's views read.
COLUMNS = {
    "sites": {"site", "model", "d", "n", "k", "seeds", "rows", "kind", "note"}
    | {"outliers", "outliers_held_out", "outliers_here", "outlier_limit", "outlier_squared_norm", "outlier_variance"}
    | {"participation_with_outliers", "participation_without_outliers", "outlier_coordinates"}
    | {"outlier_coordinate_deviations", "outlier_coordinates_with_outliers"},
    "outlier_rows": {"site", "model", "part", "document", "document_position", "position", "token"}
    | {"norm", "norm_over_median", "here"},
    "latents": {
        "site",
        "model",
        "latent",
        "density",
        "mean_active",
        "max_active",
        "recurs",
        "nearest",
        "nearest_cosine",
    }
    | {"clarity", "clear_by", "top_tokens", "top_token_share", "promotes"},
    "contexts": {"site", "model", "latent", "rank", "band", "activation", "document", "position", "tokens"}
    | {"activations"},
    "writes": {"site", "model", "latent", "strengths", "axes", "axis_weights", "raises", "raises_by", "lowers"}
    | {"lowers_by"},
    "partners": {"site", "model", "latent", "why", "other", "cosine", "fires", "other_fires", "both", "rows"}
    | {"energy", "energy_share", "while_on"},
    "atlas": {"site", "model", "latent", "x", "y", "kept", "density", "recurs", "overlap", "energy"},
    "neurons": {"site", "model", "neuron", "effective_features", "explained", "features", "shares", "signs"}
    | {"selectivity", "told", "purer_directions"},
    "neuron_bands": {"site", "model", "neuron", "above", "rows", "value", "explained", "features", "parts"},
    "neuron_contexts": {"site", "model", "neuron", "rank", "value", "explained", "features", "parts"}
    | {"document", "position", "tokens", "activations"},
    "strong_features": {"site", "model", "threshold", "features", "low", "high", "random_directions"},
    "interference": {"site", "model", "latent", "energy", "while_on", "while_on_low", "while_on_high"}
    | {"false_alarm", "false_alarm_low", "false_alarm_high"},
    "histograms": {"site", "model", "what", "series", "low", "high", "count"},
    "training": {"site", "model", "seed", "step", "fraction_variance_unexplained", "dead"},
}
EVERYWHERE = {
    "tokens",
    "dimensions",
    "activation_gini",
    "activation_hoyer",
    "activation_entropy_dimension",
    "participation_ratio",
    "basis_kurtosis",
    "outlier_rows",
    "map_neighbours_kept",
    "outlier_coordinates",
    "l0",
    "fraction_variance_unexplained",
    "fraction_variance_unexplained_over_seeds",
    "alive_latents",
    "median_density",
    "code_gini",
    "entropy_effective_latents",
    "recurring_features",
    "recurring_per_dimension",
    "coherence",
    "mean_max_cosine",
    "interference_energy",
    "polysemanticity",
    "strong_features_per_neuron",
    "neuron_selectivity",
    "direction_selectivity",
    "interference_energy_ratio",
    "interference_while_on",
    "false_alarm_power",
    "code_hoyer",
    "code_treves_rolls",
    "participating_latents",
    "lifetime_treves_rolls",
    "lifetime_kurtosis",
    "activation_treves_rolls",
    "activation_used_dimension",
    "activation_participating_dimension",
    "activation_kurtosis",
    "weight_gini",
    "weight_hoyer",
    "weight_treves_rolls",
    "weight_entropy_dimension",
    "weight_participating_dimension",
    "weight_kurtosis",
    "cumulant_rank",
    "cumulant_directions",
    "cumulant_components",
    "norm_variation",
    "feature_dependence",
    "certified_count",
    "certified_candidates",
}


@pytest.fixture(scope="module")
def small(model_folder: Callable[[str], Path], text_folder: Path) -> Callable[..., Scan]:
    def scan(family: str = "GPT-2", **changes: Any) -> Scan:
        settings: dict[str, Any] = {
            "tokens": 3000,
            "held_out": 900,
            "context": 32,
            "n": 24,
            "k": 3,
            "seeds": 2,
            "steps": 4,
        }
        settings |= {"batch": 256, "model": str(model_folder(family)), "text": str(text_folder)}
        return Scan(**(settings | changes))

    return scan


@pytest.fixture(scope="module")
def whole(small: Callable[..., Scan], tmp_path_factory: pytest.TempPathFactory) -> Report:
    return small().run(tmp_path_factory.mktemp("whole") / "run")


def test_a_scan_with_control_writes_everything_its_views_read(small: Callable[..., Scan], tmp_path: Path) -> None:
    report = small(control=True).run(tmp_path / "run")
    loaded = Report.load(tmp_path / "run")
    assert loaded.measurements == report.measurements
    assert {name: set(table) for name, table in loaded.tables.items()} == COLUMNS
    sites = ("transformer.h.0", "transformer.h.1", "transformer.h.1.mlp.c_proj:in")
    for model in ("trained", "control"):
        for site in sites:
            names = {m.name for m in report if m.at == {"site": site, "model": model}}
            assert names == EVERYWHERE | {"cross_entropy_recovered", "cross_entropy_added"}, (site, model)
    assert dict(zip(report.tables["sites"]["site"], report.tables["sites"]["kind"], strict=True)) == {
        sites[0]: "residual",
        sites[1]: "residual",
        sites[2]: "neurons",
    }
    assert RunFolder.open(tmp_path / "run").about["state"] == "finished"
    assert len(list((tmp_path / "run" / "saes").rglob("weights.safetensors"))) == 2 * 3 * 2


def test_tables_agree_with_the_measurements_and_the_text(small: Callable[..., Scan], text_folder: Path) -> None:
    report = small(sites=("transformer.h.1",)).run()
    latents, contexts = report.tables["latents"], report.tables["contexts"]
    assert sorted(latents["latent"]) == list(range(24))
    # Every latent's share of tokens, summed over latents, is the number active per token.
    assert 0 < sum(latents["density"]) <= 3
    assert latents["recurs"] == sorted(latents["recurs"], reverse=True)
    for tokens, activations, activation, document in zip(
        contexts["tokens"], contexts["activations"], contexts["activation"], contexts["document"], strict=True
    ):
        assert len(tokens) == len(activations)
        assert max(activations) >= activation > 0
        text = (text_folder / document).read_text(encoding="utf-8")
        shown = "".join(tokens).removeprefix("<s>").strip("\N{REPLACEMENT CHARACTER}")
        assert shown in text
    for name in ("nearest cosine", "interference"):
        counts = [
            count
            for what, series, count in zip(
                *(report.tables["histograms"][key] for key in ("what", "series", "count")), strict=True
            )
            if (what, series) == (name, "dictionary")
        ]
        assert sum(counts) == (24 if name == "nearest cosine" else 24 * 23 / 2)


@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_can_be_scanned(family: str, small: Callable[..., Scan], tmp_path: Path) -> None:
    report = small(family).run(tmp_path / "run")
    kinds = report.tables["sites"]["kind"]
    assert kinds == ["residual", "residual", "neurons"]
    assert len(report["recurring_features"]) == 3
    assert any(m.name == "cross_entropy_recovered" for m in report) == (family != "BERT")
    assert report.tables["contexts"]["tokens"]


def test_the_same_settings_give_the_same_figures(small: Callable[..., Scan], whole: Report, tmp_path: Path) -> None:
    again = small().run(tmp_path / "again")
    assert again.measurements == whole.measurements
    assert again.tables == whole.tables


def test_an_interrupted_scan_resumes_and_ends_alike(small: Callable[..., Scan], whole: Report, tmp_path: Path) -> None:
    stages = small().stages(tmp_path / "part")
    saved = tmp_path / "part" / "saes" / "trained" / "transformer.h.1" / "seed0" / "training.json"
    while not saved.exists():
        next(stages)
    next(stages)
    stages.close()
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "part").rglob("weights.safetensors")}
    assert RunFolder.open(tmp_path / "part").about["state"] == "running"
    assert len(written) >= 3

    resumed, taken = None, 0
    stages = small().stages(tmp_path / "part")
    while resumed is None:
        try:
            progress: Progress = next(stages)
            taken += progress.detail == "taken from the interrupted run"
        except StopIteration as end:
            resumed = end.value
    assert taken == len(written)
    assert written == {path: path.stat().st_mtime_ns for path in written}
    assert resumed.measurements == whole.measurements
    assert resumed.tables == whole.tables


def test_rows_that_do_not_fit_in_memory_are_kept_on_disk_while_the_scan_runs(
    small: Callable[..., Scan], whole: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("superscope.studies.networks.survey._ROOM", 10**4)
    folder = tmp_path / "run" / "activations" / "trained"
    stages = small().stages(tmp_path / "run")
    while not (folder / "held-out-activations" / "units" / "000000.json").exists():
        next(stages)
    stages.close()
    made = (folder / "activations" / "units" / "000000.json").stat().st_mtime_ns
    stages = small().stages(tmp_path / "run")
    while not (tmp_path / "run" / "saes").exists():
        next(stages)
    assert (folder / "activations" / "units" / "000000.json").stat().st_mtime_ns == made
    stages.close()
    report = small().run(tmp_path / "run")
    assert not (tmp_path / "run" / "activations").exists()
    assert RunFolder.open(tmp_path / "run").about["state"] == "finished"
    # Another order of the same rows: what is counted over rows is equal, and what was learned is another dictionary.
    for name in ("tokens", "dimensions", "activation_gini", "activation_hoyer"):
        for one, two in zip(whole[name], report[name], strict=True):
            assert one.value == pytest.approx(two.value, rel=1e-4)
            assert one.n == two.n
    assert small().run().measurements == report.measurements


def test_a_handful_of_rows_carries_no_figure_and_is_named(
    small: Callable[..., Scan],
    model_folder: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder("GPT-2"), folder)
    subject = load(str(folder))
    scan = small(model=str(folder), sites=("transformer.h.0", "transformer.h.1"))
    corpus, held_out = scan.corpora(subject)
    ids, counts = corpus.ids[corpus.keep].unique(return_counts=True)
    token = next(int(i) for i in ids[(counts > 1) & (counts < 30)] if i in held_out.ids[held_out.keep])
    tensors = load_file(folder / "model.safetensors")
    plain = scan.run()
    tensors["transformer.wte.weight"][token] *= 1000
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    report = scan.run(tmp_path / "run")
    sites, rows = report.tables["sites"], report.tables["outlier_rows"]
    for part, text in (("learned from", corpus), ("held out", held_out)):
        planted = int(((text.ids == token) & text.keep).sum())
        chosen = [i for i, site in enumerate(rows["site"]) if site == sites["site"][0] and rows["part"][i] == part]
        assert len(chosen) == planted > 0
        for i in chosen:
            number = text.names.index(rows["document"][i])
            at = (
                (text.document == number) & (text.start + rows["position"][i] == rows["document_position"][i])
            ).nonzero()
            # The window's special token stands before its first token of text.
            assert int(text.ids[int(at[0, 0]), rows["position"][i] + 1]) == token
            assert rows["here"][i] == (rows["norm"][i] > sites["outlier_limit"][0])
    assert sites["outliers"] == [int(((corpus.ids == token) & corpus.keep).sum())] * 2
    assert sites["rows"] == [corpus.n_tokens - sites["outliers"][0]] * 2
    assert sites["outlier_variance"][0] > 0.5
    assert "Left out for their norm" in sites["note"][0]
    assert sites["outliers_held_out"] == [int(((held_out.ids == token) & held_out.keep).sum())] * 2
    said = (
        f"{sites['outliers'][0]} of {corpus.n_tokens:,} rows learned from and {sites['outliers_held_out'][0]} held out"
    )
    assert any(said in finding for finding in report.findings)
    ratio = {kept: m.value for kept, r in (("plain", plain), ("out", report)) for m in r["participation_ratio"][:1]}
    assert ratio["out"] == pytest.approx(ratio["plain"], rel=0.1)

    kept = dataclasses.replace(scan, outliers="keep").run()
    assert kept.tables["sites"]["rows"] == [corpus.n_tokens] * 2
    assert kept.tables["sites"]["outliers"] == [0, 0]
    assert not any("their norm" in finding for finding in kept.findings)
    assert (kept["participation_ratio"][0].value or 0) < (ratio["out"] or 0) / 2
    monkeypatch.setattr("superscope.studies.networks.survey._ROOM", 10**4)
    on_disk = scan.run()
    assert on_disk.tables["sites"]["outliers"] == sites["outliers"]
    assert sorted(on_disk.tables["outlier_rows"]["document_position"]) == sorted(rows["document_position"])


def test_a_run_of_other_settings_is_not_resumed(small: Callable[..., Scan], tmp_path: Path) -> None:
    stages = small().stages(tmp_path / "run")
    while not (tmp_path / "run").exists():
        next(stages)
    stages.close()
    with pytest.raises(FileExistsError, match=r"another unfinished run \(k differ\). Repeat its settings to resume it"):
        small(k=4).run(tmp_path / "run")


def refused(scan: Scan, out: Path) -> str:
    """The sentence of a refusal that leaves no folder behind."""
    with pytest.raises((ValueError, OSError, FloatingPointError)) as caught:
        scan.run(out)
    assert not out.exists()
    return str(caught.value)


def test_unknown_site(small: Callable[..., Scan], tmp_path: Path) -> None:
    assert "Did you mean transformer.h." in refused(small(sites=("transformer.h.7",)), tmp_path / "run")


def test_unknown_model(small: Callable[..., Scan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "and pass FOLDER" in refused(small(model="nobody/no-such-model"), tmp_path / "run")
    assert "config.json" in refused(small(model=str(tmp_path)), tmp_path / "run")


def test_empty_and_short_text(small: Callable[..., Scan], tmp_path: Path) -> None:
    empty, short = tmp_path / "empty.txt", tmp_path / "short.txt"
    empty.write_text("  \n")
    short.write_text("Too short.")
    assert "blank" in refused(small(text=str(empty)), tmp_path / "run")
    assert "context" in refused(small(text=str(short)), tmp_path / "run")
    short.write_text("One context, but not a batch. " * 10)
    assert "Give more text with --text, or a smaller --batch" in refused(small(text=str(short)), tmp_path / "run")
    assert "no file or folder" in refused(small(text=str(tmp_path / "none.txt")), tmp_path / "run")


def test_damaged_weights(small: Callable[..., Scan], model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder("GPT-2"), folder)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "model.safetensors" in refused(small(model=str(folder)), tmp_path / "run")
    weights.write_bytes(whole)
    tensors = load_file(weights)
    tensors["transformer.h.1.mlp.c_fc.weight"] = torch.full_like(
        tensors["transformer.h.1.mlp.c_fc.weight"], float("nan")
    )
    save_file(tensors, weights, metadata={"format": "pt"})
    sentence = refused(small(model=str(folder)), tmp_path / "run")
    assert "activation at transformer.h.1" in sentence
    assert "is NaN at position" in sentence


def test_no_room_on_the_disk(small: Callable[..., Scan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage._replace(free=0))
    assert "its disk has 0 MB free. Make room, or choose another folder with --out" in refused(
        small(), tmp_path / "run"
    )


def test_a_folder_that_holds_another_run_is_refused_before_any_work(small: Callable[..., Scan], tmp_path: Path) -> None:
    Report(title="Mine", kind="other", measurements=()).save(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(FileExistsError, match="already holds a finished run"):
        next(small(model="nobody/never-looked-for").stages(tmp_path / "run"))
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seeds": 1}, "seeds must be at least 2; got 1. A direction can only recur over at least two"),
        ({"steps": 0}, "steps must be at least 1; got 0"),
        ({"k": 30}, "k = 30 latents cannot be active among n = 24. Give a smaller --k or a larger --n"),
        ({"n": 1}, "n must be at least 2; got 1"),
    ],
)
def test_settings_out_of_range(
    changes: dict[str, Any], sentence: str, small: Callable[..., Scan], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=sentence.replace(".", r"\.")):
        small(**changes).run(tmp_path / "run")


def test_settings_are_saved_verbatim(small: Callable[..., Scan], tmp_path: Path) -> None:
    scan = small(sites=("transformer.h.0",))
    scan.run(tmp_path / "run")
    saved = RunFolder.open(tmp_path / "run").about["settings"]
    assert Scan(**(saved | {"sites": tuple(saved["sites"])})) == scan
    assert set(saved) == {field.name for field in dataclasses.fields(Scan)}
