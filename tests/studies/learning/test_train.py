from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from superscope.core import FormatError, Report, ShapeError
from superscope.dictionaries import (
    CLASSICAL,
    SHORT,
    Crosscoder,
    ReLU,
    SkipTranscoder,
    TopK,
    Transcoder,
    load,
    load_coder,
    train,
)
from superscope.features import DISTRIBUTIONS
from superscope.studies.arguments import Asked
from superscope.studies.learning.train import Train
from superscope.worlds import FAMILIES

SMALL = {"n": 32, "steps": 24, "batch": 64, "held_out": 200, "checkpoint_every": 5}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    random = torch.Generator().manual_seed(0)
    save_file({"x": torch.randn(600, 8, generator=random), "y": torch.randn(600, 4)}, tmp_path / "rows.safetensors")
    return tmp_path / "rows.safetensors"


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("topk", {"k": 3}),
        ("relu", {"set": ("coefficient=1.0", "norm=weighted")}),
        ("matryoshka", {"set": ("widths=8,32",), "k": 2}),
        ("JumpReLU", {"set": ("k=3", "bandwidth=0.3")}),
    ],
)
def test_rows_in_a_file_are_learned_and_scored(rows: Path, tmp_path: Path, architecture: str, options: dict) -> None:
    study = Train(str(rows), tensor="x", architecture=architecture, **SMALL, **options)
    report = study.run(tmp_path / "run")
    assert 0 < (report["fraction_variance_unexplained"][0].value or 0) < 1.5
    sae = load(tmp_path / "run" / "sae")
    assert type(sae).__name__.lower() == architecture.lower()
    own = {name: str(value).strip("[]").replace(" ", "") for name, value in sae.about.items()}
    for pair in options.get("set", ()):
        name, value = pair.split("=")
        assert own[name] == value
    assert sae.about.get("k") == options.get("k", sae.about.get("k"))
    assert Report.load(tmp_path / "run").title == report.title
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_a_world_scores_against_its_truth() -> None:
    report = Train("world:exactly_k", **(SMALL | {"n": 128}), k=4).run()
    (score,) = report["feature_nearest_cosine"]
    assert score.value is not None
    assert 0 < score.value < 1
    assert report["support_f1"]


@pytest.mark.parametrize("refine", ["refit", "pursuit"])
def test_refined_codes_are_measured_beside_the_plain_ones_and_nothing_else_changes(refine: str, tmp_path: Path) -> None:
    plain = Train("world:exactly_k", **(SMALL | {"n": 128}), k=4).run(tmp_path / "plain")
    report = Train("world:exactly_k", **(SMALL | {"n": 128}), k=4, refine=refine).run(tmp_path / "refined")
    own = [m for m in report if "code" not in m.at]
    assert own == list(plain)
    assert plain.findings == report.findings[:1] + report.findings[2:]
    assert torch.equal(load(tmp_path / "plain" / "sae").atoms, load(tmp_path / "refined" / "sae").atoms)
    before, after = report["fraction_variance_unexplained"]
    assert after.at["code"] == refine
    assert after.value < before.value
    assert {m.name for m in report if m.at.get("code") == refine} >= {"l0", "support_f1", "feature_value_r2"}
    assert "refined by" in report.findings[1]


def test_an_interrupted_run_goes_on_to_the_bit(rows: Path, tmp_path: Path) -> None:
    study = Train(str(rows), tensor="x", k=3, **SMALL)
    whole = study.run(tmp_path / "whole")
    stages = study.stages(tmp_path / "cut")
    for progress in stages:
        if progress.stage == "Learning" and progress.done == 20:
            break
    stages.close()
    assert (tmp_path / "cut" / "checkpoint.safetensors").is_file()
    resumed = study.run(tmp_path / "cut")
    for a, b in zip(whole.measurements, resumed.measurements, strict=True):
        assert a == b
    first, second = load(tmp_path / "whole" / "sae"), load(tmp_path / "cut" / "sae")
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
    assert whole.tables["training"]["loss"] == resumed.tables["training"]["loss"]


