from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from superscope import frames, measure
from superscope.core import Dictionary, FormatError, Report
from superscope.dictionaries import TopK
from superscope.studies.geometry.dictionary_file import OwnEncoder, read_codes, read_dictionary
from superscope.studies.geometry.theory import Theory

SMALL = {"trials": 4, "rotations": 19}


def written(tmp_path, W, name="w.npy"):
    np.save(tmp_path / name, W.atoms.numpy())
    return str(tmp_path / name)


def value(report, name, **at):
    (found,) = [m for m in report[name] if all(m.at.get(key) == wanted for key, wanted in at.items())]
    return found.value


# --- reading -------------------------------------------------------------------------------------------------------


def test_formats_give_the_same_matrix(tmp_path):
    W = frames.random_unit(n=9, d=4, seed=1)
    np.save(tmp_path / "rows.npy", W.atoms.numpy())
    np.save(tmp_path / "columns.npy", W.atoms.T.numpy())
    np.save(tmp_path / "swapped.npy", W.atoms.double().numpy().astype(">f8"))
    save_file({"W": W.atoms, "b": torch.zeros(4)}, tmp_path / "one.safetensors")
    save_file({"W": W.atoms.half(), "V": torch.zeros(2, 2)}, tmp_path / "two.safetensors")
    sae = TopK(d=4, n=9, k=2)
    sae.atoms.data.copy_(W.atoms)
    sae.save(tmp_path / "sae")
    for path, further in (
        ("rows.npy", {}),
        ("columns.npy", {"rows": "dimensions"}),
        ("swapped.npy", {}),
        ("one.safetensors", {}),
        ("sae", {}),
    ):
        found = read_dictionary(str(tmp_path / path), **further)
        torch.testing.assert_close(found.dictionary.atoms.float(), W.atoms, msg=path)
    half = read_dictionary(str(tmp_path / "two.safetensors"), tensor="W").dictionary
    assert half.atoms.dtype == torch.float32
    torch.testing.assert_close(half.atoms, W.atoms.half().float())


def test_wide_matrix_asks_which_way_round_is_meant(tmp_path):
    np.save(tmp_path / "w.npy", np.eye(3, 7, dtype=np.float32) + 1)
    with pytest.raises(ValueError, match=r"3 x 7.*3 atoms in 7.*7 atoms in 3 dimensions.*--rows-are"):
        read_dictionary(str(tmp_path / "w.npy"))
    assert read_dictionary(str(tmp_path / "w.npy"), rows="atoms").dictionary.n == 3
    assert read_dictionary(str(tmp_path / "w.npy"), rows="dimensions").dictionary.n == 7


def test_zero_atoms_are_left_out_counted_and_atoms_keep_their_numbers(tmp_path):
    atoms = torch.cat([torch.zeros(1, 3), 2 * torch.eye(3), torch.zeros(1, 3), torch.ones(1, 3), torch.ones(1, 3)])
    found = read_dictionary(written(tmp_path, Dictionary(atoms)))
    assert found.kept.tolist() == [1, 2, 3, 5, 6]
    assert found.zeros == 2
    report = Theory(str(tmp_path / "w.npy"), **SMALL).run()
    assert report["coherence"][0].at == {"atom": 5, "other": 6}
    assert value(report, "duplicate_atoms") == pytest.approx(2 / 5)
    assert any("2 zero atoms" in finding for finding in report.findings)
    assert any("duplicate" in finding for finding in report.findings)


def hostile(folder):
    np.save(folder / "vector.npy", np.ones(5, dtype=np.float32))
    np.save(folder / "cube.npy", np.ones((5, 4, 3), dtype=np.float32))
    np.save(folder / "whole.npy", np.ones((5, 4), dtype=np.int64))
    np.save(folder / "complex.npy", np.ones((5, 4), dtype=np.complex64))
    np.save(folder / "objects.npy", np.array([[object(), 1]], dtype=object), allow_pickle=True)
    np.save(folder / "nan.npy", np.array([[1.0, 2.0], [math.nan, 0.0], [1.0, 1.0]]))
    np.save(folder / "thin.npy", np.ones((5, 1)))
    np.save(folder / "single.npy", np.array([[1.0, 2.0], [0.0, 0.0]]))
    np.save(folder / "empty.npy", np.zeros((0, 0)))
    (folder / "cut.npy").write_bytes((folder / "nan.npy").read_bytes()[:90])
    (folder / "none.npy").write_bytes(b"")
    (folder / "text.npy").write_text("hello")
    (folder / "cut.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}")
    save_file({"b": torch.zeros(3)}, folder / "flat.safetensors")
    save_file({"a": torch.ones(3, 2), "b": torch.ones(3, 2)}, folder / "two.safetensors")
    save_file({"a": torch.ones(3, 2, dtype=torch.int32)}, folder / "whole.safetensors")
    (folder / "model.pt").write_bytes(b"\x80\x04.")
    (folder / "no_sae").mkdir()


