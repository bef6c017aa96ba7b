"""Dictionaries and runs beside each other: what came again, what differs, what is refused, what is true."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from superscope.core import Measurement, Report, files
from superscope.dictionaries import TopK
from superscope.studies import Compare

WORLD = ("exactly_k", "n=16", "d=8", "k=2")


def knowing(place: Path, atoms: torch.Tensor) -> Path:
    """A saved SAE of these atoms."""
    sae = TopK(d=atoms.shape[1], n=len(atoms), k=2, seed=0)
    with torch.no_grad():
        unit = torch.nn.functional.normalize(atoms, dim=1)
        sae.encoder.copy_(unit)
        sae.atoms.copy_(unit)
    sae.save(place)
    return place


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from superscope.studies.learning.stream import open_world

    root = tmp_path_factory.mktemp("compare")
    truth = open_world(WORLD[0], WORLD[1:]).dictionary.atoms.detach()
    noise = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    return {
        # All but four features, and four inventions.
        "most": knowing(root / "most", torch.cat([truth[:12], noise])),
        "all": knowing(root / "all", truth),
        "flat": knowing(root / "flat", torch.eye(6)),
    }


@pytest.fixture(scope="module")
def report(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Report:
    path = tmp_path_factory.mktemp("run") / "run"
    Compare((str(folders["all"]), str(folders["most"])), world=WORLD, rows=600, threshold=0.95).run(path)
    return Report.load(path)


def share(report: Report, side: str, kind: str) -> Measurement:
    return next(m for m in report["atom_correspondence"] if m.at["atoms_of"] == side and m.at["kind"] == kind)


def test_atoms_that_came_again_and_those_that_did_not(report: Report) -> None:
    assert share(report, "first", "matched").value == 12 / 16
    assert share(report, "first", "unmatched").value == 4 / 16
    assert share(report, "second", "unmatched").value == 4 / 16
    chance = share(report, "first", "matched").chance
    assert chance is not None
    assert chance < 0.2
    table = report.tables["atoms"]
    lost = {
        a
        for a, side, kind in zip(table["atom"], table["side"], table["kind"])
        if (side, kind) == ("first", "unmatched")
    }
    assert lost == {12, 13, 14, 15}
    # Those that did not simply come again are told of first.
    assert table["kind"][:4] == ["unmatched"] * 4
    assert "12 (75%; by chance" in report.findings[0]


def test_thresholds_fall_and_stand_beside_chance(report: Report) -> None:
    table = report.tables["thresholds"]
    for side in ("first", "second"):
        rows = [i for i, each in enumerate(table["side"]) if each == side]
        shares = [table["share"][i] for i in rows]
        assert shares == sorted(shares, reverse=True)
        assert shares[0] == 1
        assert all(table["chance_low"][i] <= table["chance"][i] <= table["chance_high"][i] for i in rows)


def test_the_truth_of_a_world(report: Report) -> None:
    table = report.tables["truth"]
    count = {(s, w): (c, n) for s, w, c, n in zip(table["source"], table["what"], table["count"], table["of"])}
    assert count["all", "found"] == (16, 16)
    assert count["most", "found"] == (12, 16)
    assert count["most", "missed"] == (4, 16)
    assert count["all", "invented"][0] == 0
    assert 0 < count["most", "invented"][0] <= 4
    assert count["most", "absorbed"] == (0, 0)
    assert set(report.tables["features"]["source"]) == {"all", "most"}
    lost = [
        f
        for f, s, d in zip(range(32), report.tables["features"]["source"], report.tables["features"]["detected"])
        if s == "most" and not d
    ]
    assert len(lost) == 4


def test_differences_on_the_same_rows(report: Report) -> None:
    (more,) = report["unexplained_difference"]
    own = {m.at["source"]: m.value for m in report["fraction_variance_unexplained"] if set(m.at) == {"source"}}
    assert more.value == pytest.approx(own["most"] - own["all"], rel=1e-3)
    assert more.low is not None
    assert more.low > 0
    assert {m.at["atoms_of"] for m in report["features_found"]} == {"first", "second"}


def test_what_cannot_be_compared_says_why(folders: dict[str, Path], tmp_path: Path) -> None:
    report = Compare((str(folders["all"]), str(folders["flat"]))).run()
    assert report.tables["refused"]["why"] == ["atoms are not compared: atoms have d = 8 and d = 6."]
    assert "atom_correspondence" not in {m.name for m in report}
    matrix = tmp_path / "W.safetensors"
    files.write_tensors(matrix, {"W": torch.eye(8)})
    sites = []
    for name, site in (("a", "h.0"), ("b", "h.1")):
        sae = TopK(d=8, n=9, k=2, seed=0)
        sae.save(tmp_path / name, notes={"model": "pocket", "site": site})
        sites.append(str(tmp_path / name))
    report = Compare((*sites, str(matrix))).run()
    assert "h.0 of pocket and at h.1 of pocket" in report.tables["refused"]["why"][0]
    # A matrix does not say where it is from, so that its atoms are.
    assert {m.at["second"] for m in report["atom_correspondence"]} == {"W.safetensors"}
    for sources, sentence in (
        (("a",), "2 to 8 paths; got 1"),
        (("a", " "), "2 to 8 paths"),
        (("a", "b"), "no file or folder a"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=sentence):
            Compare(sources).run()


def test_runs_without_dictionaries_are_compared_by_their_numbers(tmp_path: Path) -> None:
    for name, value in (("one", 0.5), ("two", 0.7)):
        m = Measurement(
            name="coherence", value=value, unit="cosine", n=3, of="atoms", low=value - 0.1, high=value + 0.1
        )
        Report(title=name, kind="toy", measurements=(m,), settings={"n": 3, "lr": value}).save(tmp_path / name)
    report = Compare((str(tmp_path / "one"), str(tmp_path / "two"))).run()
    assert report.tables["measured"]["source"] == ["one", "two"]
    assert report.tables["measured"]["value"] == [0.5, 0.7]
    assert set(report.tables["settings"]["setting"]) == {"lr"}
    assert "None of these 2 sources are a dictionary" in report.findings[0]


def test_a_dictionary_is_all_of_itself(folders: dict[str, Path]) -> None:
    report = Compare((str(folders["all"]), str(folders["all"])), world=WORLD, rows=300).run()
    assert share(report, "first", "matched").value == 1
    assert report["unexplained_difference"][0].value == 0
    assert [m.value for m in report["features_found"]] == [1.0, 1.0]