def test_a_kill_between_checkpoints_loses_no_more_than_the_interval(rows: Path, tmp_path: Path, monkeypatch) -> None:
    study = Train(str(rows), tensor="x", k=3, **SMALL)
    from superscope.dictionaries.train import Training

    objective = Training._objective

    def fails(self, given):
        if self.done == 13:
            raise KeyboardInterrupt
        return objective(self, given)

    monkeypatch.setattr(Training, "_objective", fails)
    with pytest.raises(KeyboardInterrupt):
        study.run(tmp_path / "cut")
    monkeypatch.undo()
    done = [p.done for p in study.stages(tmp_path / "cut") if p.stage == "Learning"]
    assert done[0] == 10


@pytest.mark.parametrize("whiten", ["zca", "scale", "axes", "auto"])
def test_weights_learned_from_whitened_rows_take_raw_ones_and_resume_to_the_bit(
    rows: Path, tmp_path: Path, whiten: str
) -> None:
    options: dict = {"tensor": "x", "k": 3, "whiten": whiten, "k_from": 3.0, "precision": "bfloat16", **SMALL}
    study = Train(str(rows), **options)
    report = study.run(tmp_path / "whole")
    # Measured on x itself: weights left in the units of y would leave more than all of it.
    assert 0 < (report["fraction_variance_unexplained"][0].value or 0) < 1
    assert not (tmp_path / "whole" / "whitening.safetensors").exists()
    stages = study.stages(tmp_path / "cut")
    for progress in stages:
        if progress.stage == "Learning" and progress.done == 20:
            break
    stages.close()
    assert (tmp_path / "cut" / "whitening.safetensors").is_file()
    study.run(tmp_path / "cut")
    first, second = load(tmp_path / "whole" / "sae"), load(tmp_path / "cut" / "sae")
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
    if whiten == "zca":
        assert float((first.dictionary.norms - 1).abs().max()) > 0.01


def test_the_recipe_goes_by_the_architecture_and_what_is_set_goes_first(rows: Path, tmp_path: Path) -> None:
    study = Train(str(rows), tensor="x", **SMALL)
    assert study.descent(TopK) == SHORT
    assert study.descent(ReLU) == {}
    assert dataclasses.replace(study, recipe="short", lr=0.1).descent(ReLU) == {**SHORT, "lr": 0.1}
    plain = dataclasses.replace(study, recipe="plain", k=3, precision="full")
    assert plain.descent(TopK) == {}
    # The command trains as the library does with these arguments.
    plain.run(tmp_path / "run")
    trained, alone = load(tmp_path / "run" / "sae"), TopK(8, 32, 3)
    held, learned = len(load_file(rows)["x"]), plain.open_stream().train
    assert len(learned) < held
    for _ in train(alone, learned, steps=24, batch=64):
        pass
    assert torch.equal(trained.atoms, alone.atoms)


def test_what_cannot_be_whitened_is_refused_before_it_is_trained(rows: Path) -> None:
    with pytest.raises(TypeError, match="MatchingPursuit reads x otherwise"):
        Train(str(rows), tensor="x", architecture="matchingpursuit", k=2, whiten="zca", **SMALL).run()
    with pytest.raises(ValueError, match="penalty_ramp has nothing to act on"):
        Train(str(rows), tensor="x", k=2, penalty_from=0.0, **SMALL).run()


def test_numpy_rows_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(300, 6)).astype("float64"))
    assert Train(str(tmp_path / "x.npy"), **SMALL, k=2).run()["l0"][0].value == pytest.approx(2, abs=0.5)


