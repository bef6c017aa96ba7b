"""Atoms of two dictionaries as groups: what is matched, split, merged, and what chance would tie."""

from __future__ import annotations

import pytest
import torch

from superscope.core import Dictionary, ShapeError
from superscope.measure import CORRESPONDENCES, correspondence


def atoms(*rows: list[float]) -> Dictionary:
    return Dictionary(torch.tensor(rows))


FOUR = torch.eye(4)
# Of the first: 0 comes again, 1 is split in two, 2 and 3 are merged.
LATER = atoms([1, 0, 0, 0], [0, 1, 0.3, 0], [0, 1, -0.3, 0], [0, 0, 1, 1])


def test_each_atom_is_told_by_its_group() -> None:
    found = correspondence(Dictionary(FOUR), LATER, draws=0)
    assert found.kind == ("matched", "split", "merged", "merged")
    assert found.other_kind == ("matched", "split", "split", "merged")
    assert found.group.tolist() == [0, 1, 2, 2]
    assert found.other_group.tolist() == [0, 1, 1, 2]
    assert found["atom_correspondence", "first", "merged"].value == 0.5
    assert found["atom_correspondence", "second", "split"].value == 0.5
    assert all(m.chance is None for m in found)
    # Above the cosine of its halves with the merger nothing of it is left.
    strict = correspondence(Dictionary(FOUR), LATER, threshold=0.8, draws=0)
    assert strict.kind == ("matched", "split", "unmatched", "unmatched")
    assert strict.other_kind[3] == "unmatched"
    assert strict.group.tolist() == [0, 1, -1, -1]


def test_the_other_way_round_splits_are_mergers(unit_rows) -> None:
    a, b = unit_rows(40, 4, 0), unit_rows(25, 4, 1)
    there, back = (correspondence(Dictionary(x), Dictionary(y), draws=0) for x, y in ((a, b), (b, a)))
    turned = {"split": "merged", "merged": "split"}
    assert [turned.get(kind, kind) for kind in there.kind] == list(back.other_kind)
    assert "tangled" in there.kind
    for of in ("first", "second"):
        assert sum(there["atom_correspondence", of, kind].value for kind in CORRESPONDENCES) == pytest.approx(1)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(2))).Q
    order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
    moved = correspondence(Dictionary(3 * a[order] @ rotation), Dictionary(b @ rotation), draws=0)
    assert list(moved.kind) == [there.kind[i] for i in order.tolist()]


def test_chance_knows_directions_that_all_atoms_favour(unit_rows) -> None:
    flat = torch.cat([unit_rows(30, 3, 0), torch.zeros(30, 9)], 1) + 1e-3 * unit_rows(30, 12, 1)
    round_ = unit_rows(30, 12, 2)
    chance = {
        name: 1 - correspondence(Dictionary(a), Dictionary(a), draws=5)["atom_correspondence", "unmatched"].chance
        for name, a in (("flat", flat), ("round", round_))
    }
    assert chance["flat"] > 0.9
    assert chance["round"] < 0.5


def test_signs_and_refusals(unit_rows) -> None:
    a = Dictionary(unit_rows(6, 5, 0))
    assert set(correspondence(a, Dictionary(-a.atoms), threshold=0.95, draws=0).kind) == {"unmatched"}
    assert set(correspondence(a, Dictionary(-a.atoms), threshold=0.95, signed=False, draws=0).kind) == {"matched"}
    with pytest.raises(ShapeError, match="d = 5 and d = 4"):
        correspondence(a, Dictionary(unit_rows(6, 4, 0)))
    with pytest.raises(ValueError, match="a cosine in"):
        correspondence(a, a, threshold=1.0)
