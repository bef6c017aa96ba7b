"""Judging a dictionary: the truth scores 1, and each fault is said in a sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from superscope.cli import main
from superscope.core import Dictionary, FormatError, Report, files
from superscope.dictionaries import KSVD, TopK, Transcoder, formats
from superscope.plots import FIGURES, draw
from superscope.studies import Judge, Train
from superscope.worlds import AnswerKey, exactly_k, synth_sae_bench

EASY = ("exactly_k", "n=24", "d=16", "k=2")


def _sae(atoms: torch.Tensor, k: int = 2) -> TopK:
    n, d = atoms.shape
    sae = TopK(d=d, n=n, k=k)
    with torch.no_grad():
        sae.atoms.copy_(atoms)
        sae.encoder.copy_(atoms)
    return sae


@pytest.fixture(scope="module")
def world():
    return exactly_k(n=24, d=16, k=2)


@pytest.fixture(scope="module")
def saved(world, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The true atoms with four missing, two of them twice and one of no feature."""
    b = world.dictionary.atoms
    folder = tmp_path_factory.mktemp("saved") / "sae"
    _sae(torch.cat([b[:20], b[:2], torch.nn.functional.normalize(torch.ones(1, 16))])).save(folder)
    return folder


def test_its_report_says_what_was_found_and_what_the_rest_is(saved: Path, tmp_path: Path) -> None:
    report = Judge(str(saved), EASY, rows=2000).run(tmp_path / "run")
    said = " ".join(report.findings)
    assert "Of 24 features the dictionary has 20 (83%)" in said
    assert "20 stand for a feature, 2 repeat another" in said
    assert "this world has no parents and children" in said
    assert report["atom_recall"][0].value == pytest.approx(20 / 24)
    assert report["matched_cosine_above_chance"][0].chance == 0
    places = {(m.at.get("dictionary"), m.at.get("inference")) for m in report["feature_f1"]}
    assert places == {(None, None), ("learned", "best"), ("true", "own"), ("true", "best")}
    assert all(m.chance is not None for m in report["feature_f1"])
    tables = Report.load(tmp_path / "run").tables
    assert len(tables["features"]["feature"]) == 24
    assert sum(tables["features"]["detected"]) == 20
    assert tables["latents"]["kind"][20:22] == ["duplicate", "duplicate"]
    assert sum(tables["detection"]["features"]) == 24
    drawn = {path.stem for path in draw(report, FIGURES["judge"], tmp_path / "figures")}
    assert drawn == {"detected_by_density", "kinds_of_latents", "where_it_is_lost"}


@pytest.mark.parametrize("format", ["saelens", "sparsify", "plain"])
def test_any_format_scores_the_same(saved: Path, format: str, tmp_path: Path) -> None:
    ours = Judge(str(saved), EASY, rows=512, ceilings=False).run()
    place = tmp_path / ("copy.safetensors" if format == "plain" else "copy")
    formats.write(formats.read(saved), place, format)
    theirs = Judge(str(place), EASY, rows=512, ceilings=False).run()
    for name in ("mean_matched_cosine", "feature_f1", "latent_f1", "fraction_variance_unexplained"):
        assert theirs[name][0].value == pytest.approx(ours[name][0].value, abs=1e-5), name


