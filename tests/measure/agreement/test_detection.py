"""The detection curve: known shares by density, its bins, and chance."""

from __future__ import annotations

import pytest
import torch

from superscope.core import Dictionary, ShapeError
from superscope.measure import detection, wilson
from superscope.worlds import exactly_k


@pytest.fixture(scope="module")
def truth():
    return exactly_k(n=40, d=24, k=2).dictionary


def test_the_curve_is_the_share_of_each_bin_with_wilsons_interval(truth):
    # Ten features at each of four densities, of which 1, 4, 9 and 10 are there.
    density = torch.tensor([0.0015, 0.003, 0.03, 0.3]).repeat_interleave(10)
    there = torch.cat([torch.arange(10) < many for many in (1, 4, 9, 10)])
    curve = detection(Dictionary(truth.atoms[there]), truth, density, threshold=0.95)
    shares = {m.at["density"]: m for m in curve if m.name == "detected_share"}
    assert {where: m.value for where, m in shares.items()} == {
        "0.001 to 0.002": 0.1,
        "0.002 to 0.005": 0.4,
        "0.02 to 0.05": 0.9,
        "0.2 to 0.5": 1.0,
    }
    assert torch.equal(curve.detected, there)
    first = shares["0.001 to 0.002"]
    assert (first.low, first.high) == (wilson(1, 10, of="features").low, wilson(1, 10, of="features").high)
    assert first.low == pytest.approx(0.0179, abs=1e-4)
    assert first.high == pytest.approx(0.4042, abs=1e-4)
    assert first.n == 10
    assert first.chance < 0.05
    # Mann and Whitney by hand: of 24 detected and 16 missed features how often the detected one is denser.
    p, hit = density, there
    by_hand = ((p[hit][:, None] > p[~hit]).double() + 0.5 * (p[hit][:, None] == p[~hit])).mean()
    auc = curve["detection_auc"]
    assert auc.value == pytest.approx(float(by_hand))
    assert auc.low < auc.value < auc.high


def test_an_edge_belongs_to_the_bin_above_it_and_what_never_occurs_to_none(truth):
    density = torch.tensor([0.001, 0.002, 0.005, 0.0] * 10, dtype=torch.float64)
    curve = detection(truth, truth, density, draws=0)
    bins = {m.at["density"]: m.n for m in curve if m.name == "detected_share"}
    assert bins == {"0.001 to 0.002": 10, "0.002 to 0.005": 10, "0.005 to 0.01": 10}
    assert all(m.chance is None for m in curve if m.name == "detected_share")
    assert curve["detection_auc"].value is None
    assert "every feature is detected" in curve["detection_auc"].caution


def test_density_plays_no_part_where_features_are_missed_at_random(truth):
    generator = torch.Generator().manual_seed(0)
    W = Dictionary(torch.randn(400, 16, generator=generator))
    density = 10 ** (-3 * torch.rand(400, generator=generator))
    curve = detection(Dictionary(W.atoms[torch.rand(400, generator=generator) < 0.5]), W, density)
    auc = curve["detection_auc"]
    assert auc.low < auc.chance < auc.high


def test_none_equally_dense_and_always_active_features(truth):
    nothing = detection(Dictionary(-truth.atoms), truth, torch.full((40,), 1.0), draws=1)
    assert nothing["detected_share"].value == 0
    assert nothing["detected_share"].at["density"] == "1 to 2"
    assert "no feature is detected" in nothing["detection_auc"].caution
    half = detection(Dictionary(truth.atoms[:20]), truth, torch.full((40,), 0.1), draws=0)
    assert half["detection_auc"].value is None
    assert "equally dense" in half["detection_auc"].caution
    never = detection(truth, truth, torch.zeros(40), draws=0)
    assert [m.name for m in never] == ["detection_auc"]


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda W: detection(W, W, torch.ones(3)), ShapeError, "3 densities for 40 features"),
        (lambda W: detection(Dictionary(torch.eye(3)), W, torch.ones(40)), ShapeError, "d = 3 and d = 24"),
        (lambda W: detection(W, W, torch.full((40,), 1.5)), ValueError, "outside"),
        (lambda W: detection(W, W, torch.ones(40), threshold=0.0), ValueError, "got 0.0"),
    ],
)
def test_bad_input_is_a_sentence(truth, call, error, sentence):
    with pytest.raises(error, match=sentence):
        call(truth)