@pytest.mark.parametrize(
    ("name", "further", "error", "says"),
    [
        ("vector.npy", {}, FormatError, "shape"),
        ("cube.npy", {}, FormatError, "shape"),
        ("whole.npy", {}, TypeError, "int64"),
        ("complex.npy", {}, TypeError, "complex64"),
        ("objects.npy", {}, FormatError, "objects"),
        ("nan.npy", {}, ValueError, "first is atom 1"),
        ("thin.npy", {}, ValueError, "rows-are dimensions"),
        ("single.npy", {}, ValueError, "at least two"),
        ("empty.npy", {}, ValueError, "d = 0"),
        ("cut.npy", {}, FormatError, "not a readable"),
        ("none.npy", {}, FormatError, "not a readable"),
        ("text.npy", {}, FormatError, "not a readable"),
        ("nan.npy", {"tensor": "W"}, ValueError, "Leave it out"),
        ("cut.safetensors", {}, FormatError, "safetensors|holds no matrix"),
        ("flat.safetensors", {}, FormatError, "holds no matrix"),
        ("two.safetensors", {}, ValueError, "--tensor"),
        ("two.safetensors", {"tensor": "aa"}, ValueError, "no tensor 'aa'"),
        ("whole.safetensors", {}, TypeError, "int32"),
        ("model.pt", {}, FormatError, "can run code"),
        ("no_sae", {}, FileNotFoundError, "no SAE"),
        ("absent.npy", {}, FileNotFoundError, "no file"),
        ("", {}, FileNotFoundError, "no file or folder|no SAE"),
    ],
)
def test_hostile_files_are_refused_in_a_sentence(tmp_path, name, further, error, says):
    hostile(tmp_path)
    with pytest.raises(error, match=says):
        read_dictionary(str(tmp_path / name) if name else "", **further)


def test_unembedding_travels_with_the_package():
    found = read_dictionary("pocket:unembedding")
    assert (found.dictionary.n, found.dictionary.d) == (4096, 192)
    with pytest.raises(ValueError, match="rows-are"):
        read_dictionary("pocket:unembedding", rows="atoms")


# --- the page ------------------------------------------------------------------------------------------------------


def test_simplex_sits_on_its_bounds(tmp_path):
    report = Theory(written(tmp_path, frames.simplex(d=5)), signed=True, **SMALL).run()
    assert value(report, "coherence") == pytest.approx(1 / 5)
    assert report["coherence"][0].reference == pytest.approx(1 / 5)
    assert value(report, "interference_energy") == pytest.approx(6 / 5 - 1)
    assert value(report, "capacity_used") == pytest.approx(1.0)
    assert value(report, "frame_participation_ratio") == pytest.approx(5)
    assert value(report, "coherence_guarantee") == 2
    assert report.tables["babel"]["largest"] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert value(report, "restricted_isometry_lower_bound", k=2) == pytest.approx(0.2)


def test_cross_polytope_has_duplicates_up_to_sign(tmp_path):
    report = Theory(written(tmp_path, frames.cross_polytope(d=6)), **SMALL).run()
    assert value(report, "coherence") == pytest.approx(1)
    assert value(report, "coherence_guarantee") == 1
    assert value(report, "duplicate_atoms") == 1
    assert value(report, "capacity_used") == pytest.approx(1)
    assert set(report.tables["pairs"]["cosine"]) >= {-1.0}
    assert value(report, "axis_aligned_atoms") >= 0


def test_identity_has_no_interference_and_everything_is_found(tmp_path):
    report = Theory(written(tmp_path, frames.basis(d=8)), **SMALL).run()
    assert value(report, "coherence") == 0
    assert value(report, "coherence_guarantee") == 8
    assert value(report, "interference_energy") == 0
    assert value(report, "capacity_used") == pytest.approx(1)
    assert value(report, "axis_alignment") == pytest.approx(1)
    assert "ladder" not in report.tables
    assert set(report.tables["certificates"]["certified"]) == {1.0}
    assert set(report.tables["recovery"]["share"]) == {1.0}
    assert all("largest size" in m.caution for m in report["recovery_threshold"])
    assert value(report, "amortisation_gap") == pytest.approx(0, abs=1e-9)


