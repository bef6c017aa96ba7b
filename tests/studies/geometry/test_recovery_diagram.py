from __future__ import annotations

import numpy as np
import pytest
import torch

from superscope import frames
from superscope.core import Report, RunFolder, SparseCode
from superscope.dictionaries import TopK
from superscope.recovery import SOLVERS
from superscope.studies.geometry.recovery_diagram import Recover, data_codes, found_exactly, half_point, random_codes


def written(tmp_path, W):
    np.save(tmp_path / "w.npy", W.atoms.numpy())
    return str(tmp_path / "w.npy")


@pytest.mark.parametrize("solver", [solver.__name__ for solver in SOLVERS])
def test_every_solver_finds_what_coherence_guarantees(tmp_path, solver):
    # 28 equiangular lines in 7 dimensions: coherence 1/3 guarantees k = 1.
    report = Recover(written(tmp_path, frames.equiangular(28, 7)), solver=solver, ks=(1,), trials=20).run()
    assert report["coherence_guarantee"][0].value == 1
    assert report.tables["recovery"]["share"] == [1.0]
    assert report.tables["recovery"]["solver"] == [solver]


@pytest.mark.parametrize("signed", [False, True])
def test_half_point_of_basis_pursuit_is_donoho_and_tanners(tmp_path, signed):
    path = written(tmp_path, frames.random_unit(n=128, d=48, seed=0))
    report = Recover(path, solver="BasisPursuit", signed=signed, trials=40).run()
    (threshold,) = report["recovery_threshold"]
    assert threshold.value == pytest.approx(threshold.chance, abs=2.5)
    assert threshold.low <= threshold.value <= threshold.high


def test_one_step_is_far_below_and_has_its_own_chance_level(tmp_path):
    path = written(tmp_path, frames.random_unit(n=256, d=64, seed=0))
    (step,) = Recover(path, solver="Thresholding", magnitudes="equal", trials=200).run()["recovery_threshold"]
    assert step.value == pytest.approx(step.chance, abs=1.5)
    assert step.value < 8


def test_best_says_why_and_orthogonal_atoms_are_all_found(tmp_path):
    report = Recover(written(tmp_path, frames.basis(d=6)), trials=10).run()
    assert report.findings[0].startswith("Solver: ")
    assert set(report.tables["recovery"]["share"]) == {1.0}
    assert report["recovery_threshold"][0].value is None
    assert "largest size" in report["recovery_threshold"][0].caution


def test_duplicates_cannot_be_told_apart(tmp_path):
    report = Recover(written(tmp_path, frames.cross_polytope(d=5)), signed=True, ks=(1,), trials=50).run()
    assert report.tables["recovery"]["share"][0] < 0.9
    assert any("no reader can tell them apart" in finding for finding in report.findings)


def test_codes_of_data_keep_their_largest():
    code = SparseCode(torch.tensor([[3.0, 1.0, 2.0], [5.0, 0.0, 0.0]]), torch.tensor([[4, 1, 0], [2, 0, 0]]), 6)
    draw = data_codes(code)
    two = draw(2, 10, torch.Generator().manual_seed(0))
    assert two.dense().nonzero()[:, 1].tolist() == [0, 4]
    assert float(two.values.abs().mean()) == pytest.approx(1)
    assert draw(4 - 1, 10, torch.Generator().manual_seed(0)).l0.tolist() == [3]
    assert data_codes(code[torch.tensor([1])])(2, 10, torch.Generator().manual_seed(0)) is None


def test_random_codes_have_exactly_k_and_the_seed_decides():
    for magnitudes in ("uniform", "equal", "exponential"):
        draw = random_codes(9, magnitudes, signed=True)
        one, two = (draw(4, 500, torch.Generator().manual_seed(3)) for _ in range(2))
        assert torch.equal(one.dense(), two.dense())
        assert one.l0.tolist() == [4] * 500
        assert abs(float(one.values.sign().mean())) < 0.1
    assert bool(
        (random_codes(9, "exponential", signed=False)(4, 500, torch.Generator().manual_seed(0)).values > 0).all()
    )


def test_found_exactly_wants_the_k_largest_and_no_zeros():
    truth = SparseCode(torch.ones(4, 2), torch.tensor([[0, 1]] * 4), 4)
    answer = torch.tensor([[1.0, -2.0, 0.1, 0.0], [1.0, 0.5, 0.7, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert found_exactly(answer, truth).tolist() == [True, False, False, False]


def test_half_point_between_two_sizes():
    rows = [
        {"k": 2, "share": 1.0, "low": 0.9, "high": 1.0, "trials": 50, "converged": 1.0},
        {"k": 6, "share": 0.0, "low": 0.0, "high": 0.1, "trials": 50, "converged": 0.5},
    ]
    m = half_point(rows)
    assert (m.value, m.low, m.high, m.n) == (4.0, 2.0, 6.0, 100)
    assert m.caution == ""
    assert "smallest" in half_point(rows[1:]).caution
    assert "did not converge" in half_point(rows[1:]).caution
    assert "no code" in half_point([]).caution


def test_supports_of_an_sae_and_the_run_folder(tmp_path):
    TopK(d=192, n=256, k=4).save(tmp_path / "sae", notes={"model": "pocket", "site": "transformer.h.0"})
    report = Recover(str(tmp_path / "sae"), solver="NNOMP", trials=8, tokens=200).run(tmp_path / "run")
    assert set(report.tables["recovery"]["supports"]) == {"random", "data"}
    data = [k for k, s in zip(*(report.tables["recovery"][c] for c in ("k", "supports")), strict=True) if s == "data"]
    assert max(data) <= 4
    assert Report.load(tmp_path / "run").measurements == report.measurements


@pytest.mark.parametrize("stop", [2, 4, 9])
def test_an_interrupted_run_ends_as_if_it_had_not_been(tmp_path, stop):
    study = Recover(written(tmp_path, frames.random_unit(n=48, d=16, seed=0)), solver="OMP", trials=12)
    whole = study.run(tmp_path / "whole")
    stages = study.stages(tmp_path / "cut")
    for _ in range(stop):
        next(stages)
    stages.close()
    resumed = list(study.stages(tmp_path / "cut"))
    if stop > 3:
        assert any("interrupted" in step.detail for step in resumed)
    again = Report.load(tmp_path / "cut")
    assert again.measurements == whole.measurements
    assert again.tables == Report.load(tmp_path / "whole").tables
    assert not (tmp_path / "cut" / "unfinished.json").exists()
    assert (
        RunFolder.open(tmp_path / "cut").about["files"].keys()
        == RunFolder.open(tmp_path / "whole").about["files"].keys()
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"trials": 0}, "trials"),
        ({"tokens": -1}, "tokens"),
        ({"ks": (0,)}, "ks"),
        ({"signed": True, "solver": "NNOMP"}, "OMP"),
    ],
)
def test_impossible_settings_are_refused(given, says):
    with pytest.raises(ValueError, match=says):
        Recover("w.npy", **given)


def test_more_active_features_than_dimensions_are_refused_before_anything_is_written(tmp_path):
    path = written(tmp_path, frames.random_unit(n=12, d=4, seed=0))
    with pytest.raises(ValueError, match="beyond 4"):
        Recover(path, ks=(5,)).run(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="no encoder"):
        Recover(path, tokens=5).run()
