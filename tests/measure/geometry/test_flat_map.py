"""A map keeps clusters together, says truly what it keeps, and does not depend on what should not matter."""

from __future__ import annotations

import pytest
import torch

from superscope.core import Dictionary
from superscope.measure import flat_map


@pytest.fixture(scope="module")
def families() -> Dictionary:
    """Twenty families of ten directions each in 16 dimensions."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(20, 16, generator=generator)
    return Dictionary(centres.repeat_interleave(10, 0) + 0.25 * torch.randn(200, 16, generator=generator))


def test_families_stay_together(families: Dictionary) -> None:
    found = flat_map(families, neighbours=9)
    (kept,) = found
    assert kept.chance == pytest.approx(9 / 199)
    assert kept.low is not None
    assert kept.value is not None
    assert kept.low > 0.6, "members of a family are each other's neighbours in 16 dimensions"
    distances = torch.cdist(found.places, found.places)
    beside = distances.topk(10, largest=False).indices[:, 1:]
    assert float((beside // 10 == torch.arange(200)[:, None] // 10).double().mean()) > 0.8


def test_the_score_is_what_the_map_keeps(families: Dictionary) -> None:
    found = flat_map(families, neighbours=5, epochs=20)
    unit = families.unit().atoms
    near = (unit @ unit.T - 3 * torch.eye(200)).topk(5).indices
    beside = (
        torch.cdist(found.places.double(), found.places.double())
        .fill_diagonal_(torch.inf)
        .topk(5, largest=False)
        .indices
    )
    share = torch.tensor([len(set(a) & set(b)) / 5 for a, b in zip(near.tolist(), beside.tolist(), strict=True)])
    assert found.kept.tolist() == pytest.approx(share.tolist())
    assert found.measurements[0].value == pytest.approx(float(share.mean()))


def test_lengths_do_not_matter_and_zero_atoms_have_no_place(families: Dictionary) -> None:
    atoms = torch.cat([families.atoms * torch.linspace(0.5, 2.0, 200)[:, None], torch.zeros(1, 16)])
    found, plain = flat_map(Dictionary(atoms), epochs=5), flat_map(families, epochs=5)
    assert found.places[:200] == pytest.approx(plain.places, abs=0.05)
    assert bool(found.places[200].isnan().all())
    assert bool(found.kept[200].isnan())
    assert "zero" in found.measurements[0].caution


def test_two_atoms_make_no_map() -> None:
    with pytest.raises(ValueError, match="needs three"):
        flat_map(Dictionary(torch.eye(2)))