def test_bad_settings_are_told_in_sentences() -> None:
    with pytest.raises(ValueError, match="no architecture 'topkk'"):
        Train("x", architecture="topkk")
    with pytest.raises(ValueError, match="topk has no setting 'coefficient'. Its own are: k"):
        Train("x", set=("coefficient=1.0",))
    with pytest.raises(ValueError, match="--set coefficient: 'much' is no value for relu"):
        Train("x", architecture="relu", set=("coefficient=much",))
    with pytest.raises(ValueError, match="--set wants NAME=VALUE"):
        Train("x", architecture="relu", set=("coefficient",))
    with pytest.raises(ValueError, match="k is given twice"):
        Train("x", k=2, set=("k=3",))
    with pytest.raises(ValueError, match="kmeans is not learned by descent, so --lr says nothing"):
        Train("x", architecture="kmeans", lr=0.1)
    with pytest.raises(ValueError, match="no refinement 'refitt'"):
        Train("x", refine="refitt")
    with pytest.raises(ValueError, match="kmeans has no encoder"):
        Train("x", architecture="kmeans", refine="refit")
    with pytest.raises(ValueError, match="codes of transcoder add up to another activation"):
        Train("x", architecture="transcoder", refine="refit")
    with pytest.raises(Asked, match=r"width of the smoothed step|bandwidth: .*default 0.5"):
        Train("x", architecture="jumprelu", set=("help",))
    with pytest.raises(ValueError, match="relu has no option --k"):
        Train("x", architecture="relu", k=2)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        Train("x", steps=0)
    with pytest.raises(ValueError, match="n must be at least 1"):
        Train("x", n=0)