def test_random_frame_looks_random_and_the_run_folder_keeps_it(tmp_path):
    path = written(tmp_path, frames.random_unit(n=32, d=12, seed=0))
    report = Theory(path, trials=10, rotations=19).run(tmp_path / "run")
    mu = report["coherence"][0]
    assert mu.value == pytest.approx(mu.chance, abs=0.12)
    assert value(report, "frame_participation_ratio") == pytest.approx(32 * 12 / 43, rel=0.08)
    (l1,) = [m for m in report["recovery_threshold"] if m.at["solver"] == "BasisPursuit"]
    assert l1.value == pytest.approx(l1.chance, abs=2.5)
    assert value(report, "interference_ratio", codes="random codes") == pytest.approx(1, abs=0.1)
    assert value(report, "mean_max_cosine_same_spectrum") == pytest.approx(value(report, "mean_max_cosine"), abs=0.08)
    assert set(report.tables["cosines"]["series"]) == {"dictionary", "random frame", "same spectrum"}
    again = Report.load(tmp_path / "run")
    assert again.measurements == report.measurements
    assert {name: dict(table) for name, table in again.tables.items()} == report.tables
    assert Theory(path, trials=10, rotations=19).run().measurements == report.measurements


def test_large_dictionaries_run_basis_pursuit_on_parts_only(tmp_path):
    report = Theory(written(tmp_path, frames.random_unit(n=64, d=12, seed=0)), whole=40, **SMALL).run()
    assert "BasisPursuit" not in report.tables["recovery"]["solver"]
    assert 12 < max(report.tables["phase"]["n"]) <= 40


def test_sae_with_notes_brings_data(tmp_path):
    sae = TopK(d=192, n=40, k=4, seed=0)
    with torch.no_grad():
        sae.atoms[7] = 0
    sae.save(tmp_path / "sae", notes={"model": "pocket", "site": "transformer.h.0"})
    found = read_dictionary(str(tmp_path / "sae"))
    rows, code, documents = read_codes(found, tokens=120)
    x = rows.x
    assert x.shape == (120, 192)
    assert rows.places is not None
    assert int(rows.places[:, 0].max()) < len(documents)
    assert code.n == 39
    full = sae.encode(x)
    torch.testing.assert_close(found.dictionary.compose(code), Dictionary(sae.atoms.detach()).compose(full))
    report = Theory(str(tmp_path / "sae"), tokens=120, whole=2, **SMALL).run()
    assert value(report, "l0") <= 4
    assert set(report.tables["recovery"]["supports"]) == {"random", "data"}
    # The page prints what the measure says of the SAE's own encoder on the same rows.
    gap = measure.amortisation_gap(OwnEncoder(found), [rows], documents=documents)
    for name in (
        "amortisation_gap",
        "own_unexplained",
        "refitted_unexplained",
        "pursuit_unexplained",
        "support_overlap",
    ):
        (printed,) = report[name]
        assert printed.value == pytest.approx(gap[name].value, rel=1e-6), name
        assert (printed.low, printed.high, printed.how) == (gap[name].low, gap[name].high, gap[name].how)
    assert value(report, "amortisation_gap") > 0
    assert report.tables["amortisation"]["fraction_variance_unexplained"][0] == value(report, "own_unexplained")
    assert 0 <= value(report, "exact_recovery_codes") <= value(report, "certified_codes") <= 1
    assert value(report, "interference_ratio", codes="data") > 0


def test_sae_without_notes_says_so(tmp_path):
    TopK(d=6, n=12, k=2).save(tmp_path / "sae")
    report = Theory(str(tmp_path / "sae"), **SMALL).run()
    assert any("does not say where" in finding for finding in report.findings)
    with pytest.raises(ValueError, match="does not say which model"):
        read_codes(read_dictionary(str(tmp_path / "sae")), tokens=10)


@pytest.mark.parametrize("given", [{"trials": 0}, {"tokens": -1}, {"rotations": 3}, {"k": 0}, {"whole": 1}])
def test_impossible_settings_are_refused(given):
    with pytest.raises(ValueError, match=next(iter(given))):
        Theory("w.npy", **given)


def test_more_active_features_than_dimensions_are_refused(tmp_path):
    path = written(tmp_path, frames.random_unit(n=12, d=4, seed=0))
    with pytest.raises(ValueError, match="at most 4"):
        Theory(path, k=5).run(tmp_path / "run")
    assert not (tmp_path / "run").exists()