def test_a_training_knows_its_world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = {"n": 32, "steps": 30, "batch": 128, "held_out": 256, "lr": 1e-2}
    Train("world:exactly_k", world=EASY[1:], k=2, **small).run(tmp_path / "run")
    report = Judge(str(tmp_path / "run"), rows=512, ceilings=False).run()
    assert report.title == "run against exactly_k"
    assert len(report.tables["features"]["feature"]) == 24
    # The world that is named goes before the one it was learned on; numbers alone change that one.
    named = Judge(str(tmp_path / "run"), ("exactly_k", "n=40", "d=16", "k=2"), rows=512, ceilings=False).run()
    assert len(named.tables["features"]["feature"]) == 40
    other = Judge(str(tmp_path / "run"), ("seed=1",), rows=512, ceilings=False).run()
    assert (other["atom_recall"][0].value or 0) < (report["atom_recall"][0].value or 0)
    assert (
        main(
            [
                "judge",
                str(tmp_path / "run"),
                "--rows",
                "256",
                "--no-ceilings",
                "--quiet",
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )
    assert "run against exactly_k" in capsys.readouterr().out


def test_a_classical_learner_and_a_matrix_are_judged_too(world, tmp_path: Path) -> None:
    learned = KSVD(dictionary=Dictionary(world.dictionary.atoms.clone()), k=2)
    learned.save(tmp_path / "ksvd")
    np.save(tmp_path / "atoms.npy", world.dictionary.atoms.numpy())
    files.write_tensors(tmp_path / "atoms.safetensors", {"W": torch.cat([world.dictionary.atoms, torch.zeros(1, 16)])})
    for name in ("ksvd", "atoms.npy", "atoms.safetensors"):
        report = Judge(str(tmp_path / name), EASY, rows=512).run()
        assert (report["feature_f1"][0].value or 0) > 0.9, name
        assert ("true", "own") not in {(m.at.get("dictionary"), m.at.get("inference")) for m in report["feature_f1"]}
        assert report["atom_precision"][0].value == 1
    assert any("a matrix without an encoder" in sentence for sentence in report.findings)
    assert any("1 zero atom" in sentence for sentence in report.findings)


def test_a_kept_truth_is_a_world(saved: Path, world, tmp_path: Path) -> None:
    AnswerKey.of(world, rows=512, seed=1_000_003, size=512).save(tmp_path / "truth.safetensors")
    kept = Judge(str(saved), (str(tmp_path / "truth.safetensors"),), ceilings=False).run()
    made = Judge(str(saved), EASY, rows=512, ceilings=False).run()
    assert kept["feature_f1"][0].value == made["feature_f1"][0].value
    with pytest.raises(ValueError, match="n=3 says nothing"):
        Judge(str(saved), (str(tmp_path / "truth.safetensors"), "n=3")).run()


def test_parents_make_absorption_a_number(tmp_path: Path) -> None:
    world = synth_sae_bench(1 / 128)
    sae = _sae(world.dictionary.atoms, k=4)
    sae.save(tmp_path / "sae")
    report = Judge(str(tmp_path / "sae"), ("synth_sae_bench", "scale=0.0078125"), rows=1024, ceilings=False).run()
    assert report["absorption_rate"][0].value is not None
    assert any("pairs of parent and child" in sentence for sentence in report.findings)
    assert "parent" in report.tables["features"]


def test_a_dictionary_of_dead_latents_is_said_to_be(world, tmp_path: Path) -> None:
    sae = _sae(world.dictionary.atoms)
    with torch.no_grad():
        sae.encoder_bias.fill_(-100.0)
    sae.save(tmp_path / "sae")
    report = Judge(str(tmp_path / "sae"), EASY, rows=512).run()
    assert report.findings[0].startswith("No latent fires on any of 512 rows")
    assert report["dead_latents"][0].value == 1
    assert report["feature_f1"][0].value == 0
    assert report["atom_recall"][0].value == 1


def test_a_world_that_no_one_can_read_is_said_to_be(world, tmp_path: Path) -> None:
    _sae(world.dictionary.atoms).save(tmp_path / "sae")
    report = Judge(str(tmp_path / "sae"), ("exactly_k", "n=64", "d=16", "k=12"), rows=256, ceilings=False).run()
    assert any("above 1 no one can read f back" in sentence for sentence in report.findings)
    assert any("40 features cannot have one" in sentence for sentence in report.findings)


def test_rows_under_layer_norm_are_scored_without_their_reconstruction(saved: Path, tmp_path: Path) -> None:
    read = formats.read(saved)
    whole = formats.Imported(read.sae, "test", torch.ones(read.sae.n, dtype=torch.float64), "layer norm")
    formats.write(whole, tmp_path / "copy", "saelens")
    report = Judge(str(tmp_path / "copy"), EASY, rows=256).run()
    assert "fraction_variance_unexplained" not in {m.name for m in report}
    assert any("under layer norm first" in sentence for sentence in report.findings)


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({"dictionary": " "}, ValueError, "an empty one"),
        ({"threshold": 1.0}, ValueError, "below 1; got 1.0"),
        ({"dictionary": "nowhere", "world": EASY}, FileNotFoundError, "no file or folder nowhere"),
        ({"world": ()}, ValueError, "does not say which world"),
        ({"world": ("exactly_k", "zipf")}, ValueError, "one world is wanted; got exactly_k, zipf"),
        ({"world": ("gaussian",)}, ValueError, "is a null: there is nothing to be found"),
        ({"world": ("exactly_j",)}, ValueError, "no world 'exactly_j'"),
        (
            {"world": ("exactly_k", "d=12")},
            ValueError,
            "d = 16 and the world exactly_k makes rows of d = 12.*--world d=16",
        ),
    ],
)
def test_bad_input_is_a_sentence(saved: Path, settings: dict, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        Judge(**({"dictionary": str(saved), "world": EASY} | settings)).run()


def test_what_is_no_dictionary_of_rows_is_refused(tmp_path: Path) -> None:
    Transcoder(d=16, n=24, d_out=16, k=2).save(tmp_path / "transcoder")
    with pytest.raises(ValueError, match="writes something else than it reads"):
        Judge(str(tmp_path / "transcoder"), EASY).run()
    nothing = TopK(d=16, n=4, k=1)
    with torch.no_grad():
        nothing.atoms.zero_()
    nothing.save(tmp_path / "zero")
    with pytest.raises(ValueError, match="no atom but zeros"):
        Judge(str(tmp_path / "zero"), EASY).run()
    Train("world:exactly_k", world=EASY[1:], k=2, n=8, steps=2, batch=16, held_out=64).run(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "sae")
    with pytest.raises(FormatError, match="has saved no dictionary"):
        Judge(str(tmp_path / "run")).run()