def test_bad_sources_are_told_in_sentences(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no world 'mars'"):
        Train("world:mars", **SMALL).run()
    with pytest.raises(ValueError, match="say which with --tensor"):
        Train(str(rows), **SMALL).run()
    with pytest.raises(ValueError, match="no tensor 'z'"):
        Train(str(rows), tensor="z", **SMALL).run()
    with pytest.raises(FileNotFoundError, match="no file"):
        Train(str(tmp_path / "none.npy"), **SMALL).run()
    with pytest.raises(ValueError, match="k must be in"):
        Train(str(rows), tensor="x", **SMALL, k=33).run()
    for name, x, error in (
        ("cube", np.zeros((2, 3, 4), "float32"), ShapeError),
        ("whole", np.zeros((20, 3), "int64"), TypeError),
        ("short", np.zeros((4, 3), "float32"), ValueError),
        ("constant", np.ones((100, 3), "float32"), ValueError),
        ("nan", np.full((100, 3), np.nan, "float32"), FloatingPointError),
    ):
        np.save(tmp_path / f"{name}.npy", x)
        with pytest.raises(error):
            Train(str(tmp_path / f"{name}.npy"), **SMALL, k=2).run()
    (tmp_path / "torn.npy").write_bytes((tmp_path / "cube.npy").read_bytes()[:60])
    with pytest.raises(FormatError, match="not a readable"):
        Train(str(tmp_path / "torn.npy"), **SMALL).run()


def test_a_model_is_read_and_what_it_keeps_is_told() -> None:
    report = Train("pocket", n=64, k=4, steps=4, batch=64, tokens=2000, held_out=600, context=32).run()
    assert report["cross_entropy_recovered"]
    assert report["fraction_variance_unexplained"][0].at["site"]


@pytest.mark.parametrize("learner", CLASSICAL, ids=lambda learner: learner.name)
def test_every_classical_learner_is_trained_scored_saved_and_read_back(tmp_path: Path, learner: type) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.rand(400, 6, generator=random) * (torch.rand(400, 6, generator=random) < 0.4)
    np.save(tmp_path / "x.npy", x.numpy())
    n = 6 if learner.name == "ica" else 9
    study = Train(str(tmp_path / "x.npy"), architecture=learner.name, n=n, held_out=80, set=("rows=5000",))
    report = study.run(tmp_path / "run")
    assert -1e-6 < (report["fraction_variance_unexplained"][0].value or 0) < 1
    coder = load_coder(tmp_path / "run" / "dictionary")
    assert type(coder) is learner
    assert coder.dictionary.n == n
    assert torch.equal(coder.encode(x[:20]).dense(), load_coder(tmp_path / "run" / "dictionary").encode(x[:20]).dense())
    with pytest.raises(FormatError, match="unknown architecture"):
        load(tmp_path / "run" / "dictionary")


@pytest.mark.parametrize("kind", [Transcoder, SkipTranscoder, Crosscoder], ids=lambda kind: kind.__name__)
def test_what_reads_several_tensors_of_a_file_learns_of_the_same_rows(rows: Path, tmp_path: Path, kind: type) -> None:
    random = torch.Generator().manual_seed(1)
    x = torch.randn(600, 8, generator=random)
    save_file({"x": x, "y": (x @ torch.randn(8, 4, generator=random)).contiguous()}, rows)
    study = Train(str(rows), tensor="x", to=("y",), architecture=kind.__name__, k=8, **(SMALL | {"steps": 200}))
    report = study.run(tmp_path / "run")
    # Rows that were not those of x could not be predicted from it at all.
    assert (report["fraction_variance_unexplained"][0].value or 0) < 0.7
    assert type(load(tmp_path / "run" / "sae")) is kind


def test_a_model_is_read_once_for_all_sites() -> None:
    options: dict = {"n": 64, "k": 4, "steps": 4, "batch": 64, "tokens": 2000, "held_out": 600, "context": 32}
    study = Train("pocket", site="mlp_in.2", to=("mlp_out.2",), architecture="skip-transcoder", **options)
    assert " to " in study.run().title
    with pytest.raises(ValueError, match="Transcoder predicts one site from another; got 1"):
        Train("pocket", architecture="transcoder", **options).run()
    with pytest.raises(ValueError, match="TopK learns of one site; got 2"):
        Train("pocket", to=("resid_post.2",), **options).run()


@pytest.mark.parametrize(
    ("world", "own"),
    [
        ("independent", ("n=24", "p=0.1")),
        ("zipf", ("n=24", "l0=2", "magnitude=uniform:0.5:1.5")),
        ("rings", ("n=12", "l0=2", "magnitude=fixed")),
        ("circuit", ("n=24", "inputs=12", "p=0.1")),
        ("correlated", ("sets=6", "size=4", "p=0.1")),
        ("anticorrelated", ("sets=6", "size=4", "p=0.1", "magnitude=fixed")),
        ("hierarchical", ("parents=-1,0,0,-1", "p=0.3")),
        ("exactlyk", ("n=24", "k=2", "magnitude=gaussian:1:0.1")),
        ("exactly_k", ("n=24", "d=9", "k=2")),
    ],
)
def test_a_world_has_any_law(world: str, own: tuple[str, ...]) -> None:
    own = (*own, "d=9") if world in FAMILIES else own if world == "exactly_k" else (*own, "d=9", "noise=0.01")
    stream = Train(f"world:{world}", world=own).open_stream()
    assert stream.train.d == 9
    batch = next(stream.train.batches(5, seed=0))
    assert batch.code is not None
    assert stream.truth is not None
    assert batch.code.n == stream.truth.n


def test_every_law_is_among_the_worlds() -> None:
    for law in DISTRIBUTIONS:
        with pytest.raises(Asked, match="(?s)(magnitude: .*d: dimensions|d: dimensions.*magnitude: )"):
            Train(f"world:{law.__name__.lower()}", world=("help",)).open_stream()
    with pytest.raises(ValueError, match=r"independent needs n, p: give --world n=VALUE"):
        Train("world:independent").open_stream()
    with pytest.raises(ValueError, match="zipf has no setting 'beta'"):
        Train("world:zipf", world=("beta=2",)).open_stream()


def test_every_family_of_worlds_is_among_the_worlds() -> None:
    for name, family in FAMILIES.items():
        with pytest.raises(Asked, match=f"world {name}|{name}: what --world NAME=VALUE can set"):
            Train(f"world:{name}", world=("help",)).open_stream()
        if family.null:
            stream = Train(f"world:{name}", world=("d=6",)).open_stream()
            assert (stream.truth, stream.l0, stream.train.d) == (None, None, 6)
